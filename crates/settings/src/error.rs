//! A mistake in a configuration file, told so that it can be corrected: where, what, and what was probably meant.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::near::nearest;

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub file: Option<PathBuf>,
    /// Counted from one; `None` when the mistake has no place, such as a key that is missing.
    pub line: Option<usize>,
    /// The key as it stands in the file, dotted.
    pub key: Option<String>,
    pub message: String,
    /// What was probably meant, or what to do.
    pub hint: Option<String>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, Some(line)) => write!(f, "line {line}: ")?,
            (None, None) => {}
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl ConfigError {
    /// A mistake that belongs to no key.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            file: None,
            line: None,
            key: None,
            message: message.into(),
            hint: None,
        }
    }

    /// A value that parses and yet cannot be used. `text` is the file, where the line is looked up; it may be empty.
    pub fn value(text: &str, key: &str, message: impl Into<String>) -> Self {
        Self {
            line: line_of(text, key),
            key: Some(key.to_owned()),
            ..Self::new(message)
        }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn in_file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_owned());
        self
    }

    /// For a configuration that stands in a table of a larger file: the key gets the table's name and its line in `text`.
    #[must_use]
    pub fn within(mut self, table: &str, text: &str) -> Self {
        self.key = self.key.map(|key| format!("{table}.{key}"));
        self.line = self.key.as_deref().and_then(|key| line_of(text, key));
        self
    }

    pub(crate) fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let mut this = Self::new(error.message().trim().replace('\n', ", "));
        this.line = error
            .span()
            .map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        if let Some(rest) = this.message.strip_prefix("unknown field ") {
            let mut names = rest.split('`').skip(1).step_by(2);
            let written = names.next().unwrap_or_default().to_owned();
            let known: Vec<&str> = names.collect();
            this.hint = match nearest(&written, known.iter().copied()) {
                Some(name) => Some(format!("did you mean `{name}`?")),
                None if known.is_empty() => None,
                None => Some(format!("the keys here are {}", known.join(", "))),
            };
            this.message = "there is no such key here".to_owned();
            this.key = Some(written);
        } else if let Some(line) = this.line {
            this.key = text
                .lines()
                .nth(line - 1)
                .and_then(|l| l.split_once('='))
                .map(|(k, _)| k.trim().to_owned());
        }
        this
    }
}

/// The line that gives a dotted key its value, looking only at plain `[section]` and `key = …` lines.
fn line_of(text: &str, dotted: &str) -> Option<usize> {
    let (section, key) = dotted.rsplit_once('.').unwrap_or(("", dotted));
    let mut here = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            here = name
                .trim_start_matches('[')
                .split(']')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned();
        } else if here == section
            && line
                .split_once('=')
                .is_some_and(|(k, _)| k.trim().trim_matches('"') == key)
        {
            return Some(number + 1);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[allow(dead_code)]
        seal: Seal,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Seal {
        #[allow(dead_code)]
        max_rows: u32,
    }

    #[test]
    fn a_mistake_names_file_line_key_and_a_way_out() {
        let check = |text: &str, shown: &str| {
            let error = crate::parse::<Config>(text).unwrap_err();
            assert_eq!(error.in_file(Path::new("edge.toml")).to_string(), shown);
        };
        check(
            "[seal]\nmax_row = 1",
            "edge.toml:2: max_row: there is no such key here; did you mean `max_rows`?",
        );
        check(
            "[seal]\ncolour = 1",
            "edge.toml:2: colour: there is no such key here; the keys here are max_rows",
        );
        check(
            "[seal]\n\nmax_rows = \"many\"",
            "edge.toml:3: max_rows: invalid type: string \"many\", expected u32",
        );
    }

    #[test]
    fn a_refused_value_is_found_again_in_a_larger_file() {
        let text = "[query]\nmax_rows = 1\n[edge.seal]\nmax_rows = 0\n";
        let alone = ConfigError::value("", "seal.max_rows", "must be more than 0");
        assert_eq!(alone.to_string(), "seal.max_rows: must be more than 0");
        assert_eq!(
            alone.within("edge", text).to_string(),
            "line 4: edge.seal.max_rows: must be more than 0"
        );
    }
}
