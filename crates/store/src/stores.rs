//! What the writers and the readers of one lake share.

use sluice_wire::ids::Partition;

use crate::cold::{ColdError, ColdTable};
use crate::hot::{EmbeddedHot, Hot};
use crate::lake::{Lake, LakeError, S3Options};
use crate::seam::{Seam, SeamError};
use crate::state::{StateError, StateObjects};

/// Where the log ends, as far as this process knows.
pub trait LogEnds: Send + Sync {
    /// The next offset that the log will give; `None` when that is unknown.
    fn end(&self, partition: Partition) -> Option<u64>;
    /// When the record at `offset` was taken into the log, in microseconds since 1970; `None` when unknown or not there.
    fn oldest_unread_us(&self, partition: Partition, offset: u64) -> Option<i64>;
}

/// Hot, cold and the seam of one lake.
#[derive(Clone, Debug)]
pub struct Stores {
    pub hot: Hot,
    pub cold: ColdTable,
    pub seam: Seam,
    pub state: StateObjects,
    /// Offsets of the log that the writers pass over, by partition.
    pub skips: StateObjects,
    /// What operators erased.
    pub erasures: StateObjects,
}

/// Why a lake could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error("the cold table of the lake")]
    Cold(#[from] ColdError),
    #[error("the seam records of the lake")]
    Seam(#[from] SeamError),
    #[error("the state objects of the lake")]
    State(#[from] StateError),
}

impl Stores {
    /// Opens the lake at a folder or URL; a bucket is reached as the environment says.
    pub async fn open(lake: &str, hot_cap_bytes: u64) -> Result<Self, StoreError> {
        Self::open_with(lake, EmbeddedHot::new(hot_cap_bytes).into()).await
    }

    /// The same with any hot store.
    pub async fn open_with(lake: &str, hot: Hot) -> Result<Self, StoreError> {
        Self::open_in(&Lake::open(lake, &S3Options::default()).await?, hot).await
    }

    /// Opens a lake: the table stands in `events`, the seam records in `seam`, what the writers know in `state`, what
    /// they pass over in `skip`, what is erased in `erase`. All are made when missing.
    pub async fn open_in(lake: &Lake, hot: Hot) -> Result<Self, StoreError> {
        Ok(Self {
            cold: ColdTable::open_in(lake, "events").await?,
            seam: Seam::open_in(lake, "seam")?,
            state: StateObjects::open(lake, "state")?,
            skips: StateObjects::open(lake, "skip")?,
            erasures: StateObjects::open(lake, "erase")?,
            hot,
        })
    }
}
