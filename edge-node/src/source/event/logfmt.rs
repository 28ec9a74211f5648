//! `key=value key="a value" key`: one line of logfmt as an object of texts.

use serde_json::{Map, Value as Json};

/// `None` if the line is something else.
pub(crate) fn parse(line: &str) -> Option<Map<String, Json>> {
    let mut object = Map::new();
    let mut rest = line.trim();
    let mut has_value = false;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let key = &rest[..end];
        if key.is_empty() || key.contains('"') {
            return None;
        }
        rest = &rest[end..];
        let value = match rest.strip_prefix('=') {
            None => String::new(),
            Some(after) => {
                has_value = true;
                let (value, after) = value(after)?;
                rest = after;
                value
            }
        };
        object.insert(key.to_owned(), Json::String(value));
        if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
            return None;
        }
        rest = rest.trim_start();
    }
    // Words alone are a sentence.
    has_value.then_some(object)
}

/// A value and what stands behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn lines_of_logfmt_are_objects_and_sentences_are_not() {
        let parsed = |line| parse(line).map(Json::Object);
        assert_eq!(
            parsed(r#"level=info msg="it \"works\"\n" took=5ms debug  empty= url=a=b"#),
            Some(
                json!({"level": "info", "msg": "it \"works\"\n", "took": "5ms", "debug": "", "empty": "", "url": "a=b"})
            )
        );
        for line in ["", "just some words", "=a", "a=\"open", "a=\"x\"y", "\"a\"=b"] {
            assert_eq!(parsed(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_an_object_or_not(line in "\\PC{0,60}") {
            let _ = parse(&line);
        }
    }
}
