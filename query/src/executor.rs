//! The threads that compute answers, and nothing else: a query that never yields cannot hold up the doors or the writers.
//!
//! There are as many as the machine has cores, so that a query that is alone gets all of it; where doors, intake and writers want the same
//! core on Linux, they come first.

use std::fmt;
use std::future::Future;
use std::io;
use std::num::NonZero;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{AbortHandle, JoinHandle};

/// For planning the deepest query that `depth` lets through; only what is touched takes memory.
const STACK_BYTES: usize = 16 << 20;
/// Added to the niceness of the process: beside a thread that is always busy one of these gets a quarter of a core.
#[cfg(target_os = "linux")]
const STAND_BACK: i32 = 5;
#[cfg(target_os = "linux")]
const NICEST: i32 = 19;

/// A runtime of its own. Dropping it ends what still runs, without waiting.
pub(crate) struct Executor {
    runtime: Option<Runtime>,
    handle: Handle,
}

/// Ends a task when it is dropped: the client went, or the time is up.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(AbortHandle);

impl Executor {
    /// `threads` 0: as many as the machine has.
    pub(crate) fn start(threads: usize) -> io::Result<Executor> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get),
            n => n,
        };
        let stand_back = stand_back();
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("sluice-query")
            .on_thread_start(stand_back)
            .max_blocking_threads(64)
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Executor {
            runtime: Some(runtime),
            handle,
        })
    }

    /// How many threads compute.
    pub(crate) fn threads(&self) -> usize {
        self.handle.metrics().num_workers()
    }

    pub(crate) fn spawn<F>(&self, work: F) -> AbortOnDrop
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task: JoinHandle<()> = self.handle.spawn(work);
        AbortOnDrop(task.abort_handle())
    }
}

/// Lets others go first, which on Linux is a thread's own matter. A system that refuses gives queries an equal share.
#[cfg(target_os = "linux")]
fn stand_back() -> impl Fn() + Send + Sync + 'static {
    // Of who starts them all: a thread inherits that of the one which started it, and may have stood back already.
    let niceness = rustix::process::getpriority_process(None).map(|now| (now + STAND_BACK).min(NICEST));
    move || {
        let stood_back = niceness.and_then(|niceness| rustix::process::setpriority_process(None, niceness));
        if let Err(error) = stood_back {
            tracing::debug!(%error, "a thread that computes answers keeps its priority");
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn stand_back() -> impl Fn() + Send + Sync + 'static {
    || {}
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Executor")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_query_may_have_the_whole_machine_and_lets_others_go_first() {
        let executor = Executor::start(0).unwrap();
        assert_eq!(executor.threads(), std::thread::available_parallelism().unwrap().get());
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let (tell, told) = tokio::sync::oneshot::channel();
        let _working = executor.spawn(async move {
            let computing = niceness();
            let reading = tokio::task::spawn_blocking(niceness).await.unwrap();
            let _ = tell.send((computing, reading));
        });
        let stood_back = (niceness() + STAND_BACK).min(NICEST);
        assert_eq!(told.await.unwrap(), (stood_back, stood_back));
    }
}
