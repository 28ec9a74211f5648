//! Rows per second, native: clean and dirty batches of 8,192 rows, all kinds and each by itself.

use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use mask::{Kind, Mask};
use sluice_plugin::{Batch, Context, Plugin};

const ROWS: usize = 8192;
const ROUNDS: usize = 40;

/// Bodies of services as they are, with times, durations, identifiers and addresses of pages, and no personal data.
fn clean(row: usize) -> String {
    let id = (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match row % 4 {
        0 => format!(
            "GET /api/v1/orders/{row} -> 200 in {}.{} ms, cache hit",
            row % 97,
            row % 10
        ),
        1 => format!(
            "level=info ts=2026-01-02T03:04:05.{:06}Z msg=\"flushed segment\" bytes={} took=3.2ms",
            row,
            id % 1_000_000
        ),
        2 => format!(
            "connection pool {} of 50 in use; trace={id:016x}{id:016x} pod=checkout-7f9c6d5b4-x2k8q",
            row % 50
        ),
        _ => format!(
            "{{\"level\":\"info\",\"msg\":\"order packed\",\"n\":{row},\"ms\":{}.5,\"ok\":true}}",
            row % 300
        ),
    }
}

const DIRTY: [(Kind, &str); 9] = [
    (Kind::Email, "mail to jane.doe@example.com queued"),
    (Kind::Phone, "caller +1 415 555 0132 hung up"),
    (Kind::Card, "card 4111 1111 1111 1111 declined"),
    (Kind::Iban, "transfer to DE89 3704 0044 0532 0130 00 failed"),
    (Kind::NationalId, "ssn 219-09-9999 on file"),
    (Kind::Ip, "client 198.51.100.7 connected"),
    (
        Kind::Jwt,
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ seen",
    ),
    (Kind::Key, "using AKIAIOSFODNN7EXAMPLE now"),
    (Kind::Secret, "login with password=hunter2 tried"),
];

/// Every fourth row holds a finding.
fn dirty(finding: &str) -> impl Fn(usize) -> String + '_ {
    move |row| {
        if row % 4 == 0 {
            format!("{}; {finding}", clean(row))
        } else {
            clean(row)
        }
    }
}

fn batch(body: impl Fn(usize) -> String) -> Batch {
    let bodies: StringArray = (0..ROWS).map(|row| Some(body(row))).collect();
    let routes: StringArray = (0..ROWS)
        .map(|row| Some(format!("/api/v1/orders/{}", row % 100)))
        .collect();
    let columns: [(&str, ArrayRef); 2] = [("body", Arc::new(bodies)), ("attrs:s:http.route", Arc::new(routes))];
    let records = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let bytes =
        sluice_plugin::ipc::write(records.schema_ref(), records.columns(), ROWS).expect("columns of known types");
    Batch::decode(bytes).expect("what was just written")
}

fn rate(name: &str, config: &serde_json::Value, batch: &Batch) {
    let mut mask = serde_json::from_value(config.clone())
        .map_err(|e| e.to_string())
        .and_then(Mask::init)
        .expect("a configuration");
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        std::hint::black_box(mask.process(batch, &Context::default()).expect("no failure"));
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name:<28} {:>8.2} M rows/s", ROWS as f64 / best / 1e6);
}

fn only(kind: Kind) -> serde_json::Value {
    let mut config = serde_json::json!({});
    for other in Kind::BUILT_IN.into_iter().filter(|other| *other != kind) {
        config[other.name()] = "off".into();
    }
    config
}

fn main() {
    let all = serde_json::json!({});
    let clean_batch = batch(clean);
    rate("clean, all kinds", &all, &clean_batch);
    rate(
        "clean, e-mail and card",
        &serde_json::json!({"phone": "off", "iban": "off", "national_id": "off", "ip": "off", "jwt": "off", "key": "off", "secret": "off"}),
        &clean_batch,
    );
    let custom = serde_json::json!({"custom": [{"name": "employee", "pattern": "EMP-[0-9]{6}"}]});
    rate("clean, one custom pattern", &custom, &clean_batch);
    for (kind, finding) in DIRTY {
        rate(&format!("{}, clean", kind.name()), &only(kind), &clean_batch);
        rate(
            &format!("{}, one row in four", kind.name()),
            &all,
            &batch(dirty(finding)),
        );
    }
    rate("clean, a column of digits", &all, &batch(|row| format!("{}", 1_000_000_000 + row * 7_919)));
    let mixed = DIRTY.map(|(_, finding)| finding);
    rate(
        "a finding in every row",
        &all,
        &batch(|row| format!("{}; {}", clean(row), mixed[row % mixed.len()])),
    );
}
