//! Rows per second without Wasm: `cargo bench -p sluice-plugin-filter`.

use filter::Filter;
use sluice_plugin::serde_json::Value;
use sluice_plugin::testing::{bench, json};

fn main() {
    for (what, keep) in [
        ("severity and service", r#"severity >= warn or service == "service-7""#),
        ("contains in bodies", r#"body contains "976 ms""#),
        (
            "a number among attributes",
            r#"attrs["http.response.status_code"] >= 500"#,
        ),
        ("routes by regular expression", r#"attrs["http.route"] ~ "^/api/[12]""#),
        ("bodies by regular expression", r#"body ~ "took 9\d+ ms""#),
    ] {
        bench::<Filter>(what, json!({"keep": keep}), row, |outcome| {
            outcome.selection().is_some()
        });
    }
}

fn row(n: usize) -> Value {
    json!({
        "body": format!("request {n} took {} ms", n % 977), "severity": 9 + n % 5, "service": format!("service-{}", n % 40),
        "attrs": {"http.route": format!("/api/{}", n % 30), "http.response.status_code": 200 + n % 400, "user.id": format!("u{n}")}
    })
}
