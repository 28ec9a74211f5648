//! The hot store: the newest rows of the log as columns in memory, under a cap.
//!
//! Each partition is a deque of immutable chunks without gaps. A query holds the chunks it was given, so that dropping never
//! takes rows from under it. After a restart hot is empty and is filled again from the log above what cold holds.

mod chunk;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use sluice_wire::ids::Partition;

pub(crate) use self::chunk::{Chunk, Part};
use crate::rows::{self, OffsetRange, RowsError};

/// Rows of the newest part of the log, in memory under a cap. Clones share the rows.
#[derive(Clone, Debug)]
pub struct EmbeddedHot {
    shared: Arc<Shared>,
}

/// Why rows were not taken.
#[derive(Debug, thiserror::Error)]
pub enum HotError {
    /// Wait until cold has taken rows over, drop them, and insert again.
    #[error("hot holds {held} of {cap} bytes, {needed} more do not fit")]
    Full { held: u64, needed: u64, cap: u64 },
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

#[derive(Debug)]
struct Shared {
    cap: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    partitions: BTreeMap<Partition, Tail>,
}

/// One partition: `chunks` hold every offset from the first one's first up to `next`.
#[derive(Debug)]
struct Tail {
    from: u64,
    next: u64,
    chunks: VecDeque<Arc<Chunk>>,
}

/// What hot held of one partition at one moment.
#[derive(Clone, Debug)]
pub(crate) struct TailSnapshot {
    /// Offsets at and below are not here.
    pub(crate) low: Option<u64>,
    pub(crate) high: Option<u64>,
    pub(crate) chunks: Vec<Arc<Chunk>>,
}

impl EmbeddedHot {
    pub fn new(cap_bytes: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                cap: cap_bytes,
                state: Mutex::default(),
            }),
        }
    }

    /// Empties a partition; the next insert must begin at `from`.
    pub fn claim(&self, partition: Partition, from: u64) {
        let mut state = self.lock();
        let old = state.partitions.insert(
            partition,
            Tail {
                from,
                next: from,
                chunks: VecDeque::new(),
            },
        );
        let freed: u64 = old.iter().flat_map(|tail| &tail.chunks).map(|chunk| chunk.bytes).sum();
        state.bytes -= freed;
    }

    /// Takes the rows of the next offsets, all or none.
    pub fn insert(&self, partition: Partition, first: u64, last: u64, rows: Vec<RecordBatch>) -> Result<(), HotError> {
        if last < first {
            return Err(HotError::EmptyRange { partition, first, last });
        }
        let range = [OffsetRange { partition, first, last }];
        rows.iter().try_for_each(|batch| rows::check(batch, &range))?;
        let chunk = Chunk::new(first, last, &rows)?;

        let mut guard = self.lock();
        let state = &mut *guard;
        let tail = state
            .partitions
            .get_mut(&partition)
            .ok_or(HotError::NotClaimed { partition })?;
        if tail.next != first {
            return Err(HotError::NotContiguous {
                partition,
                expected: tail.next,
                first,
            });
        }
        // One chunk larger than the cap goes into an empty store: waiting would never make room for it.
        let (held, needed, cap) = (state.bytes, chunk.bytes, self.shared.cap);
        if held > 0 && held.saturating_add(needed) > cap {
            return Err(HotError::Full { held, needed, cap });
        }
        state.bytes += needed;
        tail.next = last + 1;
        tail.chunks.push_back(Arc::new(chunk));
        let (before, after) = tail.merge_newest()?;
        state.bytes = state.bytes + after - before;
        Ok(())
    }

    /// The last offset that hot holds since the claim; `None` when that is none.
    pub fn high(&self, partition: Partition) -> Option<u64> {
        self.lock().partitions.get(&partition).and_then(Tail::high)
    }

    /// The first offset of the claim and the next one expected; `None` when the partition is not claimed.
    pub fn claimed(&self, partition: Partition) -> Option<(u64, u64)> {
        self.lock()
            .partitions
            .get(&partition)
            .map(|tail| (tail.from, tail.next))
    }

    /// Drops what lies wholly at and below an offset. Call it after the seam record says so.
    pub fn drop_to(&self, partition: Partition, low: u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(tail) = state.partitions.get_mut(&partition) else {
            return;
        };
        while let Some(chunk) = tail.chunks.pop_front_if(|chunk| chunk.last <= low) {
            state.bytes -= chunk.bytes;
        }
    }

    /// Bytes of columns held.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Bytes of columns that may be held.
    pub fn cap_bytes(&self) -> u64 {
        self.shared.cap
    }

    /// The partitions that are claimed.
    pub fn partitions(&self) -> Vec<Partition> {
        self.lock().partitions.keys().copied().collect()
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<Partition, TailSnapshot> {
        self.lock()
            .partitions
            .iter()
            .map(|(partition, tail)| (*partition, tail.snapshot()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything can fail.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn high(&self) -> Option<u64> {
        (self.next > self.from).then(|| self.next - 1)
    }

    fn snapshot(&self) -> TailSnapshot {
        let first = self.chunks.front().map_or(self.next, |chunk| chunk.first);
        TailSnapshot {
            low: first.checked_sub(1),
            high: self.high(),
            chunks: self.chunks.iter().cloned().collect(),
        }
    }

    /// Returns the bytes of the merged chunks before and after.
    fn merge_newest(&mut self) -> Result<(u64, u64), RowsError> {
        let (mut before, mut after) = (0, 0);
        while let [.., older, newer] = self.chunks.make_contiguous()
            && older.should_merge(newer)
        {
            let merged = older.merge(newer)?;
            before += older.bytes + newer.bytes;
            after += merged.bytes;
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push_back(Arc::new(merged));
        }
        Ok((before, after))
    }
}
