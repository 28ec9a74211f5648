//! A golden component of contract 0.1, the mask: it must go on working as it did, in every column that may hold a person's data.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, StructBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_schema::{DataType, Field};
use serde_json::json;

use crate::common::*;

const DIRTY: &str = "jane@example.com paid with 4111 1111 1111 1111";
const CLEAN: &str = "[email] paid with [card]";

fn rest(entries: &[(&str, &str, &str)]) -> ArrayRef {
    let fields: Vec<Field> = ["key", "type", "text"]
        .map(|name| Field::new(name, DataType::Utf8, false))
        .to_vec();
    let builders = (0..3).map(|_| Box::new(StringBuilder::new()) as _).collect();
    let mut list = ListBuilder::new(StructBuilder::new(fields, builders));
    for (key, kind, text) in entries {
        let entry = list.values();
        for (index, value) in [key, kind, text].into_iter().enumerate() {
            entry.field_builder::<StringBuilder>(index).unwrap().append_value(value);
        }
        entry.append(true);
    }
    list.append(true);
    list.append(false);
    Arc::new(list.finish())
}

#[test]
fn every_text_column_is_masked() {
    let plain = || Arc::new(StringArray::from(vec![Some(DIRTY), None])) as ArrayRef;
    let json = format!(r#"{{"a":["{DIRTY}",4111111111111111]}}"#);
    let json_column = || Arc::new(StringArray::from(vec![Some(json.as_str()), None])) as ArrayRef;
    let mut batch = logs(&[DIRTY, "clean"]);
    let text_columns = ["status_message", "attrs:s:user", "resource:s:owner", "scope:s:x"];
    for name in text_columns {
        batch = with(&batch, name, plain());
    }
    batch = with(&batch, "attrs:s:dict", dictionary(&[Some(DIRTY), Some("clean")]));
    batch = with(&batch, "name", plain());
    for name in ["attrs:j:v", "resource:j:v", "duplicate_attrs", "metadata"] {
        batch = with(&batch, name, json_column());
    }
    let events = r#"[{"time":4111111111111111,"name":"jane@example.com","attributes":{"n":4111111111111111,"s":"4111-1111-1111-1111"}}]"#;
    batch = with(
        &batch,
        "span_events",
        Arc::new(StringArray::from(vec![Some(events), None])),
    );
    let links = r#"[{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"4111111111111111","attributes":{"s":"jane@example.com"}}]"#;
    batch = with(&batch, "links", Arc::new(StringArray::from(vec![Some(links), None])));
    let entries = [
        ("a", "string", DIRTY),
        ("b", "int", "4111111111111111"),
        ("c", "kvlist", json.as_str()),
    ];
    batch = with(&batch, "attrs:*", rest(&entries));

    let outcome = chain([golden("mask", json!({}))]).run(batch.clone(), CALL).unwrap();
    let masked = &outcome.batch;
    assert_eq!(masked.num_rows(), 2);
    assert_eq!(
        texts(masked, "body"),
        [Some(CLEAN.to_owned()), Some("clean".to_owned())]
    );
    for name in text_columns {
        assert_eq!(texts(masked, name), [Some(CLEAN.to_owned()), None], "{name}");
    }
    assert_eq!(
        texts(masked, "attrs:s:dict"),
        [Some(CLEAN.to_owned()), Some("clean".to_owned())]
    );
    assert!(matches!(
        masked.column_by_name("attrs:s:dict").unwrap().data_type(),
        DataType::Dictionary(..)
    ));
    assert_eq!(
        texts(masked, "name"),
        texts(&batch, "name"),
        "names of things are not masked"
    );
    let clean_json = format!(r#"{{"a":["{CLEAN}","[card]"]}}"#);
    for name in ["attrs:j:v", "resource:j:v", "duplicate_attrs", "metadata"] {
        assert_eq!(texts(masked, name), [Some(clean_json.clone()), None], "{name}");
    }
    assert_eq!(
        texts(masked, "span_events")[0].as_deref(),
        Some(r#"[{"time":4111111111111111,"name":"[email]","attributes":{"n":"[card]","s":"[card]"}}]"#)
    );
    assert_eq!(
        texts(masked, "links")[0].as_deref(),
        Some(
            r#"[{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"4111111111111111","attributes":{"s":"[email]"}}]"#
        )
    );
    let list = masked.column_by_name("attrs:*").unwrap().as_list::<i32>();
    assert!(list.is_null(1));
    let texts = list
        .values()
        .as_struct()
        .column_by_name("text")
        .unwrap()
        .as_string::<i32>();
    let texts: Vec<&str> = texts.iter().flatten().collect();
    assert_eq!(texts, [CLEAN, "4111111111111111", clean_json.as_str()]);
}

#[test]
fn golden_a_clean_batch_comes_back_as_it_was() {
    let mut batch = logs(&["GET /index.html 200", "order 4111111111111112 shipped", ""]);
    batch = with(&batch, "attrs:s:u", dictionary(&[Some("bob"), None, Some("@home")]));
    let outcome = chain([golden("mask", json!({}))]).run(batch.clone(), CALL).unwrap();
    assert_eq!(outcome.batch, batch);
    assert!(
        outcome
            .batch
            .columns()
            .iter()
            .zip(batch.columns())
            .all(|(a, b)| Arc::ptr_eq(a, b))
    );
}

#[test]
fn either_kind_can_be_switched_off() {
    let run = |config: serde_json::Value| {
        let outcome = chain([golden("mask", config)]).run(logs(&[DIRTY]), CALL).unwrap();
        texts(&outcome.batch, "body")[0].clone().unwrap()
    };
    assert_eq!(run(json!({"email": false})), "jane@example.com paid with [card]");
    assert_eq!(run(json!({"card": false})), "[email] paid with 4111 1111 1111 1111");
}
