//! Rows per second without Wasm: `cargo bench -p sluice-plugin-cardinality`.

use std::hint::black_box;
use std::time::Instant;

use cardinality::Cardinality;
use sluice_plugin::testing::{Host, Layout, Tester, hand_over, json};
use sluice_plugin::{Context, Plugin};

const ROWS: usize = 8192;
const ROUNDS: u32 = 200;

fn main() {
    bench(
        "within the limit",
        json!({"limits": [{"key": "attrs.http.route", "max": 100}]}),
    );
    bench(
        "within, per service",
        json!({"limits": [{"key": "attrs.http.route", "max": 100, "per_service": true}]}),
    );
    bench(
        "all values new, over the limit",
        json!({"limits": [{"key": "attrs.user.id", "max": 1000}]}),
    );
}

fn bench(what: &str, config: sluice_plugin::serde_json::Value) {
    let row = |n: usize| {
        json!({
            "body": format!("request {n} took {} ms", n % 977), "severity": 9, "service": format!("service-{}", n % 40),
            "attrs": {"http.route": format!("/api/{}", n % 30), "http.response.status_code": 200, "user.id": format!("u{n}")}
        })
    };
    Host::reset();
    let tester = match Tester::<Cardinality>::new(config.clone()) {
        Ok(mut tester) => {
            tester.layout = Layout::Dictionary;
            tester
        }
        Err(what) => panic!("{what}"),
    };
    let batch = tester.batch((0..ROWS).map(row).collect());
    let Ok(batch) = hand_over::<Cardinality>(&batch) else {
        panic!("the batch cannot be handed over");
    };
    let plugin = sluice_plugin::serde_json::from_value(config).map(Cardinality::init);
    let Ok(Ok(mut plugin)) = plugin else {
        panic!("the configuration is wrong");
    };
    let context = Context::default();
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let outcome = plugin.process(black_box(&batch), &context);
        best = best.min(start.elapsed().as_secs_f64());
        assert!(black_box(outcome).is_ok());
    }
    println!(
        "{what}: {:.1} M rows/s, {:.0} µs for {ROWS} rows",
        ROWS as f64 / best / 1e6,
        best * 1e6
    );
}
