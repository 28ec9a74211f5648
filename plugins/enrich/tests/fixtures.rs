//! What the plugin makes of its fixtures, and what must hold for any of its steps.
#![allow(clippy::unwrap_used)]

use enrich::Enrich;
use sluice_plugin::serde_json::{self, Value};
use sluice_plugin::testing::{Fixture, Host, Layout, Table, Tester, check_fixtures, json};

#[test]
fn fixtures() {
    check_fixtures::<Enrich>("fixtures");
}

#[test]
fn a_table_is_asked_for_each_key_once_and_not_for_what_no_row_has() {
    Host::reset();
    let fixture = Fixture::parse(include_str!("../fixtures/lookup.json")).unwrap();
    for (name, table) in &fixture.tables {
        Host::set_table(name, table);
    }
    let mut enrich = Tester::<Enrich>::new(fixture.config.clone()).unwrap();
    enrich.layout = Layout::Dictionary;
    let row = json!({"service": "checkout"});
    let other = json!({"service": "unheard-of"});
    let batch = enrich.batch(json!([row, row, other, row, row]));
    Host::take_looked_up();
    // The dictionary still has `checkout`, the rows have not.
    enrich.outcome(&batch.slice(2, 1)).unwrap();
    assert_eq!(Host::take_looked_up(), ["unheard-of"]);
    enrich.outcome(&batch).unwrap();
    let mut keys = Host::take_looked_up();
    keys.sort();
    assert_eq!(keys, ["checkout", "unheard-of"]);
}

#[test]
fn only_the_columns_of_its_steps_are_handed_over() {
    Host::reset();
    let table = Table {
        key: "service".to_owned(),
        fields: ["service", "team"].map(str::to_owned).to_vec(),
        rows: vec![["checkout", "a"].map(str::to_owned).to_vec()],
    };
    Host::set_table("owners", &table);
    let check = |config: Value, expected: &[&str]| {
        let mut enrich = Tester::<Enrich>::new(config).unwrap();
        let batch = enrich.batch(json!([
            {"body": "b", "name": "n", "severity": 9, "service": "checkout", "scope_name": "s",
             "attrs": {"a": 1, "b": [1], "c": "x"}, "attrs:*": {"a": "rare"}, "resource": {"a": 2}},
            {"attrs": {"a": "text", "d": {"$bytes": "AAEC"}}}
        ]));
        let given = enrich.hand_over(&batch).unwrap();
        let mut names: Vec<&str> = given
            .records()
            .schema_ref()
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        names.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(given.rows(), 2);
        assert!(!enrich.outcome(&batch).unwrap().columns().is_empty());
    };
    check(json!({"set": {"attrs.site": "fra1"}}), &["attrs:*"]);
    check(json!({"set": {"resource.site": "fra1"}}), &[]);
    check(
        json!({"set": {"severity_text": "x"}, "default": {"attrs.d": "x"}}),
        &["attrs:*", "attrs:y:d"],
    );
    check(
        json!({"rename": [{"from": "attrs.a", "to": "name"}], "copy": [{"from": "resource.a", "to": "scope_name"}]}),
        &[
            "attrs:*",
            "attrs:i:a",
            "attrs:s:a",
            "name",
            "resource:i:a",
            "scope_name",
        ],
    );
    check(
        json!({"lookup": [{"table": "owners", "key": "service", "set": {"attrs.b": "team"}}], "overwrite": true}),
        &["attrs:*", "attrs:j:b", "resource:s:service.name"],
    );
    // More fields than a plugin may name columns: then it is given all.
    let many: serde_json::Map<String, Value> = (0..300).map(|n| (format!("attrs.k{n}"), json!(n))).collect();
    let enrich = Tester::<Enrich>::new(json!({"set": many})).unwrap();
    let batch = enrich.batch(json!([{"name": "n"}]));
    assert!(enrich.hand_over(&batch).unwrap().column("name").is_some());
}

#[test]
fn wrong_configurations_are_told_with_their_key() {
    Host::reset();
    let check = |config, expected: &str| {
        let error = Tester::<Enrich>::new(config).err().unwrap();
        assert!(error.contains(expected), "{error}");
    };
    check(json!({}), "nothing to do");
    check(json!({"set": {"attrs.": "x"}}), "set: `attrs.`: the key is missing");
    check(json!({"set": {"sevrity": 9}}), "set: `sevrity` is no field");
    check(json!({"set": {"severity": 99}}), "a number from 1 to 24");
    check(json!({"set": {"body": "x"}}), "set: `body` is not handed");
    check(
        json!({"copy": [{"from": "service", "to": "kind"}]}),
        "copy[0].to: `kind` can be read, not set",
    );
    check(
        json!({"rename": [{"from": "attrs.a", "to": "attrs.a"}]}),
        "rename[0].`attrs.a` is moved to itself",
    );
    check(
        json!({"rename": [{"from": "status", "to": "attrs.a"}]}),
        "rename[0].from: `status` can be read, not set",
    );
    check(
        json!({"lookup": [{"table": "owners", "key": "service", "set": {"attrs.team": "team"}}]}),
        "lookup[0].table: no table `owners`; the operator gave this plugin none",
    );
    check(json!({"defaults": {}}), "did you mean `default`?");
}
