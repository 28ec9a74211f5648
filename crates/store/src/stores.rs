//! What the writers and the readers of one lake share.

use sluice_wire::ids::Partition;

use crate::cold::{ColdError, ColdTable};
use crate::hot::{EmbeddedHot, Hot};
use crate::seam::{Seam, SeamError};

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
}

/// Why a lake could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the cold table of the lake")]
    Cold(#[from] ColdError),
    #[error("the seam records of the lake")]
    Seam(#[from] SeamError),
}

impl Stores {
    /// Opens the lake at a folder or URL: the table stands in `events`, the seam records in `seam`. Both are made when missing.
    pub async fn open(lake: &str, hot_cap_bytes: u64) -> Result<Self, StoreError> {
        Self::open_with(lake, EmbeddedHot::new(hot_cap_bytes).into()).await
    }

    /// The same with any hot store.
    pub async fn open_with(lake: &str, hot: Hot) -> Result<Self, StoreError> {
        let lake = lake.trim_end_matches('/');
        let cold = ColdTable::open(&format!("{lake}/events")).await?;
        let seam = Seam::open(&format!("{lake}/seam")).await?;
        Ok(Self { hot, cold, seam })
    }
}
