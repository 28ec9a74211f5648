//! Loads plugins. One per process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use crate::compile::Compiler;
use crate::engine::{Compiled, ComponentError, Engine, EngineError};
use crate::limits::Limits;
use crate::lock;
use crate::plugin::{LoadError, Plugin, PluginConfig};

/// What all plugins of a host share. What a single one may use stands in its own [`Limits`].
#[derive(Clone, Debug)]
pub struct HostOptions {
    pub compiler: Compiler,
    /// Folder of what was compiled before; nothing is kept without it.
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

/// What was compiled and is still in use: by size of stack and by the hash of the component.
type Cache = BTreeMap<(usize, [u8; 32]), Weak<Compiled>>;

#[derive(Debug)]
pub struct Host {
    /// By size of stack, which is a property of an engine.
    engines: Mutex<BTreeMap<usize, Arc<Engine>>>,
    cache: Mutex<Cache>,
}

impl Host {
    pub fn new(_options: HostOptions) -> Result<Host, HostError> {
        let stack_bytes = Limits::default().stack_bytes;
        let engine = Arc::new(Engine::new(stack_bytes)?);
        Ok(Host {
            engines: Mutex::new(BTreeMap::from([(stack_bytes, engine)])),
            cache: Mutex::new(Cache::new()),
        })
    }

    /// Compiles a component, unless a plugin in use was made of the same one, starts an instance and gives it its
    /// configuration. Takes up to seconds; blocks.
    pub fn load(&self, config: PluginConfig) -> Result<Arc<Plugin>, LoadError> {
        if let Some(what) = config.limits.fault() {
            let plugin = config.name;
            return Err(LoadError::Limits { plugin, what });
        }
        let engine = self
            .engine(config.limits.stack_bytes)
            .map_err(|source| LoadError::Engine {
                plugin: config.name.clone(),
                source,
            })?;
        let compiled = self.compile(&engine, &config).map_err(|source| LoadError::Component {
            plugin: config.name.clone(),
            source,
        })?;
        Plugin::load(engine, compiled, config).map(Arc::new)
    }

    fn engine(&self, stack_bytes: usize) -> Result<Arc<Engine>, EngineError> {
        let mut engines = lock(&self.engines);
        if let Some(engine) = engines.get(&stack_bytes) {
            return Ok(engine.clone());
        }
        let engine = Arc::new(Engine::new(stack_bytes)?);
        engines.insert(stack_bytes, engine.clone());
        Ok(engine)
    }

    fn compile(&self, engine: &Engine, config: &PluginConfig) -> Result<Arc<Compiled>, ComponentError> {
        let hash = *blake3::hash(&config.component).as_bytes();
        let key = (config.limits.stack_bytes, hash);
        if let Some(compiled) = lock(&self.cache).get(&key).and_then(Weak::upgrade) {
            return Ok(compiled);
        }
        let compiled = Arc::new(engine.compile(&config.component)?);
        let mut cache = lock(&self.cache);
        cache.retain(|_, compiled| compiled.strong_count() > 0);
        cache.insert(key, Arc::downgrade(&compiled));
        Ok(compiled)
    }
}
