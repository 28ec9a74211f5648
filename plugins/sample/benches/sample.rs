//! Rows per second without Wasm: `cargo bench -p sluice-plugin-sample`.

use std::hint::black_box;
use std::time::Instant;

use sample::Sample;
use sluice_plugin::testing::{Layout, Tester, hand_over, json};
use sluice_plugin::{Context, Plugin, serde_json};

const ROWS: usize = 8192;
const ROUNDS: u32 = 200;

fn main() {
    bench("a rate", json!({"rate": 0.1}));
    bench(
        "a rate for each of two services",
        json!({"rate": 0.1, "rates": [
        {"service": "service-1*", "rate": 0.5}, {"service": "service-2", "name": "GET*", "rate": 0.01}]}),
    );
    bench("a budget", json!({"budget": {"rows_per_second": 100}}));
    bench("first of each pattern", json!({"rate": 0.1, "keep_first": true}));
    bench(
        "security, own search",
        json!({"rate": 0.1, "keep_security": {"search": "own"}}),
    );
    bench(
        "all of it",
        json!({"budget": {"rows_per_second": 100}, "keep_first": true, "keep_security": {"search": "own"},
            "keep_slow": {"above": "1s", "quantile": 0.99}, "keep_when": [{"field": "attrs.user.id", "equals": "u17"}]}),
    );
}

fn bench(what: &str, config: serde_json::Value) {
    let row = |n: usize| {
        let trace = (n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        json!({
            "body": format!("request {n} of GET /api/orders/{} took {} ms, asked by user {}", n * 31, n % 977, n % 4001),
            "severity": if n % 50 == 0 { 17 } else { 9 }, "service": format!("service-{}", n % 40), "trace_id": format!("{trace:032x}"),
            "attrs": {"http.route": format!("/api/{}", n % 30), "http.response.status_code": 200, "user.id": format!("u{n}")}
        })
    };
    let tester = match Tester::<Sample>::new(config.clone()) {
        Ok(mut tester) => {
            tester.layout = Layout::Dictionary;
            tester
        }
        Err(what) => panic!("{what}"),
    };
    let batch = tester.batch((0..ROWS).map(row).collect());
    let Ok(batch) = hand_over::<Sample>(&batch) else {
        panic!("the batch cannot be handed over");
    };
    let plugin = serde_json::from_value(config).map(Sample::init);
    let Ok(Ok(mut plugin)) = plugin else {
        panic!("the configuration is wrong");
    };
    let context = Context::default();
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let outcome = plugin.process(black_box(&batch), &context);
        best = best.min(start.elapsed().as_secs_f64());
        assert!(black_box(outcome).is_ok_and(|outcome| outcome.selection().is_some()));
    }
    println!(
        "{what}: {:.1} M rows/s, {:.0} µs for {ROWS} rows",
        ROWS as f64 / best / 1e6,
        best * 1e6
    );
}
