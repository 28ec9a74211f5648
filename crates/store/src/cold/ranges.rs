//! The bytes of one row group of a file, read as they are needed. Small columns are read together at once, large ones piece by piece, so
//! that a row group of any size takes a window of a size that is known.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use super::door::Door;

/// Bytes of a row group that are held at once, but for a page that is longer.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;
/// What is read at least: a request costs as much as this.
const MIN_AHEAD: u64 = 64 << 10;

/// What the Parquet reader reads of. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct GroupBytes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    door: Door,
    path: Path,
    file_bytes: u64,
    chunks: Vec<Chunk>,
    held: Mutex<Vec<Held>>,
}

/// One column.
#[derive(Debug)]
struct Chunk {
    range: Range<u64>,
    /// Bytes to read at once; `None`: all, with all others that are read so.
    ahead: Option<u64>,
}

/// What is held of a column.
#[derive(Clone, Debug, Default)]
struct Held {
    start: u64,
    bytes: Bytes,
}

impl Held {
    fn from(&self, start: u64, length: u64) -> Option<Bytes> {
        let end = self.start + self.bytes.len() as u64;
        let inside = self.start <= start && start + length <= end;
        inside.then(|| self.bytes.slice((start - self.start) as usize..))
    }
}

impl GroupBytes {
    /// `columns`: where the columns lie that are read. `tail`: what is known of the file, from a place on.
    pub(super) fn new(
        door: &Door,
        path: &Path,
        file_bytes: u64,
        mut columns: Vec<Range<u64>>,
        tail: Option<(u64, Bytes)>,
    ) -> Self {
        columns.sort_unstable_by_key(|range| range.start);
        let chunks = plan(columns, WINDOW_BYTES);
        let mut held = vec![Held::default(); chunks.len()];
        if let Some((from, bytes)) = tail {
            let tail = Held { start: from, bytes };
            for (chunk, held) in chunks.iter().zip(&mut held) {
                if let Some(bytes) = tail.from(chunk.range.start, chunk.range.end - chunk.range.start) {
                    let start = chunk.range.start;
                    *held = Held { start, bytes };
                }
            }
        }
        Self {
            shared: Arc::new(Shared {
                door: door.clone(),
                path: path.clone(),
                file_bytes,
                chunks,
                held: Mutex::new(held),
            }),
        }
    }

    /// At least so many bytes from a place in a column, and what is held behind them.
    fn at(&self, start: u64, length: u64) -> Result<Bytes> {
        let Shared {
            door,
            path,
            chunks,
            held,
            ..
        } = &*self.shared;
        let index = chunks.partition_point(|chunk| chunk.range.end <= start);
        let chunk = chunks
            .get(index)
            .filter(|chunk| chunk.range.start <= start && start + length <= chunk.range.end);
        let Some(chunk) = chunk else {
            return Err(ParquetError::EOF(format!(
                "{path}: {length} bytes at {start} are not in a column that is read"
            )));
        };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = held[index].from(start, length) {
            return Ok(bytes);
        }
        if let Some(ahead) = chunk.ahead {
            let range = start..(start + length.max(ahead)).min(chunk.range.end);
            // What was held goes first.
            held[index] = Held::default();
            let bytes = door.read(path, vec![range])?.pop().unwrap_or_default();
            held[index] = Held { start, bytes };
        } else {
            let small = || chunks.iter().enumerate().filter(|(_, chunk)| chunk.ahead.is_none());
            let ranges = small().map(|(_, chunk)| chunk.range.clone()).collect();
            for ((index, chunk), bytes) in small().zip(door.read(path, ranges)?) {
                let start = chunk.range.start;
                held[index] = Held { start, bytes };
            }
        }
        held[index]
            .from(start, length)
            .ok_or_else(|| ParquetError::EOF(format!("{path}: a range was not read whole")))
    }
}

/// Which columns are read at once and which piece by piece, each with its share of the window.
fn plan(columns: Vec<Range<u64>>, window: u64) -> Vec<Chunk> {
    let length = |range: &Range<u64>| range.end - range.start;
    let mut lengths: Vec<u64> = columns.iter().map(length).collect();
    lengths.sort_unstable();
    let total: u64 = lengths.iter().sum();
    let (mut longest, mut large) = (u64::MAX, 0);
    if total > window {
        // As many small ones as take half of it.
        let mut sum = 0;
        let small = lengths.iter().take_while(|length| {
            sum += **length;
            sum <= window / 2
        });
        let small = small.count();
        longest = small.checked_sub(1).map_or(0, |last| lengths[last]);
        large = lengths.iter().filter(|length| **length > longest).count() as u64;
    }
    let ahead = (window / 2 / large.max(1)).max(MIN_AHEAD);
    columns
        .into_iter()
        .map(|range| Chunk {
            ahead: (length(&range) > longest).then_some(ahead),
            range,
        })
        .collect()
}

impl Length for GroupBytes {
    fn len(&self) -> u64 {
        self.shared.file_bytes
    }
}

impl ChunkReader for GroupBytes {
    type T = Ahead;

    fn get_read(&self, start: u64) -> Result<Ahead> {
        Ok(Ahead {
            source: self.clone(),
            at: start,
            bytes: Bytes::new(),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let mut bytes = self.at(start, length as u64)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// Reads on from a place in a column.
#[derive(Debug)]
pub(super) struct Ahead {
    source: GroupBytes,
    at: u64,
    bytes: Bytes,
}

impl Read for Ahead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.bytes.is_empty() {
            self.bytes = self.source.at(self.at, 1).map_err(io::Error::other)?;
        }
        let count = into.len().min(self.bytes.len());
        into[..count].copy_from_slice(&self.bytes.split_to(count));
        self.at += count as u64;
        Ok(count)
    }
}
