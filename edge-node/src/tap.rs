//! The tap: events as they come in, before any plugin, for somebody who tries a plugin on live data. While nobody listens it
//! costs one look at a number; what is shown is copied, at most as many rows as were asked for.

mod door;
mod token;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::RecordBatch;
use sluice_wire::Signal;
use sluice_wire::layout::{self, ConcatOptions, expanded_bytes};
use tokio::sync::mpsc;

pub(crate) use door::page;
use token::AdminToken;
pub(crate) use token::TokenError;

/// Listeners at once, so that their copies are bounded together.
const MAX_LISTENERS: usize = 4;
/// Bytes that one listener is given; the part that goes beyond is the last.
const MAX_BYTES: usize = 16 << 20;
/// Parts between two looks of a listener.
const MAX_PARTS: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Tap {
    listening: AtomicUsize,
    listeners: Mutex<Vec<Listener>>,
}

#[derive(Debug)]
struct Listener {
    signal: Option<Signal>,
    rows: usize,
    bytes: usize,
    parts: mpsc::Sender<RecordBatch>,
}

/// The tap behind its token; without one it is closed. Clones are the same door.
#[derive(Clone, Debug, Default)]
pub(crate) struct TapDoor {
    tap: Arc<Tap>,
    token: Arc<Mutex<Option<Arc<AdminToken>>>>,
}

impl TapDoor {
    pub(crate) fn tap(&self) -> Arc<Tap> {
        self.tap.clone()
    }

    /// Opens it to whoever has the token in this folder, which is read anew and made if there is none; or closes it, also for those
    /// who listen. A token that cannot be used closes it.
    pub(crate) fn set(&self, open: bool, data_dir: &Path) -> Result<(), TokenError> {
        let token = match open {
            true => AdminToken::load_or_make(data_dir).map(|token| Some(Arc::new(token))),
            false => Ok(None),
        };
        let (token, result) = match token {
            Ok(token) => (token, Ok(())),
            Err(error) => (None, Err(error)),
        };
        if token.is_none() {
            self.tap.close();
        }
        let was_open = std::mem::replace(&mut *lock(&self.token), token).is_some();
        match (was_open, open && result.is_ok()) {
            (false, true) => tracing::info!("tap is open to the bearer of `admin-token` in the data folder"),
            (true, false) => tracing::info!("tap is closed"),
            _ => {}
        }
        result
    }

    fn token(&self) -> Option<Arc<AdminToken>> {
        lock(&self.token).clone()
    }
}

/// Too many listen already.
#[derive(Debug)]
pub(crate) struct Crowded;

impl Tap {
    /// The next rows; the channel ends when there were enough. Dropping it ends listening.
    fn listen(&self, signal: Option<Signal>, rows: usize) -> Result<mpsc::Receiver<RecordBatch>, Crowded> {
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| !listener.parts.is_closed());
        if listeners.len() >= MAX_LISTENERS {
            return Err(Crowded);
        }
        let (parts, receiver) = mpsc::channel(MAX_PARTS);
        listeners.push(Listener {
            signal,
            rows,
            bytes: MAX_BYTES,
            parts,
        });
        self.listening.store(listeners.len(), Ordering::Release);
        Ok(receiver)
    }

    /// Shows a decoded request to those who listen. Never waits; blocks for as long as copying takes.
    pub(crate) fn offer(&self, batch: &RecordBatch, signal: Signal) {
        if self.listening.load(Ordering::Acquire) == 0 {
            return;
        }
        let wanted: Vec<(usize, mpsc::Sender<RecordBatch>)> = {
            let mut listeners = lock(&self.listeners);
            let wanted = listeners
                .iter_mut()
                .filter(|listener| listener.signal.is_none_or(|wanted| wanted == signal))
                .map(|listener| listener.take(batch))
                .collect();
            listeners.retain(|listener| listener.rows > 0 && listener.bytes > 0 && !listener.parts.is_closed());
            self.listening.store(listeners.len(), Ordering::Release);
            wanted
        };
        for (rows, parts) in wanted {
            // A copy of its own, so that the request's memory is not held for those who look.
            match joined(&[batch.slice(0, rows)]) {
                // A listener that is slow misses rows.
                Ok(copy) => drop(parts.try_send(copy)),
                Err(error) => tracing::debug!(%error, "rows cannot be shown"),
            }
        }
    }

    /// Ends listening for all.
    fn close(&self) {
        let mut listeners = lock(&self.listeners);
        listeners.clear();
        self.listening.store(0, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is right between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listener {
    /// How many rows of a batch it gets, and where they go.
    fn take(&mut self, batch: &RecordBatch) -> (usize, mpsc::Sender<RecordBatch>) {
        let rows = batch.num_rows().min(self.rows);
        let per_row = expanded_bytes(batch) / batch.num_rows().max(1);
        self.rows -= rows;
        self.bytes = self.bytes.saturating_sub(per_row.saturating_mul(rows));
        (rows, self.parts.clone())
    }
}

/// One batch of several, with the columns that they came with.
fn joined(parts: &[RecordBatch]) -> Result<RecordBatch, layout::LayoutError> {
    let options = ConcatOptions {
        min_rows_per_column: 1,
        ..ConcatOptions::default()
    };
    layout::concat(parts, &options)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow_array::{Int64Array, StringArray};

    fn batch(rows: usize) -> RecordBatch {
        let signal: arrow_array::ArrayRef = Arc::new(StringArray::from(vec!["log"; rows]));
        let time: arrow_array::ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
        RecordBatch::try_from_iter([("signal", signal), ("time", time)]).unwrap()
    }

    #[test]
    fn p15_a_listener_gets_as_many_rows_as_it_asked_for_and_then_costs_nothing() {
        let tap = Tap::default();
        tap.offer(&batch(5), Signal::Log);
        let mut rows = tap.listen(Some(Signal::Log), 7).unwrap();
        tap.offer(&batch(5), Signal::Span);
        for _ in 0..3 {
            tap.offer(&batch(5), Signal::Log);
        }
        let sizes: Vec<usize> = std::iter::from_fn(|| rows.try_recv().ok())
            .map(|b| b.num_rows())
            .collect();
        assert_eq!(sizes, [5, 2]);
        assert_eq!(tap.listening.load(Ordering::Acquire), 0);
        assert!(rows.try_recv().is_err() && rows.is_closed());
    }

    #[test]
    fn p15_listeners_are_few_and_those_who_left_make_room() {
        let tap = Tap::default();
        let held: Vec<_> = (0..MAX_LISTENERS).map(|_| tap.listen(None, 1000).unwrap()).collect();
        assert!(tap.listen(None, 1).is_err());
        drop(held);
        assert!(tap.listen(None, 1).is_ok());
    }

    #[test]
    fn p13_closing_ends_listening() {
        let dir = tempfile::tempdir().unwrap();
        let door = TapDoor::default();
        door.set(true, dir.path()).unwrap();
        let mut rows = door.tap.listen(None, 10).unwrap();
        door.tap.offer(&batch(1), Signal::Log);
        door.set(false, dir.path()).unwrap();
        door.tap.offer(&batch(1), Signal::Log);
        assert!(rows.try_recv().is_ok() && rows.try_recv().is_err() && rows.is_closed());
        assert!(door.token().is_none());
    }

    #[test]
    fn p15_a_listener_that_does_not_look_holds_a_bounded_number_of_parts() {
        let tap = Tap::default();
        let rows = tap.listen(None, 100_000).unwrap();
        (0..1000).for_each(|_| tap.offer(&batch(1), Signal::Log));
        assert_eq!(rows.len(), MAX_PARTS);
    }
}
