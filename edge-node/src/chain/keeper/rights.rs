//! What must stop, stops: kill switches and what was taken back take effect on what runs, whatever else can or cannot be loaded.

use std::sync::Arc;

use sluice_package::{PackageName, Rights, State};
use sluice_runtime::{Kind, Plugin, Slot};

use super::{Keeper, Kept, Known};
use crate::chain::ChainError;
use crate::config::PluginEntry;

/// By whom something is switched off, where the configuration says so.
const CONFIGURATION: &str = "the configuration";

impl Keeper {
    /// Before anything is loaded. Says what an operator should know of what runs now.
    pub(super) fn enforce(&self, kept: &Kept, state: &State) -> Result<(), ChainError> {
        for slot in self.chain.slots().iter() {
            slot.set_enabled(off(slot, kept, state).is_none());
        }
        let rights = self.store.rights().map_err(|e| ChainError::Store(Box::new(e)))?;
        let serves = |plugin: &Arc<Plugin>| {
            let slots = self.chain.slots();
            slots.iter().any(|slot| Arc::ptr_eq(&slot.current().plugin, plugin))
        };
        // Asked beforehand: the chain is not looked at while it is being changed.
        let reasons: Vec<(Arc<Plugin>, String)> = kept
            .known
            .iter()
            .filter_map(|known| {
                let plugin = &known.edition.plugin;
                let reason = why_not(known, &rights, serves(plugin))?;
                Some((plugin.clone(), reason))
            })
            .collect();
        self.chain.block(|plugin| {
            let held_against = reasons.iter().find(|(blocked, _)| Arc::ptr_eq(blocked, plugin));
            held_against.map(|(_, reason)| reason.clone())
        });
        Ok(())
    }

    /// What an operator should know of the places as they are.
    pub(super) fn cautions(&self, kept: &Kept, state: &State) -> Vec<String> {
        let mut cautions = Vec::new();
        let rights = self.store.rights().ok();
        for slot in self.chain.slots().iter() {
            let (name, plugin) = (slot.name(), slot.current().plugin);
            if let Some(by) = off(slot, kept, state) {
                let kind = plugin.kind();
                let effect = match kind {
                    Kind::Mask => "events pass UNMASKED",
                    _ => "events pass without it",
                };
                cautions.push(format!("the {kind} `{name}` is switched off by {by}: {effect}"));
            }
            if let Some(reason) = plugin.blocked() {
                cautions.push(format!("`{name}` may not run any more: {reason}"));
            }
            let provenance = known(kept, &plugin).and_then(|known| known.provenance.as_ref());
            if let Some((provenance, end)) =
                provenance.and_then(|from| rights.as_ref()?.expired(from).map(|end| (from, end)))
            {
                let (package, version) = (&provenance.manifest().name, &provenance.manifest().version);
                cautions.push(format!(
                    "`{name}`: {package} {version} expired at {end}; it goes on until the node ends, and the next start does not load it: install a newer version"
                ));
            }
        }
        cautions
    }
}

/// Why a version may not run. What only expired goes on where it serves, and comes to serve nowhere.
fn why_not(known: &Known, rights: &Rights, serves: bool) -> Option<String> {
    let provenance = known.provenance.as_ref()?;
    if let Some(refusal) = rights.taken_back(provenance) {
        return Some(refusal.to_string());
    }
    let end = rights.expired(provenance).filter(|_| !serves)?;
    Some(format!("it expired at {end}"))
}

/// Who switched a place off, if somebody did. A configuration that cannot be taken over switches off, and switches nothing on.
fn off(slot: &Slot, kept: &Kept, state: &State) -> Option<String> {
    let plugin = slot.current().plugin;
    let package = known(kept, &plugin).and_then(|known| known.package.clone());
    package
        .and_then(|package| killed(&package, state))
        .or_else(|| kept.entries(slot.name()).find_map(switched_off))
}

fn known<'a>(kept: &'a Kept, plugin: &Arc<Plugin>) -> Option<&'a Known> {
    kept.known
        .iter()
        .find(|known| Arc::ptr_eq(&known.edition.plugin, plugin))
}

/// Whether the configuration switches an entry off.
pub(super) fn switched_off(entry: &PluginEntry) -> Option<String> {
    (!entry.enabled).then(|| CONFIGURATION.to_owned())
}

/// Who switched a package off in the store.
pub(super) fn killed(package: &PackageName, state: &State) -> Option<String> {
    let mark = state.disabled(package)?;
    Some(format!("`sluice plugin disable` since {}: {}", mark.at, mark.reason))
}
