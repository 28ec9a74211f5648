//! How many queries run: all together, and of one tenant. `queue` decides who is next; here they wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_wire::ids::TenantId;
use tokio::sync::oneshot;

use crate::config::LimitsConfig;
use crate::error::{Kind, QueryError};
use crate::queue::{Id, Queue, Rules};

#[derive(Debug)]
pub(crate) struct Admission {
    shared: Arc<Shared>,
    rules: Rules,
    wait: Duration,
}

/// A place among the running queries, or in the line before them, held until the work has really ended.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    id: Id,
}

#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug)]
struct State {
    queue: Queue,
    waiting: HashMap<Id, oneshot::Sender<()>>,
    next: Id,
}

impl Admission {
    pub(crate) fn new(limits: &LimitsConfig) -> Admission {
        let rules = Rules {
            places: limits.concurrency,
            tenant_places: limits.tenant_concurrency.min(limits.concurrency),
            waiting: limits.queue,
            tenant_waiting: limits.tenant_queue.min(limits.queue),
            long_after: limits.long_after,
        };
        let state = State {
            queue: Queue::new(rules),
            waiting: HashMap::new(),
            next: 0,
        };
        Admission {
            shared: Arc::new(Shared(Mutex::new(state))),
            rules,
            wait: limits.queue_wait,
        }
    }

    /// Waits for a place. Whoever goes away while waiting leaves the line.
    pub(crate) async fn admit(&self, tenant: &TenantId) -> Result<Place, QueryError> {
        let Some((place, mut turn)) = self.enter(tenant) else {
            return Err(self.busy(&format!(
                "{} queries of this tenant or {} of all are waiting (`limits.tenant_queue`, `limits.queue`)",
                self.rules.tenant_waiting, self.rules.waiting
            )));
        };
        let until = tokio::time::Instant::now() + self.wait;
        loop {
            let tick = self.shared.lock().queue.next_tick(Instant::now());
            // without a tick, only somebody who leaves can make room
            let tick = tick.map_or(until, |tick| tokio::time::Instant::from_std(tick).min(until));
            tokio::select! {
                biased;
                Ok(()) = &mut turn => return Ok(place),
                () = tokio::time::sleep_until(tick) => {
                    self.shared.change(|queue, now| queue.tick(now));
                    if turn.try_recv().is_ok() {
                        return Ok(place);
                    }
                }
            }
            if tokio::time::Instant::now() >= until {
                return Err(self.busy(&format!(
                    "no place became free within {} ms (`limits.queue_wait`): {} queries run at once, {} of one tenant \
                     (`limits.concurrency`, `limits.tenant_concurrency`)",
                    self.wait.as_millis(),
                    self.rules.places,
                    self.rules.tenant_places
                )));
            }
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.shared.lock().queue.running()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.shared.lock().queue.waiting()
    }

    /// `None`: too many wait.
    fn enter(&self, tenant: &TenantId) -> Option<(Place, oneshot::Receiver<()>)> {
        let (tell, turn) = oneshot::channel();
        let id = {
            let mut state = self.shared.lock();
            state.next += 1;
            let id = state.next;
            state.waiting.insert(id, tell);
            id
        };
        // from here on, going away leaves the line
        let place = Place {
            shared: Arc::clone(&self.shared),
            id,
        };
        self.shared.change(|queue, now| queue.enter(id, tenant, now));
        let state = self.shared.lock();
        let here = state.queue.runs(id) || state.queue.waits(id);
        drop(state);
        here.then_some((place, turn))
    }

    fn busy(&self, message: &str) -> QueryError {
        QueryError::new(Kind::Busy, message)
            .hint("ask again later, or fewer questions at once")
            .retry_after(self.wait.clamp(Duration::from_secs(1), Duration::from_secs(5)))
    }
}

impl Shared {
    /// Changes the queue and tells those who begin to run.
    fn change(&self, change: impl FnOnce(&mut Queue, Instant) -> Vec<Id>) {
        let mut state = self.lock();
        let begin = change(&mut state.queue, Instant::now());
        for id in begin {
            if let Some(tell) = state.waiting.remove(&id) {
                // who does not listen any more is about to leave
                let _ = tell.send(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.id);
        self.shared.change(|queue, now| queue.leave(self.id, now));
    }
}
