//! Makes one sealed batch of some journal records. Blocks: it encodes, compresses and syncs.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{EnvelopeError, Kind};
use sluice_wire::layout::{self, ConcatOptions};

use super::plan::Pending;
use crate::spool::{Draft, Spool, SpoolError};

/// What a journal record holds for its batch.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) counts: Counts,
    /// Absent when no rows remain.
    pub(crate) rows: Option<RecordBatch>,
    /// Room in memory, given back when the batch is in the spool.
    pub(crate) _room: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// What became of a group.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    pub(crate) batches: u64,
    /// Rows that could not be sealed whatever was tried; counted as damaged in their batch.
    pub(crate) damaged: u64,
    /// Journal positions below it are in the spool now.
    pub(crate) upto: u64,
}

/// Seals records in their order. What is too large for one batch becomes two; each batch covers whole records. On an
/// error the records that are not in the spool come back.
pub(crate) fn seal(
    group: Vec<Pending<Content>>,
    refused: Counts,
    spool: &Spool,
    now_ns: u64,
) -> Result<Sealed, (Vec<Pending<Content>>, SpoolError)> {
    let mut sealed = Sealed::default();
    let mut refused = Some(refused);
    let mut waiting = vec![group];
    while let Some(mut part) = waiting.pop() {
        let Some(last) = part.last() else { continue };
        let upto = last.index + 1;
        match seal_one(&part, refused.as_ref(), upto, spool, now_ns) {
            Ok(damaged) => {
                refused = None;
                sealed.batches += 1;
                sealed.damaged += damaged;
                sealed.upto = upto;
            }
            Err(error) if is_about_rows(&error) && part.len() > 1 => {
                let rest = part.split_off(part.len() / 2);
                waiting.push(rest);
                waiting.push(part);
            }
            Err(error) => {
                // Parts are stacked last first.
                waiting.into_iter().rev().for_each(|more| part.extend(more));
                return Err((part, error));
            }
        }
    }
    Ok(sealed)
}

/// Returns how many rows had to be given up.
fn seal_one(
    part: &[Pending<Content>],
    refused: Option<&Counts>,
    journal_upto: u64,
    spool: &Spool,
    now_ns: u64,
) -> Result<u64, SpoolError> {
    let mut counts = Counts::default();
    part.iter().for_each(|p| counts.merge(&p.content.counts));
    if let Some(refused) = refused {
        counts.merge(refused);
    }
    let batches: Vec<RecordBatch> = part.iter().filter_map(|p| p.content.rows.clone()).collect();
    let rows = match batches.len() {
        0 => None,
        _ => match layout::concat(&batches, &ConcatOptions::default()) {
            Ok(rows) => Some(rows),
            // One batch needs no joining, only smaller columns.
            Err(_) if batches.len() == 1 => batches.into_iter().next(),
            Err(e) => return Err(SpoolError::Seal(EnvelopeError::Layout(e))),
        },
    };
    let (time_min_ns, time_max_ns) = rows.as_ref().and_then(time_range).unwrap_or((0, 0));
    let mut draft = Draft {
        kind: Kind::Data,
        rows,
        counts,
        journal_upto,
        time_min_ns,
        time_max_ns,
        sealed_at_ns: now_ns,
        detail: String::new(),
    };
    match spool.append(&draft) {
        Ok(_) => Ok(0),
        // What a single record holds was checked when it was accepted, so this should not happen. If it does, these
        // rows become a counted loss instead of stopping everything behind them.
        Err(error) if is_about_rows(&error) && part.len() == 1 => {
            tracing::error!(%error, rows = draft.counts.stored, "rows cannot be sealed, they count as damaged");
            let lost = draft.counts.stored + draft.counts.quarantined;
            draft.counts.damaged += lost;
            draft.counts.stored = 0;
            draft.counts.quarantined = 0;
            draft.rows = None;
            spool.append(&draft).map(|_| lost)
        }
        Err(error) => Err(error),
    }
}

/// Whether other rows could be sealed.
fn is_about_rows(error: &SpoolError) -> bool {
    matches!(error, SpoolError::Seal(_) | SpoolError::TooLarge { .. })
}

fn time_range(rows: &RecordBatch) -> Option<(i64, i64)> {
    let column = rows.column_by_name("time")?;
    let values = column.as_primitive_opt::<Int64Type>()?.values();
    Some((*values.iter().min()?, *values.iter().max()?)).filter(|_| column.null_count() == 0)
}
