//! How far a writer of a shared hot store has got, saved every few seconds: `pos/<partition>` beside the records.
//!
//! Unlike a record it is overwritten. One that a writer left behind which does not own the partition any more tells by its generation.

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use sluice_wire::ids::Partition;

use super::{Seam, SeamError};

const VERSION: u32 = 1;

/// Everything below `next` that counts is in hot. It says something only while `generation` is that of the last claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    version: u32,
    pub generation: u64,
    pub next: u64,
}

impl Position {
    pub fn new(generation: u64, next: u64) -> Self {
        Self {
            version: VERSION,
            generation,
            next,
        }
    }
}

impl Seam {
    /// The position that was saved last; `None`: never, or by a newer program.
    pub async fn position(&self, partition: Partition) -> Result<Option<Position>, SeamError> {
        let path = position_path(partition);
        let bytes = match self.store.get(&path).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let position: Position = serde_json::from_slice(&bytes).map_err(|source| SeamError::Unreadable {
            path: path.to_string(),
            source,
        })?;
        Ok((position.version <= VERSION).then_some(position))
    }

    pub async fn save_position(&self, partition: Partition, position: Position) -> Result<(), SeamError> {
        let path = position_path(partition);
        let text = serde_json::to_vec(&position).map_err(|source| SeamError::Unreadable {
            path: path.to_string(),
            source,
        })?;
        self.store.put(&path, PutPayload::from(text)).await?;
        Ok(())
    }
}

fn position_path(partition: Partition) -> Path {
    Path::from(format!("pos/{partition}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_position_is_read_back_and_is_no_partition() {
        let folder = tempfile::tempdir().unwrap();
        let seam = Seam::open(folder.path().join("seam").to_str().unwrap()).await.unwrap();
        let p = Partition {
            generation: 1,
            index: 7,
        };
        assert_eq!(seam.position(p).await.unwrap(), None);
        for next in [4, 9] {
            seam.save_position(p, Position::new(2, next)).await.unwrap();
        }
        assert_eq!(seam.position(p).await.unwrap(), Some(Position::new(2, 9)));
        assert_eq!(seam.partitions().await.unwrap(), vec![]);
    }
}
