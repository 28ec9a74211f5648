//! Taking out batches that are erased. A log only forgets its beginning, so what stays is put behind its end again.

use std::collections::{BTreeMap, BTreeSet};

use sluice_store::Erasures;

use super::record::{self, Note};
use super::{KeepError, PARTITION, Quarantine, READ_BYTES};
use crate::log::{LogError, LogRecord};

impl Quarantine {
    /// Takes out all batches that may hold erased rows: whole ones, as they are in no table. Returns how many they were.
    ///
    /// One that dies leaves batches twice, which count as one.
    pub async fn erase(&self, erasures: &Erasures) -> Result<u64, KeepError> {
        if erasures.0.is_empty() {
            return Ok(0);
        }
        let mut usage = self.usage.lock().await;
        usage.catch_up(self.log.as_ref()).await?;
        let erased = |piece: &super::usage::Piece| {
            let mut erasures = erasures.0.iter();
            piece.is_batch && erasures.any(|e| e.may_concern(&piece.tenant, piece.seen_us, piece.times))
        };
        let gone: BTreeSet<u64> = usage
            .records
            .iter()
            .filter(|(_, piece)| erased(piece))
            .map(|(offset, _)| *offset)
            .collect();
        if gone.is_empty() {
            return Ok(0);
        }
        let (first, known) = (self.log.first(PARTITION), usage.records.clone());
        let below = self.log.cut(PARTITION).await?;
        let mut moved = BTreeMap::new();
        let mut next = known.keys().next().copied().unwrap_or(first).max(first);
        while next < below {
            let records = self.log.read(PARTITION, next, READ_BYTES).await?;
            let Some(last) = records.last() else {
                let reason = "the batches that are set aside cannot be read".to_owned();
                return Err(LogError::Retry { reason }.into());
            };
            next = last.offset + 1;
            for record in records.iter().filter(|record| record.offset < below) {
                if !gone.contains(&record.offset) {
                    self.put_behind(record, &mut moved).await?;
                }
            }
        }
        self.log.trim(PARTITION, below).await?;
        usage.forget_below(below);
        Ok(gone.len() as u64)
    }

    /// Puts a record behind the end; a mark goes with its batch.
    async fn put_behind(&self, record: &LogRecord, moved: &mut BTreeMap<u64, u64>) -> Result<(), KeepError> {
        // What is damaged says nothing any more.
        let (Some(head), None) = (&record.head, &record.damaged) else {
            return Ok(());
        };
        let content = match record::take(&record.envelope) {
            Ok((Note::Mark { resubmitted, new_id }, _)) => match moved.get(&resubmitted) {
                Some(resubmitted) => {
                    let resubmitted = *resubmitted;
                    record::put(&Note::Mark { resubmitted, new_id }, b"")?
                }
                None => return Ok(()),
            },
            _ => record.envelope.clone(),
        };
        let at = self.log.append(PARTITION, head, content, record.ingested_at_us).await?;
        moved.insert(record.offset, at);
        Ok(())
    }
}
