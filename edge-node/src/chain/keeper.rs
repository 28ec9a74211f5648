//! Keeps the chain as the configuration and the store ask for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_package::{PackageName, Policy, State, Store, Version};
use sluice_runtime::{Candidate, Chain, Compiler, Edition, Host, HostOptions, Kind, Place, Slot, What};

use super::ChainError;
use super::place::Plan;
use super::source::{self, Source, Wish};
use super::status::{ChainStatus, RefusedChain};
use crate::config::{PluginEntry, ShadowEntry};
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

    fn draft(&self, kept: &mut Kept, state: &State) -> Result<Draft, ChainError> {
        let mut draft = Draft::default();
        for entry in kept.asked.clone() {
            self.add(&entry, kept, state, &mut draft)?;
        }
        Ok(draft)
    }

    fn add(&self, entry: &PluginEntry, kept: &mut Kept, state: &State, draft: &mut Draft) -> Result<(), ChainError> {
        let slot = self.chain.slot(&entry.name);
        let killed = killed(entry, state);
        let off = killed
            .clone()
            .or((!entry.enabled).then(|| "the configuration".to_owned()));
        let found = match &killed {
            // The store gives nothing out that it has disabled.
            Some(by) => Err(by.clone()),
            None => match source::find(&Wish::of(entry), &self.store, state) {
                Ok(source) => Ok(source),
                Err(error) if off.is_some() => Err(error.told()),
                Err(error) if source::is_taken_back(&error) => match &slot {
                    Some(slot) => {
                        let reason = error.told();
                        draft
                            .warnings
                            .push(format!("`{}` may not run any more: {reason}", entry.name));
                        draft.places.push(stays(slot, true, Some(reason)));
                        return Ok(());
                    }
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            },
        };
        let loaded = match found {
            Ok(source) => match self.serving(entry, source, kept) {
                Ok(loaded) => Ok(loaded),
                Err(error) if off.is_some() => Err(error.told()),
                Err(error) => return Err(error),
            },
            Err(why) => Err(why),
        };
        let (mut place, source_text) = match (loaded, &slot) {
            (Ok((known, settings, warnings)), _) => {
                draft.warnings.extend(warnings);
                let origin = known.origin.clone();
                let place = Place {
                    edition: known.edition.clone(),
                    settings,
                    enabled: off.is_none(),
                    blocked: None,
                    shadow: None,
                };
                draft.used.push(known);
                (place, origin)
            }
            (Err(_), Some(slot)) => (stays(slot, false, None), "as before".to_owned()),
            (Err(why), None) => {
                let name = &entry.name;
                draft.warnings.push(format!(
                    "`{name}` is switched off and not loaded ({why}): events pass without it"
                ));
                return Ok(());
            }
        };
        if let Some(by) = &off {
            let masks = place.edition.plugin.kind() == Kind::Mask;
            let effect = if masks {
                "events pass UNMASKED"
            } else {
                "events pass without it"
            };
            let kind = place.edition.plugin.kind();
            draft
                .warnings
                .push(format!("the {kind} `{}` is switched off by {by}: {effect}", entry.name));
        } else {
            place.shadow = self.candidate(entry, &place.edition, kept, state, draft);
        }
        draft.sources.insert(entry.name.clone(), source_text);
        draft.places.push(place);
        Ok(())
    }

    /// The plugin that an entry asks for, loaded now or before.
    fn serving(
        &self,
        entry: &PluginEntry,
        source: Source,
        kept: &mut Kept,
    ) -> Result<(Known, String, Vec<String>), ChainError> {
        let (origin, warnings) = (source.origin.clone(), source.warnings.clone());
        // A version that the configuration names is the operator's word, which no failure takes back for the next start.
        let installed = source.installed.clone().filter(|_| entry.version.is_none());
        let plan = Plan::new(entry, source)?;
        let (fingerprint, settings) = (plan.fingerprint.clone(), plan.settings.clone());
        let same = |known: &&Known| known.place == entry.name && !known.candidate && known.fingerprint == fingerprint;
        let place = kept.known.iter().position(|known| same(&known));
        let known = match place.map(|place| &mut kept.known[place]) {
            Some(known) => {
                known.installed = installed;
                known.origin = origin;
                known.clone()
            }
            None => Known {
                place: entry.name.clone(),
                candidate: false,
                edition: plan.load(self.host(kept)?)?,
                fingerprint,
                installed,
                origin,
            },
        };
        match &entry.version {
            Some(asked) if *asked != known.edition.version => Err(ChainError::OtherVersion {
                plugin: entry.name.clone(),
                asked: asked.clone(),
                found: known.edition.version,
            }),
            _ => Ok((known, settings, warnings)),
        }
    }

    /// The candidate beside it, as the configuration or the store asks for it. It has no effect on data, also not by being
    /// impossible to load: then it is left out, and that is said.
    fn candidate(
        &self,
        entry: &PluginEntry,
        beside: &Edition,
        kept: &mut Kept,
        state: &State,
        draft: &mut Draft,
    ) -> Option<Candidate> {
        let wanted = entry.shadow.clone().or_else(|| shadow_of_store(entry, state))?;
        match self.load_candidate(entry, &wanted, beside, kept, state) {
            Ok(known) => {
                let edition = known.edition.clone();
                draft.used.push(known);
                let share = wanted.share;
                Some(Candidate { edition, share })
            }
            Err(why) => {
                let name = &entry.name;
                draft
                    .warnings
                    .push(format!("the candidate beside `{name}` does not run: {why}"));
                None
            }
        }
    }

    fn load_candidate(
        &self,
        entry: &PluginEntry,
        wanted: &ShadowEntry,
        beside: &Edition,
        kept: &mut Kept,
        state: &State,
    ) -> Result<Known, String> {
        let same_code = Wish::of(entry);
        let wish = match (&wanted.path, &wanted.version) {
            (None, None) => same_code,
            (path, version) => Wish {
                path: path.as_deref(),
                unsigned: wanted.unsigned,
                version: version.as_deref(),
                ..same_code
            },
        };
        let source = source::find(&wish, &self.store, state).map_err(|e| e.told())?;
        let origin = source.origin.clone();
        let mut entry = entry.clone();
        if let Some(config) = &wanted.config {
            entry.config = config.clone();
        }
        let plan = Plan::new(&entry, source).map_err(|e| e.told())?;
        let fingerprint = plan.fingerprint.clone();
        let same = |known: &&Known| known.place == entry.name && known.candidate && known.fingerprint == fingerprint;
        let known = match kept.known.iter().find(same) {
            Some(known) => known.clone(),
            None => {
                kept.candidates += 1;
                let plan = plan.as_candidate(kept.candidates);
                let host = self.host(kept).map_err(|e| e.told())?;
                Known {
                    place: entry.name.clone(),
                    candidate: true,
                    edition: plan.load(host).map_err(|e| e.told())?,
                    fingerprint,
                    installed: None,
                    origin,
                }
            }
        };
        let (candidate, current) = (known.edition.plugin.kind(), beside.plugin.kind());
        if candidate == current {
            Ok(known)
        } else {
            // The faults of a filter are told in full, and beside a mask it would be given what must not be told.
            Err(format!(
                "it is a {candidate}, and beside a {current} only a {current} can run"
            ))
        }
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

/// Who switched the package of an entry off in the store.
fn killed(entry: &PluginEntry, state: &State) -> Option<String> {
    let name: PackageName = entry.package().parse().ok()?;
    let mark = state.plugins.get(&name)?.disabled.as_ref()?;
    Some(format!("`sluice plugin disable` since {}: {}", mark.at, mark.reason))
}

/// What the store wants beside the package of an entry that comes from it.
fn shadow_of_store(entry: &PluginEntry, state: &State) -> Option<ShadowEntry> {
    if entry.path.is_some() {
        return None;
    }
    let name: PackageName = entry.package().parse().ok()?;
    let shadow = state.plugins.get(&name)?.shadow.as_ref()?;
    Some(ShadowEntry {
        version: Some(shadow.version.0.to_string()),
        path: None,
        unsigned: false,
        config: None,
        share: shadow.share,
    })
}

/// What is in a place already.
fn stays(slot: &Slot, enabled: bool, blocked: Option<String>) -> Place {
    Place {
        edition: slot.wanted(),
        settings: slot.settings(),
        enabled,
        blocked,
        shadow: None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is right between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
