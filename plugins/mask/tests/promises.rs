//! What must not pass: shapes of its own that others write, keys of `always` wherever they stand, numbers however they are written. And
//! what ordinary data must not be made to fail with.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use mask::Mask;
use sluice_plugin::testing::{Tester, json};
use sluice_plugin::{Batch, Context, Plugin};

const KEY: &str = "a key of the tests, 32 bytes long";

fn mask(config: serde_json::Value) -> Mask {
    Mask::init(serde_json::from_value(config).unwrap()).unwrap()
}

/// All kinds with this action.
fn all(action: &str) -> serde_json::Value {
    let mut config = json!({"secret_key": KEY});
    for kind in mask::Kind::BUILT_IN {
        config[kind.name()] = action.into();
    }
    config
}

/// What only looks as if the mask had written it is text like any other.
#[test]
fn nobody_else_can_write_what_is_left_alone() {
    for config in [json!({}), all("hash"), all("tokenise"), all("partial")] {
        let mut mask = mask(config.clone());
        for (key, text, secret) in [
            ("password", "[hunter]", "hunter"),
            ("password", "tok_email_hunter2hunter2ab", "hunter"),
            ("password", "tok_x_correcthorsebatt", "horse"),
            ("password", "[x:00112233445566778899aabbccddeeff]", "0011"),
            ("password", "[email:00112233445566778899aabbccddeeff00112233]", "0011"),
            ("password", "hunter2***", "hunter2"),
            ("body", "seen [card:5555555555554444]", "5555555555554444"),
            ("body", "seen [card: 4111 1111 1111 1111]", "4111 1111"),
            ("body", "password=[hunter2", "hunter2"),
            ("body", "password=<hunter2>", "hunter2"),
            ("body", "password=(hunter2)", "hunter2"),
            ("body", "password=tok_hunter2", "hunter2"),
            ("body", "password=hunter2***", "hunter2"),
        ] {
            let masked = mask.mask(key, text).unwrap();
            assert!(!masked.contains(secret), "{config}: {text} -> {masked}");
        }
    }
    // What it did write stays, with every action, and a hash of another key is no mask.
    for action in ["redact", "hash", "tokenise", "partial"] {
        let mut own = mask(all(action));
        let once = own.mask("password", "hunter2").unwrap();
        assert_eq!(own.mask("password", &once).unwrap(), once, "{action}");
    }
    let mut other = all("hash");
    other["secret_key"] = "another key of the tests, as long".into();
    let foreign = mask(other).mask("password", "hunter2").unwrap();
    assert_ne!(mask(all("hash")).mask("password", &foreign).unwrap(), foreign);
}

/// A key of `always` announces its value in JSON, in what is left of JSON, and in text.
#[test]
fn the_value_of_a_key_of_always_is_masked_wherever_it_stands() {
    let nested = (0..6).fold(r#"{"password":"Xk9canary"}"#.to_owned(), |inner, _| {
        json!({"in": inner}).to_string()
    });
    let deep = format!(r#"{{"a":1,"password":{}"Xk9canary"}}"#, "[".repeat(600));
    let many = format!("{}{}", "[1, ".repeat(2_000), r#"{"password": "Xk9canary""#);
    let mut levels = json!({"Xk9canary": "Xk9canary"}).to_string();
    for _ in 0..5 {
        levels = json!([levels]).to_string();
    }
    let at_the_limit = json!({"password": levels})
        .to_string()
        .replace("Xk9canary\\\":", "k\\\":");
    for text in [
        r#"{"user":"a","password":"Xk9canary","x":[1,2"#,
        r#"{"user":"a","password":"Xk9canary"#,
        r#"{"user":"a","ratio":NaN,"password":"Xk9canary"}"#,
        r#"{"user":"a","password":"Xk9canary",}"#,
        r#"{"user":"a" "password":"Xk9canary"}"#,
        r#"{'user': 'a', 'password': 'Xk9canary'}"#,
        r#"{user: "a", password: "Xk9canary 1"}"#,
        r#"{"a":{"password":["x","Xk9canary"]},"#,
        r#"{"a":'b',"cvv":{"in":["Xk9canary"]},"c":1}"#,
        r#"{"a":'b',"cvv":["Xk9canary"#,
        r#"{"cvv":Xk9canary}"#,
        r#"{"user":"a","db_password": 'Xk9canary'}"#,
        r#"{"db_password": Xk9canary!word}"#,
        r#"{"cvv":Xk9canary and more"#,
        r#"word": "x", "cvv": "Xk9canary", "b": 1}"#,
        r#"{"e":"a\u0040Xk9canary.com","cut":"#,
        "cvv=Xk9canary&x=1",
        "cvv: Xk9canary",
        "cvv => 'Xk9canary'",
        "GET /?api_key=Xk9canary HTTP/1.1",
        &nested,
        &deep,
        &many,
        &at_the_limit,
    ] {
        let masked = mask(json!({})).mask("body", text).unwrap();
        assert!(!masked.contains("Xk9canary"), "{text} -> {masked}");
    }
    for clean in [
        "cookie: accepted",
        "cvv=***",
        "password=<redacted>",
        "secret == x",
        "cvv: missing",
        "{\"cvv\":null}",
    ] {
        assert_eq!(mask(json!({})).mask("body", clean).unwrap(), clean);
    }
}

/// Bytes in arrays, whole doubles, rare numbers: under a key of `always`, or as a card.
#[test]
fn values_of_every_type_are_masked_and_json_stays_json() {
    let mut tester = Tester::<Mask>::new(json!({})).unwrap();
    let card = 4_111_111_111_111_111u64;
    let after = tester.run(json!([{
        "body": card,
        "attrs": {"password": [{"$bytes": "WGs5Y2FuYXJ5"}, {"in": {"$double": "NaN"}}], "bytes": [{"$bytes": "WGs5"}], "d": {"deep": [4111111111111111.0, 4.111111111111111e15, 0.5]}},
        "attrs:*": {"rare": 4111111111111111.0, "rare_int": card, "half": 0.5},
    }, {"body": 4111111111111111.0}, {"body": {"card": card}}, {"body": 17}, {"body": {"$bytes": "NDExMTExMTExMTExMTExMQ=="}}, {"body": "plain"}]));
    assert_eq!(after.error, None);
    assert_eq!(after.rows[0]["body"], "[card]");
    assert_eq!(
        after.rows[0]["attrs"]["password"],
        json!(["[secret]", {"in": "[secret]"}])
    );
    assert_eq!(after.rows[0]["attrs"]["bytes"], json!([{"$bytes": "WGs5"}]));
    assert_eq!(after.rows[0]["attrs"]["d"], json!({"deep": ["[card]", "[card]", 0.5]}));
    for (key, expected) in [
        ("rare", json!("[card]")),
        ("rare_int", json!("[card]")),
        ("half", json!(0.5)),
    ] {
        let attribute = &after.rows[0]["attrs"][key];
        let rare = after.rows[0].get("attrs:*").map_or(attribute, |rare| &rare[key]);
        assert_eq!(*rare, expected, "{key}");
    }
    assert_eq!(after.rows[1]["body"], "[card]");
    assert_eq!(after.rows[2]["body"], json!({"card": "[card]"}));
    assert_eq!(after.rows[3]["body"], 17);
    assert_eq!(after.rows[4]["body"], json!({"$bytes": "NDExMTExMTExMTExMTExMQ=="}));
    assert_eq!(after.rows[5]["body"], "plain");
}

fn process(mask: &mut Mask, records: &RecordBatch) -> Vec<(String, ArrayRef)> {
    let bytes = sluice_plugin::ipc::write(records.schema_ref(), records.columns(), records.num_rows()).unwrap();
    let outcome = mask
        .process(&Batch::decode(bytes).unwrap(), &Context::default())
        .unwrap();
    outcome.columns().to_vec()
}

/// However many columns of numbers turn out to be cards, the batch gets few new columns.
#[test]
fn hundreds_of_columns_of_cards_are_masked_in_few_new_ones() {
    let names: Vec<String> = (0..400)
        .map(|n| format!("attrs:{}:k{n}", if n % 2 == 0 { "i" } else { "d" }))
        .collect();
    let columns = names.iter().enumerate().map(|(n, name)| {
        let column: ArrayRef = match n % 2 {
            0 => Arc::new(Int64Array::from(vec![Some(4_111_111_111_111_111), None, Some(7)])),
            _ => Arc::new(Float64Array::from(vec![None, Some(5_555_555_555_554_444.0), Some(0.5)])),
        };
        (name.as_str(), column)
    });
    let given = process(&mut mask(json!({})), &RecordBatch::try_from_iter(columns).unwrap());
    let new: Vec<&(String, ArrayRef)> = given.iter().filter(|(name, _)| !names.contains(name)).collect();
    assert_eq!((given.len() - new.len(), new.len()), (400, 129));
    let masked: usize = new
        .iter()
        .map(|(name, column)| match name.as_str() {
            "attrs:*" => {
                let list = column.as_any().downcast_ref::<arrow_array::ListArray>().unwrap();
                assert_eq!(
                    (list.value_length(0) + list.value_length(1), list.value_length(2)),
                    (272, 0)
                );
                list.values().len()
            }
            _ => column.len() - column.null_count(),
        })
        .sum();
    assert_eq!(masked, 400);
    let left = format!("{given:?}");
    assert!(
        !left.contains("4111111111111111") && !left.contains("5555555555554444"),
        "nothing is left behind"
    );
}

/// Short values with long masks: what comes back stays within what the host lets a value have.
#[test]
fn a_masked_text_grows_no_more_than_the_host_allows() {
    let mut config = all("hash");
    config["custom"] = json!([{"name": "a_name_as_long_as_a_name_may_be_", "pattern": "x", "action": "hash"}]);
    let mut mask = mask(config);
    for text in [
        "8.8.8.8 ".repeat(5_000),
        "x".repeat(5_000),
        json!({"password": [1, 2, 3]}).to_string(),
        json!({"password": vec![1; 5_000]}).to_string(),
        "1".to_owned(),
        "{\"cvv\":1}".to_owned(),
    ] {
        for key in ["body", "cvv"] {
            let masked = mask.mask(key, &text).unwrap();
            assert!(
                masked.len() <= 4 * text.len() + 60,
                "{} of {}: {masked:.200}",
                masked.len(),
                text.len()
            );
            assert!(!masked.contains("8.8.8.8") && !masked.contains("xx"), "{masked:.200}");
            let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert!(!text.starts_with('{') || json(&masked), "{masked:.200}");
        }
    }
}

/// More findings than are worth a memory: the text becomes one.
#[test]
fn a_text_of_nothing_but_findings_is_masked_as_one() {
    let list = "a@b.co ".repeat(150_000);
    assert_eq!(mask(json!({})).mask("body", &list).unwrap(), "[email]");
    let document = json!({"to": vec!["a@b.co"; 150_000]}).to_string();
    assert_eq!(mask(json!({})).mask("body", &document).unwrap(), r#"["[email]"]"#);
    let column: ArrayRef = Arc::new(StringArray::from(vec![list.as_str()]));
    let given = process(
        &mut mask(json!({})),
        &RecordBatch::try_from_iter([("body", column)]).unwrap(),
    );
    assert_eq!(
        sluice_plugin::Text::of(given[0].1.as_ref()).unwrap().get(0),
        Some("[email]")
    );
}
