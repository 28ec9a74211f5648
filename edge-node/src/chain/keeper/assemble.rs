//! What the entries of the configuration become: places of the chain, with what is loaded and what is to be said of it.

use sluice_package::{PackageName, State};
use sluice_runtime::{Candidate, Edition, Kind, Place, Slot};

use super::super::ChainError;
use super::super::place::Plan;
use super::super::source::{self, Source, Wish};
use super::{Draft, Keeper, Kept, Known};
use crate::config::{PluginEntry, ShadowEntry};

impl Keeper {
    pub(super) fn draft(&self, kept: &mut Kept, state: &State) -> Result<Draft, ChainError> {
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
                let plan = plan.into_candidate(kept.candidates);
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
