//! Rows per second without Wasm: `cargo bench -p sluice-plugin-enrich`.

use std::hint::black_box;
use std::time::Instant;

use enrich::Enrich;
use sluice_plugin::testing::{Host, Layout, Table, Tester, hand_over, json};
use sluice_plugin::{Context, Plugin};

const ROWS: usize = 8192;
const ROUNDS: u32 = 200;

fn main() {
    let fields: Vec<String> = ["service", "team"].map(str::to_owned).to_vec();
    let rows = (0..100)
        .map(|n| vec![format!("service-{n}"), format!("team-{}", n % 7)])
        .collect();
    let key = "service".to_owned();
    Host::set_table("owners", &Table { key, fields, rows });
    let lookup = json!({"lookup": [{"table": "owners", "key": "service", "set": {"attrs.team": "team"}}]});
    bench("one static attribute", json!({"set": {"attrs.site": "fra1"}}));
    bench(
        "one rename",
        json!({"rename": [{"from": "attrs.http.route", "to": "attrs.route"}]}),
    );
    bench("one lookup by service", lookup);
}

fn bench(what: &str, config: sluice_plugin::serde_json::Value) {
    let row = |n: usize| {
        json!({
            "body": format!("request {n} took {} ms", n % 977), "severity": 9, "service": format!("service-{}", n % 40),
            "attrs": {"http.route": format!("/api/{}", n % 30), "http.response.status_code": 200, "user.id": format!("u{n}")}
        })
    };
    let tester = match Tester::<Enrich>::new(config.clone()) {
        Ok(mut tester) => {
            tester.layout = Layout::Dictionary;
            tester
        }
        Err(what) => panic!("{what}"),
    };
    let batch = tester.batch((0..ROWS).map(row).collect());
    let Ok(batch) = hand_over::<Enrich>(&batch) else {
        panic!("the batch cannot be handed over");
    };
    let plugin = sluice_plugin::serde_json::from_value(config).map(Enrich::init);
    let Ok(Ok(mut plugin)) = plugin else {
        panic!("the configuration is wrong");
    };
    let context = Context::default();
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let outcome = plugin.process(black_box(&batch), &context);
        best = best.min(start.elapsed().as_secs_f64());
        assert!(black_box(outcome).is_ok_and(|outcome| !outcome.columns().is_empty()));
    }
    println!(
        "{what}: {:.1} M rows/s, {:.0} µs for {ROWS} rows",
        ROWS as f64 / best / 1e6,
        best * 1e6
    );
}
