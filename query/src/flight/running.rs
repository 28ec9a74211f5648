//! Answers on their way, so that a client can cancel one by the ticket that it fetches it with.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::ticket::Number;

/// What runs now. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Running(Arc<Mutex<HashMap<Number, Run>>>);

#[derive(Debug)]
struct Run {
    stop: CancellationToken,
    /// The same ticket may be fetched more than once at a time.
    fetched: usize,
}

/// Held as long as the answer is on its way.
#[derive(Debug)]
pub(super) struct Guard {
    running: Running,
    number: Number,
    pub(super) stop: CancellationToken,
}

impl Running {
    pub(super) fn begin(&self, number: Number) -> Guard {
        let mut runs = self.runs();
        let run = runs.entry(number).or_insert_with(|| Run {
            stop: CancellationToken::new(),
            fetched: 0,
        });
        run.fetched += 1;
        Guard {
            running: self.clone(),
            number,
            stop: run.stop.clone(),
        }
    }

    /// Whether there was something to cancel.
    pub(super) fn cancel(&self, number: Number) -> bool {
        self.runs().get(&number).map(|run| run.stop.cancel()).is_some()
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<Number, Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Entry::Occupied(mut run) = self.running.runs().entry(self.number) {
            run.get_mut().fetched -= 1;
            if run.get().fetched == 0 {
                run.remove();
            }
        }
    }
}
