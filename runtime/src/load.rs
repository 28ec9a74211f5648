//! What a plugin is made from, and everything that can be wrong with it before it sees a batch.

use sluice_wire::Signal;

use crate::abi::Description;
use crate::capability::Grants;
use crate::capability::lookup::TableError;
use crate::component::ComponentError;
use crate::engine::EngineError;
use crate::fault::Fault;
use crate::limits::{LimitError, Limits, MAX_STATE_BYTES, MIN_STATE_BYTES};
use crate::pattern::Patterns;
use crate::policy::OnFault;

/// Bytes of a plugin's name in its chain.
const MAX_NAME: usize = 64;

/// One entry of the chain, as configured.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// Its name in this chain; it appears in counts and in refusals, and its state is kept under it.
    pub name: String,
    pub component: Vec<u8>,
    pub config: serde_json::Value,
    pub limits: Limits,
    /// What becomes of rows when the plugin fails; a mask refuses them whatever stands here.
    pub on_fault: Option<OnFault>,
    pub enabled: bool,
    /// Signals that it is applied to; empty means all.
    pub signals: Vec<Signal>,
    /// What of the host it may use.
    pub grants: Grants,
}

/// Why a plugin cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("plugin `{plugin}`: {source}")]
    Component { plugin: String, source: ComponentError },
    #[error("plugin `{plugin}`: {source}")]
    Engine { plugin: String, source: EngineError },
    #[error("plugin `{plugin}`: limits: {source}")]
    Limits { plugin: String, source: LimitError },
    #[error("plugin `{plugin}`: {source}")]
    Table { plugin: String, source: TableError },
    #[error("plugin `{plugin}`: description: {what}")]
    Description { plugin: String, what: String },
    #[error("plugin `{plugin}` refuses its configuration: {what}")]
    Config { plugin: String, what: String },
    #[error("plugin `{plugin}`: {source}")]
    Start { plugin: String, source: Fault },
    #[error("a plugin's name must be 1 to {MAX_NAME} letters, digits, `_`, `.` or `-`: {name:?}")]
    Name { name: String },
}

/// What can be said without looking at the component.
pub(crate) fn check(config: &PluginConfig) -> Result<(), LoadError> {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let name = &config.name;
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(named) {
        return Err(LoadError::Name { name: name.clone() });
    }
    let state_bytes = config.grants.state_bytes;
    let state = if (MIN_STATE_BYTES..=MAX_STATE_BYTES).contains(&state_bytes) {
        Ok(())
    } else {
        Err(LimitError {
            name: "state_bytes",
            value: state_bytes as u64,
            min: MIN_STATE_BYTES as u64,
            max: MAX_STATE_BYTES as u64,
        })
    };
    config.limits.checked().and(state).map_err(|source| LoadError::Limits {
        plugin: name.clone(),
        source,
    })
}

/// What a component says of itself, found to be in order.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) description: Description,
    reads: Patterns,
    pub(crate) writes: Patterns,
    /// What it reads with its configuration.
    needs: Patterns,
}

impl About {
    pub(crate) fn new(description: Description) -> Result<About, String> {
        const MAX_TEXT: usize = 64;
        for (what, text) in [("name", &description.name), ("version", &description.version)] {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-+".contains(&byte);
            if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(allowed) {
                return Err(format!(
                    "its {what} must be 1 to {MAX_TEXT} letters, digits, `_`, `.`, `-` or `+`"
                ));
            }
        }
        Ok(About {
            reads: Patterns::new(description.reads.clone())?,
            writes: Patterns::new(description.writes.clone())?,
            needs: Patterns::new(description.reads.clone())?,
            description,
        })
    }

    /// Of the declared columns only those are handed over that the guest still names once it knows its configuration.
    pub(crate) fn narrow(&mut self, again: Description) -> Result<(), String> {
        self.needs = Patterns::new(again.reads)?;
        Ok(())
    }

    pub(crate) fn hands_over(&self, column: &str) -> bool {
        self.needs.matches(column) && self.reads.matches(column)
    }
}
