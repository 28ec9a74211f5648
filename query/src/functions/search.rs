//! Words in texts, as people type them into a search field.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::texts;

/// What is looked for is compared with each place of a text, so this many times its words is the most work for one text.
const MAX_ASKED: usize = 4 << 10;
/// The words of one text are held while they are looked at.
const MAX_BODY: usize = 16 << 20;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Match {
    signature: Signature,
    aliases: Vec<String>,
}

pub(super) fn all() -> Vec<ScalarUDF> {
    vec![ScalarUDF::new_from_impl(Match {
        signature: Signature::any(2, Volatility::Immutable),
        aliases: vec!["matches".to_owned()],
    })]
}

impl ScalarUDFImpl for Match {
    fn name(&self) -> &str {
        "match"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args.iter().any(DataType::is_nested) {
            true => exec_err!("match takes a text and the words to look for"),
            false => Ok(DataType::Boolean),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [bodies, asked] = arrays.as_slice() else {
            return exec_err!("match takes a text and the words to look for");
        };
        let (bodies, asked) = (texts(bodies)?, texts(asked)?);
        let mut last: Option<(&str, Search)> = None;
        let mut answers = Vec::with_capacity(bodies.len());
        for row in 0..bodies.len() {
            if bodies.is_null(row) || asked.is_null(row) {
                answers.push(None);
                continue;
            }
            let words = asked.value(row);
            if words.len() > MAX_ASKED {
                return exec_err!(
                    "match looks for words of up to {MAX_ASKED} bytes together, not {}",
                    words.len()
                );
            }
            if bodies.value(row).len() > MAX_BODY {
                return exec_err!("match looks into texts of up to {MAX_BODY} bytes: look into left(text, {MAX_BODY})");
            }
            if last.as_ref().is_none_or(|(known, _)| *known != words) {
                last = Some((words, Search::new(words)));
            }
            answers.push(last.as_ref().map(|(_, search)| search.finds(bodies.value(row))));
        }
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(answers))))
    }
}

/// Everything that must be there, or must not.
#[derive(Debug)]
struct Search {
    terms: Vec<Term>,
}

#[derive(Debug, PartialEq)]
struct Term {
    /// Consecutive words in lower case.
    words: Vec<String>,
    /// The last word may go on.
    open: bool,
    wanted: bool,
}

impl Search {
    fn new(asked: &str) -> Search {
        let mut terms = Vec::new();
        let mut rest = asked.trim_start();
        while !rest.is_empty() {
            let wanted = !rest.starts_with('-');
            let begin = rest.trim_start_matches('-');
            let (text, after) = match begin.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => begin.split_at(begin.find(char::is_whitespace).unwrap_or(begin.len())),
            };
            let words: Vec<String> = words(text).map(|word| word.to_lowercase()).collect();
            if !words.is_empty() {
                let open = text.ends_with('*');
                terms.push(Term { words, open, wanted });
            }
            rest = after.trim_start();
        }
        Search { terms }
    }

    fn finds(&self, body: &str) -> bool {
        let body: Vec<Cow<'_, str>> = words(body).map(in_lower_case).collect();
        self.terms.iter().all(|term| term.is_in(&body) == term.wanted)
    }
}

impl Term {
    fn is_in(&self, body: &[Cow<'_, str>]) -> bool {
        body.windows(self.words.len()).any(|run| {
            let last = self.words.len() - 1;
            run.iter()
                .zip(&self.words)
                .enumerate()
                .all(|(at, (there, word))| match self.open && at == last {
                    true => there.starts_with(word.as_str()),
                    false => there.as_ref() == word.as_str(),
                })
        })
    }
}

/// Most words are already, and need no room of their own.
fn in_lower_case(word: &str) -> Cow<'_, str> {
    match word.chars().all(|c| c.is_lowercase() || c.is_ascii_digit()) {
        true => Cow::Borrowed(word),
        false => Cow::Owned(word.to_lowercase()),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}
