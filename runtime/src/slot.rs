//! One place of the chain: the version that serves, the one before it while the new one is on probation, and a candidate that
//! runs beside them.

mod trial;

use std::sync::{Arc, Mutex};

use crate::event::{ChainEvent, Events, What};
use crate::lock;
use crate::plugin::Plugin;
use crate::shadow::Shadow;
use crate::stats::{PluginStats, Standing, Versions};
pub use trial::{PROBATION_BATCHES, PROBATION_FAULTS};
use trial::{Probation, may_stand_by};

/// A plugin and what its version is called: that of its package, if it came in one.
#[derive(Clone, Debug)]
pub struct Edition {
    pub plugin: Arc<Plugin>,
    pub version: String,
}

/// A place, known by its name over all versions.
#[derive(Debug)]
pub struct Slot {
    name: String,
    events: Arc<Events>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    serving: Arc<Serving>,
    /// What the operator wants here; after a rollback another one serves.
    wanted: Edition,
    settings: String,
    rolled_back_from: Option<String>,
    versions: Versions,
}

/// What serves a batch from its beginning to its end, whatever is put into the place meanwhile.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) current: Edition,
    pub(crate) shadow: Option<Arc<Shadow>>,
    probation: Option<Arc<Probation>>,
}

/// What a place shall hold from now on.
#[derive(Clone, Debug)]
pub struct Place {
    pub edition: Edition,
    /// Whatever decides what the plugin does besides its code, as text to compare: a new version of a mask stands by the old
    /// one only with the same settings, because with others the old one would not do what the operator asked for.
    pub settings: String,
    pub enabled: bool,
    /// Why this version may not run although it is not switched off, such as a revocation: every batch is then treated as one
    /// that it failed on, so a mask refuses.
    pub blocked: Option<String>,
    pub shadow: Option<Candidate>,
    /// The version that served in an earlier life of the process, where the one now has not proven itself: it stands by in a
    /// place that is new. Loaded with the same settings.
    pub before: Option<Edition>,
}

/// What runs beside the plugin of a place, on a share of its batches.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub edition: Edition,
    /// More than 0, at most 1.
    pub share: f64,
}

impl Slot {
    pub(crate) fn new(place: Place, shadow: Option<Arc<Shadow>>, events: Arc<Events>) -> Slot {
        let Place {
            edition,
            settings,
            enabled,
            blocked,
            before,
            ..
        } = place;
        edition.plugin.set_enabled(enabled);
        edition.plugin.set_blocked(blocked);
        let mut versions = Versions::default();
        let probation = before.filter(|before| may_stand_by(&before.plugin, &edition.plugin, true));
        let probation = probation.map(|before| {
            before.plugin.set_enabled(enabled);
            versions.note(&before);
            Arc::new(Probation::of(before))
        });
        versions.note(&edition);
        Slot {
            name: edition.plugin.name().to_owned(),
            events,
            inner: Mutex::new(Inner {
                wanted: edition.clone(),
                serving: Arc::new(Serving {
                    current: edition,
                    shadow,
                    probation,
                }),
                settings,
                rolled_back_from: None,
                versions,
            }),
        }
    }

    /// Its name in the chain.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that serves the next batch.
    pub fn current(&self) -> Edition {
        lock(&self.inner).serving.current.clone()
    }

    /// What was put here last; not the current one after a rollback.
    pub fn wanted(&self) -> Edition {
        lock(&self.inner).wanted.clone()
    }

    /// The settings that came with it.
    pub fn settings(&self) -> String {
        lock(&self.inner).settings.clone()
    }

    /// Whether a plugin is in this place in any way: wanted, serving, standing by or beside it.
    pub fn holds(&self, plugin: &Arc<Plugin>) -> bool {
        let inner = lock(&self.inner);
        let candidate = inner.serving.shadow.as_ref().map(|shadow| shadow.candidate());
        let editions = inner.serving.editions().chain([&inner.wanted]);
        let mut plugins = editions.map(|edition| &edition.plugin).chain(candidate);
        plugins.any(|held| Arc::ptr_eq(held, plugin))
    }

    /// The candidate that runs beside it.
    pub fn shadow(&self) -> Option<Arc<Shadow>> {
        lock(&self.inner).serving.shadow.clone()
    }

    /// The same as it was put here.
    pub fn candidate(&self) -> Option<Candidate> {
        let shadow = self.shadow()?;
        Some(Candidate {
            edition: Edition {
                plugin: shadow.candidate().clone(),
                version: shadow.report().version,
            },
            share: shadow.share(),
        })
    }

    pub(crate) fn serving(&self) -> Arc<Serving> {
        lock(&self.inner).serving.clone()
    }

    /// The kill switch of the version that serves and of the one that stands by; takes effect with the next batch.
    pub fn set_enabled(&self, enabled: bool) {
        let inner = lock(&self.inner);
        self.note_switch(&inner.serving.current, enabled);
        for edition in inner.serving.editions() {
            edition.plugin.set_enabled(enabled);
        }
    }

    /// Takes back that versions may run, or gives it back. What may not run stands by no more, and runs beside nothing.
    pub(crate) fn block(&self, why: &impl Fn(&Arc<Plugin>) -> Option<String>) {
        let mut inner = lock(&self.inner);
        let serving = inner.serving.clone();
        let current = &serving.current;
        let reason = why(&current.plugin);
        if current.plugin.blocked().is_some() != reason.is_some() {
            let what = if reason.is_some() {
                What::Blocked
            } else {
                What::Unblocked
            };
            let mut event = ChainEvent::new(what, &self.name, &current.version);
            event.fault.clone_from(&reason);
            self.events.push(event);
        }
        current.plugin.set_blocked(reason);
        if !inner.wanted.is(current) {
            inner.wanted.plugin.set_blocked(why(&inner.wanted.plugin));
        }
        let may = |plugin: &Arc<Plugin>| {
            let reason = why(plugin);
            let may = reason.is_none();
            plugin.set_blocked(reason);
            may
        };
        let probation = serving.probation.clone().filter(|trial| may(&trial.previous.plugin));
        let shadow = serving.shadow.clone().filter(|shadow| may(shadow.candidate()));
        if probation.is_some() != serving.probation.is_some() || shadow.is_some() != serving.shadow.is_some() {
            inner.replace(Serving {
                current: current.clone(),
                shadow,
                probation,
            });
        }
    }

    fn note_switch(&self, current: &Edition, enabled: bool) {
        if current.plugin.enabled() != enabled {
            let what = if enabled { What::Enabled } else { What::Disabled };
            self.events.push(ChainEvent::new(what, &self.name, &current.version));
        }
    }

    /// Takes over what the place shall hold. What is wanted already stays as it is, also where a rollback put another version
    /// into service.
    pub(crate) fn set(&self, place: Place, shadow: Option<Arc<Shadow>>) {
        let Place {
            edition,
            settings,
            enabled,
            blocked,
            ..
        } = place;
        let mut inner = lock(&self.inner);
        let old = inner.serving.clone();
        self.note_switch(&old.current, enabled);
        edition.plugin.set_blocked(blocked);
        let stays = inner.wanted.is(&edition) || old.current.is(&edition);
        let same_settings = inner.settings == settings;
        inner.wanted = edition.clone();
        inner.settings = settings;
        let (current, probation) = if stays {
            (old.current.clone(), old.probation.clone())
        } else {
            inner.rolled_back_from = None;
            inner.versions.note(&edition);
            let mut event = ChainEvent::new(What::Replaced, &self.name, &edition.version);
            event.other = Some(old.current.version.clone());
            self.events.push(event);
            // What was on probation itself proved nothing: the version before it stands by further.
            let previous = match &old.probation {
                Some(probation) if probation.proved_nothing() => &probation.previous,
                _ => &old.current,
            };
            // Going back to what stood by is no trial of it.
            let was_good = old.probation.as_ref().is_some_and(|trial| trial.previous.is(&edition));
            let stands_by = !was_good && may_stand_by(&previous.plugin, &edition.plugin, same_settings);
            let probation = stands_by.then(|| Arc::new(Probation::of(previous.clone())));
            (edition, probation)
        };
        current.plugin.set_enabled(enabled);
        if let Some(probation) = &probation {
            probation.previous.plugin.set_enabled(enabled);
        }
        inner.replace(Serving {
            current,
            shadow,
            probation,
        });
    }

    /// What every version in this place did; the one that serves comes first.
    pub(crate) fn stats(&self) -> Vec<PluginStats> {
        let inner = lock(&self.inner);
        let serving = &inner.serving;
        let mut all: Vec<PluginStats> = Vec::new();
        for (version, kind, counters) in inner.versions.each() {
            let state = inner.standing(version);
            let plugin = serving.editions().find(|edition| edition.version == version);
            let plugin = plugin.map(|edition| &edition.plugin);
            let (enabled, breaker) = plugin.map_or((false, "closed"), |p| (p.enabled(), p.breaker()));
            let mut stats = counters.snapshot(&self.name, version, kind, enabled, breaker);
            stats.state = state;
            stats.log_lines_cut += plugin.map_or(0, |plugin| plugin.log_lines_cut());
            if state.is_in_place() {
                stats.blocked = serving.current.plugin.blocked();
                stats.rolled_back_from.clone_from(&inner.rolled_back_from);
                stats.shadow = serving.shadow.as_ref().map(|shadow| shadow.report());
                all.insert(0, stats);
            } else {
                all.push(stats);
            }
        }
        all.extend(serving.shadow.as_ref().map(|shadow| shadow.stats(&self.name)));
        all
    }
}

impl Inner {
    fn standing(&self, version: &str) -> Standing {
        let serving = &self.serving;
        if serving.current.version == version {
            let current = &serving.current.plugin;
            match (current.enabled(), current.blocked(), &serving.probation) {
                (false, _, _) => Standing::Disabled,
                (true, Some(_), _) => Standing::Blocked,
                (true, None, Some(_)) => Standing::Probation,
                (true, None, None) => Standing::Current,
            }
        } else if serving.editions().any(|edition| edition.version == version) {
            Standing::Previous
        } else if self.rolled_back_from.as_deref() == Some(version) {
            Standing::RolledBack
        } else {
            Standing::Retired
        }
    }

    /// Whether it is still the same trial that a batch began in.
    fn on_probation_with(&self, serving: &Serving) -> bool {
        match (&self.serving.probation, &serving.probation) {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            _ => false,
        }
    }

    /// From the next batch on.
    fn replace(&mut self, serving: Serving) {
        let old = std::mem::replace(&mut self.serving, Arc::new(serving));
        let now = self.serving.editions();
        for gone in old.editions().filter(|old| !now.clone().any(|now| now.is(old))) {
            // Its log goes with it; what it had to cut is remembered.
            let cut = gone.plugin.log_lines_cut();
            gone.plugin.count(|counters| counters.log_lines_cut = cut);
        }
        let serving: Vec<&str> = now.map(|edition| edition.version.as_str()).collect();
        self.versions.limit(&serving);
    }
}

impl Serving {
    fn editions(&self) -> impl Iterator<Item = &Edition> + Clone {
        let previous = self.probation.as_ref().map(|probation| &probation.previous);
        std::iter::once(&self.current).chain(previous)
    }
}

impl Edition {
    /// The same plugin, not one like it.
    fn is(&self, other: &Edition) -> bool {
        Arc::ptr_eq(&self.plugin, &other.plugin)
    }
}
