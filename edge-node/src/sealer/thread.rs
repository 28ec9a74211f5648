//! The thread on which batches are packed. It is always the same one: an allocator keeps what a thread gave back for that thread, and what
//! packing takes, several times a batch, would stay with each thread that ever packed one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;

use super::blocking;

/// Jobs that wait; the sealer has one at a time.
const JOBS: usize = 1;

type Job = Box<dyn FnOnce() + Send>;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct PackingThread {
    jobs: Option<SyncSender<Job>>,
}

impl PackingThread {
    pub(crate) fn start() -> Self {
        let (jobs, waiting) = sync_channel(JOBS);
        let thread = std::thread::Builder::new().name("sluice-sealer".to_owned());
        match thread.spawn(move || work(&waiting)) {
            Ok(_) => PackingThread { jobs: Some(jobs) },
            Err(error) => {
                tracing::warn!(%error, "no thread for packing, which shares those of requests");
                PackingThread { jobs: None }
            }
        }
    }

    /// Does this there. A panic goes on here.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Some(jobs) = &self.jobs else {
            return blocking(work).await;
        };
        let (done, made) = oneshot::channel();
        let job = move || drop(done.send(catch_unwind(AssertUnwindSafe(work))));
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = jobs.try_send(Box::new(job)) {
            blocking(job).await;
        }
        match made.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            // A sealer that waited for ever would be worse than one that ends, and the node with it.
            Err(_) => resume_unwind(Box::new("the thread that packs batches is gone")),
        }
    }
}

fn work(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_there_one_after_the_other_and_panics_come_back() {
        let thread = PackingThread::start();
        let name = || std::thread::current().name().map(str::to_owned);
        for _ in 0..3 {
            assert_eq!(thread.run(name).await.as_deref(), Some("sluice-sealer"));
        }
        let thread = std::sync::Arc::new(thread);
        let failing = thread.clone();
        let failed = tokio::spawn(async move { failing.run(|| panic!("as it should")).await }).await;
        assert!(failed.unwrap_err().is_panic());
        assert_eq!(thread.run(name).await.as_deref(), Some("sluice-sealer"));
    }

    #[tokio::test]
    async fn without_a_thread_work_is_done_all_the_same() {
        let none = PackingThread { jobs: None };
        assert_eq!(none.run(|| 7).await, 7);
        let (jobs, gone) = sync_channel(JOBS);
        drop(gone);
        let gone = PackingThread { jobs: Some(jobs) };
        assert_eq!(gone.run(|| 7).await, 7);
    }
}
