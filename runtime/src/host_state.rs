//! What one instance has of the host while it runs.

use std::sync::Arc;
use std::time::SystemTime;

use arrow_array::{ArrayRef, RecordBatch};

use crate::capability::clock::CallClock;
use crate::capability::lookup::GrantedTables;
use crate::capability::matcher::PatternSets;
use crate::capability::random::Random;
use crate::capability::state::{StateSpace, States};
use crate::capability::{Capability, Grants};
use crate::deadline::Deadline;
use crate::log::{Level, LogSink};
use crate::memory::MemoryLimiter;

/// What all instances of one plugin share of the host.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The plugin's name in its chain, under which its state is kept.
    pub(crate) plugin: String,
    pub(crate) grants: Grants,
    pub(crate) log: Arc<LogSink>,
    pub(crate) states: Arc<States>,
    pub(crate) tables: GrantedTables,
}

/// The call at hand, as far as host calls need to know it.
#[derive(Debug)]
pub(crate) struct Now<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) now_ns: u64,
    /// The columns that the guest was given.
    pub(crate) batch: &'a RecordBatch,
}

/// The data of a store.
#[derive(Debug)]
pub(crate) struct HostState {
    pub(crate) memory: MemoryLimiter,
    pub(crate) deadline: Deadline,
    shared: Arc<Shared>,
    clock: CallClock,
    space: Option<Arc<StateSpace>>,
    batch: Option<RecordBatch>,
    random: Option<Random>,
    patterns: PatternSets,
}

/// A host call was still at work when the time of its guest was over.
#[derive(Debug, thiserror::Error)]
#[error("the time is over")]
pub(crate) struct OutOfTime;

impl HostState {
    pub(crate) fn new(memory: MemoryLimiter, deadline: Deadline, shared: Arc<Shared>) -> HostState {
        HostState {
            memory,
            deadline,
            shared,
            clock: CallClock::at(0),
            space: None,
            batch: None,
            random: None,
            patterns: PatternSets::default(),
        }
    }

    /// From here on calls belong to this batch and its tenant; without one to `describe` or `init`.
    pub(crate) fn begin(&mut self, now: Option<Now<'_>>) {
        let Some(now) = now else {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            self.clock = CallClock::at(since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)));
            (self.space, self.batch) = (None, None);
            return;
        };
        let shared = &self.shared;
        self.clock = CallClock::at(now.now_ns);
        let wanted = shared.grants.capabilities.contains(&Capability::State);
        self.space = wanted.then(|| {
            shared
                .states
                .space(&shared.plugin, now.tenant, shared.grants.state_bytes)
        });
        self.batch = Some(now.batch.clone());
    }

    /// Lets go of the batch and of what belongs to its tenant.
    pub(crate) fn end(&mut self) {
        (self.space, self.batch) = (None, None);
    }

    pub(crate) fn write_log(&self, level: Level, line: &str) {
        self.shared.log.write(level, line);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn random(&mut self) -> wasmtime::Result<&mut Random> {
        if self.random.is_none() {
            self.random = Some(Random::from_system().map_err(wasmtime::Error::msg)?);
        }
        self.random
            .as_mut()
            .ok_or_else(|| wasmtime::Error::msg("no randomness"))
    }

    pub(crate) fn space(&self) -> Option<Arc<StateSpace>> {
        self.space.clone()
    }

    pub(crate) fn granted_tables(&self) -> &GrantedTables {
        &self.shared.tables
    }

    /// The sets of this instance, and the time that searches may take.
    pub(crate) fn pattern_sets(&mut self) -> (&mut PatternSets, &Deadline) {
        (&mut self.patterns, &self.deadline)
    }

    /// A column of the batch at hand, of those that the guest was given.
    pub(crate) fn column(&self, name: &str) -> Result<ArrayRef, String> {
        let batch = self.batch.as_ref().ok_or("there is no batch outside of `process`")?;
        let column = batch.column_by_name(name).cloned();
        column.ok_or_else(|| {
            format!("this batch has no column `{name}`, or the plugin does not declare that it reads it")
        })
    }

    /// Bytes that one host call may give to the guest: more than its whole memory can never arrive.
    pub(crate) fn most_to_guest(&self) -> usize {
        self.memory.limit()
    }

    /// Host calls count against the time of their guest.
    pub(crate) fn look_at_the_time(&self) -> Result<(), OutOfTime> {
        if self.deadline.passed() { Err(OutOfTime) } else { Ok(()) }
    }
}
