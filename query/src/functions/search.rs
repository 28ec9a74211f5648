//! Words in texts, as people type them into a search field.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::texts;

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
        let body: Vec<String> = words(body).map(str::to_lowercase).collect();
        self.terms.iter().all(|term| term.is_in(&body) == term.wanted)
    }
}

impl Term {
    fn is_in(&self, body: &[String]) -> bool {
        body.windows(self.words.len()).any(|run| {
            let last = self.words.len() - 1;
            run.iter()
                .zip(&self.words)
                .enumerate()
                .all(|(at, (there, word))| match self.open && at == last {
                    true => there.starts_with(word.as_str()),
                    false => there == word,
                })
        })
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}
