//! A mistake in a configuration file, told so that it can be corrected: where, what, and what was probably meant.

use std::fmt;

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Counted from one; `None` when the mistake has no place, such as a key that is missing.
    pub line: Option<usize>,
    /// The key as it stands in the file, dotted.
    pub key: Option<String>,
    pub message: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
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
    /// A value that parses and yet cannot be used.
    pub(crate) fn value(text: &str, key: &str, message: impl Into<String>) -> Self {
        Self {
            line: line_of(text, key),
            key: Some(key.to_owned()),
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().trim().replace('\n', ", ");
        let line = error
            .span()
            .map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        let mut this = Self {
            line,
            key: None,
            message,
            hint: None,
        };
        if let Some(rest) = this.message.strip_prefix("unknown field ") {
            let mut names = rest.split('`').skip(1).step_by(2);
            let found = names.next().unwrap_or_default().to_owned();
            this.hint = suggestion(&found, names);
            this.message = "there is no such key here".to_owned();
            this.key = Some(found);
        } else if let Some(line) = line {
            this.key = text
                .lines()
                .nth(line - 1)
                .and_then(|l| l.split_once('='))
                .map(|(k, _)| k.trim().to_owned());
        }
        this
    }
}

/// The name that is closest to what was written, if any is close.
fn suggestion<'a>(found: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let best = names
        .map(|name| (strsim::damerau_levenshtein(found, name), name))
        .min_by_key(|(distance, _)| *distance)?;
    let (distance, name) = best;
    (distance <= 1 + found.len() / 3).then(|| format!("did you mean `{name}`?"))
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
