//! Sorted runs of rows become one, in memory for a piece of each.

use std::cmp::Ordering;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, interleave_record_batch};

use super::files::EncodeError;
use super::order::Keys;
use super::stream::PIECE_ROWS;

/// Bytes of the rows that are put together at once, about.
const MERGED_BYTES: usize = 8 << 20;
/// From so many rows on that lie side by side, on average, whole runs are copied instead of rows.
const LONG_RUN: usize = 8;

/// Merges what yields stored rows, each input in the order of files.
pub(super) struct Merge<I> {
    inputs: Vec<Input<I>>,
    /// A heap of the inputs that have rows left, the one with the first row on top.
    heap: Vec<usize>,
}

struct Input<I> {
    pieces: I,
    piece: RecordBatch,
    keys: Keys,
    next: usize,
    row_bytes: usize,
    /// The piece among the sources of what is being put together.
    source: Option<usize>,
    /// Of all that were given.
    number: usize,
}

/// Rows of one piece that follow each other.
struct Run {
    source: usize,
    start: usize,
    rows: usize,
}

impl<I: FnMut() -> Option<Result<RecordBatch, EncodeError>>> Merge<I> {
    /// `inputs` give the next rows of one run, each.
    pub(super) fn new(inputs: Vec<I>) -> Result<Self, EncodeError> {
        let mut merge = Self {
            inputs: Vec::with_capacity(inputs.len()),
            heap: Vec::new(),
        };
        for (number, mut pieces) in inputs.into_iter().enumerate() {
            if let Some((piece, keys)) = next_piece(&mut pieces, None, number)? {
                merge.inputs.push(Input {
                    pieces,
                    row_bytes: row_bytes(&piece),
                    piece,
                    keys,
                    next: 0,
                    source: None,
                    number,
                });
            }
        }
        merge.heap = (0..merge.inputs.len()).collect();
        for at in (0..merge.heap.len() / 2).rev() {
            merge.sift_down(at);
        }
        Ok(merge)
    }

    /// The next rows, at most so many.
    pub(super) fn next(&mut self, max_rows: usize) -> Result<Option<RecordBatch>, EncodeError> {
        let max_rows = max_rows.min(PIECE_ROWS);
        let (mut sources, mut runs): (Vec<RecordBatch>, Vec<Run>) = (Vec::new(), Vec::new());
        let (mut rows, mut bytes) = (0, 0);
        for input in &mut self.inputs {
            input.source = None;
        }
        while let Some(&first) = self.heap.first()
            && rows < max_rows
            && bytes < MERGED_BYTES
        {
            let run = self.run(first, max_rows - rows);
            let input = &mut self.inputs[first];
            let source = *input.source.get_or_insert_with(|| {
                sources.push(input.piece.clone());
                sources.len() - 1
            });
            runs.push(Run {
                source,
                start: input.next,
                rows: run,
            });
            rows += run;
            bytes += run * input.row_bytes;
            input.next += run;
            if input.next == input.piece.num_rows() {
                self.advance(first)?;
            }
            self.sift_down(0);
        }
        put_together(&sources, &runs, rows)
    }

    /// How many rows of the first input come before those of all others.
    fn run(&self, first: usize, max_rows: usize) -> usize {
        let input = &self.inputs[first];
        let left = (input.piece.num_rows() - input.next).min(max_rows);
        let second = match self.heap[1..] {
            [] => return left,
            [second] => second,
            [left, right, ..] if self.is_before(left, right) => left,
            [_, right, ..] => right,
        };
        let other = &self.inputs[second];
        let is_first = |at: usize| match input.keys.compare(at, &other.keys, other.next) {
            Ordering::Less => true,
            Ordering::Equal => first < second,
            Ordering::Greater => false,
        };
        // The first one is before the second already. Long runs are passed over by steps that double.
        let (mut inside, mut step) = (0, 1);
        while inside + step < left && is_first(input.next + inside + step) {
            inside += step;
            step *= 2;
        }
        let mut outside = (inside + step).min(left);
        while outside - inside > 1 {
            let middle = inside + (outside - inside) / 2;
            match is_first(input.next + middle) {
                true => inside = middle,
                false => outside = middle,
            }
        }
        outside
    }

    /// Loads the next piece of the input on top, or takes it out.
    fn advance(&mut self, first: usize) -> Result<(), EncodeError> {
        let input = &mut self.inputs[first];
        match next_piece(&mut input.pieces, Some(&input.keys), input.number)? {
            Some((piece, keys)) => {
                (input.row_bytes, input.piece, input.keys) = (row_bytes(&piece), piece, keys);
                (input.next, input.source) = (0, None);
            }
            None => {
                self.heap.swap_remove(0);
                input.piece = RecordBatch::new_empty(input.piece.schema());
            }
        }
        Ok(())
    }

    fn is_before(&self, one: usize, other: usize) -> bool {
        let (a, b) = (&self.inputs[one], &self.inputs[other]);
        match a.keys.compare(a.next, &b.keys, b.next) {
            Ordering::Less => true,
            Ordering::Equal => one < other,
            Ordering::Greater => false,
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut first = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.is_before(self.heap[child], self.heap[first]) {
                    first = child;
                }
            }
            if first == at {
                return;
            }
            self.heap.swap(at, first);
            at = first;
        }
    }
}

/// The next piece with rows, which must be sorted and follow the one before it.
fn next_piece(
    pieces: &mut impl FnMut() -> Option<Result<RecordBatch, EncodeError>>,
    before: Option<&Keys>,
    input: usize,
) -> Result<Option<(RecordBatch, Keys)>, EncodeError> {
    while let Some(piece) = pieces() {
        let piece = piece?;
        if piece.num_rows() == 0 {
            continue;
        }
        let keys = Keys::of(&piece)?;
        if !keys.is_sorted() || before.is_some_and(|before| !before.ends_before(&keys)) {
            return Err(EncodeError::Unsorted { input });
        }
        return Ok(Some((piece, keys)));
    }
    Ok(None)
}

fn row_bytes(piece: &RecordBatch) -> usize {
    piece.get_array_memory_size() / piece.num_rows().max(1)
}

fn put_together(sources: &[RecordBatch], runs: &[Run], rows: usize) -> Result<Option<RecordBatch>, EncodeError> {
    let slice = |run: &Run| sources[run.source].slice(run.start, run.rows);
    let Some(first) = runs.first() else {
        return Ok(None);
    };
    if runs.len() == 1 {
        return Ok(Some(slice(first)));
    }
    if rows / runs.len() >= LONG_RUN {
        let slices: Vec<RecordBatch> = runs.iter().map(slice).collect();
        return Ok(Some(concat_batches(&sources[first.source].schema(), &slices)?));
    }
    let sources: Vec<&RecordBatch> = sources.iter().collect();
    let indices: Vec<(usize, usize)> = runs
        .iter()
        .flat_map(|run| (run.start..run.start + run.rows).map(|at| (run.source, at)))
        .collect();
    Ok(Some(interleave_record_batch(&sources, &indices)?))
}
