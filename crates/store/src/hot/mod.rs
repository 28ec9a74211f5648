//! The hot store: the newest rows of the log, in one of two places behind one contract.
//!
//! Whoever writes claims a partition in the seam records, tells the store under which generation it writes, and inserts consecutive
//! offsets. A query pins what each partition holds: every offset above what was deleted up to H, without gaps.

pub mod clickhouse;
mod embedded;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use sluice_wire::ids::Partition;

pub use self::clickhouse::ClickHouseHot;
use self::clickhouse::Parts;
pub use self::embedded::EmbeddedHot;
pub(crate) use self::embedded::{Chunk, Part};
use crate::rows::{OffsetRange, RowsError};
use crate::seam::{Claim, SeamRecord};

/// Where the newest rows are. Clones share it.
#[derive(Clone, Debug)]
pub enum Hot {
    /// Columns in the memory of this process, which alone writes and reads them.
    Embedded(EmbeddedHot),
    /// A ClickHouse server, which many processes write and read.
    ClickHouse(ClickHouseHot),
}

/// Which of the two an operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HotStore {
    #[default]
    Embedded,
    ClickHouse,
}

/// The rows of consecutive offsets of one partition.
#[derive(Clone, Debug)]
pub struct HotRows {
    pub range: OffsetRange,
    pub rows: Vec<RecordBatch>,
}

/// Why rows were not taken.
#[derive(Debug, thiserror::Error)]
pub enum HotError {
    /// Wait until cold has taken rows over, drop them, and insert again.
    #[error("hot holds {held} of {cap} bytes, {needed} more do not fit")]
    Full { held: u64, needed: u64, cap: u64 },
    /// Nothing was stored: wait, and insert the same again.
    #[error("hot takes nothing at the moment: {reason}")]
    Busy { reason: String },
    /// Nobody knows whether it was stored: claim again from the last offset that is known, and insert from there.
    #[error("the outcome of an insert into hot is unknown: {reason}")]
    Unknown { reason: String },
    #[error("partition {partition}: the next offset is {expected}, not {first}")]
    NotContiguous {
        partition: Partition,
        expected: u64,
        first: u64,
    },
    #[error("partition {partition}: the range ends at {last}, before it begins at {first}")]
    EmptyRange {
        partition: Partition,
        first: u64,
        last: u64,
    },
    #[error("partition {partition} is not claimed")]
    NotClaimed { partition: Partition },
    #[error(transparent)]
    Rows(#[from] RowsError),
}

/// What hot held at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct HotPin {
    pub(crate) tails: BTreeMap<Partition, Tail>,
    pub(crate) rows: PinnedRows,
    /// Why nothing of it can be had at the moment.
    pub(crate) unreachable: Option<String>,
}

/// What hot held of one partition: everything above `low` up to `high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Offsets at and below are not here.
    pub(crate) low: Option<u64>,
    pub(crate) high: Option<u64>,
}

/// How to get at the rows.
#[derive(Clone, Debug)]
pub(crate) enum PinnedRows {
    Memory(BTreeMap<Partition, Vec<Arc<Chunk>>>),
    Server {
        hot: ClickHouseHot,
        seam: Arc<BTreeMap<Partition, SeamRecord>>,
        parts: Arc<Parts>,
    },
}

impl Default for PinnedRows {
    fn default() -> Self {
        Self::Memory(BTreeMap::new())
    }
}

impl HotPin {
    /// The first offset of a partition that may be here.
    pub(crate) fn first(&self, partition: Partition) -> Option<u64> {
        match &self.rows {
            PinnedRows::Memory(chunks) => Some(chunks.get(&partition)?.first()?.first),
            PinnedRows::Server { .. } => {
                let tail = self.tails.get(&partition)?;
                tail.high.map(|_| tail.low.map_or(0, |low| low + 1))
            }
        }
    }
}

impl From<EmbeddedHot> for Hot {
    fn from(hot: EmbeddedHot) -> Self {
        Self::Embedded(hot)
    }
}

impl From<ClickHouseHot> for Hot {
    fn from(hot: ClickHouseHot) -> Self {
        Self::ClickHouse(hot)
    }
}

impl Hot {
    /// Where it is, for people who read seam records.
    pub fn endpoint(&self) -> String {
        match self {
            Self::Embedded(_) => "embedded".to_owned(),
            Self::ClickHouse(hot) => hot.endpoint(),
        }
    }

    pub fn embedded(&self) -> Option<&EmbeddedHot> {
        match self {
            Self::Embedded(hot) => Some(hot),
            Self::ClickHouse(_) => None,
        }
    }

    pub fn clickhouse(&self) -> Option<&ClickHouseHot> {
        match self {
            Self::Embedded(_) => None,
            Self::ClickHouse(hot) => Some(hot),
        }
    }

    /// From now on this process writes the partition under a claim that the seam records hold; the next insert begins at its `from`.
    pub fn claim(&self, partition: Partition, claim: Claim) {
        match self {
            Self::Embedded(hot) => hot.claim(partition, claim.from),
            Self::ClickHouse(hot) => hot.claim(partition, claim),
        }
    }

    /// Takes the rows of the next offsets of some partitions. A server takes all or none of them.
    pub async fn insert(&self, slices: &[HotRows]) -> Result<(), HotError> {
        match self {
            Self::Embedded(hot) => slices.iter().try_for_each(|slice| {
                let OffsetRange { partition, first, last } = slice.range;
                hot.insert(partition, first, last, slice.rows.clone())
            }),
            Self::ClickHouse(hot) => hot.insert(slices).await,
        }
    }

    /// The first offset of the claim of this process and the next one expected; `None` when it has not claimed the partition.
    pub fn claimed(&self, partition: Partition) -> Option<(u64, u64)> {
        match self {
            Self::Embedded(hot) => hot.claimed(partition),
            Self::ClickHouse(hot) => hot.claimed(partition),
        }
    }

    /// The partitions that this process has claimed.
    pub fn partitions(&self) -> Vec<Partition> {
        match self {
            Self::Embedded(hot) => hot.partitions(),
            Self::ClickHouse(hot) => hot.partitions(),
        }
    }

    /// Bytes that are held; of a server, as it last said.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Embedded(hot) => hot.bytes(),
            Self::ClickHouse(hot) => hot.bytes(),
        }
    }

    /// Bytes that may be held; 0: that is the server's matter.
    pub fn cap_bytes(&self) -> u64 {
        match self {
            Self::Embedded(hot) => hot.cap_bytes(),
            Self::ClickHouse(_) => 0,
        }
    }

    /// What every partition holds, by seam records that were read before.
    pub(crate) async fn pin(&self, seam: &BTreeMap<Partition, SeamRecord>) -> HotPin {
        match self {
            Self::Embedded(hot) => hot.pin(),
            Self::ClickHouse(hot) => hot.pin(seam).await,
        }
    }
}
