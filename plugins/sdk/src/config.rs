//! The configuration of a plugin: a struct, its JSON Schema, and errors that an operator can act on.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// What can be a configuration. [`plugin_config`](crate::plugin_config) derives what is needed.
pub trait Config: DeserializeOwned + JsonSchema {}

impl<T: DeserializeOwned + JsonSchema> Config for T {}

/// The configuration of a plugin that has none.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// The JSON Schema of a configuration.
pub(crate) fn schema<C: Config>() -> String {
    let schema = schemars::SchemaGenerator::default().into_root_schema_for::<C>();
    serde_json::to_string(&schema).unwrap_or_default()
}

/// Reads a configuration; the error names the key that is wrong and what it should be.
pub(crate) fn read<C: Config>(json: &str) -> Result<C, String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let config = serde_path_to_error::deserialize(&mut reader).map_err(|e| explain(&e))?;
    reader.end().map_err(|e| format!("after the configuration: {e}"))?;
    Ok(config)
}

fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let mut what = error.inner().to_string();
    // The place in the JSON says nothing to an operator, who wrote TOML.
    if let Some(place) = what.rfind(" at line ") {
        what.truncate(place);
    }
    if let Some(meant) = suggestion(&what) {
        what = format!("{what}; did you mean `{meant}`?");
    }
    let path = error.path().to_string();
    match path.as_str() {
        "." | "" => what,
        path => format!("{path}: {what}"),
    }
}

/// The known name that is nearest to the unknown one, of an error of serde's such as "unknown field `a`, expected `b` or `c`".
fn suggestion(error: &str) -> Option<String> {
    let unknown = error.strip_prefix("unknown ")?;
    let mut quoted = unknown.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    quoted
        .map(|known| (distance(wrong, known), known))
        .filter(|(distance, known)| *distance <= known.len().max(wrong.len()) / 3 + 1 && *distance < known.len())
        .min()
        .map(|(_, known)| known.to_owned())
}

/// Edits (insert, delete, replace a letter, swap two) that make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Example {
        /// Share that is kept.
        rate: f64,
        #[serde(default)]
        rules: Vec<Rule>,
    }

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Rule {
        attribute: String,
        action: Action,
    }

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Action {
        Keep,
        Drop,
    }

    #[test]
    fn a_wrong_configuration_is_told_by_key_with_what_was_meant() {
        let check = |json: &str, expected: &str| match read::<Example>(json) {
            Ok(config) => panic!("{json} is {config:?}"),
            Err(error) => assert_eq!(error, expected, "{json}"),
        };
        check("{}", "missing field `rate`");
        check(
            r#"{"rtae": 1}"#,
            "rtae: unknown field `rtae`, expected `rate` or `rules`; did you mean `rate`?",
        );
        check(
            r#"{"rate": 1, "zzz": 1}"#,
            "zzz: unknown field `zzz`, expected `rate` or `rules`",
        );
        check(
            r#"{"rate": "much"}"#,
            r#"rate: invalid type: string "much", expected f64"#,
        );
        check(
            r#"{"rate": 1, "rules": [{"attribute": "a", "action": "keep"}, {"attribute": "b", "action": "dorp"}]}"#,
            "rules[1].action: unknown variant `dorp`, expected `keep` or `drop`; did you mean `drop`?",
        );
    }

    #[test]
    fn the_schema_says_what_the_struct_says() {
        let schema: serde_json::Value = serde_json::from_str(&schema::<Example>()).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["required"], serde_json::json!(["rate"]));
        assert_eq!(schema["properties"]["rate"]["description"], "Share that is kept.");
    }
}
