//! The turns at work: whoever waits is woken when it is next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_wire::ids::TenantId;
use tokio::sync::oneshot;

use super::turns::Turns;

/// Lets batches through, tenant by tenant. How many wait is bounded by the memory that they hold.
#[derive(Debug)]
pub(crate) struct Gate(Mutex<Turns<oneshot::Sender<Turn>>>);

/// Somebody's turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    gate: Arc<Gate>,
    units: u64,
}

impl Gate {
    /// For so many units at work at once.
    pub(crate) fn new(room: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Turns::new(room))))
    }

    /// Returns when it is this one's turn.
    pub(crate) async fn turn(self: &Arc<Self>, tenant: &TenantId, units: u64, bytes: u64) -> Turn {
        let (tell, told) = oneshot::channel();
        self.lock().handle_asked(tenant, units, bytes, tell);
        self.go_on();
        match told.await {
            Ok(turn) => turn,
            // Nobody drops who waits but with the gate itself.
            Err(_) => std::future::pending().await,
        }
    }

    fn go_on(self: &Arc<Self>) {
        loop {
            let Some((tell, units)) = self.lock().poll_turn() else {
                return;
            };
            let gate = Arc::clone(self);
            // Whoever gave up waiting has no turn. Its units go back here and not by the drop, which would call this again.
            if let Err(mut turn) = tell.send(Turn { gate, units }) {
                turn.units = 0;
                self.lock().handle_done(units);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns<oneshot::Sender<Turn>>> {
        // Each change is complete before anything can fail.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.units > 0 {
            self.gate.lock().handle_done(self.units);
            self.gate.go_on();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn whoever_gives_up_loses_no_turn_for_others() {
        let gate = Gate::new(1);
        let acme = TenantId::new("acme").unwrap();
        let first = gate.turn(&acme, 1, 1).await;
        let mut waiting: Vec<_> = (0..1_000).map(|_| Box::pin(gate.turn(&acme, 1, 1))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.as_mut().now_or_never().is_none()));
        let last = waiting.pop().unwrap();
        drop(waiting);
        drop(first);
        let second = last.await;
        assert!(gate.turn(&acme, 1, 1).now_or_never().is_none());
        drop(second);
        gate.turn(&acme, 1, 1).await;
    }
}
