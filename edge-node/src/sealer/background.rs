//! A thread that gives way to all others. Whoever sends events waits for an answer, while what was accepted has a second to be sealed: on
//! a machine with few processors, packing a batch must not stand in the way of those who wait.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;

use super::blocking;

/// How far it gives way: a quarter of the share that another thread has, when all processors are busy.
#[cfg(target_os = "linux")]
const NICE: i32 = 6;
/// Jobs that wait; the sealer has one at a time.
const JOBS: usize = 1;

type Job = Box<dyn FnOnce() + Send>;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    jobs: Option<SyncSender<Job>>,
}

impl Background {
    pub(crate) fn start() -> Self {
        let (jobs, waiting) = sync_channel(JOBS);
        let thread = std::thread::Builder::new().name("sluice-sealer".to_owned());
        match thread.spawn(move || work(&waiting)) {
            Ok(_) => Background { jobs: Some(jobs) },
            Err(error) => {
                tracing::warn!(%error, "no thread for sealing, which shares those of requests");
                Background { jobs: None }
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
        if let Err(error) = jobs.try_send(Box::new(job)) {
            use std::sync::mpsc::TrySendError::{Disconnected, Full};
            let (Full(job) | Disconnected(job)) = error;
            blocking(job).await;
        }
        match made.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            // The thread is gone, and with it the process.
            Err(_) => std::future::pending().await,
        }
    }
}

fn work(jobs: &Receiver<Job>) {
    // On Linux this is a matter of the thread; elsewhere it would be one of the process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "sealing does not give way to requests");
    }
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
        let background = Background::start();
        let name = || std::thread::current().name().map(str::to_owned);
        for _ in 0..3 {
            assert_eq!(background.run(name).await.as_deref(), Some("sluice-sealer"));
        }
        let background = std::sync::Arc::new(background);
        let failing = background.clone();
        let failed = tokio::spawn(async move { failing.run(|| panic!("as it should")).await }).await;
        assert!(failed.unwrap_err().is_panic());
        assert_eq!(background.run(name).await.as_deref(), Some("sluice-sealer"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn only_this_thread_gives_way() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let own = nice();
        let background = Background::start();
        assert_eq!(background.run(nice).await, (own + NICE).min(19));
        assert_eq!(nice(), own);
    }
}
