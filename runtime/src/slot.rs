//! One place of the chain: the version that serves, the one before it while the new one is on probation, and a candidate that
//! runs beside them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use arrow_array::RecordBatch;

use crate::answer::Answer;
use crate::call::Call;
use crate::event::{ChainEvent, Events, What};
use crate::fault::Fault;
use crate::lock;
use crate::plugin::{Failure, Plugin};
use crate::policy::{Kind, Verdict};
use crate::shadow::Shadow;
use crate::stats::{PluginStats, Standing, Versions};

/// Batches that a new version must serve before the one before it is let go.
pub const PROBATION_BATCHES: u32 = 100;
/// Batches on probation that it may fail and the version before it serve; then the place goes back. A version that never
/// served any goes back with the first.
pub const PROBATION_FAULTS: u32 = 3;

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
    blocked: Option<String>,
}

#[derive(Debug)]
struct Probation {
    previous: Edition,
    served: AtomicU32,
    failed: AtomicU32,
}

/// Who answered, and what.
pub(crate) struct Served<'a> {
    pub(crate) plugin: &'a Plugin,
    pub(crate) answer: Result<Answer, Failure>,
}

/// What a place shall hold from now on.
#[derive(Clone, Debug)]
pub struct Place {
    pub edition: Edition,
    /// Whatever decides what the plugin does besides its code, as text to compare: a new version of a mask stands by the old
    /// one only with the same settings, because with others the old one would not do what the operator asked for.
    pub settings: String,
    pub enabled: bool,
    /// Why it may not run although it is not switched off, such as a revocation: every batch is then treated as one that it
    /// failed on, so a mask refuses.
    pub blocked: Option<String>,
    pub shadow: Option<Candidate>,
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
            ..
        } = place;
        edition.plugin.set_enabled(enabled);
        let mut versions = Versions::default();
        versions.note(&edition);
        Slot {
            name: edition.plugin.name().to_owned(),
            events,
            inner: Mutex::new(Inner {
                wanted: edition.clone(),
                serving: Arc::new(Serving {
                    current: edition,
                    shadow,
                    probation: None,
                    blocked,
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

    pub(crate) fn serving(&self) -> Arc<Serving> {
        lock(&self.inner).serving.clone()
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
        let was_enabled = old.current.plugin.enabled();
        if was_enabled != enabled {
            let what = if enabled { What::Enabled } else { What::Disabled };
            self.events
                .push(ChainEvent::new(what, &self.name, &old.current.version));
        }
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
                Some(probation) if probation.served.load(Ordering::SeqCst) == 0 => &probation.previous,
                _ => &old.current,
            };
            // Going back to what stood by is no trial of it.
            let was_good = old.probation.as_ref().is_some_and(|trial| trial.previous.is(&edition));
            let stands_by =
                !was_good && old.blocked.is_none() && may_stand_by(&previous.plugin, &edition.plugin, same_settings);
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
            blocked,
        });
    }

    /// Runs a batch through the version that serves it, and through the one before it where that one failed on probation.
    pub(crate) fn serve<'a>(&self, serving: &'a Arc<Serving>, batch: &RecordBatch, call: &Call<'_>) -> Served<'a> {
        let current = &*serving.current.plugin;
        if let Some(reason) = &serving.blocked {
            return Served {
                plugin: current,
                answer: Err(current.failure(Fault::Blocked(reason.clone()))),
            };
        }
        let answer = current.apply(batch, call);
        let Some(probation) = &serving.probation else {
            return Served {
                plugin: current,
                answer,
            };
        };
        let failure = match answer {
            Ok(answer) => {
                if probation.served.fetch_add(1, Ordering::SeqCst) + 1 >= PROBATION_BATCHES {
                    self.prove(serving);
                }
                return Served {
                    plugin: current,
                    answer: Ok(answer),
                };
            }
            Err(failure) => failure,
        };
        let previous = &*probation.previous.plugin;
        match previous.apply(batch, call) {
            Ok(answer) => {
                current.count(|counters| counters.rescued += 1);
                self.failed(serving, probation, &failure);
                Served {
                    plugin: previous,
                    answer: Ok(answer),
                }
            }
            // Both fail: the batch is to blame, not the update. The stricter one decides.
            Err(second) if second.verdict == Verdict::Refuse => Served {
                plugin: previous,
                answer: Err(second),
            },
            Err(_) => Served {
                plugin: current,
                answer: Err(failure),
            },
        }
    }

    /// The new version has shown that it works; the one before it is let go.
    fn prove(&self, serving: &Arc<Serving>) {
        let mut inner = lock(&self.inner);
        if !inner.on_probation_with(serving) {
            return;
        }
        let version = &serving.current.version;
        self.events.push(ChainEvent::new(What::Proven, &self.name, version));
        tracing::info!(plugin = self.name, %version, "new version works");
        let (shadow, blocked) = (inner.serving.shadow.clone(), inner.serving.blocked.clone());
        inner.replace(Serving {
            current: serving.current.clone(),
            shadow,
            probation: None,
            // Taken back while it was on probation: that it works is no reason to go on with it.
            blocked,
        });
    }

    fn failed(&self, serving: &Arc<Serving>, probation: &Probation, failure: &Failure) {
        let failed = probation.failed.fetch_add(1, Ordering::SeqCst) + 1;
        let never_served = probation.served.load(Ordering::SeqCst) == 0;
        if failed < PROBATION_FAULTS && !never_served {
            return;
        }
        let mut inner = lock(&self.inner);
        if !inner.on_probation_with(serving) {
            return;
        }
        let (from, to) = (&serving.current.version, &probation.previous.version);
        let fault = failure.fault.to_string();
        tracing::warn!(
            plugin = self.name,
            version = %from,
            back_to = %to,
            fault,
            "new version fails, the place goes back"
        );
        let mut event = ChainEvent::new(What::RolledBack, &self.name, from);
        event.other = Some(to.clone());
        event.fault = Some(fault);
        inner.rolled_back_from = Some(from.clone());
        let shadow = inner.serving.shadow.clone();
        inner.replace(Serving {
            current: probation.previous.clone(),
            shadow,
            probation: None,
            blocked: None,
        });
        // Whoever is told must find the place as the event says.
        drop(inner);
        self.events.push(event);
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
                stats.blocked.clone_from(&serving.blocked);
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
            match (serving.current.plugin.enabled(), &serving.blocked, &serving.probation) {
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

impl Probation {
    fn of(previous: Edition) -> Probation {
        Probation {
            previous,
            served: AtomicU32::new(0),
            failed: AtomicU32::new(0),
        }
    }
}

/// Whether the version before may serve where the new one fails. What a mask shall hide only another mask may hide, and only
/// as the operator says now.
fn may_stand_by(previous: &Plugin, new: &Plugin, same_settings: bool) -> bool {
    new.kind() != Kind::Mask || (previous.kind() == Kind::Mask && same_settings)
}
