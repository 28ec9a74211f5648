//! Memory for the groups that one query holds beside its operators: those that are given again, and those that are kept as they pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// What may still be taken, by all aggregates of a query together.
#[derive(Debug)]
pub(super) struct Budget(AtomicU64);

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Arc<Budget> {
        Arc::new(Budget(AtomicU64::new(bytes)))
    }

    pub(super) fn share(self: &Arc<Self>) -> Share {
        let of = Arc::clone(self);
        Share { of, bytes: 0 }
    }
}

impl Share {
    /// Whether there was so much left.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let taken = self
            .of
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        let is_taken = taken.is_ok();
        self.bytes += if is_taken { bytes } else { 0 };
        is_taken
    }

    pub(super) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.of.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn free(&mut self) {
        self.shrink(self.bytes);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.free();
    }
}

/// What a batch takes that shares its memory with no other.
pub(super) fn size(batch: &RecordBatch) -> u64 {
    batch.get_array_memory_size() as u64
}

/// Some rows of a batch, in memory of their own: what the engine gives are slices of much larger ones.
pub(super) fn copy(batch: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch, ArrowError> {
    compact(&take_record_batch(batch, &UInt32Array::from(rows))?)
}

/// Without what views of texts hold of other rows.
pub(super) fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    });
    RecordBatch::try_new(batch.schema(), columns.collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn shares_are_all_of_one_budget_and_are_given_back() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(one.grow(6) && !other.grow(5) && other.grow(4) && !one.grow(1));
        one.shrink(100);
        assert!(other.grow(6) && one.bytes() == 0);
        drop(other);
        assert!(one.grow(10) && !one.grow(1));
    }

    #[test]
    fn a_copy_holds_nothing_of_other_rows() {
        let texts: StringViewArray = (0..10_000)
            .map(|n| Some(format!("a text that is no short one: {n}")))
            .collect();
        let numbers: Int64Array = (0..10_000).collect();
        let all = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef), ("t", Arc::new(texts))]).unwrap();
        let few = copy(&all.slice(5_000, 10), vec![3, 9]).unwrap();
        assert!(size(&few) < 2_000 && size(&all.slice(0, 1)) > 400_000, "{}", size(&few));
        assert_eq!(
            few.column(1).as_string_view().value(1),
            "a text that is no short one: 5009"
        );
    }
}
