//! What the entries of the configuration become: places of the chain, with what is loaded and what is to be said of it.

use sluice_package::{PackageName, State};
use sluice_runtime::{Candidate, Edition, Place, Slot};

use super::super::ChainError;
use super::super::place::Plan;
use super::super::source::{self, Source, Wish};
use super::rights::{killed, switched_off};
use super::{Draft, Failing, Keeper, Kept, Known};
use crate::config::{PluginEntry, ShadowEntry};

/// Where what stays in its place comes from.
const AS_BEFORE: &str = "as before";

impl Keeper {
    pub(super) fn draft(
        &self,
        kept: &mut Kept,
        entries: &[PluginEntry],
        state: &State,
        failing: Failing,
    ) -> Result<Draft, ChainError> {
        let mut draft = Draft::default();
        for entry in entries {
            self.add(entry, kept, state, failing, &mut draft)?;
        }
        Ok(draft)
    }

    fn add(
        &self,
        entry: &PluginEntry,
        kept: &mut Kept,
        state: &State,
        failing: Failing,
        draft: &mut Draft,
    ) -> Result<(), ChainError> {
        let name = &entry.name;
        let slot = self.chain.slot(name);
        let killed = package_of(entry).and_then(|package| killed(&package, state));
        let off = killed.clone().or_else(|| switched_off(entry));
        // The store gives nothing out that it has disabled.
        let loaded = killed.is_none().then(|| {
            source::find(&Wish::of(entry), &self.store, state).and_then(|source| self.serving(entry, source, kept))
        });
        let (place, source_text) = match (loaded, slot, off) {
            (Some(Ok((known, settings, warnings))), slot, off) => {
                draft.warnings.extend(warnings);
                let mut place = Place {
                    edition: known.edition.clone(),
                    settings,
                    enabled: off.is_none(),
                    blocked: None,
                    shadow: None,
                    before: None,
                };
                if off.is_none() {
                    place.shadow = self.candidate(entry, &place.edition, kept, state, draft);
                }
                if slot.is_none() {
                    place.before = self.predecessor(entry, &known, kept, state, draft);
                }
                let origin = known.origin.clone();
                draft.used.push(known);
                (place, origin)
            }
            (_, Some(slot), Some(_)) => (stays(&slot, false), AS_BEFORE.to_owned()),
            (loaded, None, Some(by)) => {
                let why = loaded.and_then(Result::err).map_or(by, |error| error.told());
                draft.warnings.push(format!(
                    "`{name}` is switched off and not loaded ({why}): events pass without it"
                ));
                return Ok(());
            }
            (Some(Err(error)), Some(slot), None) => {
                // What runs there was stopped already, for the same reason.
                let stopped = source::is_taken_back(&error) && slot.current().plugin.blocked().is_some();
                if !stopped && failing == Failing::RefusesAll {
                    return Err(error);
                }
                if !stopped {
                    draft.failed.push(error.told());
                }
                let mut place = stays(&slot, true);
                place.shadow = slot.candidate();
                (place, AS_BEFORE.to_owned())
            }
            (Some(Err(error)), None, None) => return Err(error),
            // Only what is killed is not looked for, and that is off.
            (None, _, None) => return Ok(()),
        };
        draft.sources.insert(name.clone(), source_text);
        draft.places.push(place);
        Ok(())
    }

    /// The version before one of the store that has not proven itself yet, for the first moment of a life: it stands by as if the
    /// process had not ended meanwhile. What cannot be had stands by for nothing, as any version without a predecessor.
    fn predecessor(
        &self,
        entry: &PluginEntry,
        new: &Known,
        kept: &mut Kept,
        state: &State,
        draft: &mut Draft,
    ) -> Option<Edition> {
        let (name, _) = new.installed.as_ref()?;
        let before = state.plugins.get(name)?.previous.as_ref()?.to_string();
        if self.proven.has(&entry.name, new.provenance.as_ref()?.manifest()) {
            return None;
        }
        let wish = Wish {
            version: Some(&before),
            ..Wish::of(entry)
        };
        let loaded = source::find(&wish, &self.store, state).and_then(|source| self.serving(entry, source, kept));
        match loaded {
            Ok((known, ..)) => {
                let edition = known.edition.clone();
                draft.used.push(known);
                Some(edition)
            }
            Err(error) => {
                let why = error.told();
                tracing::info!(plugin = entry.name, before, why, "no version stands by the new one");
                None
            }
        }
    }

    /// The plugin that an entry asks for, loaded now or before.
    fn serving(
        &self,
        entry: &PluginEntry,
        source: Source,
        kept: &mut Kept,
    ) -> Result<(Known, String, Vec<String>), ChainError> {
        let (origin, warnings) = (source.origin.clone(), source.warnings.clone());
        let (package, provenance) = (package_of(entry), source.provenance.clone());
        // A version that the configuration names is the operator's word, which no failure takes back for the next start.
        let installed = source.installed.clone().filter(|_| entry.version.is_none());
        let plan = Plan::new(entry, source)?;
        let (fingerprint, settings) = (plan.fingerprint.clone(), plan.settings.clone());
        let same = |known: &&Known| known.place == entry.name && !known.candidate && known.fingerprint == fingerprint;
        let place = kept.known.iter().position(|known| same(&known));
        let known = match place.map(|place| &mut kept.known[place]) {
            Some(known) => {
                known.package = package;
                known.installed = installed;
                known.provenance = provenance;
                known.origin = origin;
                known.clone()
            }
            None => Known {
                place: entry.name.clone(),
                candidate: false,
                edition: plan.load(self.host(kept)?)?,
                fingerprint,
                package,
                installed,
                provenance,
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
        let (origin, provenance) = (source.origin.clone(), source.provenance.clone());
        let mut entry = entry.clone();
        if let Some(config) = &wanted.config {
            entry.config = config.clone();
        }
        let plan = Plan::new(&entry, source).map_err(|e| e.told())?;
        let fingerprint = plan.fingerprint.clone();
        let same = |known: &&Known| known.place == entry.name && known.candidate && known.fingerprint == fingerprint;
        let place = kept.known.iter().position(|known| same(&known));
        let known = match place.map(|place| &mut kept.known[place]) {
            Some(known) => {
                known.provenance = provenance;
                known.clone()
            }
            None => {
                kept.candidates += 1;
                let plan = plan.into_candidate(kept.candidates);
                let host = self.host(kept).map_err(|e| e.told())?;
                Known {
                    place: entry.name.clone(),
                    candidate: true,
                    edition: plan.load(host).map_err(|e| e.told())?,
                    fingerprint,
                    package: None,
                    installed: None,
                    provenance,
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
}

/// The name that its kill switch in the store has, whatever it is loaded from.
fn package_of(entry: &PluginEntry) -> Option<PackageName> {
    entry.package().parse().ok()
}

/// What the store wants beside the package of an entry that comes from it.
fn shadow_of_store(entry: &PluginEntry, state: &State) -> Option<ShadowEntry> {
    if entry.path.is_some() {
        return None;
    }
    let shadow = state.plugins.get(&package_of(entry)?)?.shadow.as_ref()?;
    Some(ShadowEntry {
        version: Some(shadow.version.0.to_string()),
        path: None,
        unsigned: false,
        config: None,
        share: shadow.share,
    })
}

/// What is in a place already.
fn stays(slot: &Slot, enabled: bool) -> Place {
    let edition = slot.wanted();
    Place {
        blocked: edition.plugin.blocked(),
        edition,
        settings: slot.settings(),
        enabled,
        shadow: None,
        before: None,
    }
}
