//! What holds for every text: nothing survives wherever it is put, nothing else changes, once is enough, and no panic.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow_array::types::{UInt16Type, UInt32Type};
use arrow_array::{ArrayRef, DictionaryArray, RecordBatch, StringArray};
use mask::Mask;
use proptest::prelude::*;
use sluice_plugin::testing::Tester;
use sluice_plugin::{Batch, Context, Plugin};

/// One of each kind and of several shapes; each is found without words around it.
const CANARIES: [&str; 21] = [
    "jane.doe@example.com",
    "jürgen@müller.example",
    "+1 415 555 0132",
    "+442079460958",
    "(415) 555-0132",
    "4111 1111 1111 1111",
    "5555555555554444",
    "DE89370400440532013000",
    "GB33 BUKB 2020 1555 5555 55",
    "219-09-9999",
    "AB123456C",
    "12345678Z",
    "RSSMRA85T10A562S",
    "529.982.247-25",
    "198.51.100.7",
    "2001:db8:85a3::8a2e:370:7334",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "postgres://app:Xk9-s3cret@db/app",
    "password=Xk9-s3cret",
];

/// The part that must not be left.
fn secret(canary: &str) -> &str {
    if canary.contains("Xk9") { "Xk9-s3cret" } else { canary }
}

fn mask() -> Mask {
    Mask::init(serde_json::from_str("{}").unwrap()).unwrap()
}

/// What may stand beside a value in text; what would make it a part of something else is not among it.
const EDGES: [&str; 22] = [
    " ", "\t", "\n", "", ", ", "; ", " | ", "\"", "'", "(", ")", "<", ">", " é ", " 日本 ", "…", " = ", " \\n ", "[",
    "]", " 😀 ", " the ",
];

fn edge() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&EDGES[..])
}

fn canary() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&CANARIES[..])
}

/// Words of logs, punctuation, digits, pieces of values and of JSON.
/// What the mask left of a text.
fn without_marks(text: &str) -> Vec<char> {
    let names = mask::Kind::BUILT_IN.map(mask::Kind::name);
    let bare = names
        .iter()
        .fold(text.to_owned(), |text, name| text.replace(&format!("[{name}]"), ""));
    bare.chars().collect()
}

fn noise() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ -~]{0,6}",
        "[0-9 .:/+()-]{1,12}",
        "\\PC{0,4}",
        prop::sample::select(vec![
            "@",
            "%40",
            "{",
            "}",
            "[",
            "]",
            "\"",
            "\\",
            "\\u00",
            "\\n",
            ":",
            "=",
            "::",
            "eyJ",
            "password",
            "phone ",
            "AKIA",
            "----",
            "-----BEGIN ",
            "PRIVATE KEY-----",
            "://",
            "[email]",
            "tok_email_",
            "4111",
            "DE89",
            "id ",
            "Bearer ",
            "--password ",
            "：",
            "***",
            "null",
            "1.2.3.4",
            "www",
            "passport",
            "219-09-9999",
            "@example.com",
            "\u{a0}",
            "é",
            "日本",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_canary_survives_between_words(before in edge(), first in canary(), between in edge(), second in canary(), after in edge()) {
        prop_assume!(!between.is_empty());
        let text = format!("note{before} {first} {between} {second} {after}end");
        let masked = mask().mask("body", &text).unwrap();
        for canary in [first, second] {
            prop_assert!(!masked.contains(secret(canary)), "{text} -> {masked}");
        }
        prop_assert!(masked.starts_with("note") && masked.ends_with("end"), "{masked}");
    }

    #[test]
    fn no_canary_survives_in_json_which_stays_json(canaries in prop::collection::vec(canary(), 1..4), key in prop::sample::select(vec!["a", "note", "user", "värde"]), depth in 0..3usize, beside in "\\PC{0,8}") {
        let mut value = serde_json::json!({key: canaries, "n": 4111111111111111u64, "beside": beside, canaries[0]: true});
        for level in 0..depth {
            value = if level % 2 == 0 { serde_json::json!({"in": value.to_string(), "t": "x\"\\"}) } else { serde_json::json!([value, {"v": 1}]) };
        }
        for text in [value.to_string(), format!("payload: {value} done")] {
            let masked = mask().mask("body", &text).unwrap();
            for canary in &canaries {
                prop_assert!(!masked.contains(secret(canary)), "{text} -> {masked}");
            }
            prop_assert!(!masked.contains("4111111111111111"), "{masked}");
            let json = masked.strip_prefix("payload: ").map_or(masked.as_str(), |rest| rest.strip_suffix(" done").unwrap());
            prop_assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{text} -> {masked}");
        }
    }

    #[test]
    fn any_text_is_masked_without_a_panic_once_and_for_all(text in noise(), key in prop::sample::select(vec!["body", "phone", "token", "x.id"])) {
        let mut mask = mask();
        let found = mask.find(key, &text).unwrap();
        let once = mask.mask(key, &text).unwrap();
        prop_assert_eq!(found.is_empty(), once == text);
        let valid = |text: &str| text.starts_with(['{', '[']) && serde_json::from_str::<serde_json::Value>(text).is_ok();
        prop_assert!(!valid(&text) || valid(&once), "{} -> {}", text, once);
        let twice = mask.mask(key, &once).unwrap();
        // A mark may make something of what stands beside it that was none before: masked more, never less.
        let mut first = without_marks(&once).into_iter();
        let is_part = without_marks(&twice).into_iter().all(|c| first.any(|other| other == c));
        prop_assert!(twice == once || is_part, "{} -> {} -> {}", text, once, twice);
    }

    /// The scan of a whole column opens every text in which something stands, in each layout a column may have.
    #[test]
    fn a_column_is_masked_as_its_texts_are(mut texts in prop::collection::vec(prop_oneof![noise(), canary().prop_map(str::to_owned)], 1..12), key in prop::sample::select(vec!["a", "phone", "x.id"])) {
        texts.push(format!("tel {}", texts[0]));
        let mut mask = mask();
        let expected: Vec<String> = texts.iter().map(|text| mask.mask(key, text).unwrap()).collect();
        let plain: ArrayRef = Arc::new(StringArray::from(texts.clone()));
        let small: ArrayRef = Arc::new(texts.iter().map(String::as_str).collect::<DictionaryArray<UInt16Type>>());
        let large: ArrayRef = Arc::new(texts.iter().map(String::as_str).collect::<DictionaryArray<UInt32Type>>());
        for column in [plain, small, large] {
            let name = format!("attrs:s:{key}");
            let records = RecordBatch::try_from_iter([(name.as_str(), column.clone())]).unwrap();
            let bytes = sluice_plugin::ipc::write(records.schema_ref(), records.columns(), texts.len()).unwrap();
            let batch = Batch::decode(bytes).unwrap();
            let outcome = mask.process(&batch, &Context::default()).unwrap();
            let masked = outcome.columns().iter().find(|(column, _)| *column == name).map_or(column, |(_, column)| column.clone());
            let masked = sluice_plugin::Text::of(masked.as_ref()).unwrap();
            for (row, expected) in expected.iter().enumerate() {
                prop_assert_eq!(masked.get(row), Some(expected.as_str()), "{:?}", texts);
            }
        }
    }
}

/// A canary in every place of a batch where text may stand.
#[test]
fn no_canary_survives_in_any_column() {
    for canary in CANARIES {
        let nested = serde_json::json!({"a": [canary, {"b": canary}], "n": 4111111111111111u64});
        let row = serde_json::json!({
            "body": canary, "status_message": canary, "name": canary, "trace_state": canary, "severity_text": canary,
            "description": canary, "unit": canary, "scope_name": canary, "scope_version": canary,
            "attrs": {"plain": canary, "nested": nested, "list": [canary], "card": 4111111111111111u64, "as_double": 4111111111111111.0, "password": 12345},
            "resource": {"plain": canary, "nested": nested}, "scope": {"plain": canary, "nested": nested},
            "attrs:*": {"rare": canary, "rare_list": [canary], "rare_card": 4111111111111111u64},
            "resource:*": {"rare": canary}, "scope:*": {"rare": canary},
            "span_events": [{"time": 4111111111111111u64, "name": canary, "attributes": {"e": canary, "card": 4111111111111111u64}}],
            "links": [{"trace_id": "41111111111111110000000000000000", "span_id": "4111111111111111", "trace_state": canary, "attributes": {"l": canary}}],
            "exemplars": [{"time": 1, "value": 1.5, "filtered_attributes": {"x": canary}}],
            "metadata": {"m": canary}, "duplicate_attrs": {"attrs": [["password", "Xk9-s3cret"], ["k", canary]]},
            "entity_refs": [{"type": canary}],
        });
        let mut tester = Tester::<Mask>::new(serde_json::json!({})).unwrap();
        let after = tester.run(serde_json::json!([row]));
        assert_eq!(after.error, None);
        let text = serde_json::to_string(&after.rows).unwrap();
        assert!(!text.contains(secret(canary)), "{canary}: {text}");
        assert_eq!(after.rows[0]["attrs"]["card"], "[card]", "{text}");
        assert_eq!(after.rows[0]["attrs"]["as_double"], "[card]", "{text}");
        assert_eq!(after.rows[0]["attrs"]["password"], "[secret]", "{text}");
        // The own numbers and ids of events and links stay.
        assert_eq!(text.matches("4111111111111111").count(), 3, "{text}");
    }
}

#[test]
fn clean_columns_are_not_given_back() {
    let rows = serde_json::json!([{"body": "GET / 200 in 12.5 ms", "attrs": {"n": 17000000000u64, "d": 1.5, "s": "x"}}, {"body": "1.2"}]);
    let mut tester = Tester::<Mask>::new(serde_json::json!({})).unwrap();
    let batch = tester.batch(rows);
    assert!(tester.outcome(&batch).unwrap().columns().is_empty());
}

/// A value that is an address and nothing else is known at once; it is masked if the same address would be before other words.
#[test]
fn an_address_by_itself_is_masked_as_one_in_a_sentence() {
    let mut mask = Mask::init(serde_json::from_value(serde_json::json!({})).unwrap()).unwrap();
    let parts = ["0", "1", "3", "6", "01", "127", "198", "255", "256", "", "a"];
    let (mut masked, mut left) = (0, 0);
    for key in ["", "client.address", "version", "net.version", "broadcast", "phone"] {
        for place in 0..parts.len().pow(4) {
            let part = |at: u32| parts[place / parts.len().pow(at) % parts.len()];
            let alone = format!("{}.{}.{}.{}", part(0), part(1), part(2), part(3));
            let sentence = format!("{alone} seen");
            let (alone, sentence) = (mask.mask(key, &alone).unwrap(), mask.mask(key, &sentence).unwrap());
            assert_eq!(format!("{alone} seen"), sentence, "{key}");
            let count = if alone == "[ip]" { &mut masked } else { &mut left };
            *count += 1;
        }
    }
    assert!(masked > 1_000 && left > 1_000, "{masked} {left}");
}
