//! wasmtime, narrowed to what a plugin host needs: compile a component, start it inside limits, call it.
//! Nothing else in this crate configures the engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, EngineWeak, OptLevel, Store, Strategy, Trap, UpdateDeadline};

use crate::abi::{Context, Deadline, Description, HostState, MemoryLimiter, Outcome, Transform, TransformPre};
use crate::fault::Fault;
use crate::limits::{Limits, MAX_COMPONENT_BYTES};
use crate::log::LogSink;

/// How often a running guest looks whether its time is over.
const TICK: Duration = Duration::from_millis(5);
/// Ticks without a call after which the ticker sleeps until the next one.
const IDLE_TICKS: u32 = 40;
/// Prefix of everything that a component may import.
const OURS: &str = "sluice:plugin/";
/// The interfaces there are.
const OFFERED: [&str; 2] = ["log", "types"];
/// Bytes that `describe` and `init` may give back.
const MAX_TEXT: usize = 256 * 1024;
/// Time for `init`: it may build tables from its configuration.
pub(crate) const INIT_DEADLINE: Duration = Duration::from_millis(500);

/// Why a component cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error("{bytes} bytes; at most {MAX_COMPONENT_BYTES} are read")]
    TooLarge { bytes: usize },
    #[error("not a component that this host can compile: {0}")]
    Malformed(String),
    #[error("imports `{0}`; only `{OURS}...` is there for plugins")]
    Forbidden(String),
    #[error("imports `{0}`, which this host does not offer")]
    Missing(String),
    #[error("does not fit `{OURS}transform`: {0}")]
    World(String),
}

/// Only what this host offers, by name; versions are matched by the linker.
fn check_import(name: &str) -> Result<(), ComponentError> {
    let Some(interface) = name.strip_prefix(OURS) else {
        return Err(ComponentError::Forbidden(name.to_owned()));
    };
    let interface = interface.split_once('@').map_or(interface, |(name, _)| name);
    if OFFERED.contains(&interface) {
        Ok(())
    } else {
        Err(ComponentError::Missing(name.to_owned()))
    }
}

/// The same for those who compile and those who run; only the size of the stack is a matter of running alone.
fn configuration(stack_bytes: usize) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(stack_bytes)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false);
    config
}

/// Machine code for a component, as bytes. The error says what is wrong with the component.
pub(crate) fn precompile(component: &[u8]) -> Result<Vec<u8>, String> {
    let engine = wasmtime::Engine::new(&configuration(Limits::default().stack_bytes)).map_err(|e| text(&e))?;
    catch_unwind(AssertUnwindSafe(|| engine.precompile_component(component)))
        .map_err(|_| "the compiler gave up".to_owned())?
        .map_err(|e| text(&e))
}

/// One compiler and its tick. All instances of an engine share the size of the stack.
#[derive(Debug)]
pub(crate) struct Engine {
    engine: wasmtime::Engine,
    stack_bytes: usize,
    ticker: Ticker,
}

impl Engine {
    pub(crate) fn new(stack_bytes: usize) -> Result<Engine, EngineError> {
        let engine = wasmtime::Engine::new(&configuration(stack_bytes)).map_err(|e| EngineError(text(&e)))?;
        let ticker = Ticker::start(engine.weak()).map_err(|e| EngineError(e.to_string()))?;
        Ok(Engine {
            engine,
            stack_bytes,
            ticker,
        })
    }

    /// Compiles a component after looking at what it imports.
    pub(crate) fn compile(&self, bytes: &[u8]) -> Result<Compiled, ComponentError> {
        if bytes.len() > MAX_COMPONENT_BYTES {
            return Err(ComponentError::TooLarge { bytes: bytes.len() });
        }
        // A compiler is a large program fed with a stranger's bytes: a panic of it is an answer about those bytes.
        let component = catch_unwind(AssertUnwindSafe(|| Component::from_binary(&self.engine, bytes)))
            .map_err(|_| ComponentError::Malformed("the compiler gave up".to_owned()))?
            .map_err(|e| ComponentError::Malformed(text(&e)))?;
        for (name, _) in component.component_type().imports(&self.engine) {
            check_import(name)?;
        }
        let world = |e: wasmtime::Error| ComponentError::World(text(&e));
        let mut linker: Linker<HostState> = Linker::new(&self.engine);
        Transform::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(world)?;
        let pre = linker.instantiate_pre(&component).map_err(world)?;
        Ok(Compiled(TransformPre::new(pre).map_err(world)?))
    }

    /// A fresh instance, not yet initialised.
    pub(crate) fn instantiate(
        &self,
        compiled: &Compiled,
        limits: &Limits,
        log: &Arc<LogSink>,
    ) -> Result<Instance, Fault> {
        let state = HostState {
            memory: MemoryLimiter::new(limits.memory_bytes),
            deadline: Deadline::start(INIT_DEADLINE),
            log: log.clone(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.memory);
        store.epoch_deadline_callback(|context| {
            Ok(if context.data().deadline.passed() {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::Continue(1)
            })
        });
        store.set_hostcall_fuel(limits.max_output_bytes);
        store.set_epoch_deadline(1);
        let running = self.ticker.running();
        let transform = compiled.0.instantiate(&mut store);
        drop(running);
        match transform {
            Ok(transform) => Ok(Instance {
                store,
                transform,
                ticker: self.ticker.shared.clone(),
                stack_bytes: self.stack_bytes,
                calls: 0,
            }),
            Err(e) => Err(Fault::Start(text(&e))),
        }
    }
}

/// The engine cannot run on this machine.
#[derive(Debug, thiserror::Error)]
#[error("the plugin engine cannot start: {0}")]
pub struct EngineError(String);

/// A compiled component whose imports are satisfied.
pub(crate) struct Compiled(TransformPre<HostState>);

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compiled")
    }
}

/// One instance with its memory. After a fault it must be dropped.
pub(crate) struct Instance {
    store: Store<HostState>,
    transform: Transform,
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

impl Instance {
    /// Calls of `process` so far.
    pub(crate) fn calls(&self) -> u32 {
        self.calls
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().memory.used()
    }

    pub(crate) fn describe(&mut self) -> Result<Description, Fault> {
        let running = self.begin(INIT_DEADLINE, MAX_TEXT);
        let answer = self.transform.call_describe(&mut self.store);
        drop(running);
        answer.map_err(|e| self.fault(&e, MAX_TEXT))
    }

    pub(crate) fn init(&mut self, config: &str) -> Result<(), Fault> {
        let running = self.begin(INIT_DEADLINE, MAX_TEXT);
        let answer = self.transform.call_init(&mut self.store, config);
        drop(running);
        answer.map_err(|e| self.fault(&e, MAX_TEXT))?.map_err(Fault::Failed)
    }

    pub(crate) fn process(
        &mut self,
        batch: &[u8],
        context: Context,
        budget: Duration,
        max_output: usize,
    ) -> Result<Outcome, Fault> {
        let running = self.begin(budget, max_output);
        self.calls = self.calls.saturating_add(1);
        let answer = self.transform.call_process(&mut self.store, batch, context);
        drop(running);
        answer.map_err(|e| self.fault(&e, max_output))?.map_err(Fault::Failed)
    }

    fn begin(&mut self, budget: Duration, max_transfer: usize) -> Running {
        self.store.data_mut().deadline = Deadline::start(budget);
        self.store.set_hostcall_fuel(max_transfer);
        self.store.set_epoch_deadline(1);
        Running::new(&self.ticker)
    }

    /// Names what ended a call.
    fn fault(&self, error: &wasmtime::Error, max_output: usize) -> Fault {
        let state = self.store.data();
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Fault::Deadline(state.deadline.budget()),
            Some(Trap::StackOverflow) => Fault::Stack(self.stack_bytes),
            Some(_) if state.memory.denied() => Fault::Memory(state.memory.used()),
            Some(trap) => Fault::Trap(trap.to_string()),
            // The engine has no type for this error, only its text.
            None if text(error).contains("too much data is being copied") => Fault::Output(max_output),
            None => Fault::Trap(text(error)),
        }
    }
}

/// The cause without a backtrace of the guest, which can be long.
fn text(error: &wasmtime::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !cause.starts_with("error while executing at wasm backtrace") && !parts.iter().any(|p| p.contains(&cause)) {
            parts.push(cause);
        }
    }
    let mut text: String = parts.join(": ").chars().take(400).collect();
    if text.is_empty() {
        text = error.to_string().chars().take(400).collect();
    }
    text
}

/// Raises the engine's epoch while guests run, and sleeps otherwise: an idle node does not wake up for it.
#[derive(Debug)]
struct Ticker {
    shared: Arc<TickerState>,
    handle: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct TickerState {
    /// Calls that run now.
    running: AtomicU64,
    /// Calls that ever began.
    begun: AtomicU64,
    asleep: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
}

impl TickerState {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// Stands for a call in progress: while there is one, the epoch goes on.
struct Running(Arc<TickerState>);

impl Running {
    fn new(ticker: &Arc<TickerState>) -> Running {
        ticker.running.fetch_add(1, Ordering::SeqCst);
        ticker.begun.fetch_add(1, Ordering::SeqCst);
        if ticker.asleep.load(Ordering::SeqCst) {
            ticker.wake();
        }
        Running(ticker.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ticker {
    fn start(engine: EngineWeak) -> std::io::Result<Ticker> {
        let shared = Arc::new(TickerState::default());
        let state = shared.clone();
        let handle = std::thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .spawn(move || tick(&engine, &state))?;
        // Set before any call can begin, so a sleeping ticker is always woken.
        let _ = shared.thread.set(handle.thread().clone());
        Ok(Ticker {
            shared,
            handle: Some(handle),
        })
    }

    fn running(&self) -> Running {
        Running::new(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
        if let Some(handle) = self.handle.take() {
            // It holds nothing but the engine's weak handle; a panic of it has nothing to tell.
            let _ = handle.join();
        }
    }
}

fn tick(engine: &EngineWeak, state: &TickerState) {
    let mut seen = 0;
    let mut idle = 0;
    while !state.stop.load(Ordering::SeqCst) {
        std::thread::park_timeout(TICK);
        let Some(engine) = engine.upgrade() else {
            return;
        };
        engine.increment_epoch();
        drop(engine);
        let begun = state.begun.load(Ordering::SeqCst);
        let busy = begun != seen || state.running.load(Ordering::SeqCst) > 0;
        idle = if busy { 0 } else { idle + 1 };
        seen = begun;
        if idle >= IDLE_TICKS {
            state.asleep.store(true, Ordering::SeqCst);
            // A call that began before the store above is seen here; one that begins later unparks.
            if state.begun.load(Ordering::SeqCst) == seen && !state.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            state.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        }
    }
}
