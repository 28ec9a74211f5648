//! Words in texts, as people type them into a search field.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use sluice_store::{MAX_ASKED_BYTES, Search};

use super::texts;

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
            if words.len() > MAX_ASKED_BYTES {
                return exec_err!(
                    "match looks for words of up to {MAX_ASKED_BYTES} bytes together, not {}",
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
