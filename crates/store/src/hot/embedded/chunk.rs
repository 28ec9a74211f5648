//! Immutable pieces of one partition's newest rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};

use crate::rows::{self, RowsError};

/// Chunks grow by merging up to what one batch of a query usually holds.
const MAX_MERGED_ROWS: usize = 8192;
const MAX_MERGED_BYTES: u64 = 8 << 20;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// The rows of consecutive offsets.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) parts: Vec<Arc<Part>>,
    pub(crate) bytes: u64,
    pub(crate) rows: usize,
}

/// The rows of one tenant in a chunk that `events` shows, or those that it hides.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) tenant: String,
    pub(crate) hidden: bool,
    pub(crate) rows: RecordBatch,
    /// Nanoseconds since 1970.
    pub(crate) times: (i64, i64),
    pub(crate) offsets: (i64, i64),
    /// When its first row was taken in, in microseconds since 1970.
    pub(crate) oldest_us: i64,
    /// No other part of this process has it, ever.
    pub(crate) id: u64,
    bytes: u64,
}

impl Part {
    fn new(tenant: String, hidden: bool, rows: RecordBatch) -> Result<Self, RowsError> {
        let (times, offsets) = (rows::time_bounds(&rows)?, rows::offset_bounds(&rows)?);
        let oldest_us = rows::oldest_us(&rows)?;
        let bytes = rows.get_array_memory_size() as u64;
        Ok(Self {
            tenant,
            hidden,
            rows,
            times,
            offsets,
            oldest_us,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            bytes,
        })
    }
}

impl Chunk {
    pub(crate) fn new(first: u64, last: u64, batches: &[RecordBatch]) -> Result<Self, RowsError> {
        let mut groups = Groups::new();
        for batch in batches.iter().filter(|b| b.num_rows() > 0) {
            for (key, rows) in rows::split(batch)? {
                groups.entry(key).or_default().push(rows);
            }
        }
        Self::of(first, last, groups)
    }

    /// Whether two neighbours are better kept as one: few large batches scan faster than many small ones, and merging only
    /// what is about equally large copies each row a logarithmic number of times.
    pub(crate) fn should_merge(&self, newer: &Self) -> bool {
        self.rows + newer.rows <= MAX_MERGED_ROWS
            && self.bytes + newer.bytes <= MAX_MERGED_BYTES
            && self.rows <= newer.rows.max(1) * 2
    }

    pub(crate) fn merge(&self, newer: &Self) -> Result<Self, RowsError> {
        let mut groups = Groups::new();
        for part in self.parts.iter().chain(&newer.parts) {
            groups
                .entry((part.tenant.clone(), part.hidden))
                .or_default()
                .push(part.rows.clone());
        }
        Self::of(self.first, newer.last, groups)
    }

    /// What of it lies above an offset; `None`: all of it does.
    pub(crate) fn above(&self, low: u64) -> Result<Option<Self>, RowsError> {
        if self.first > low {
            return Ok(None);
        }
        let mut groups = Groups::new();
        for part in &self.parts {
            let offsets = rows::ints(&part.rows, "offset")?;
            let is_above: BooleanArray = offsets
                .iter()
                .map(|offset| offset > Some(rows::signed(low)))
                .collect::<Vec<_>>()
                .into();
            let rest =
                filter_record_batch(&part.rows, &is_above).map_err(|error| RowsError::Arrow(error.to_string()))?;
            if rest.num_rows() > 0 {
                groups.entry((part.tenant.clone(), part.hidden)).or_default().push(rest);
            }
        }
        Ok(Some(Self::of(low + 1, self.last, groups)?))
    }

    fn of(first: u64, last: u64, groups: Groups) -> Result<Self, RowsError> {
        let mut parts = Vec::with_capacity(groups.len());
        for ((tenant, hidden), batches) in groups {
            let rows = match batches.as_slice() {
                [one] => one.clone(),
                many => concat_batches(&sluice_wire::events::schema(), many)
                    .map_err(|error| RowsError::Arrow(error.to_string()))?,
            };
            parts.push(Arc::new(Part::new(tenant, hidden, rows)?));
        }
        let bytes = parts.iter().map(|p| p.bytes).sum();
        let rows = parts.iter().map(|p| p.rows.num_rows()).sum();
        Ok(Self {
            first,
            last,
            parts,
            bytes,
            rows,
        })
    }
}

type Groups = BTreeMap<(String, bool), Vec<RecordBatch>>;
