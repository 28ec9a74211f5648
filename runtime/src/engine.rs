//! wasmtime, narrowed to what a plugin host needs: machine code for a component, and instances of it inside limits.
//! Nothing else in this crate configures the engine.

use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use wasmtime::component::Component;
use wasmtime::{Config, OptLevel, Store, Strategy, UpdateDeadline};

use crate::abi::Prepared;
use crate::capability::Grants;
use crate::component::{ComponentError, ComponentInfo, check_grants};
use crate::deadline::Deadline;
use crate::fault::{Fault, cause};
use crate::host_state::{HostState, Shared};
use crate::instance::{INIT_DEADLINE, Instance};
use crate::limits::Limits;
use crate::memory::MemoryLimiter;
use crate::ticker::{Running, Ticker};

/// The engine cannot run on this machine.
#[derive(Debug, thiserror::Error)]
#[error("the plugin engine cannot start: {0}")]
pub struct EngineError(String);

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
    let engine = wasmtime::Engine::new(&configuration(Limits::default().stack_bytes)).map_err(|e| cause(&e))?;
    catch_unwind(AssertUnwindSafe(|| engine.precompile_component(component)))
        .map_err(|_| "the compiler gave up".to_owned())?
        .map_err(|e| cause(&e))
}

/// What runs machine code, and its beat. All instances of an engine share the size of the stack.
#[derive(Debug)]
pub(crate) struct Engine {
    engine: wasmtime::Engine,
    stack_bytes: usize,
    ticker: Ticker,
}

impl Engine {
    pub(crate) fn new(stack_bytes: usize) -> Result<Engine, EngineError> {
        let engine = wasmtime::Engine::new(&configuration(stack_bytes)).map_err(|e| EngineError(cause(&e)))?;
        let ticker = Ticker::start(engine.weak()).map_err(|e| EngineError(e.to_string()))?;
        Ok(Engine {
            engine,
            stack_bytes,
            ticker,
        })
    }

    pub(crate) fn stack_bytes(&self) -> usize {
        self.stack_bytes
    }

    /// Tells machine code apart that this engine cannot run: another version of the engine, other settings, another processor.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Fingerprint(blake3::Hasher::new_derive_key("sluice plugin engine fingerprint 1"));
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        *hasher.0.finalize().as_bytes()
    }

    /// Machine code that [`precompile`] made, in this process' own memory by now.
    ///
    /// The bytes must come straight from the compiler or have passed the check of the cache: whoever can choose them chooses what
    /// this process does.
    pub(crate) fn load(&self, image: &[u8], info: ComponentInfo) -> Result<Compiled, ComponentError> {
        #[expect(
            unsafe_code,
            reason = "machine code is run as it is; it comes from our own compiler or passed the cache's MAC"
        )]
        let component = unsafe { Component::deserialize(&self.engine, image) };
        let component = component.map_err(|e| ComponentError::Compiler(cause(&e)))?;
        Ok(Compiled { component, info })
    }

    /// Satisfies the imports of a component with what is granted.
    pub(crate) fn prepare(&self, compiled: &Compiled, grants: &Grants) -> Result<Prepared, ComponentError> {
        check_grants(&compiled.info, grants)?;
        Prepared::new(&self.engine, &compiled.component, compiled.info.contract, grants)
            .map_err(|e| ComponentError::World(cause(&e)))
    }

    /// A fresh instance, not yet initialised.
    pub(crate) fn instantiate(
        &self,
        prepared: &Prepared,
        limits: &Limits,
        shared: &Arc<Shared>,
    ) -> Result<Instance, Fault> {
        let memory = MemoryLimiter::new(limits.memory_bytes);
        let mut state = HostState::new(memory, Deadline::start(INIT_DEADLINE), shared.clone());
        state.begin(None);
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
        let running = Running::new(self.ticker.state());
        let guest = prepared.instantiate(&mut store);
        drop(running);
        match guest {
            Ok(guest) => Ok(Instance::new(
                store,
                guest,
                self.ticker.state().clone(),
                self.stack_bytes,
            )),
            Err(e) => Err(Fault::Start(cause(&e))),
        }
    }
}

/// Machine code of a component that this process can run.
pub(crate) struct Compiled {
    component: Component,
    info: ComponentInfo,
}

impl Compiled {
    pub(crate) fn info(&self) -> &ComponentInfo {
        &self.info
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// Collects what the engine hashes, with a hash that is the same in every process.
struct Fingerprint(blake3::Hasher);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Nobody asks: the whole hash is taken instead.
    fn finish(&self) -> u64 {
        0
    }
}
