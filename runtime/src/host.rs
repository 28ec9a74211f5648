//! Loads plugins. One per process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use crate::abi::Description;
use crate::cache::{Cache, ImageName};
use crate::capability::lookup::{GrantedTables, Tables};
use crate::capability::state::States;
use crate::capability::{Capability, Grants};
use crate::compile::{self, Compiler};
use crate::component::{self, ComponentError, ComponentInfo};
use crate::engine::{Compiled, Engine, EngineError};
use crate::host_state::Shared;
use crate::limits::{Limits, MAX_CACHE_BYTES};
use crate::load::{self, LoadError, PluginConfig};
use crate::lock;
use crate::log::LogSink;
use crate::plugin::Plugin;

/// What all plugins of a host share. What a single one may use stands in its own [`Limits`] and [`Grants`].
#[derive(Clone, Debug)]
pub struct HostOptions {
    pub compiler: Compiler,
    /// Folder of what was compiled before (runtime/FORMAT.md); nothing is kept without it.
    pub cache: Option<PathBuf>,
}

impl Default for HostOptions {
    fn default() -> Self {
        HostOptions {
            compiler: Compiler::this_program(),
            cache: None,
        }
    }
}

/// The plugin engine does not run on this machine.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HostError(#[from] EngineError);

/// Steps in which stacks grow: sixteen up to the largest.
const STACK_STEP: usize = 64 * 1024;

#[derive(Debug)]
pub struct Host {
    compiler: Compiler,
    cache: Option<Cache>,
    /// By size of stack, which is a property of an engine.
    engines: Mutex<BTreeMap<usize, Arc<Engine>>>,
    /// What is compiled or being compiled, by the hash of the component.
    slots: Mutex<BTreeMap<[u8; 32], Arc<Slot>>>,
    /// Held while a compiler works: each may use a gigabyte, and an edge has little.
    compiling: Mutex<()>,
    states: Arc<States>,
    tables: Tables,
}

/// Machine code of one component that plugins in use were made of, by the size of the stack. Locked while it is made, so
/// that who needs it at the same time waits for it.
type Slot = Mutex<BTreeMap<usize, Weak<Compiled>>>;

impl Host {
    /// A cache that cannot be used costs time at each start and nothing else, so it is told in the log and done without.
    pub fn new(options: HostOptions) -> Result<Host, HostError> {
        let stack_bytes = Limits::default().stack_bytes;
        let engine = Arc::new(Engine::new(stack_bytes)?);
        let cache = options.cache.and_then(|folder| {
            Cache::open(&folder, MAX_CACHE_BYTES)
                .inspect_err(|error| {
                    tracing::warn!(folder = %folder.display(), %error, "no cache of compiled plugins");
                })
                .ok()
        });
        Ok(Host {
            compiler: options.compiler,
            cache,
            engines: Mutex::new(BTreeMap::from([(stack_bytes, engine)])),
            slots: Mutex::default(),
            compiling: Mutex::default(),
            states: Arc::default(),
            tables: Tables::default(),
        })
    }

    /// Compiles a component, unless it was compiled before, starts an instance and gives it its configuration. Takes up to
    /// minutes with a large component; blocks.
    pub fn load(&self, config: PluginConfig) -> Result<Arc<Plugin>, LoadError> {
        let plugin = config.name.clone();
        load::check(&config)?;
        let engine = self
            .engine(config.limits.stack_bytes)
            .map_err(|source| LoadError::Engine {
                plugin: plugin.clone(),
                source,
            })?;
        let wrong = |source| LoadError::Component {
            plugin: plugin.clone(),
            source,
        };
        let info = component::look(&config.component).map_err(wrong)?;
        component::check_grants(&info, &config.grants).map_err(wrong)?;
        let compiled = self.compiled(&engine, &config.component, info).map_err(wrong)?;
        let prepared = engine.prepare(&compiled, &config.grants).map_err(wrong)?;
        let tables = self.tables.grant(&config.grants.tables);
        let tables = tables.map_err(|source| LoadError::Table {
            plugin: plugin.clone(),
            source,
        })?;
        // What is granted and not used costs nothing.
        let mut grants = config.grants.clone();
        grants
            .capabilities
            .retain(|capability| compiled.info().capabilities.contains(capability));
        let shared = self.shared(&plugin, &config.limits, grants, tables);
        Plugin::load(engine, compiled, prepared, shared, config).map(Arc::new)
    }

    /// What a component says of itself. Runs its `describe` and nothing else, inside the limits of an interpreted guest and
    /// without anything of the node.
    pub fn describe(&self, component: &[u8]) -> Result<Description, LoadError> {
        let plugin = || "component".to_owned();
        let wrong = |source| LoadError::Component {
            plugin: plugin(),
            source,
        };
        let limits = Limits::interpreted();
        let engine = self.engine(limits.stack_bytes).map_err(|source| LoadError::Engine {
            plugin: plugin(),
            source,
        })?;
        let info = component::look(component).map_err(wrong)?;
        let grants = Grants {
            capabilities: Capability::ALL.into(),
            ..Grants::none()
        };
        let compiled = self.compiled(&engine, component, info).map_err(wrong)?;
        let prepared = engine.prepare(&compiled, &grants).map_err(wrong)?;
        let shared = self.shared("component", &limits, grants, GrantedTables::default());
        let start = |source| LoadError::Start {
            plugin: plugin(),
            source,
        };
        let mut instance = engine.instantiate(&prepared, &limits, &shared).map_err(start)?;
        let description = instance.describe().map_err(start)?;
        load::About::new(description.clone()).map_err(|what| LoadError::Description { plugin: plugin(), what })?;
        Ok(description)
    }

    fn shared(&self, plugin: &str, limits: &Limits, grants: Grants, tables: GrantedTables) -> Arc<Shared> {
        Arc::new(Shared {
            plugin: plugin.to_owned(),
            grants,
            log: Arc::new(LogSink::new(plugin, limits.log_bytes, limits.log_lines_per_second)),
            states: self.states.clone(),
            tables,
        })
    }

    /// Sizes are rounded up, as every engine has a beat of its own.
    fn engine(&self, stack_bytes: usize) -> Result<Arc<Engine>, EngineError> {
        let stack_bytes = stack_bytes.next_multiple_of(STACK_STEP);
        let mut engines = lock(&self.engines);
        if let Some(engine) = engines.get(&stack_bytes) {
            return Ok(engine.clone());
        }
        let engine = Arc::new(Engine::new(stack_bytes)?);
        engines.insert(stack_bytes, engine.clone());
        Ok(engine)
    }

    /// Of several that need the same component at the same time, one compiles it.
    fn compiled(
        &self,
        engine: &Engine,
        component: &[u8],
        info: ComponentInfo,
    ) -> Result<Arc<Compiled>, ComponentError> {
        let digest = *blake3::hash(component).as_bytes();
        let slot = {
            let mut slots = lock(&self.slots);
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || in_use(slot));
            slots.entry(digest).or_default().clone()
        };
        let mut slot = lock(&slot);
        if let Some(compiled) = slot.get(&engine.stack_bytes()).and_then(Weak::upgrade) {
            return Ok(compiled);
        }
        let compiled = Arc::new(self.machine_code(engine, component, &digest, info)?);
        slot.insert(engine.stack_bytes(), Arc::downgrade(&compiled));
        Ok(compiled)
    }

    fn machine_code(
        &self,
        engine: &Engine,
        component: &[u8],
        digest: &[u8; 32],
        info: ComponentInfo,
    ) -> Result<Compiled, ComponentError> {
        let name = ImageName::new(digest, &engine.fingerprint());
        if let Some(image) = self.cache.as_ref().and_then(|cache| cache.get(name)) {
            match engine.load(&image, info.clone()) {
                Ok(compiled) => return Ok(compiled),
                Err(error) => tracing::warn!(%error, "image of a plugin does not fit; it is compiled anew"),
            }
        }
        let image = {
            let _one_at_a_time = lock(&self.compiling);
            compile::compile(&self.compiler, component)?
        };
        let compiled = engine.load(&image, info)?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.put(name, &image)
        {
            tracing::warn!(%error, "image of a plugin cannot be kept");
        }
        Ok(compiled)
    }
}

/// Whether a plugin lives that was made of it. Nobody holds the lock when nobody else has the slot.
fn in_use(slot: &Slot) -> bool {
    lock(slot).values().any(|compiled| compiled.strong_count() > 0)
}
