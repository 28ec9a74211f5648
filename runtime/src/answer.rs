//! What a guest gave back, checked bit by bit before any of it touches the batch.

mod stream;

use std::collections::BTreeMap;

use arrow_array::{Array, RecordBatch};
use arrow_buffer::{BooleanBuffer, Buffer};
use arrow_schema::{DataType, Schema};
use sluice_wire::layout::{self, IpcLimits};

use crate::abi::{DropCount, Outcome};
use crate::columns::{self, QUARANTINE_REASON, QUARANTINED_BY, plain};
use crate::fault::Fault;
use crate::pattern::Patterns;
use crate::types::expected_type;
use crate::weights::{self, WEIGHT};

/// Reasons of one call; each becomes a count in the ledger.
const MAX_REASONS: usize = 16;
/// Bytes of a reason.
const MAX_REASON_BYTES: usize = 64;

/// An answer that fits the batch it was given for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Rows that stay; `None`: all.
    pub(crate) keep: Option<BooleanBuffer>,
    /// Columns that changed or are new.
    pub(crate) columns: Option<RecordBatch>,
    /// The whole batch with them; `carry_out` makes it.
    pub(crate) changed: Option<RecordBatch>,
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) quarantine: Option<(BooleanBuffer, String)>,
}

/// Checks an answer against the batch (all its columns, before the selection).
pub(crate) fn check(outcome: Outcome, batch: &RecordBatch, writes: &Patterns) -> Result<Answer, Fault> {
    let rows = batch.num_rows();
    let keep = match outcome.selection {
        Some(bytes) => Some(bits(bytes, rows, "selection")?),
        None => None,
    };
    let dropped = keep.as_ref().map_or(0, |keep| rows - keep.count_set_bits());
    let drops = drops(outcome.drops, dropped as u64)?;
    let quarantine = match outcome.quarantine {
        Some(quarantined) => {
            let rows = bits(quarantined.rows, rows, "quarantine")?;
            reason(&quarantined.reason)?;
            (rows.count_set_bits() > 0).then_some((rows, quarantined.reason))
        }
        None => None,
    };
    let columns = match outcome.columns {
        Some(bytes) => {
            let columns = stream::decode(bytes)?;
            check_columns(&columns, batch, writes)?;
            Some(columns)
        }
        None => None,
    };
    let columns = match outcome.weight {
        Some(factor) => {
            // What is set aside is no part of the sample.
            let stays = match (&keep, &quarantine) {
                (Some(keep), Some((aside, _))) => Some(keep & &!aside),
                (None, Some((aside, _))) => Some(!aside),
                (keep, None) => keep.clone(),
            };
            Some(weights::multiply(factor, columns, batch, stays.as_ref(), writes)?)
        }
        None => columns,
    };
    Ok(Answer {
        keep: keep.filter(|_| dropped > 0),
        columns,
        changed: None,
        drops,
        quarantine,
    })
}

/// Puts the columns of an answer into the batch, and looks at it as a whole: what is right by itself can be too much, or of a form
/// that the cloud refuses, and then it is too late to tell the sender. Done once for a batch, however many slices it had.
pub(crate) fn carry_out(mut answer: Answer, batch: &RecordBatch) -> Result<Answer, Fault> {
    if let Some(columns) = answer.columns.take() {
        let changed = columns::replace(batch, &columns).map_err(|e| Fault::Invalid(e.to_string()))?;
        layout::validate(&changed, &IpcLimits::default()).map_err(|e| Fault::Invalid(format!("a batch whose {e}")))?;
        answer.changed = Some(changed);
    }
    Ok(answer)
}

fn bits(bytes: Vec<u8>, rows: usize, what: &str) -> Result<BooleanBuffer, Fault> {
    if bytes.len() != rows.div_ceil(8) {
        return invalid(format!("{what} of {} bytes for {rows} rows", bytes.len()));
    }
    Ok(BooleanBuffer::new(Buffer::from_vec(bytes), 0, rows))
}

fn drops(counts: Vec<DropCount>, dropped: u64) -> Result<BTreeMap<String, u64>, Fault> {
    if counts.len() > MAX_REASONS {
        return invalid(format!("{} reasons; at most {MAX_REASONS}", counts.len()));
    }
    let mut drops = BTreeMap::new();
    let mut sum = 0u64;
    for count in counts.into_iter().filter(|count| count.rows > 0) {
        reason(&count.reason)?;
        sum = sum.saturating_add(count.rows);
        let entry: &mut u64 = drops.entry(count.reason).or_default();
        *entry = entry.saturating_add(count.rows);
    }
    if sum != dropped {
        return invalid(format!("counts {sum} dropped rows; the selection drops {dropped}"));
    }
    Ok(drops)
}

fn reason(text: &str) -> Result<(), Fault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.- ".contains(&byte);
    if text.is_empty() || text.len() > MAX_REASON_BYTES || !text.bytes().all(allowed) {
        return invalid(format!(
            "a reason must be 1 to {MAX_REASON_BYTES} letters, digits, `_`, `.`, `-` or spaces"
        ));
    }
    Ok(())
}

fn check_columns(columns: &RecordBatch, batch: &RecordBatch, writes: &Patterns) -> Result<(), Fault> {
    if columns.num_rows() != batch.num_rows() {
        return invalid(format!(
            "columns of {} rows for a batch of {}",
            columns.num_rows(),
            batch.num_rows()
        ));
    }
    let schema: &Schema = columns.schema_ref();
    for (index, field) in schema.fields().iter().enumerate() {
        let name = field.name();
        if schema.fields()[..index].iter().any(|other| other.name() == name) {
            return invalid(format!("column `{name}` twice"));
        }
        if !writes.matches(name) || [QUARANTINED_BY, QUARANTINE_REASON, "signal"].contains(&name.as_str()) {
            return invalid(format!("column `{name}`, which it may not write"));
        }
        let own = batch.schema_ref().field_with_name(name).ok();
        let fits = match own {
            Some(own) => plain(own.data_type()).equals_datatype(&plain(field.data_type())),
            None => expected_type(name).is_some_and(|expected| expected.equals_datatype(&plain(field.data_type()))),
        };
        let keys_fit = match field.data_type() {
            DataType::Dictionary(keys, _) => matches!(**keys, DataType::UInt16 | DataType::UInt32),
            _ => true,
        };
        if !fits || !keys_fit {
            return invalid(format!("column `{name}` of type {}", field.data_type()));
        }
        let column = columns.column(index);
        let nulls = column.logical_null_count();
        if nulls > 0 && own.is_some_and(|own| !own.is_nullable()) {
            return invalid(format!("column `{name}` with nulls"));
        }
        if name == WEIGHT {
            weights::check_column(column.as_ref())?;
        }
    }
    Ok(())
}

pub(crate) fn invalid<T>(what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Invalid(what.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow_array::types::UInt16Type;
    use arrow_array::{ArrayRef, DictionaryArray, Int64Array, StringArray, UInt16Array};
    use std::sync::Arc;

    const ROWS: usize = 1000;

    fn batch(columns: Vec<(String, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn given() -> RecordBatch {
        batch(vec![
            ("signal".to_owned(), Arc::new(StringArray::from(vec!["log"; ROWS]))),
            ("time".to_owned(), Arc::new(Int64Array::from(vec![1; ROWS]))),
        ])
    }

    fn numbers(name: String) -> (String, ArrayRef) {
        (name, Arc::new(Int64Array::from(vec![7; ROWS])))
    }

    /// A dictionary whose one value is so long, and may be null.
    fn dictionary(value: Option<String>) -> ArrayRef {
        let values = Arc::new(StringArray::from(vec![value]));
        Arc::new(DictionaryArray::<UInt16Type>::try_new(UInt16Array::from(vec![0; ROWS]), values).unwrap())
    }

    #[test]
    fn p2_an_answer_whose_batch_the_cloud_would_refuse_is_a_fault_before_anything_is_acknowledged() {
        let check = |what: &str, columns: Vec<(String, ArrayRef)>, good: bool| {
            let answer = Answer {
                columns: Some(batch(columns)),
                ..Answer::default()
            };
            match carry_out(answer, &given()) {
                Ok(answer) => {
                    assert!(good, "{what}");
                    let changed = answer.changed.unwrap();
                    layout::validate(&changed, &IpcLimits::default()).unwrap();
                }
                Err(fault) => assert!(!good && matches!(fault, Fault::Invalid(_)), "{what}: {fault}"),
            }
        };
        let many = |from: usize| {
            (from..from + 512)
                .map(|n| numbers(format!("attrs:i:k{n}")))
                .collect::<Vec<_>>()
        };
        check("an answer that is right", many(0), true);
        check(
            "more columns than a batch may have",
            [many(0), many(512)].concat(),
            false,
        );
        check(
            "a name that is too long",
            vec![numbers(format!("attrs:i:{}", "k".repeat(2000)))],
            false,
        );
        let text = |value| vec![("attrs:s:t".to_owned(), dictionary(value))];
        check("text that is right", text(Some("x".to_owned())), true);
        check(
            "text that is huge once written out",
            text(Some("x".repeat(300_000))),
            false,
        );
        check("nulls where no reader expects them", text(None), false);
    }
}
