//! Processes by name: started, killed, started again at the addresses that they had before.

use std::collections::BTreeMap;
use std::fmt::Display;

use anyhow::{Context, Result};

use crate::process::{Process, Start, StartError};

/// Dropping it ends all of them.
#[derive(Debug)]
pub struct Processes<W> {
    starts: BTreeMap<W, Start>,
    running: BTreeMap<W, Process>,
}

impl<W: Copy + Ord + Display> Processes<W> {
    pub(crate) fn new() -> Processes<W> {
        Processes {
            starts: BTreeMap::new(),
            running: BTreeMap::new(),
        }
    }

    /// The first start of `who`; later ones use the same addresses.
    pub(crate) async fn add(&mut self, who: W, start: Start) -> Result<&Process> {
        let process = start.spawn().await;
        let process = process.with_context(|| format!("{who} does not start"))?;
        self.starts.insert(who, start.listen_as(&process));
        self.running.insert(who, process);
        self.process(who)
    }

    pub fn names(&self) -> impl Iterator<Item = W> + use<'_, W> {
        self.starts.keys().copied()
    }

    pub fn process(&self, who: W) -> Result<&Process> {
        let process = self.running.get(&who);
        process.with_context(|| format!("{who} is not running"))
    }

    pub(crate) fn process_mut(&mut self, who: W) -> Result<&mut Process> {
        let process = self.running.get_mut(&who);
        process.with_context(|| format!("{who} is not running"))
    }

    /// SIGKILL.
    pub fn kill(&mut self, who: W) -> Result<()> {
        let process = self.running.remove(&who);
        Ok(process.with_context(|| format!("{who} is not running"))?.kill()?)
    }

    /// At the addresses that it had before.
    pub async fn start(&mut self, who: W) -> Result<()> {
        let started = self.start_with(who, None).await;
        started.with_context(|| format!("{who} does not start again"))
    }

    /// The same; it ends by itself at the n-th passage of a point.
    pub(crate) async fn start_with(&mut self, who: W, crash_at: Option<String>) -> Result<(), StartError> {
        // Dropping the handle ends what runs.
        self.running.remove(&who);
        let mut start = self.starts[&who].clone();
        if let Some(value) = crash_at {
            start = start.environment("SLUICE_CRASH_AT", &value);
        }
        self.running.insert(who, start.spawn().await?);
        Ok(())
    }

    /// Those that have ended by themselves, each with the last lines that it wrote.
    pub fn ended(&mut self) -> Vec<(W, String)> {
        let mut ended = Vec::new();
        for (who, process) in &mut self.running {
            if !process.is_alive() {
                ended.push((*who, process.log_tail()));
            }
        }
        ended
    }

    /// SIGTERM for all of them, in this order, each with so much time.
    pub async fn stop(&mut self, order: impl IntoIterator<Item = W>, limit: std::time::Duration) -> Result<()> {
        for who in order {
            if let Some(process) = self.running.remove(&who) {
                let status = process.terminate(limit).await?;
                status.with_context(|| format!("{who} did not end within {} s of SIGTERM", limit.as_secs()))?;
            }
        }
        Ok(())
    }
}
