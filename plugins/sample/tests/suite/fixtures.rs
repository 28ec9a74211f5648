//! The fixtures beside this plugin, as `sluice plugin test` runs them, and what README.md says of the keys.

use sample::{Config, Sample};
use serde_json::Value;
use sluice_plugin::schemars::schema_for;

#[test]
fn fixtures_hold() {
    sluice_plugin::testing::check_fixtures::<Sample>("fixtures");
}

#[test]
fn readme_names_every_key() {
    fn keys(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(members) => {
                if let Some(Value::Object(properties)) = members.get("properties") {
                    found.extend(properties.keys().cloned());
                }
                members.values().for_each(|member| keys(member, found));
            }
            Value::Array(members) => members.iter().for_each(|member| keys(member, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    keys(schema_for!(Config).as_value(), &mut found);
    assert!(found.len() > 25, "{found:?}");
    let readme = include_str!("../../README.md");
    for key in found {
        let named = [format!("`{key}`"), format!(".{key}`"), format!("`{key}.")];
        assert!(
            named.iter().any(|name| readme.contains(name)),
            "README.md does not say what `{key}` is"
        );
    }
}
