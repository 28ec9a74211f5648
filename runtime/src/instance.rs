//! One instance of a guest: its calls, each with a budget, and what ended them.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Store, Trap};

use crate::abi::{Context, Description, Guest, Outcome};
use crate::deadline::Deadline;
use crate::fault::{Fault, cause};
use crate::host_state::{HostState, Now, OutOfTime};
use crate::pool::Wear;
use crate::ticker::{Running, TickerState};

/// Time for `describe` and for `init`: it may build tables from its configuration.
pub(crate) const INIT_DEADLINE: Duration = Duration::from_millis(500);
/// Bytes that `describe` and `init` may give the host at once.
const MAX_TEXT: usize = 256 * 1024;
/// Bytes that a guest may always hand over in one host call, however small its batch: the largest value of `state` four times.
const MIN_TRANSFER: usize = 256 * 1024;

/// One instance with its memory. After a fault it must be dropped.
pub(crate) struct Instance {
    store: Store<HostState>,
    guest: Guest,
    ticker: Arc<TickerState>,
    stack_bytes: usize,
    calls: u32,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("calls", &self.calls)
            .field("memory", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}

impl Wear for Instance {
    fn calls(&self) -> u32 {
        self.calls
    }

    fn memory_bytes(&self) -> usize {
        self.store.data().memory.used()
    }
}

impl Instance {
    pub(crate) fn new(store: Store<HostState>, guest: Guest, ticker: Arc<TickerState>, stack_bytes: usize) -> Instance {
        Instance {
            store,
            guest,
            ticker,
            stack_bytes,
            calls: 0,
        }
    }

    pub(crate) fn describe(&mut self) -> Result<Description, Fault> {
        let running = self.begin(INIT_DEADLINE, MAX_TEXT, None, None);
        let answer = self.guest.describe(&mut self.store);
        drop(running);
        answer.map_err(|e| self.fault(&e, MAX_TEXT))
    }

    pub(crate) fn init(&mut self, config: &str) -> Result<(), Fault> {
        let running = self.begin(INIT_DEADLINE, MAX_TEXT, None, None);
        let answer = self.guest.init(&mut self.store, config);
        drop(running);
        answer.map_err(|e| self.fault(&e, MAX_TEXT))?.map_err(Fault::Failed)
    }

    /// `input` is the declared columns of `now.batch`, encoded.
    pub(crate) fn process(&mut self, input: &[u8], context: &Context, now: Now<'_>) -> Result<Outcome, Fault> {
        let max_output = context.max_output;
        let running = self.begin(
            context.deadline,
            max_output.max(MIN_TRANSFER),
            Some(context.max_memory),
            Some(now),
        );
        self.calls = self.calls.saturating_add(1);
        let answer = self.guest.process(&mut self.store, input, context);
        drop(running);
        self.store.data_mut().end();
        let outcome = answer.map_err(|e| self.fault(&e, max_output))?.map_err(Fault::Failed)?;
        if outcome.bytes() > max_output {
            return Err(Fault::Output(max_output));
        }
        Ok(outcome)
    }

    fn begin(
        &mut self,
        budget: Duration,
        max_transfer: usize,
        max_memory: Option<usize>,
        now: Option<Now<'_>>,
    ) -> Running {
        let state = self.store.data_mut();
        if let Some(max_memory) = max_memory {
            state.memory.set_limit(max_memory);
        }
        state.deadline = Deadline::start(budget);
        state.begin(now);
        self.store.set_hostcall_fuel(max_transfer);
        self.store.set_epoch_deadline(1);
        Running::new(&self.ticker)
    }

    /// Names what ended a call.
    fn fault(&self, error: &wasmtime::Error, max_output: usize) -> Fault {
        let state = self.store.data();
        if error.downcast_ref::<OutOfTime>().is_some() {
            return Fault::Deadline(state.deadline.budget());
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Fault::Deadline(state.deadline.budget()),
            Some(Trap::StackOverflow) => Fault::Stack(self.stack_bytes),
            Some(_) if state.memory.denied() => Fault::Memory(state.memory.used()),
            Some(trap) => Fault::Trap(trap.to_string()),
            // The engine has no type for this error, only its text.
            None if cause(error).contains("too much data is being copied") => Fault::Output(max_output),
            None => Fault::Trap(cause(error)),
        }
    }
}
