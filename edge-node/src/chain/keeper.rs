//! Keeps the chain as the configuration and the store ask for it.

mod assemble;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_package::{PackageName, Policy, Store, Version};
use sluice_runtime::{Chain, Compiler, Edition, Host, HostOptions, Place, What};

use super::ChainError;
use super::status::{ChainStatus, RefusedChain};
use crate::config::PluginEntry;
use crate::status::now_ns;

/// What the keeper works with.
#[derive(Clone, Debug)]
pub(crate) struct KeeperOptions {
    /// The store, and the images of what was compiled.
    pub(crate) folder: PathBuf,
    pub(crate) compiler: Compiler,
    /// Load nothing without a fresh list of revocations.
    pub(crate) strict_revocations: bool,
}

#[derive(Debug)]
pub(crate) struct Keeper {
    chain: Chain,
    store: Store,
    options: KeeperOptions,
    kept: Mutex<Kept>,
    status: Mutex<ChainStatus>,
}

/// Changed by one at a time, for as long as that takes.
#[derive(Debug, Default)]
struct Kept {
    /// Made when the first plugin is loaded.
    host: Option<Host>,
    /// As the configuration last had it, also where that could not be done.
    asked: Vec<PluginEntry>,
    known: Vec<Known>,
    store_problem: Option<String>,
    seen_event: u64,
    candidates: u64,
}

/// A plugin that is loaded.
#[derive(Clone, Debug)]
struct Known {
    place: String,
    candidate: bool,
    fingerprint: String,
    edition: Edition,
    /// Where it is installed in the store, unless the configuration names this very version.
    installed: Option<(PackageName, Version)>,
    origin: String,
}

/// The places to be, and what is to be said of them.
#[derive(Default)]
struct Draft {
    places: Vec<Place>,
    used: Vec<Known>,
    sources: BTreeMap<String, String>,
    warnings: Vec<String>,
}

impl Keeper {
    pub(crate) fn new(options: KeeperOptions) -> Keeper {
        let policy = Policy {
            strict_revocations: options.strict_revocations,
            ..Policy::default()
        };
        Keeper {
            chain: Chain::default(),
            store: Store::open(&options.folder, policy),
            options,
            kept: Mutex::default(),
            status: Mutex::default(),
        }
    }

    /// The chain that it keeps; the same one for the whole life of the node.
    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    pub(crate) fn status(&self) -> ChainStatus {
        let mut status = lock(&self.status).clone();
        status.events = self.chain.events_after(0);
        status
    }

    /// Makes the chain what these entries say, or leaves it as it is. Compiles; blocks for as long as that takes, while the chain
    /// from before goes on.
    pub(crate) fn set(&self, entries: &[PluginEntry]) -> Result<(), ChainError> {
        let mut kept = lock(&self.kept);
        kept.asked = entries.to_vec();
        self.put_together(&mut kept)
    }

    /// Follows the store: if it changed since, the chain is put together anew.
    pub(crate) fn follow_store(&self) {
        let mut kept = lock(&self.kept);
        let state = match self.store.state() {
            Ok(state) => state,
            Err(error) => {
                // Asked every second: said once.
                let problem = ChainError::Store(Box::new(error)).told();
                if kept.store_problem.as_ref() != Some(&problem) {
                    tracing::warn!(
                        problem,
                        "the store of plugins cannot be followed, the chain stays as it is"
                    );
                    self.refused(problem.clone());
                    kept.store_problem = Some(problem);
                }
                return;
            }
        };
        let was_unreadable = kept.store_problem.take().is_some();
        if state.generation == lock(&self.status).store_generation && !was_unreadable {
            return;
        }
        // What is wrong is logged and shown; the chain from before goes on.
        let _ = self.put_together(&mut kept);
    }

    /// Tells the store of versions that failed, so that they are not loaded again.
    pub(crate) fn follow_events(&self) {
        let mut kept = lock(&self.kept);
        for event in self.chain.events_after(kept.seen_event) {
            kept.seen_event = event.number;
            if event.what != What::RolledBack {
                continue;
            }
            let failed = kept.known.iter().find(|known| {
                known.place == event.plugin && !known.candidate && known.edition.version == event.version
            });
            let Some((name, version)) = failed.and_then(|known| known.installed.clone()) else {
                continue;
            };
            let reason = event.fault.as_deref().unwrap_or("it failed");
            match self.store.mark_bad(&name, &version, reason) {
                Ok(Some(current)) => tracing::warn!(package = %name, bad = %version, %current, "version is marked bad"),
                Ok(None) => tracing::warn!(package = %name, bad = %version, "version is marked bad"),
                Err(error) => {
                    let error = ChainError::Store(Box::new(error)).told();
                    tracing::error!(package = %name, %version, error, "version cannot be marked bad");
                }
            }
        }
    }

    fn put_together(&self, kept: &mut Kept) -> Result<(), ChainError> {
        let state = self.store.state().map_err(|e| ChainError::Store(Box::new(e)));
        let generation = state.as_ref().map_or(0, |state| state.generation);
        let result = state.and_then(|state| {
            let draft = self.draft(kept, &state)?;
            self.chain.set(draft.places.clone()).map_err(ChainError::Thread)?;
            Ok(draft)
        });
        if generation > 0 {
            lock(&self.status).store_generation = generation;
        }
        match result {
            Ok(draft) => {
                self.accepted(kept, draft);
                Ok(())
            }
            Err(error) => {
                let why = error.told();
                tracing::error!(why, "plugin chain is refused, nothing changed");
                self.refused(why);
                Err(error)
            }
        }
    }

    fn accepted(&self, kept: &mut Kept, draft: Draft) {
        let slots = self.chain.slots();
        let held = |known: &Known| slots.iter().any(|slot| slot.holds(&known.edition.plugin));
        kept.known.retain(held);
        for known in draft.used {
            let is_new = |old: &Known| !Arc::ptr_eq(&old.edition.plugin, &known.edition.plugin);
            if kept.known.iter().all(is_new) {
                kept.known.push(known);
            }
        }
        let mut status = lock(&self.status);
        for warning in &draft.warnings {
            if !status.warnings.contains(warning) {
                tracing::warn!(warning, "plugin chain");
            }
        }
        status.warnings = draft.warnings;
        status.sources = draft.sources;
        status.refused = None;
        status.set_at_ms = now_ns() / 1_000_000;
    }

    fn refused(&self, why: String) {
        let at_ms = now_ns() / 1_000_000;
        lock(&self.status).refused = Some(RefusedChain { at_ms, why });
    }

    fn host<'a>(&self, kept: &'a mut Kept) -> Result<&'a Host, ChainError> {
        if kept.host.is_none() {
            let host = Host::new(HostOptions {
                compiler: self.options.compiler.clone(),
                cache: Some(self.options.folder.join("cache")),
            })?;
            kept.host = Some(host);
        }
        // Made above.
        kept.host
            .as_ref()
            .ok_or_else(|| ChainError::Load("no plugin host".to_owned()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is right between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
