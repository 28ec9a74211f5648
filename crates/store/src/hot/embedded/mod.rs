//! Hot in the memory of one process: columns under a cap.
//!
//! Each partition is a deque of immutable chunks without gaps. A query holds the chunks it was given, so that dropping never
//! takes rows from under it. After a restart hot is empty and is filled again from the log above what cold holds.

mod chunk;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use sluice_wire::ids::Partition;

pub(crate) use self::chunk::{Chunk, Part};
use super::{HotError, HotPin, PinnedRows, Tail as Ends};
use crate::rows::{self, OffsetRange, RowsError};

/// Rows of the newest part of the log, in memory under a cap. Clones share the rows.
#[derive(Clone, Debug)]
pub struct EmbeddedHot {
    shared: Arc<Shared>,
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

    /// The same, and of a chunk that reaches further only the rest stays. False: a writer is about to bring rows at and below the offset.
    pub fn cut_to(&self, partition: Partition, low: u64) -> Result<bool, RowsError> {
        self.drop_to(partition, low);
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(tail) = state.partitions.get_mut(&partition) else {
            return Ok(true);
        };
        if let Some(first) = tail.chunks.front_mut()
            && let Some(rest) = first.above(low)?
        {
            state.bytes = state.bytes + rest.bytes - first.bytes;
            *first = Arc::new(rest);
        }
        Ok(tail.next > low)
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

    /// What it holds now. Chunks stay as long as somebody has them.
    pub(super) fn pin(&self) -> HotPin {
        let state = self.lock();
        let tails = state
            .partitions
            .iter()
            .map(|(partition, tail)| (*partition, tail.ends()));
        let chunks = state
            .partitions
            .iter()
            .map(|(partition, tail)| (*partition, tail.chunks.iter().cloned().collect()));
        HotPin {
            tails: tails.collect(),
            rows: PinnedRows::Memory(chunks.collect()),
            unreachable: None,
        }
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

    fn ends(&self) -> Ends {
        let first = self.chunks.front().map_or(self.next, |chunk| chunk.first);
        Ends {
            low: first.checked_sub(1),
            high: self.high(),
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
