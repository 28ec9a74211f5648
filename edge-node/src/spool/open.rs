//! Opening a spool: who this node is, what is covered and acknowledged, and the epoch of this start.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use sluice_wal::{Entry, Options, Reader, Recovery, Wal};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::Envelope;
use sluice_wire::ids::{NodeId, StreamId, TenantId};
use sluice_wire::intervals::IntervalSet;
use tokio::sync::watch;

use super::cursor::Saved;
use super::given_up::GivenUp;
use super::{
    Acked, CURSOR_FILE, GIVEN_UP_FILE, IDENTITY_FILE, Opened, SCAN_BYTES, SCAN_RECORDS, Spool, SpoolError,
    SpoolOptions, Writer, is_full, record,
};
use crate::identity::{EpochStart, Identity, IdentityError};

impl Spool {
    /// Opens the folder, finds out who we are and begins an epoch. Blocks.
    pub fn open(options: SpoolOptions, tenant: &TenantId, node: &NodeId) -> Result<(Spool, Opened), SpoolError> {
        let (wal, recovery) = Wal::open_marked(&options.data_dir.join("spool"), wal_options(&options))?;
        Self::on(wal, &recovery, options, tenant, node)
    }

    /// The same with its log open already.
    pub(super) fn on(
        mut wal: Wal,
        recovery: &Recovery,
        options: SpoolOptions,
        tenant: &TenantId,
        node: &NodeId,
    ) -> Result<(Spool, Opened), SpoolError> {
        let cursor_path = options.data_dir.join(CURSOR_FILE);
        let saved = Saved::load(&cursor_path).map_err(SpoolError::Cursor)?;
        // A spool that lost its end must not give the indices that the cursor speaks of to other batches: they would count as
        // acknowledged. What is lost becomes a counted gap.
        if wal.next() < saved.next {
            wal.skip_to(saved.next)?;
        }
        let reader = wal.reader();

        let identity_path = options.data_dir.join(IDENTITY_FILE);
        let (mut identity, identity_rebuilt) = match Identity::load(&identity_path)? {
            Some(identity) => (identity, false),
            None => rebuild_identity(&identity_path, &reader, tenant, node),
        };
        identity.check(tenant, node)?;
        let next = wal.next();
        // An index that was given twice must not count as acknowledged for its first use.
        let mut set = IntervalSet::new();
        for range in saved.acked.iter() {
            set.insert_range(range.start..range.end.min(next));
        }
        let mut given_up = GivenUp::load(&options.data_dir.join(GIVEN_UP_FILE)).map_err(SpoolError::Cursor)?;
        given_up.forget_from(next);
        // Without its epoch nobody knows what a batch was called.
        given_up.retain(|index| !set.contains(index) && identity.epoch_at(index).is_some());
        let first_known = given_up
            .first()
            .map_or(reader.first(), |index| index.min(reader.first()));
        let epoch = identity.draw(rand::random(), next, first_known);
        let unsaved = !save_if_there_is_room(&identity, &mut wal)?;
        let epoch = EpochStart {
            epoch,
            first_index: next,
            generation: identity.generation(),
        };

        let noted = crate::journal::noted(&recovery.note);
        let covered = noted.max(last_covered(&reader, next)).max(saved.covered);
        let opened = Opened {
            covered,
            torn_bytes: recovery.torn_bytes,
            damaged: recovery.damaged.len() as u64 + recovery.gaps.iter().map(|g| g.end - g.start).sum::<u64>(),
            identity_rebuilt,
            full: unsaved || !wal.has_room(),
        };
        let stream = identity.stream().clone();
        let max_batch_bytes = options.max_batch_bytes;
        let writer = Writer {
            wal,
            identity,
            epoch,
            totals: Counts::default(),
            covered,
            rotate: false,
            unsaved,
            max_batch_bytes,
        };
        let spool = Spool {
            options,
            cursor_path,
            writer: Mutex::new(writer),
            reader,
            acked: Mutex::new(Acked {
                set,
                ..Acked::default()
            }),
            changed: watch::Sender::new(next),
            acks: watch::Sender::new(0),
            tombstones: Mutex::default(),
            given_up: Mutex::new(given_up),
            taken: Mutex::default(),
            giving_up: Mutex::default(),
            failing: Mutex::default(),
            sealing_past: AtomicBool::new(false),
            past: AtomicU64::new(0),
            saved_end: (saved.next, saved.epoch, saved.totals),
            oldest: Mutex::default(),
            stream,
            hints: Arc::default(),
        };
        Ok((spool, opened))
    }
}

/// How the log of a spool is kept.
pub(super) fn wal_options(options: &SpoolOptions) -> Options {
    Options {
        // At most a sixteenth of the cap is bound in a segment that is no longer needed.
        segment_bytes: (options.max_bytes / 16).clamp(1 << 20, 32 << 20),
        max_record_bytes: 64 << 20,
        ballast_bytes: options.ballast,
    }
}

/// A node starts on a disk that others filled: what the spool holds can still be sent, which makes room.
fn save_if_there_is_room(identity: &Identity, wal: &mut Wal) -> Result<bool, SpoolError> {
    for _ in 0..2 {
        match identity.save() {
            Ok(()) => return Ok(true),
            Err(IdentityError::Io { source, .. }) if is_full(&source) => wal.give_up_ballast(),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(false)
}

/// The journal position that the newest readable record covers.
fn last_covered(reader: &Reader, next: u64) -> u64 {
    let first = reader.first();
    (first..next)
        .rev()
        .take(SCAN_RECORDS)
        .find_map(|index| match reader.salvage(index) {
            Ok(Some(Entry::Record(bytes))) => {
                let (_, envelope) = record::decode(&bytes)?;
                Some(Envelope::parse(envelope).ok()?.header.journal_upto)
            }
            _ => None,
        })
        .unwrap_or(0)
}

/// Who we are when the identity file is lost: the batches in the spool tell; an empty spool is a new stream.
fn rebuild_identity(path: &Path, reader: &Reader, tenant: &TenantId, node: &NodeId) -> (Identity, bool) {
    let mut stream = None;
    let mut generation = 0;
    let mut epochs: Vec<EpochStart> = Vec::new();
    let mut at = reader.first();
    while let Ok(entries) = reader.salvage_range(at, SCAN_RECORDS, SCAN_BYTES)
        && let Some((last, _)) = entries.last()
    {
        at = last + 1;
        for (index, entry) in entries {
            let Entry::Record(bytes) = entry else {
                continue;
            };
            let Some((_, envelope)) = record::decode(&bytes) else {
                continue;
            };
            let Ok(envelope) = Envelope::parse(envelope) else {
                continue;
            };
            let header = envelope.header;
            generation = generation.max(header.generation);
            if epochs.last().is_none_or(|e| e.epoch != header.id.epoch) {
                let first_index = index.saturating_sub(header.id.seq);
                epochs.push(EpochStart {
                    epoch: header.id.epoch,
                    first_index,
                    generation: header.generation,
                });
            }
            stream = Some(header.id.stream);
        }
    }
    let rebuilt = stream.is_some();
    let stream = stream.unwrap_or_else(|| StreamId {
        tenant: tenant.clone(),
        node: node.clone(),
        spool: uuid::Uuid::new_v4().into_bytes(),
    });
    (Identity::new(path, stream, generation, epochs), rebuilt)
}
