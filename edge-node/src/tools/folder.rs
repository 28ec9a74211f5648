//! The data folder of an edge as it is at one moment.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;
use sluice_wal::{Entry, Look, Reader, SegmentInfo, is_in_use, look};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::Envelope;

use super::progress::Progress;
use super::{JOURNAL, Output, SPOOL, ToolError};
use crate::identity::Identity;
use crate::journal;
use crate::spool::cursor::Saved;
use crate::spool::given_up::GivenUp;
use crate::spool::{CURSOR_FILE, GIVEN_UP_FILE, IDENTITY_FILE, record};

/// Records read at once.
const READ_RECORDS: usize = 64;
const READ_BYTES: usize = 8 << 20;

pub(super) struct Folder {
    pub(super) data: PathBuf,
    /// A node has it open.
    pub(super) is_running: bool,
    pub(super) spool: Look,
    /// A node that never started may have none.
    pub(super) journal: Option<Look>,
    pub(super) identity: Option<Identity>,
    pub(super) saved: Saved,
    pub(super) given_up: GivenUp,
}

impl Folder {
    pub(super) fn open(data: PathBuf) -> Result<Self, ToolError> {
        let (spool_dir, journal_dir) = (data.join(SPOOL), data.join(JOURNAL));
        if !spool_dir.is_dir() {
            return Err(ToolError::NoSpool(data));
        }
        let look_into = |dir: &Path| {
            look(dir).map_err(|source| ToolError::Log {
                path: dir.to_owned(),
                source,
            })
        };
        // The small files first: what they say of batches that are deleted meanwhile harms nobody.
        let cursor = data.join(CURSOR_FILE);
        let saved = Saved::load(&cursor).map_err(ToolError::read(&cursor))?;
        let given_up = data.join(GIVEN_UP_FILE);
        let given_up = GivenUp::load(&given_up).map_err(ToolError::read(&given_up))?;
        Ok(Self {
            is_running: is_in_use(&spool_dir).map_err(ToolError::read(&spool_dir))?,
            identity: Identity::load(&data.join(IDENTITY_FILE))?,
            journal: journal_dir.is_dir().then(|| look_into(&journal_dir)).transpose()?,
            spool: look_into(&spool_dir)?,
            saved,
            given_up,
            data,
        })
    }

    /// Whether the cloud has a batch.
    pub(super) fn is_acknowledged(&self, index: u64) -> bool {
        self.saved.acked.contains(index)
    }

    /// Journal positions below it are in the spool.
    pub(super) fn covered(&self) -> u64 {
        let reader = &self.spool.reader;
        let newest = reader.synced().checked_sub(1).filter(|index| *index >= reader.first());
        let newest = newest.and_then(|index| match reader.salvage(index) {
            Ok(Some(Entry::Record(bytes))) => Some(batch(&bytes)?.1.header.journal_upto),
            _ => None,
        });
        let noted = |look: &Look| journal::noted(&look.recovery.note);
        let journal = self.journal.as_ref().map_or(0, noted);
        noted(&self.spool)
            .max(journal)
            .max(newest.unwrap_or(0))
            .max(self.saved.covered)
    }
}

/// Totals and envelope of a record of the spool.
pub(super) fn batch(bytes: &Bytes) -> Option<(Counts, Envelope)> {
    let (totals, envelope) = record::decode(bytes)?;
    Some((totals, Envelope::parse(envelope).ok()?))
}

/// One file of a log, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) bytes: u64,
}

impl From<SegmentInfo> for File {
    fn from(info: SegmentInfo) -> Self {
        let SegmentInfo {
            name,
            first,
            end,
            bytes,
        } = info;
        Self {
            name,
            first,
            end,
            bytes,
        }
    }
}

/// What stands at an index.
pub(super) enum Found {
    Record(Bytes),
    Damaged(String),
    /// The node deleted it while we read.
    Gone,
}

/// Goes over all records of a log.
pub(super) fn each(
    reader: &Reader,
    dir: &Path,
    progress: &mut Progress,
    output: &mut Output<'_>,
    mut visit: impl FnMut(u64, Found) -> Result<(), ToolError>,
) -> Result<(), ToolError> {
    let files = reader.segments();
    let mut at = reader.first();
    loop {
        let entries = reader.salvage_range(at, READ_RECORDS, READ_BYTES);
        let entries = entries.map_err(|source| ToolError::Log {
            path: dir.to_owned(),
            source,
        })?;
        let Some((last, _)) = entries.last() else {
            return Ok(());
        };
        at = last + 1;
        for (index, entry) in entries {
            let (found, bytes) = match entry {
                Entry::Record(bytes) => {
                    let length = bytes.len() as u64;
                    (Found::Record(bytes), length)
                }
                Entry::Damaged { bytes, what } => {
                    let file = files.iter().find(|file| (file.first..file.end).contains(&index));
                    let is_gone = file.is_some_and(|file| !dir.join(&file.name).exists());
                    (if is_gone { Found::Gone } else { Found::Damaged(what) }, bytes)
                }
            };
            progress.add(bytes, output);
            visit(index, found)?;
        }
    }
}
