//! Rows per second without Wasm: `cargo bench -p sluice-plugin-cardinality`.

use cardinality::Cardinality;
use sluice_plugin::serde_json::Value;
use sluice_plugin::testing::{Host, bench, json};

fn main() {
    for (what, limit, over) in [
        (
            "within the limit",
            json!({"key": "attrs.http.route", "max": 100}),
            false,
        ),
        (
            "within, per service",
            json!({"key": "attrs.http.route", "max": 100, "per_service": true}),
            false,
        ),
        (
            "all values new, over the limit",
            json!({"key": "attrs.user.id", "max": 1000}),
            true,
        ),
    ] {
        Host::reset();
        bench::<Cardinality>(what, json!({"limits": [limit]}), row, |outcome| {
            outcome.columns().is_empty() != over
        });
    }
}

fn row(n: usize) -> Value {
    json!({
        "body": format!("request {n} took {} ms", n % 977), "severity": 9, "service": format!("service-{}", n % 40),
        "attrs": {"http.route": format!("/api/{}", n % 30), "http.response.status_code": 200, "user.id": format!("u{n}")}
    })
}
