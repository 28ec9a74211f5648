//! Keeps the chain as the configuration and the store ask for it.
//!
//! A change of the configuration is taken over as a whole or not at all. What the store says takes effect for each place by itself:
//! what may not run stops first, and a place whose plugin cannot be loaded stays as it is and is tried again.

mod assemble;
mod proven;
mod retry;
mod rights;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_package::{PackageName, Policy, Provenance, State, Store, Version};
use sluice_runtime::{Chain, Compiler, Edition, Host, HostOptions, Place, What};

use super::ChainError;
use super::status::{ChainStatus, RefusedChain};
use super::summary::{self, Seen};
use crate::config::PluginEntry;
use crate::status::now_ns;
use proven::ProvenFile;
use retry::Retry;

/// What the keeper works with.
#[derive(Clone, Debug)]
pub(crate) struct KeeperOptions {
    /// The store, and what is remembered of it.
    pub(crate) folder: PathBuf,
    pub(crate) compiler: Compiler,
    /// Keeps the images of what was compiled.
    pub(crate) cache: bool,
    /// Load nothing without a fresh list of revocations.
    pub(crate) strict_revocations: bool,
}

#[derive(Debug)]
pub(crate) struct Keeper {
    chain: Chain,
    store: Store,
    options: KeeperOptions,
    proven: ProvenFile,
    started: Instant,
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
    /// As it last was taken over, once it was.
    agreed: Option<Vec<PluginEntry>>,
    known: Vec<Known>,
    /// Of the store, when it was last followed, whether that could be done or not.
    tried_generation: Option<u64>,
    retry: Retry,
    /// What the last draft said beside what is seen of the places themselves.
    notes: Vec<String>,
    /// What could not be done, as it was last logged.
    told: Option<String>,
    /// Packages in the chain whose end has passed.
    expired: usize,
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
    /// The name that its kill switch in the store has.
    package: Option<PackageName>,
    /// Where it is installed in the store, unless the configuration names this very version.
    installed: Option<(PackageName, Version)>,
    /// Who vouched for it.
    provenance: Option<Provenance>,
    origin: String,
}

/// The places to be, and what is to be said of them.
#[derive(Default)]
struct Draft {
    places: Vec<Place>,
    used: Vec<Known>,
    sources: BTreeMap<String, String>,
    warnings: Vec<String>,
    /// What could not be loaded; the places stay as they are.
    failed: Vec<String>,
}

/// What becomes of the rest when an entry cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    RefusesAll,
    StaysAsItIs,
}

impl Kept {
    /// What is asked of a place, and what was taken over, where that is something else.
    fn entries(&self, name: &str) -> impl Iterator<Item = &PluginEntry> {
        let entries = self.asked.iter().chain(self.agreed.iter().flatten());
        entries.filter(move |entry| entry.name == name)
    }
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
            proven: ProvenFile::in_folder(&options.folder),
            options,
            started: Instant::now(),
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

    /// Makes the chain what these entries say, or leaves it as it is and tries again by itself. Compiles; blocks for as long as that
    /// takes, while the chain from before goes on.
    pub(crate) fn set(&self, entries: &[PluginEntry]) -> Result<(), ChainError> {
        let mut kept = lock(&self.kept);
        let (is_first, before) = (kept.agreed.is_none(), summary::look(&self.chain));
        kept.asked = entries.to_vec();
        // Somebody asks, so an answer that was given before is given again.
        kept.told = None;
        self.put_together(&mut kept, Failing::RefusesAll)?;
        let now = summary::look(&self.chain);
        let change = summary::change(&before, &now);
        if !is_first {
            tracing::info!("chain reloaded: {change}");
        } else if !now.is_empty() {
            tracing::info!("chain: {}", summary::change(&now, &now));
        }
        Ok(())
    }

    /// Follows the store: if it changed since, the chain is put together anew; also when it is time to try again.
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
        let changed = kept.tried_generation != Some(state.generation)
            || was_unreadable
            || self.count_expired(&kept) != kept.expired;
        if !changed && !kept.retry.is_due(self.now()) {
            return;
        }
        let before = summary::look(&self.chain);
        let failing = match kept.agreed.as_ref() == Some(&kept.asked) {
            true => Failing::StaysAsItIs,
            // A configuration that could not be taken over is still to be taken over as a whole.
            false => Failing::RefusesAll,
        };
        // What is wrong is logged and shown; the chain from before goes on.
        let _ = self.put_together(&mut kept, failing);
        self.tell_change(&before);
    }

    fn tell_change(&self, before: &[Seen]) {
        let now = summary::look(&self.chain);
        if now != before {
            tracing::info!("chain follows the store: {}", summary::change(before, &now));
        }
    }

    /// Keeps what happened to the places: a version that failed is not loaded again, and one that has proven itself needs no other
    /// to stand by it after the next start.
    pub(crate) fn follow_events(&self) {
        let mut kept = lock(&self.kept);
        for event in self.chain.events_after(kept.seen_event) {
            kept.seen_event = event.number;
            let version = |known: &&Known| {
                known.place == event.plugin && !known.candidate && known.edition.version == event.version
            };
            let Some(known) = kept.known.iter().find(version) else {
                continue;
            };
            match event.what {
                What::RolledBack => self.mark_bad(known, event.fault.as_deref()),
                What::Proven => self.note_proven(known),
                _ => {}
            }
        }
    }

    fn mark_bad(&self, failed: &Known, fault: Option<&str>) {
        let Some((name, version)) = &failed.installed else {
            return;
        };
        match self.store.mark_bad(name, version, fault.unwrap_or("it failed")) {
            Ok(Some(current)) => tracing::warn!(package = %name, bad = %version, %current, "version is marked bad"),
            Ok(None) => tracing::warn!(package = %name, bad = %version, "version is marked bad"),
            Err(error) => {
                let error = ChainError::Store(Box::new(error)).told();
                tracing::error!(package = %name, %version, error, "version cannot be marked bad");
            }
        }
    }

    fn note_proven(&self, known: &Known) {
        let (Some(_), Some(provenance)) = (&known.installed, &known.provenance) else {
            return;
        };
        let is_place = |name: &str| self.chain.slot(name).is_some();
        if let Err(error) = self.proven.note(&known.place, provenance.manifest(), is_place) {
            tracing::warn!(plugin = known.place, %error, "it cannot be kept that a version works; the next start tries it again");
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Makes the chain what is asked for. An error leaves the rest as it is, but for what must stop.
    fn put_together(&self, kept: &mut Kept, failing: Failing) -> Result<(), ChainError> {
        let state = match self.store.state() {
            Ok(state) => state,
            Err(error) => {
                let error = ChainError::Store(Box::new(error));
                self.failed(kept, &error.told());
                return Err(error);
            }
        };
        kept.tried_generation = Some(state.generation);
        let mut problems = Vec::new();
        if let Err(error) = self.enforce(kept, &state) {
            problems.push(error.told());
        }
        let asked = kept.asked.clone();
        let result = match self.take_over(kept, &asked, &state, failing) {
            Ok(failed) => {
                problems.extend(failed);
                kept.agreed = Some(asked);
                Ok(())
            }
            Err(error) => {
                problems.push(error.told());
                // What was taken over before goes on following the store.
                if let Some(mut agreed) = kept.agreed.clone() {
                    // A configuration that cannot be taken over switches off all the same, and switches nothing on.
                    let is_off = |name: &str| asked.iter().any(|entry| entry.name == name && !entry.enabled);
                    for entry in &mut agreed {
                        entry.enabled &= !is_off(&entry.name);
                    }
                    match self.take_over(kept, &agreed, &state, Failing::StaysAsItIs) {
                        Ok(failed) => problems.extend(failed),
                        Err(error) => problems.push(error.told()),
                    }
                }
                Err(error)
            }
        };
        if problems.is_empty() {
            kept.retry.done();
            kept.told = None;
            let mut status = lock(&self.status);
            status.refused = None;
            status.store_generation = state.generation;
        } else {
            self.failed(kept, &problems.join("; "));
        }
        kept.expired = self.count_expired(kept);
        self.caution(kept, &state);
        result
    }

    fn count_expired(&self, kept: &Kept) -> usize {
        let now = (self.store.policy().clock)();
        let end = |known: &Known| known.provenance.as_ref().and_then(|from| from.manifest().expires);
        kept.known.iter().filter_map(end).filter(|end| *end <= now).count()
    }

    /// Puts the places of these entries into the chain; gives back what could not be loaded where the rest goes on without.
    fn take_over(
        &self,
        kept: &mut Kept,
        entries: &[PluginEntry],
        state: &State,
        failing: Failing,
    ) -> Result<Vec<String>, ChainError> {
        let draft = self.draft(kept, entries, state, failing)?;
        self.chain.set(draft.places).map_err(ChainError::Thread)?;
        let slots = self.chain.slots();
        let held = |known: &Known| slots.iter().any(|slot| slot.holds(&known.edition.plugin));
        kept.known.retain(held);
        for known in draft.used {
            let is_new = |old: &Known| !Arc::ptr_eq(&old.edition.plugin, &known.edition.plugin);
            if kept.known.iter().all(is_new) {
                kept.known.push(known);
            }
        }
        kept.notes = draft.warnings;
        let mut status = lock(&self.status);
        status.sources = draft.sources;
        status.set_at_ms = now_ns() / 1_000_000;
        Ok(draft.failed)
    }

    /// Says what an operator should know, each new thing once in the log.
    fn caution(&self, kept: &Kept, state: &State) {
        let mut warnings = self.cautions(kept, state);
        warnings.extend(kept.notes.iter().cloned());
        let mut status = lock(&self.status);
        for warning in warnings.iter().filter(|warning| !status.warnings.contains(*warning)) {
            tracing::warn!(warning, "plugin chain");
        }
        status.warnings = warnings;
    }

    /// What could not be done is told once, shown as long as it lasts, and tried again.
    fn failed(&self, kept: &mut Kept, why: &str) {
        kept.retry.failed(self.now());
        if kept.told.as_deref() != Some(why) {
            tracing::error!(
                why,
                "the plugin chain cannot be all that it is asked for: what cannot stays as it is and is tried again"
            );
            kept.told = Some(why.to_owned());
        }
        self.refused(why.to_owned());
    }

    fn refused(&self, why: String) {
        let at_ms = now_ns() / 1_000_000;
        lock(&self.status).refused = Some(RefusedChain { at_ms, why });
    }

    fn host<'a>(&self, kept: &'a mut Kept) -> Result<&'a Host, ChainError> {
        if kept.host.is_none() {
            let host = Host::new(HostOptions {
                compiler: self.options.compiler.clone(),
                cache: self.options.cache.then(|| self.options.folder.join("cache")),
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
