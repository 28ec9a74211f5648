//! Rows per second without Wasm: `cargo bench -p sluice-plugin-filter`.

use std::hint::black_box;
use std::time::Instant;

use filter::Filter;
use sluice_plugin::testing::{Layout, Tester, hand_over, json};
use sluice_plugin::{Context, Plugin};

const ROWS: usize = 8192;
const ROUNDS: u32 = 200;

fn main() {
    bench("severity and service", r#"severity >= warn or service == "service-7""#);
    bench("contains in bodies", r#"body contains "976 ms""#);
    bench(
        "a number among attributes",
        r#"attrs["http.response.status_code"] >= 500"#,
    );
    bench("routes by regular expression", r#"attrs["http.route"] ~ "^/api/[12]""#);
    bench("bodies by regular expression", r#"body ~ "took 9\d+ ms""#);
}

fn bench(what: &str, keep: &str) {
    let row = |n: usize| {
        json!({
            "body": format!("request {n} took {} ms", n % 977), "severity": 9 + n % 5, "service": format!("service-{}", n % 40),
            "attrs": {"http.route": format!("/api/{}", n % 30), "http.response.status_code": 200 + n % 400, "user.id": format!("u{n}")}
        })
    };
    let config = json!({"keep": keep});
    let tester = match Tester::<Filter>::new(config.clone()) {
        Ok(mut tester) => {
            tester.layout = Layout::Dictionary;
            tester
        }
        Err(what) => panic!("{what}"),
    };
    let batch = tester.batch((0..ROWS).map(row).collect());
    let Ok(batch) = hand_over::<Filter>(&batch) else {
        panic!("the batch cannot be handed over");
    };
    let plugin = sluice_plugin::serde_json::from_value(config).map(Filter::init);
    let Ok(Ok(mut plugin)) = plugin else {
        panic!("the configuration is wrong");
    };
    let context = Context::default();
    let mut best = f64::MAX;
    let mut kept = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let outcome = plugin.process(black_box(&batch), &context);
        best = best.min(start.elapsed().as_secs_f64());
        kept = black_box(outcome).map_or(0, |outcome| {
            outcome.selection().map_or(ROWS, |rows| rows.count_set_bits())
        });
    }
    println!(
        "{what}: {:.1} M rows/s, {:.0} µs for {ROWS} rows, {kept} stay",
        ROWS as f64 / best / 1e6,
        best * 1e6
    );
}
