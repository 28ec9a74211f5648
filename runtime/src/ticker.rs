//! The beat by which a running guest notices that its time is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::EngineWeak;

/// How often a running guest looks whether its time is over.
const TICK: Duration = Duration::from_millis(5);
/// Ticks without a call after which the ticker sleeps until the next one.
const IDLE_TICKS: u32 = 40;

/// Raises the engine's epoch while guests run, and sleeps otherwise: an idle node does not wake up for it.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<TickerState>,
    handle: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
pub(crate) struct TickerState {
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
pub(crate) struct Running(Arc<TickerState>);

impl Running {
    pub(crate) fn new(ticker: &Arc<TickerState>) -> Running {
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
    pub(crate) fn start(engine: EngineWeak) -> std::io::Result<Ticker> {
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

    /// For those that run under this beat.
    pub(crate) fn state(&self) -> &Arc<TickerState> {
        &self.shared
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
