//! The plugin host: record batch in, record batch out, inside limits. The only crate that knows wasmtime.
//!
//! A [`Host`] loads components and makes [`Plugin`]s of them; a [`Chain`] runs a batch through plugins in order.
//! Nothing that a guest does can panic, block or grow the host beyond the [`Limits`] of its plugin.

mod abi;
mod answer;
mod breaker;
mod cache;
mod call;
pub mod capability;
mod chain;
mod clock;
mod columns;
mod compile;
mod component;
mod deadline;
mod engine;
mod event;
mod fault;
mod host;
mod host_state;
mod instance;
mod limits;
mod load;
mod log;
mod measure;
mod memory;
mod pattern;
mod plugin;
mod policy;
mod pool;
mod probe;
mod reasons;
mod shadow;
mod slices;
mod slot;
mod stats;
mod ticker;
mod types;
mod weights;

pub use abi::Description;
pub use call::{Call, Hints};
pub use capability::{Capability, DEFAULT_STATE_BYTES, Grants, TableSource, UnknownCapability};
pub use chain::{Chain, ChainOutcome, Refused};
pub use compile::{
    COMPILE_COMMAND, Compiler, DEFAULT_COMPILER_BYTES, DEFAULT_COMPILER_TIME, called_as_compiler, compile_command,
};
pub use component::{ComponentError, ComponentInfo, ContractVersion, inspect};
pub use engine::EngineError;
pub use event::{ChainEvent, What};
pub use fault::Fault;
pub use host::{Host, HostError, HostOptions};
pub use limits::{LimitError, Limits, MAX_COMPONENT_BYTES, MAX_MEMORY_BYTES, MAX_STACK_BYTES, MIN_MEMORY_BYTES};
pub use load::{LoadError, PluginConfig};
pub use measure::{Cost, measure};
pub use plugin::Plugin;
pub use policy::{Kind, OnFault};
pub use reasons::{MAX_REASON_BYTES, MAX_REASONS, OTHER, Reasons};
pub use shadow::{Shadow, ShadowReport};
pub use slot::{Candidate, Edition, PROBATION_BATCHES, PROBATION_FAULTS, Place, Slot};
pub use stats::{PluginStats, Standing};

/// Locks whatever happened to an earlier holder: every guarded value here is valid between any two statements.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
