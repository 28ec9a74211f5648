//! What a configuration means once it is read.

use serde::Serialize;

/// One key of a resolved configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Dotted, as in `seal.max_rows`.
    pub key: String,
    /// As it would stand in the file.
    pub value: String,
    /// `file` or `default`
    pub origin: &'static str,
}

/// Every key of `config` with its value and whether `text`, which it was read from, gave it.
pub fn explain(config: &impl Serialize, text: &str) -> Vec<Setting> {
    let given = text.parse::<toml::Table>().unwrap_or_default();
    let all = toml::Table::try_from(config).unwrap_or_default();
    let mut settings = Vec::new();
    flatten("", &all, Some(&given), &mut settings);
    settings
}

fn flatten(prefix: &str, all: &toml::Table, given: Option<&toml::Table>, out: &mut Vec<Setting>) {
    for (name, value) in all {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let here = given.and_then(|g| g.get(name));
        if let toml::Value::Table(table) = value {
            flatten(&key, table, here.and_then(toml::Value::as_table), out);
        } else {
            let origin = if here.is_some() { "file" } else { "default" };
            out.push(Setting {
                key,
                value: value.to_string(),
                origin,
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_whether_the_file_or_the_default_gave_it() {
        let config: toml::Table = toml::from_str("a = 1\n[b]\nc = \"5 s\"\nd = [1, 2]").unwrap();
        let found = explain(&config, "[b]\nc = \"5 s\"");
        let shown: Vec<_> = found
            .iter()
            .map(|s| (s.key.as_str(), s.value.as_str(), s.origin))
            .collect();
        assert_eq!(
            shown,
            [
                ("a", "1", "default"),
                ("b.c", "\"5 s\"", "file"),
                ("b.d", "[1, 2]", "default")
            ]
        );
    }
}
