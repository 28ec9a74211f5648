//! The threads that compute answers, and nothing else: a query that never yields cannot hold up the doors or the writers.

use std::fmt;
use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{AbortHandle, JoinHandle};

/// For planning the deepest query that `depth` lets through; only what is touched takes memory.
const STACK_BYTES: usize = 16 << 20;

/// A runtime of its own. Dropping it ends what still runs, without waiting.
pub(crate) struct Executor {
    runtime: Option<Runtime>,
    handle: Handle,
}

/// Ends a task when it is dropped: the client went, or the time is up.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(AbortHandle);

impl Executor {
    /// `threads` 0: one less than the machine has, at least one.
    pub(crate) fn start(threads: usize) -> io::Result<Executor> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1).max(1)),
            n => n,
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("sluice-query")
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
