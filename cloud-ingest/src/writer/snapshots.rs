//! Where the state of duplicates of each partition is kept: in a folder beside an embedded log, or in the lake when processes share a
//! log and a partition may go on somewhere else.

use std::path::PathBuf;

use crc32c::crc32c;
use sluice_store::StateObjects;
use sluice_wire::ids::Partition;

use super::{WriterError, kept};
use crate::dedup::Dedup;

const CRC_BYTES: usize = 4;

/// The place of the snapshots.
#[derive(Clone, Debug)]
pub enum Snapshots {
    Folder(PathBuf),
    Lake(StateObjects),
}

impl Snapshots {
    /// For people.
    pub(super) fn place(&self, partition: Partition) -> String {
        match self {
            Snapshots::Folder(folder) => kept::paths(folder, &name(partition))[0].display().to_string(),
            Snapshots::Lake(_) => format!("state/{} of the lake", name(partition)),
        }
    }

    /// `None` when there is no snapshot that can be used; whether the log can stand in for it, its first offset says.
    pub(super) async fn load(&self, partition: Partition) -> Result<Option<Dedup>, WriterError> {
        self.load_as(&name(partition)).await
    }

    /// Durable when it returns. `next` is the offset below which everything is in it.
    pub(super) async fn save(&self, partition: Partition, next: u64, bytes: Vec<u8>) -> Result<(), WriterError> {
        self.save_as(name(partition), next, bytes).await
    }

    /// The state as of the beginning of the log, from which it can be replayed; `None` while nothing was trimmed.
    pub(super) async fn load_base(&self, partition: Partition) -> Result<Option<Dedup>, WriterError> {
        self.load_as(&base_name(partition)).await
    }

    pub(super) async fn save_base(&self, partition: Partition, next: u64, bytes: Vec<u8>) -> Result<(), WriterError> {
        self.save_as(base_name(partition), next, bytes).await
    }

    async fn load_as(&self, name: &str) -> Result<Option<Dedup>, WriterError> {
        let unusable = |error: &dyn std::fmt::Display| {
            tracing::warn!(name, %error, "state of duplicates cannot be used; folding the log anew");
            Ok(None)
        };
        let bytes = match self {
            Snapshots::Folder(folder) => return kept::load(folder, name),
            Snapshots::Lake(state) => match state.newest(name).await? {
                None => None,
                Some(bytes) => match bytes.split_last_chunk::<CRC_BYTES>() {
                    Some((content, crc)) if crc32c(content) == u32::from_le_bytes(*crc) => Some(content.to_vec()),
                    _ => return unusable(&"its checksum does not fit"),
                },
            },
        };
        let Some(bytes) = bytes else {
            return Ok(None);
        };
        Dedup::decode(&bytes).map(Some).or_else(|error| unusable(&error))
    }

    async fn save_as(&self, name: String, next: u64, mut bytes: Vec<u8>) -> Result<(), WriterError> {
        match self {
            Snapshots::Folder(folder) => {
                let folder = folder.clone();
                tokio::task::spawn_blocking(move || kept::save(&folder, &name, &bytes))
                    .await
                    .map_err(|error| WriterError::Task(error.to_string()))?
            }
            Snapshots::Lake(state) => {
                let crc = crc32c(&bytes);
                bytes.extend_from_slice(&crc.to_le_bytes());
                Ok(state.save(&name, next, bytes).await?)
            }
        }
    }
}

fn name(partition: Partition) -> String {
    format!("duplicates-{partition}")
}

fn base_name(partition: Partition) -> String {
    format!("base-{partition}")
}
