//! Rows per second without Wasm: `cargo bench -p sluice-plugin-enrich`.

use enrich::Enrich;
use sluice_plugin::serde_json::Value;
use sluice_plugin::testing::{Host, Table, bench, json};

fn main() {
    let fields: Vec<String> = ["service", "team"].map(str::to_owned).to_vec();
    let rows = (0..100)
        .map(|n| vec![format!("service-{n}"), format!("team-{}", n % 7)])
        .collect();
    let key = "service".to_owned();
    Host::set_table("owners", &Table { key, fields, rows });
    for (what, config) in [
        ("one static attribute", json!({"set": {"attrs.site": "fra1"}})),
        (
            "one rename",
            json!({"rename": [{"from": "attrs.http.route", "to": "attrs.route"}]}),
        ),
        (
            "one lookup by service",
            json!({"lookup": [{"table": "owners", "key": "service", "set": {"attrs.team": "team"}}]}),
        ),
    ] {
        bench::<Enrich>(what, config, row, |outcome| !outcome.columns().is_empty());
    }
}

fn row(n: usize) -> Value {
    json!({
        "body": format!("request {n} took {} ms", n % 977), "severity": 9, "service": format!("service-{}", n % 40),
        "attrs": {"http.route": format!("/api/{}", n % 30), "http.response.status_code": 200, "user.id": format!("u{n}")}
    })
}
