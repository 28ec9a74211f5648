//! Whose bodies are being read, and who gives way when there is no room for others.
//!
//! A sender that keeps us waiting holds room that it does not use. As long as there is enough, it may take its time; when somebody
//! else finds none, whoever has kept us waiting for the longest is sent away, to come again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Nobody who kept us waiting for less gives way: a round trip through the worst of networks and some.
const GRACE: Duration = Duration::from_secs(1);

/// All bodies that are being read.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    all: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    readers: BTreeMap<u64, Reader>,
}

#[derive(Debug)]
struct Reader {
    /// How long its bytes were waited for, but for the wait that lasts.
    waited: Duration,
    waits_since: Option<Instant>,
    gives_way: Arc<Notify>,
}

/// One body while it is being read.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    readers: &'a Readers,
    number: u64,
    gives_way: Arc<Notify>,
}

impl Readers {
    pub(crate) fn enter(&self) -> Reading<'_> {
        let mut all = self.lock();
        let number = all.next;
        all.next += 1;
        let gives_way = Arc::new(Notify::new());
        let reader = Reader {
            waited: Duration::ZERO,
            waits_since: None,
            gives_way: gives_way.clone(),
        };
        all.readers.insert(number, reader);
        Reading {
            readers: self,
            number,
            gives_way,
        }
    }

    /// Sends the slowest away, if anybody is slow.
    pub(super) fn make_way(&self, now: Instant) {
        let mut all = self.lock();
        let slowest = all
            .readers
            .iter()
            .map(|(number, reader)| (reader.waited_at(now), *number))
            .max();
        if let Some((_, number)) = slowest.filter(|(waited, _)| *waited >= GRACE)
            && let Some(reader) = all.readers.remove(&number)
        {
            reader.gives_way.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each change is complete before anything can fail.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    fn waited_at(&self, now: Instant) -> Duration {
        let waits = self.waits_since.map(|since| now.saturating_duration_since(since));
        self.waited.saturating_add(waits.unwrap_or_default())
    }
}

impl Reading<'_> {
    /// Waits for the sender's next bytes; the time counts against it.
    pub(crate) async fn wait_for<T>(&self, bytes: impl Future<Output = T>) -> T {
        self.change(|reader| reader.waits_since = Some(Instant::now()));
        let result = bytes.await;
        self.change(|reader| {
            let waited = reader.waits_since.take().map(|since| since.elapsed());
            reader.waited = reader.waited.saturating_add(waited.unwrap_or_default());
        });
        result
    }

    /// Returns when it has to go.
    pub(crate) async fn given_way(&self) {
        self.gives_way.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut Reader)) {
        if let Some(reader) = self.readers.lock().readers.get_mut(&self.number) {
            change(reader);
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.readers.lock().readers.remove(&self.number);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_keeps_us_waiting_gives_way_the_slowest_first() {
        let readers = Readers::default();
        let (quick, slow, slower) = (readers.enter(), readers.enter(), readers.enter());
        quick.wait_for(async {}).await;
        let never = || std::future::pending::<()>();
        // Both begin to wait; what they wait for never comes.
        let mut waits = (Box::pin(slower.wait_for(never())), Box::pin(slow.wait_for(never())));
        assert!(futures::poll!(&mut waits.0).is_pending());
        readers.lock().readers.get_mut(&slower.number).unwrap().waited = Duration::from_millis(10);
        assert!(futures::poll!(&mut waits.1).is_pending());
        let gone = |reading: &Reading<'_>| !readers.lock().readers.contains_key(&reading.number);
        let begun = Instant::now();
        readers.make_way(begun);
        assert!(!gone(&slow) && !gone(&slower), "nobody is slow yet");
        readers.make_way(begun + GRACE * 2);
        assert_eq!((gone(&quick), gone(&slow), gone(&slower)), (false, false, true));
        slower.given_way().await;
        readers.make_way(begun + GRACE * 2);
        readers.make_way(begun + GRACE * 2);
        assert_eq!((gone(&quick), gone(&slow)), (false, true));
        drop(waits);
        drop((quick, slow, slower));
        assert!(readers.lock().readers.is_empty());
    }
}
