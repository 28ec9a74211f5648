//! Rows per second without Wasm: `cargo bench -p sluice-plugin-sample`.

use sample::Sample;
use sluice_plugin::serde_json::Value;
use sluice_plugin::testing::{bench, json};

fn main() {
    run("a rate", json!({"rate": 0.1}));
    run(
        "a rate for each of two services",
        json!({"rate": 0.1, "rates": [
        {"service": "service-1*", "rate": 0.5}, {"service": "service-2", "name": "GET*", "rate": 0.01}]}),
    );
    run("a budget", json!({"budget": {"rows_per_second": 100}}));
    run("first of each pattern", json!({"rate": 0.1, "keep_first": true}));
    run(
        "security, own search",
        json!({"rate": 0.1, "keep_security": {"search": "own"}}),
    );
    run(
        "all of it",
        json!({"budget": {"rows_per_second": 100}, "keep_first": true, "keep_security": {"search": "own"},
            "keep_slow": {"above": "1s", "quantile": 0.99}, "keep_when": [{"field": "attrs.user.id", "equals": "u17"}]}),
    );
}

fn row(n: usize) -> Value {
    let trace = (n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    json!({
        "body": format!("request {n} of GET /api/orders/{} took {} ms, asked by user {}", n * 31, n % 977, n % 4001),
        "severity": if n.is_multiple_of(50) { 17 } else { 9 }, "service": format!("service-{}", n % 40), "trace_id": format!("{trace:032x}"),
        "attrs": {"http.route": format!("/api/{}", n % 30), "http.response.status_code": 200, "user.id": format!("u{n}")}
    })
}

fn run(what: &str, config: Value) {
    bench::<Sample>(what, config, row, |outcome| outcome.selection().is_some());
}
