//! What is left of a request, as records of the journal: none larger than one batch may be.

use arrow_array::RecordBatch;
use sluice_wire::Signal;
use sluice_wire::counts::{Counts, Dropped};
use sluice_wire::layout;

use super::{IntakeLimits, Taken};
use crate::positions::Position;
use crate::record::{self, Head};
use crate::refusal::Refusal;
use crate::sealer::quarantined;

/// One journal record, ready to be written.
pub(super) struct Prepared {
    pub(super) bytes: Vec<u8>,
    pub(super) rows: Option<RecordBatch>,
    pub(super) counts: Counts,
}

/// Cuts what is left of a request into journal records.
pub(super) struct Cutter<'a> {
    pub(super) signal: Signal,
    pub(super) start: u32,
    pub(super) received_ns: u64,
    pub(super) limits: &'a IntakeLimits,
    /// Told by the first record.
    pub(super) dropped: Vec<Dropped>,
    /// Up to where a source has read, told by every record, so that damage to one of them repeats nothing.
    pub(super) positions: Vec<Position>,
    pub(super) prepared: Vec<Prepared>,
    pub(super) taken: &'a mut Taken,
}

impl Cutter<'_> {
    /// Every accepted event has a name, even should a plugin keep the reason to itself.
    pub(super) fn name_the_rest(&mut self, accepted: u64, kept: u64) {
        let named = self.dropped.iter().map(|d| d.rows).sum::<u64>() + kept;
        if named < accepted {
            let (plugin, reason) = ("chain".to_owned(), "unnamed".to_owned());
            self.dropped.push(Dropped {
                plugin,
                reason,
                rows: accepted - named,
            });
        }
    }

    /// Halves a batch until every part fits into one record. A single row that does not fit is left out and told.
    pub(super) fn cut(&mut self, batch: RecordBatch) -> Result<(), Refusal> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        if rows <= self.limits.record_rows {
            let ipc = layout::to_ipc(&batch).map_err(|e| Refusal::Internal(e.to_string()))?;
            if ipc.len() <= self.limits.record_bytes {
                self.push(Some(batch), &ipc);
                return Ok(());
            }
            if rows == 1 {
                let (bytes, max) = (ipc.len(), self.limits.record_bytes);
                self.taken.accepted -= 1;
                self.taken.rejected += 1;
                self.taken
                    .reason
                    .get_or_insert_with(|| format!("an event of {bytes} bytes, at most {max} are taken"));
                return Ok(());
            }
        }
        let half = rows / 2;
        self.cut(batch.slice(0, half))?;
        self.cut(batch.slice(half, rows - half))
    }

    /// What was dropped, and how far was read, is told even when no rows remain.
    pub(super) fn finish(mut self) -> Vec<Prepared> {
        let untold = self.prepared.is_empty() && !self.positions.is_empty();
        if untold || self.dropped.iter().any(|d| d.rows > 0) {
            self.push(None, &[]);
        }
        self.prepared
    }

    fn push(&mut self, rows: Option<RecordBatch>, ipc: &[u8]) {
        let dropped = std::mem::take(&mut self.dropped);
        let held = rows.as_ref().map_or(0, RecordBatch::num_rows) as u64;
        let quarantined = rows.as_ref().map_or(0, quarantined);
        let accepted = held + dropped.iter().map(|d| d.rows).sum::<u64>();
        let counts = Counts {
            accepted,
            stored: held - quarantined,
            quarantined,
            dropped,
            ..Counts::default()
        };
        let head = Head {
            signal: self.signal,
            start: self.start,
            received_ns: self.received_ns,
            total_accepted: 0,
            counts: counts.clone(),
        };
        self.prepared.push(Prepared {
            bytes: record::encode(&head, &self.positions, ipc),
            rows,
            counts,
        });
    }
}
