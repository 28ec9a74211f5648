//! A batch that is too large for one hand-over: the answers for its slices become one.

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};

use crate::answer::Answer;
use crate::columns;

/// The answers for the slices of a batch as one.
pub(crate) fn join(answers: Vec<(RecordBatch, Answer)>) -> Result<Answer, arrow_schema::ArrowError> {
    let mut joined = Answer::default();
    let keep = |a: &Answer| a.keep.clone();
    joined.keep = join_bits(&answers, keep, true);
    let quarantined = |a: &Answer| a.quarantine.as_ref().map(|(rows, _)| rows.clone());
    if let Some(rows) = join_bits(&answers, quarantined, false) {
        let reason = answers.iter().find_map(|(_, answer)| answer.quarantine.as_ref());
        joined.quarantine = reason.map(|(_, reason)| (rows, reason.clone()));
    }
    let mut names: Vec<String> = Vec::new();
    for (_, answer) in &answers {
        for (reason, rows) in &answer.drops {
            *joined.drops.entry(reason.clone()).or_default() += rows;
        }
        for field in answer.columns.iter().flat_map(|c| c.schema_ref().fields()) {
            if !names.contains(field.name()) {
                names.push(field.name().clone());
            }
        }
    }
    if !names.is_empty() {
        let mut stacked: Vec<(String, ArrayRef, bool)> = Vec::with_capacity(names.len());
        for name in names {
            let pieces: Vec<Option<&ArrayRef>> = answers
                .iter()
                .map(|(batch, answer)| {
                    let changed = answer.columns.as_ref();
                    changed
                        .and_then(|columns| columns.column_by_name(&name))
                        .or_else(|| batch.column_by_name(&name))
                })
                .collect();
            let lengths = answers.iter().map(|(batch, _)| batch.num_rows());
            stacked.push((name, columns::stack_column(&pieces, lengths)?, true));
        }
        joined.columns = Some(RecordBatch::try_from_iter_with_nullable(stacked)?);
    }
    Ok(joined)
}

fn join_bits(
    answers: &[(RecordBatch, Answer)],
    bits: impl Fn(&Answer) -> Option<BooleanBuffer>,
    default: bool,
) -> Option<BooleanBuffer> {
    answers.iter().find_map(|(_, answer)| bits(answer))?;
    let rows = answers.iter().map(|(batch, _)| batch.num_rows()).sum();
    let mut all = BooleanBufferBuilder::new(rows);
    for (batch, answer) in answers {
        match bits(answer) {
            Some(bits) => all.append_buffer(&bits),
            None => all.append_n(batch.num_rows(), default),
        }
    }
    Some(all.finish())
}
