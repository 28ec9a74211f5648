//! Putting batches that were set aside through the log again.
//!
//! Each gets a new id that is a function of what it was: what is resubmitted twice, by two people or after a lost answer, is a duplicate.

use std::sync::Arc;

use bytes::Bytes;
use sluice_store::Erasures;
use sluice_wire::envelope::{Compression, Envelope, seal};
use sluice_wire::ids::{BatchId, Epoch, Partition, StreamId};
use sluice_wire::layout::IpcLimits;

use super::{KeepError, Kept, Quarantine, text_of};
use crate::log::{Head, Log, LogError};

/// What became of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resubmitted {
    /// In the log, under a new id.
    Done { as_id: String },
    /// This program cannot read it either, or what is in it is erased; it stays.
    Refused { why: String },
}

/// Puts a batch through the log; durable when it returns. `erased` was read after `now_us` was: what is erased later is erased in the tables.
pub async fn resubmit(
    quarantine: &Quarantine,
    log: &Arc<dyn Log>,
    kept: &Kept,
    limits: &IpcLimits,
    now_us: i64,
    erased: &Erasures,
) -> Result<Resubmitted, KeepError> {
    let bytes = match quarantine.batch(kept.offset).await {
        Ok(bytes) => bytes,
        Err(why) => return Ok(Resubmitted::Refused { why }),
    };
    let header = Envelope::parse(bytes.clone()).ok().map(|envelope| envelope.header);
    let times = header.map(|header| (header.time_min_ns, header.time_max_ns));
    let mut erased = erased.0.iter();
    if erased.any(|erasure| erasure.may_concern(&kept.tenant, kept.first_seen_us, times)) {
        let why = "what is in it was erased since, or is older than rows of its tenant are kept".to_owned();
        return Ok(Resubmitted::Refused { why });
    }
    let limits = limits.clone();
    // Decoding is long and may fail in ways that only a thread of its own contains.
    let said = (kept.tenant.clone(), kept.node.clone(), kept.seq);
    let made = tokio::task::spawn_blocking(move || renew(bytes, &limits, &said)).await;
    let (head, envelope) = match made {
        Ok(Ok(made)) => made,
        Ok(Err(why)) => return Ok(Resubmitted::Refused { why }),
        Err(_) => {
            let why = "it made the decoder fail".to_owned();
            return Ok(Resubmitted::Refused { why });
        }
    };
    let partition = partition_of(log.as_ref(), &head.id)?;
    let as_id = text_of(&head.id);
    log.append(partition, &head, envelope, now_us).await?;
    quarantine.mark(kept, &head.id, &as_id, now_us).await?;
    Ok(Resubmitted::Done { as_id })
}

fn partition_of(log: &dyn Log, id: &BatchId) -> Result<Partition, LogError> {
    let mut partitions = log.partitions();
    partitions.sort_unstable();
    let index = id
        .stream
        .partition_index(u16::try_from(partitions.len()).unwrap_or(u16::MAX));
    let found = partitions.get(usize::from(index)).copied();
    found.ok_or(LogError::NoPartition(Partition::default()))
}

/// The same rows and counts under the new id. Whose it is was said by whoever let it in; what it says of itself must be the same.
fn renew(bytes: Bytes, limits: &IpcLimits, said: &(String, String, u64)) -> Result<(Head, Bytes), String> {
    let with_causes = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        text
    };
    let hash = blake3::hash(&bytes);
    let envelope = Envelope::parse(bytes).map_err(|error| with_causes(&error))?;
    let rows = envelope.rows(limits).map_err(|error| with_causes(&error))?;
    let mut header = envelope.header;
    let id = &header.id;
    if (id.stream.tenant.as_str(), id.stream.node.as_str(), id.seq) != (said.0.as_str(), said.1.as_str(), said.2) {
        return Err(format!(
            "it says that it is of {}/{}, number {}, and it is not",
            id.stream.tenant, id.stream.node, id.seq
        ));
    }
    header.id = new_id(&header.id, hash.as_bytes());
    // The log of today has the generation of today.
    header.generation = 0;
    let sealed = seal(&header, rows.as_ref(), Compression::default()).map_err(|error| with_causes(&error))?;
    Ok((Head::from(&header), sealed))
}

fn new_id(old: &BatchId, hash: &[u8; 32]) -> BatchId {
    let (tenant, node) = (old.stream.tenant.clone(), old.stream.node.clone());
    let mut spool = [0; 16];
    spool.copy_from_slice(&blake3::hash(format!("sluice resubmitted {tenant}/{node}").as_bytes()).as_bytes()[..16]);
    let mut of = blake3::Hasher::new();
    of.update(text_of(old).as_bytes()).update(hash);
    let mut random = [0; 8];
    random.copy_from_slice(&of.finalize().as_bytes()[..8]);
    BatchId {
        stream: StreamId { tenant, node, spool },
        epoch: Epoch {
            number: old.epoch.number,
            random: u64::from_le_bytes(random),
        },
        seq: 0,
    }
}
