//! Who this node is on the link: the stream of its spool, and the epoch of this start. Drawn and synced before anything is sealed.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_wal::cursor;
use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};

/// The identity file: the stream, and for every epoch whose batches may still be in the spool where it begins.
#[derive(Clone, Debug)]
pub struct Identity {
    path: PathBuf,
    stream: StreamId,
    /// Generation of the log as a gateway last named it; 0 before any did.
    generation: u32,
    epochs: Vec<EpochStart>,
}

/// An epoch is a run of spool indices: `seq` is the distance from its first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: Epoch,
    pub first_index: u64,
    pub generation: u32,
}

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("identity file {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("identity file {path} is of the newer format {version}: upgrade this program")]
    Newer { path: PathBuf, version: u32 },
    #[error(
        "the data in {path} belongs to {found}, this node is {expected}: give it its own data_dir, or its old names back"
    )]
    OtherNode {
        path: PathBuf,
        found: String,
        expected: String,
    },
}

/// The file as JSON, so that a person can read it.
#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    stream: String,
    generation: u32,
    epochs: Vec<FileEpoch>,
}

#[derive(Serialize, Deserialize)]
struct FileEpoch {
    epoch: String,
    first_index: u64,
    generation: u32,
}

const VERSION: u32 = 1;

impl Identity {
    /// The identity in the file; `None` if there is none or it cannot be read, which is no reason not to start: the
    /// caller finds in the spool what is needed.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        let bytes = match cursor::load(path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(source) if source.kind() == io::ErrorKind::InvalidData => return Ok(None),
            Err(source) => {
                return Err(IdentityError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let Ok(file) = serde_json::from_slice::<File>(&bytes) else {
            return Ok(None);
        };
        if file.version > VERSION {
            return Err(IdentityError::Newer {
                path: path.to_owned(),
                version: file.version,
            });
        }
        let epochs = file.epochs.iter().map(|e| {
            let epoch = e.epoch.parse().ok()?;
            Some(EpochStart {
                epoch,
                first_index: e.first_index,
                generation: e.generation,
            })
        });
        let (Ok(stream), Some(epochs)) = (file.stream.parse(), epochs.collect()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            path: path.to_owned(),
            stream,
            generation: file.generation,
            epochs,
        }))
    }

    /// A new stream, or one whose file was lost and whose batches told who they are.
    pub(crate) fn new(path: &Path, stream: StreamId, generation: u32, epochs: Vec<EpochStart>) -> Self {
        Self {
            path: path.to_owned(),
            stream,
            generation,
            epochs,
        }
    }

    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    pub(crate) fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Refuses a data folder of somebody else.
    pub(crate) fn check(&self, tenant: &TenantId, node: &NodeId) -> Result<(), IdentityError> {
        if (&self.stream.tenant, &self.stream.node) == (tenant, node) {
            return Ok(());
        }
        Err(IdentityError::OtherNode {
            path: self.path.clone(),
            found: format!("{}/{}", self.stream.tenant, self.stream.node),
            expected: format!("{tenant}/{node}"),
        })
    }

    /// Begins an epoch at a spool index; durable when it returns. Epochs that end at or before `first_kept` are forgotten.
    pub(crate) fn begin(&mut self, random: u64, first_index: u64, first_kept: u64) -> Result<Epoch, IdentityError> {
        let mut changed = self.clone();
        let epoch = changed.draw(random, first_index, first_kept);
        changed.save()?;
        *self = changed;
        Ok(epoch)
    }

    /// The same in memory only: `save` before anything is sealed under the epoch.
    pub(crate) fn draw(&mut self, random: u64, first_index: u64, first_kept: u64) -> Epoch {
        let number = self
            .epochs
            .iter()
            .map(|e| e.epoch.number)
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        let epoch = Epoch { number, random };
        self.epochs.push(EpochStart {
            epoch,
            first_index,
            generation: self.generation,
        });
        let next_starts: Vec<u64> = self.epochs.iter().skip(1).map(|e| e.first_index).collect();
        let mut place = 0;
        self.epochs.retain(|_| {
            let keep = next_starts.get(place).is_none_or(|next| *next > first_kept);
            place += 1;
            keep
        });
        epoch
    }

    /// Remembers the log's generation; true if it is another one than before.
    pub(crate) fn set_generation(&mut self, generation: u32) -> Result<bool, IdentityError> {
        if self.generation == generation {
            return Ok(false);
        }
        let was_known = self.generation != 0;
        let mut changed = self.clone();
        changed.generation = generation;
        changed.save()?;
        *self = changed;
        Ok(was_known)
    }

    /// The epoch that the batch at a spool index belongs to.
    pub(crate) fn epoch_at(&self, index: u64) -> Option<&EpochStart> {
        self.epochs.iter().rev().find(|e| e.first_index <= index)
    }

    /// The epoch that begins after an index, if any did.
    pub(crate) fn next_start(&self, index: u64) -> Option<u64> {
        self.epochs.iter().map(|e| e.first_index).find(|first| *first > index)
    }

    pub(crate) fn batch_id(&self, index: u64) -> Option<BatchId> {
        let start = self.epoch_at(index)?;
        Some(BatchId {
            stream: self.stream.clone(),
            epoch: start.epoch,
            seq: index - start.first_index,
        })
    }

    /// Durable when it returns.
    pub(crate) fn save(&self) -> Result<(), IdentityError> {
        let epochs = self.epochs.iter().map(|e| FileEpoch {
            epoch: e.epoch.to_string(),
            first_index: e.first_index,
            generation: e.generation,
        });
        let file = File {
            version: VERSION,
            stream: self.stream.to_string(),
            generation: self.generation,
            epochs: epochs.collect(),
        };
        let io = |source| IdentityError::Io {
            path: self.path.clone(),
            source,
        };
        let bytes = serde_json::to_vec(&file).map_err(|e| io(e.into()))?;
        cursor::save(&self.path, &bytes).map_err(io)
    }
}
