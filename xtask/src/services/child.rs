//! A process that we run: ended when its handle goes.

use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::keeper;

/// A process on a leash or in a keeper.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// What dropping the handle sends first. A leashed engine with throw-away data needs no farewell.
    farewell: Signal,
    patience: Duration,
}

impl Running {
    /// An engine: a single process.
    pub(super) fn engine(command: &Command, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut outer = keeper::leashed(command)?;
        prepare(&mut outer);
        Self::spawn(&mut outer, command, Signal::KILL, Duration::from_secs(5))
    }

    /// A tool or a developer's command, with whatever it starts.
    pub(super) fn tool(command: &Command, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut outer = keeper::kept(command)?;
        prepare(&mut outer);
        Self::spawn(&mut outer, command, Signal::TERM, 2 * keeper::GRACE + keeper::GRACE)
    }

    fn spawn(outer: &mut Command, inner: &Command, farewell: Signal, patience: Duration) -> Result<Self> {
        let child = outer
            .spawn()
            .with_context(|| format!("cannot run `{}`", inner.get_program().to_string_lossy()))?;
        Ok(Self {
            child,
            farewell,
            patience,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// From now on it is asked to end, and given this time for it.
    pub(super) fn be_gentle(&mut self, patience: Duration) {
        self.farewell = Signal::TERM;
        self.patience = patience;
    }

    pub(super) fn send(&self, signal: Signal) {
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // An error means that it has ended.
            let _ = kill_process(id, signal);
        }
    }

    pub(super) fn farewell(&mut self) {
        // Only what was not waited for yet still owns its number.
        if self.ended().is_none() {
            self.send(self.farewell);
        }
    }

    /// Without farewell.
    pub(super) fn kill(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Says farewell, waits, and kills what does not go.
    pub(super) fn stop(&mut self) {
        self.farewell();
        let begun = Instant::now();
        while self.ended().is_none() {
            if begun.elapsed() > self.patience {
                self.kill();
                return;
            }
            thread::sleep(keeper::TICK);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
