//! A configuration that was refused: the file, the line, what is wrong and what to do.

use std::path::Path;

/// Ends the process with code 3.
#[derive(Debug, thiserror::Error)]
#[error("{place}{message}")]
pub(crate) struct Refused {
    place: String,
    message: String,
}

impl Refused {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            place: String::new(),
            message: message.into(),
        }
    }

    pub(crate) fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        let line = error
            .span()
            .map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        Self {
            place: format!("line {line}: "),
            message: error.message().to_owned() + &suggestion(error.message()),
        }
    }

    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        self.place = format!("{}: {}", path.display(), self.place);
        self
    }
}

/// The key that was probably meant, out of the list that the parser gives: "unknown field `nod`, expected one of `node`, `tenant`".
fn suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next().filter(|_| message.starts_with("unknown field")) else {
        return String::new();
    };
    quoted
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map_or_else(String::new, |(_, known)| format!("\n  did you mean `{known}`?"))
}
