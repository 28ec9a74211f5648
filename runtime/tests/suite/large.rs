//! Long rows, wide batches and short values, as senders have them: the mask as it is shipped, with the limits that it has by default.

use std::sync::Arc;

use arrow_array::types::UInt16Type;
use arrow_array::{ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::json;
use sluice_runtime::{Chain, Limits};

use crate::common::*;

const KIB: usize = 1024;

/// One row of about so many bytes.
fn row(unit: &str, bytes: usize) -> RecordBatch {
    logs(&[&unit.repeat(bytes / unit.len())])
}

fn mask(config: serde_json::Value) -> Chain {
    chain([load("mask", config)])
}

/// Texts of which every part is a candidate for something, and others that made some search look at everything behind them again.
/// A search that is not linear needs minutes for the largest of them; what its call may take grows with its bytes only.
const HARD: [&str; 45] = [
    "a",
    "1",
    "1 ",
    "12 ",
    "4111 ",
    "1.1.",
    "1-2/",
    "192.0.2.1,",
    "@",
    "a@",
    "a@b.",
    "a.bc%40",
    "a@b.co,",
    "1@1.1.",
    ":",
    "a:b:",
    "::1",
    "://a:",
    "x://a:b@c/",
    "=",
    "password=",
    "password='",
    "password=\\\"",
    "password=&b",
    "password>:",
    ":token>",
    "cookie=",
    "cookie: a;",
    "authorization: ",
    "authorization=",
    "w=",
    "--",
    "--a",
    "-----BEGIN ",
    "-----BEGIN PRIVATE KEY",
    "{",
    "[",
    "[]",
    "[[1,",
    "{\"a\":",
    "{\"password\":[",
    "{\"a\":\"\\n\\u0040",
    "\\u00",
    "\\",
    "eyJhbGciOiJub25lIn0.",
];

#[test]
fn a_long_row_of_whatever_is_masked_within_its_time_and_memory() {
    let all = mask(json!({"custom": [{"name": "employee", "pattern": "EMP-[0-9]{6}"}]}));
    for unit in HARD {
        for bytes in [64 * KIB, 1024 * KIB, 7 * 1024 * KIB] {
            let batch = row(unit, bytes);
            if let Err(refused) = all.run(batch, CALL) {
                panic!("{bytes} bytes of {unit:?}: {refused}");
            }
        }
    }
    assert_eq!(all.stats()[0].faults, 0);
    // A canary at the end of each is found, or what stood before took it along.
    for unit in HARD {
        let text = format!("{} jane@example.com", unit.repeat(64 * KIB / unit.len()));
        let outcome = all.run(logs(&[&text]), CALL).unwrap();
        let masked = texts(&outcome.batch, "body")[0].clone().unwrap();
        assert!(!masked.contains("jane@example.com"), "{unit:?}");
    }
}

/// Logs, JSON and lists of values of some megabytes in one row.
#[test]
fn ordinary_rows_of_megabytes_are_masked() {
    let line = "2025-03-12 06:26:01 [info] 1234#0: client 198.51.100.7 order 4711 mail jane@example.com in 12.5 ms\\n";
    let json = format!("{{\"msg\":\"{}\",\"password\":\"Xk9canary\"}}", line.repeat(70_000));
    let list = format!("{{\"values\":[{}1]}}", "1,".repeat(3_000_000));
    for config in [
        json!({}),
        json!({"email": "hash", "secret_key": "a key of the tests, 32 bytes long"}),
    ] {
        let mask = mask(config);
        for text in [&line.repeat(20_000), &line.repeat(70_000), &json, &list] {
            let outcome = mask.run(logs(&[text]), CALL).unwrap();
            let masked = texts(&outcome.batch, "body")[0].clone().unwrap();
            assert!(
                !masked.contains("jane@example.com") && !masked.contains("Xk9canary"),
                "{masked:.200}"
            );
        }
    }
}

/// Three hundred columns of cards, and values that become ten times as long.
#[test]
fn wide_batches_and_short_values_are_no_fault() {
    let mut wide = logs(&["a"; 20]);
    for n in 0..300 {
        let name = format!("attrs:{}:k{n}", if n % 3 == 0 { "d" } else { "i" });
        let column: ArrayRef = match n % 3 {
            0 => Arc::new(Float64Array::from(vec![4_111_111_111_111_111.0; 20])),
            _ => Arc::new(Int64Array::from(vec![4_111_111_111_111_111; 20])),
        };
        wide = with(&wide, &name, column);
    }
    let outcome = mask(json!({})).run(wide, CALL).unwrap();
    let left = format!("{:?}", outcome.batch);
    assert!(!left.contains("4111111111111111") && left.contains("[card]"));

    let mut short = logs(&["a"; 8192]);
    for name in [
        "cvv", "cvc", "x.cvv", "y.cvv", "z.cvv", "password", "secret", "cookie", "api_key", "a.cvc", "b.cvc", "c.cvc",
    ] {
        short = with(
            &short,
            &format!("attrs:s:{name}"),
            Arc::new(StringArray::from(vec!["123"; 8192])),
        );
        short = with(
            &short,
            &format!("resource:i:{name}"),
            Arc::new(Int64Array::from(vec![1; 8192])),
        );
    }
    let config = json!({"secret": "hash", "secret_key": "a key of the tests, 32 bytes long"});
    let outcome = mask(config).run(short, CALL).unwrap();
    assert_eq!(outcome.batch.num_rows(), 8192);
    for name in ["attrs:s:cvv", "resource:s:z.cvv"] {
        assert!(
            texts(&outcome.batch, name)
                .iter()
                .all(|text| text.as_ref().unwrap().starts_with("[secret:")),
            "{name}"
        );
    }
}

/// One structured body among texts that are long and the same: what came as a dictionary goes back as one.
#[test]
fn repeated_bodies_beside_a_structured_one_are_no_fault() {
    let trace = |n: usize| {
        let frames = "  at com.example.Shop.order(Shop.java:17)\n".repeat(125);
        format!("request {n} of jane@example.com failed\n{frames}")
    };
    let mut bodies: Vec<String> = (0..800).map(|row| trace(row % 4)).collect();
    bodies.push(r#"{"mail":"jane@example.com"}"#.to_owned());
    let mut kinds = vec![None; 800];
    kinds.push(Some("kvlist"));
    let body: DictionaryArray<UInt16Type> = bodies.iter().map(|body| Some(body.as_str())).collect();
    let batch = logs(&vec!["x"; 801]);
    let place = batch.schema_ref().index_of("body").unwrap();
    let others: Vec<usize> = (0..batch.num_columns()).filter(|column| *column != place).collect();
    let batch = with(&batch.project(&others).unwrap(), "body", Arc::new(body));
    let batch = with(&batch, "body_type", Arc::new(StringArray::from(kinds)));
    let outcome = mask(json!({})).run(batch, CALL).unwrap();
    let masked = texts(&outcome.batch, "body");
    assert_eq!(masked.len(), 801);
    for (body, masked) in bodies.iter().zip(masked) {
        assert_eq!(masked.unwrap(), body.replace("jane@example.com", "[email]"));
    }
}

/// A batch that is to blame does not switch the plugin off for the others, however often it is sent.
#[test]
fn bad_batches_do_not_open_the_breaker_and_a_bad_plugin_does() {
    let guilty = load("faulty_mask", json!({"mode": "trap", "only": "poison"}));
    let chain = chain([guilty.clone()]);
    for round in 0..20 {
        let refused = chain.run(logs(&["poison"]), CALL).unwrap_err();
        assert!(!refused.retryable, "round {round}: {refused}");
    }
    assert_eq!((guilty.stats().breaker, guilty.stats().faults), ("closed", 20));
    chain.run(logs(&["innocent"]), CALL).unwrap();

    let broken = load("faulty_mask", json!({"mode": "trap"}));
    let chain = self::chain([broken.clone()]);
    for _ in 0..5 {
        assert!(!chain.run(logs(&["innocent"]), CALL).unwrap_err().retryable);
    }
    assert_eq!(broken.stats().breaker, "open");
    assert!(chain.run(logs(&["innocent"]), CALL).unwrap_err().retryable);
}

/// Loops whose memory and time are those of a long row still end, as those of a short one do.
#[test]
fn p10_a_long_row_buys_a_hostile_guest_no_more_than_its_bytes() {
    for mode in ["memory", "loop"] {
        let mut config = config("faulty", json!({"mode": mode}));
        config.on_fault = Some(sluice_runtime::OnFault::Bypass);
        let plugin = host().load(config).unwrap();
        let chain = chain([plugin.clone()]);
        let batch = row("x", 4 * 1024 * KIB);
        assert_eq!(chain.run(batch.clone(), CALL).unwrap().batch, batch);
        let stats = plugin.stats();
        let most = 34 * 1024 * KIB as u64;
        assert_eq!(stats.faults, 1, "{mode}");
        assert!(stats.memory_bytes < most, "{mode}: {}", stats.memory_bytes);
        assert!((Limits::default().memory_bytes as u64) < most);
    }
}
