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

/// Consecutive records of the log that the writers pass over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    pub first: u64,
    pub last: u64,
    pub reason: String,
}

/// A range as it lies in the lake.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct SkippedRange {
    version: u32,
    last: u64,
    reason: String,
}

const RANGE_VERSION: u32 = 1;

/// Where the ranges of a partition lie.
fn ranges_of(partition: Partition) -> String {
    format!("{partition}-ranges")
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
    /// What the writers pass over of a partition.
    pub async fn skips_of(&self, partition: Partition) -> Result<Vec<Skip>, StateError> {
        let mut skips = Vec::new();
        for (first, reason) in self.skips.all(&partition.to_string()).await? {
            let reason = String::from_utf8_lossy(&reason).into_owned();
            skips.push(Skip {
                first,
                last: first,
                reason,
            });
        }
        let name = ranges_of(partition);
        for (first, text) in self.skips.all(&name).await? {
            let range: Option<SkippedRange> = serde_json::from_slice(&text).ok();
            let Some(range) = range.filter(|range| range.version <= RANGE_VERSION && first <= range.last) else {
                return Err(StateError::Unreadable {
                    name: format!("skip/{name}/{first}"),
                });
            };
            skips.push(Skip {
                first,
                last: range.last,
                reason: range.reason,
            });
        }
        Ok(skips)
    }

    /// Lets the writers pass over some records from their next start on. False: some range begins there already.
    pub async fn skip(&self, partition: Partition, skip: &Skip) -> Result<bool, StateError> {
        if skip.first == skip.last {
            let reason = skip.reason.clone().into_bytes();
            return self.skips.create(&partition.to_string(), skip.first, reason).await;
        }
        let range = SkippedRange {
            version: RANGE_VERSION,
            last: skip.last,
            reason: skip.reason.clone(),
        };
        let name = ranges_of(partition);
        let unwritable = |_| StateError::Unreadable { name: name.clone() };
        let text = serde_json::to_vec(&range).map_err(unwritable)?;
        self.skips.create(&name, skip.first, text).await
    }

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
