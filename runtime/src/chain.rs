//! The plugins in their order: what each does to the rows, and to those that were set aside before it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use arrow_array::RecordBatch;
use arrow_buffer::BooleanBuffer;
use arrow_schema::ArrowError;
use sluice_wire::Signal;
use sluice_wire::counts::Dropped;

use crate::answer::Answer;
use crate::call::Call;
use crate::columns;
use crate::event::{ChainEvent, Events, What};
use crate::fault::{Fault, Words};
use crate::plugin::{Failure, Plugin};
use crate::policy::{Kind, Verdict};
use crate::reasons::Reasons;
use crate::shadow::Shadow;
use crate::slot::{Candidate, Edition, Place, Serving, Slot};
use crate::stats::PluginStats;

/// An ordered list of places, each with a plugin. Clones are the same chain; what [`Chain::set`] puts into it serves the next
/// batch, while those at work end with the versions that they began with.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    slots: RwLock<Arc<[Arc<Slot>]>>,
    reasons: Reasons,
    events: Arc<Events>,
}

/// What is left of a batch, and what became of the rest.
#[derive(Clone, Debug)]
pub struct ChainOutcome {
    pub batch: RecordBatch,
    pub dropped: Vec<Dropped>,
    /// Rows of `batch` that have `quarantined_by` set.
    pub quarantined: u64,
}

/// The events must not be accepted: a mask did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused by plugin `{plugin}`, which {fault}")]
pub struct Refused {
    pub plugin: String,
    pub fault: String,
    /// Whether sending the same events again later can help: the plugin is switched off for a while and these events
    /// may not be the reason. Events that made it fail are not worth another try.
    pub retryable: bool,
}

impl Chain {
    pub fn new(plugins: Vec<Arc<Plugin>>) -> Chain {
        let chain = Chain::default();
        let slots = plugins.into_iter().map(|plugin| {
            let place = Place {
                enabled: plugin.enabled(),
                edition: Edition {
                    version: plugin.version().to_owned(),
                    plugin,
                },
                settings: String::new(),
                blocked: None,
                shadow: None,
                before: None,
            };
            Arc::new(Slot::new(place, None, chain.shared.events.clone()))
        });
        *chain.shared.slots.write().unwrap_or_else(PoisonError::into_inner) = slots.collect();
        chain
    }

    /// Puts these plugins into the chain, all at once. A place keeps its counts, its version where it is the same plugin, and its
    /// candidate where that is the same; a new version begins on probation. An error changes nothing.
    pub fn set(&self, places: Vec<Place>) -> std::io::Result<()> {
        let mut prepared = Vec::with_capacity(places.len());
        for place in places {
            let old = self.slot(place.edition.plugin.name());
            let shadow = match &place.shadow {
                Some(wanted) => Some(shadow(wanted, old.as_deref())?),
                None => None,
            };
            prepared.push((place, shadow));
        }
        let events = &self.shared.events;
        // Batches take all their versions under the other side of this lock.
        let mut slots = self.shared.slots.write().unwrap_or_else(PoisonError::into_inner);
        let mut next: Vec<Arc<Slot>> = Vec::with_capacity(prepared.len());
        for (place, shadow) in prepared {
            match slots.iter().find(|slot| slot.name() == place.edition.plugin.name()) {
                Some(slot) => {
                    slot.set(place, shadow);
                    next.push(slot.clone());
                }
                None => {
                    let slot = Arc::new(Slot::new(place, shadow, events.clone()));
                    events.push(ChainEvent::new(What::Added, slot.name(), &slot.current().version));
                    next.push(slot);
                }
            }
        }
        for gone in slots
            .iter()
            .filter(|slot| !next.iter().any(|n| n.name() == slot.name()))
        {
            events.push(ChainEvent::new(What::Removed, gone.name(), &gone.current().version));
        }
        *slots = next.into();
        Ok(())
    }

    /// The places in their order.
    pub fn slots(&self) -> Arc<[Arc<Slot>]> {
        self.shared.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn slot(&self, name: &str) -> Option<Arc<Slot>> {
        self.slots().iter().find(|slot| slot.name() == name).cloned()
    }

    /// The names under which what the plugins did is counted.
    pub fn reasons(&self) -> &Reasons {
        &self.shared.reasons
    }

    /// Asks for every version in every place whether it may run, those that stand by and the candidates among them: `why` gives
    /// the reason if not. Takes effect with the next call of each.
    pub fn block(&self, why: impl Fn(&Arc<Plugin>) -> Option<String>) {
        for slot in self.slots().iter() {
            slot.block(&why);
        }
    }

    /// Of every version of every place.
    pub fn stats(&self) -> Vec<PluginStats> {
        self.slots().iter().flat_map(|slot| slot.stats()).collect()
    }

    /// What happened to the places after the event of this number; 0: all that is remembered.
    pub fn events_after(&self, number: u64) -> Vec<ChainEvent> {
        self.shared.events.after(number)
    }

    /// Called after every event, from whichever thread it happened on. It must not block; only the first watcher counts.
    pub fn watch(&self, watcher: impl Fn() + Send + Sync + 'static) {
        self.shared.events.watch(watcher);
    }

    /// Runs all plugins over a batch. Blocks while guests run; call it where blocking is allowed, on a thread with a
    /// stack of at least 2 MiB.
    pub fn run(&self, batch: RecordBatch, call: &Call<'_>) -> Result<ChainOutcome, Refused> {
        let places = self.serving(call.signal);
        let mut work = Work::new(batch, &self.shared.reasons);
        for (place, (slot, serving)) in places.iter().enumerate() {
            let follows = |(_, later): &(_, Arc<Serving>)| later.current.plugin.kind() == Kind::Mask;
            let words = match places[place + 1..].iter().any(follows) {
                true => Words::OfHost,
                false => Words::OfGuest,
            };
            work.apply(slot, serving, call, words)?;
        }
        work.finish()
    }

    /// What serves a batch that begins now. Also what is switched off is looked at once, at the beginning: while the chain changes,
    /// a batch must not find one mask off already and the one that takes its place not on yet.
    fn serving(&self, signal: Signal) -> Vec<(Arc<Slot>, Arc<Serving>)> {
        let slots = self.shared.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots
            .iter()
            .map(|slot| (slot.clone(), slot.serving()))
            .filter(|(_, serving)| serving.current.plugin.applies_to(signal))
            .collect()
    }
}

/// The candidate at work, if it is the one that is wanted; else a new one.
fn shadow(wanted: &Candidate, old: Option<&Slot>) -> std::io::Result<Arc<Shadow>> {
    let same = |shadow: &Arc<Shadow>| {
        Arc::ptr_eq(shadow.candidate(), &wanted.edition.plugin) && shadow.share().total_cmp(&wanted.share).is_eq()
    };
    match old.and_then(Slot::shadow).filter(same) {
        Some(shadow) => Ok(shadow),
        None => Shadow::start(&wanted.edition, wanted.share).map(Arc::new),
    }
}

/// Rows with their places in the original batch; `places` is only kept once rows were set aside.
struct Rows {
    batch: RecordBatch,
    places: Option<Vec<u32>>,
}

impl Rows {
    fn filter(&mut self, keep: &BooleanBuffer) -> Result<(), ArrowError> {
        self.batch = columns::filter(&self.batch, keep)?;
        if let Some(places) = &mut self.places {
            *places = keep.set_indices().map(|row| places[row]).collect();
        }
        Ok(())
    }
}

struct Work<'a> {
    reasons: &'a Reasons,
    active: Rows,
    /// Set aside by an earlier plugin; only masks see them.
    held: Vec<Rows>,
    dropped: BTreeMap<(String, String), u64>,
}

impl<'a> Work<'a> {
    fn new(batch: RecordBatch, reasons: &'a Reasons) -> Work<'a> {
        Work {
            reasons,
            active: Rows { batch, places: None },
            held: Vec::new(),
            dropped: BTreeMap::new(),
        }
    }

    fn apply(&mut self, slot: &Slot, serving: &Arc<Serving>, call: &Call<'_>, words: Words) -> Result<(), Refused> {
        if serving.current.plugin.kind() == Kind::Mask {
            for index in 0..self.held.len() {
                self.mask_held(index, slot, serving, call)?;
            }
        }
        let rows = self.active.batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let sampled = serving
            .shadow
            .as_ref()
            .and_then(|shadow| shadow.sample(&self.active.batch, call, words));
        let served = slot.serve(serving, &self.active.batch, call, words);
        if let Some(sampled) = sampled {
            sampled.offer(&served.answer, call);
        }
        let plugin = served.plugin;
        plugin.count(|counters| {
            counters.batches += 1;
            counters.rows_in += rows as u64;
        });
        match served.answer {
            Ok(answer) => self
                .accept(plugin, answer, words)
                .map_err(|e| broken(plugin, &e, words))?,
            Err(failure) => self.fail(plugin, &failure, words)?,
        }
        let rows = self.active.batch.num_rows() as u64;
        plugin.count(|counters| counters.rows_out += rows);
        Ok(())
    }

    fn accept(&mut self, plugin: &Plugin, answer: Answer, words: Words) -> Result<(), ArrowError> {
        if let Some(changed) = answer.changed {
            self.active.batch = changed;
        }
        if let Some((rows, reason)) = &answer.quarantine {
            let rows = match &answer.keep {
                Some(keep) => rows & keep,
                None => rows.clone(),
            };
            let stay = match answer.keep {
                Some(keep) => &keep & &!&rows,
                None => !&rows,
            };
            self.hold(plugin, &rows, &words.reason(plugin.version(), reason))?;
            self.active.filter(&stay)?;
        } else if let Some(keep) = &answer.keep {
            self.active.filter(keep)?;
        }
        self.count_drops(plugin, answer.drops);
        Ok(())
    }

    fn fail(&mut self, plugin: &Plugin, failure: &Failure, words: Words) -> Result<(), Refused> {
        match failure.verdict {
            Verdict::Refuse => {
                let rows = self.active.batch.num_rows();
                Err(refused(plugin, &failure.fault, rows))
            }
            Verdict::Bypass => Ok(()),
            Verdict::Quarantine => {
                let all = BooleanBuffer::new_set(self.active.batch.num_rows());
                self.hold(plugin, &all, &failure.fault.to_string())
                    .and_then(|()| self.active.filter(&!&all))
                    .map_err(|e| broken(plugin, &e, words))
            }
        }
    }

    /// Copies rows of the active batch to those set aside. The caller takes them out of the active batch.
    fn hold(&mut self, plugin: &Plugin, rows: &BooleanBuffer, reason: &str) -> Result<(), ArrowError> {
        let count = rows.count_set_bits() as u64;
        if count == 0 {
            return Ok(());
        }
        let total = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        self.active.places.get_or_insert_with(|| (0..total).collect());
        let mut held = Rows {
            batch: self.active.batch.clone(),
            places: self.active.places.clone(),
        };
        held.filter(rows)?;
        held.batch = columns::quarantine(&held.batch, plugin.name(), reason)?;
        self.held.push(held);
        plugin.count(|counters| counters.quarantined += count);
        Ok(())
    }

    /// A mask over rows that were set aside: they go to the store too, so they pass it or the request is refused.
    fn mask_held(&mut self, index: usize, slot: &Slot, serving: &Arc<Serving>, call: &Call<'_>) -> Result<(), Refused> {
        let held = &mut self.held[index];
        let rows = held.batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        // A mask is never told of in its own words.
        let served = slot.serve(serving, &held.batch, call, Words::OfHost);
        let plugin = served.plugin;
        let answer = served.answer.map_err(|failure| refused(plugin, &failure.fault, rows))?;
        if let Some(changed) = answer.changed {
            held.batch = changed;
        }
        if let Some(keep) = &answer.keep {
            held.filter(keep).map_err(|e| broken(plugin, &e, Words::OfHost))?;
        }
        self.count_drops(plugin, answer.drops);
        Ok(())
    }

    fn count_drops(&mut self, plugin: &Plugin, drops: BTreeMap<String, u64>) {
        for (reason, rows) in drops {
            let reason = self.reasons.name(plugin.name(), &reason);
            plugin.count(|counters| {
                *counters.dropped.entry(reason.clone()).or_default() += rows;
            });
            *self.dropped.entry((plugin.name().to_owned(), reason)).or_default() += rows;
        }
    }

    /// Rows in their original order again, those set aside among them.
    fn finish(self) -> Result<ChainOutcome, Refused> {
        let quarantined: usize = self.held.iter().map(|held| held.batch.num_rows()).sum();
        let batch = if quarantined == 0 {
            self.active.batch
        } else {
            let parts: Vec<Rows> = std::iter::once(self.active)
                .chain(self.held)
                .filter(|part| part.batch.num_rows() > 0)
                .collect();
            reunite(parts).map_err(|e| Refused {
                plugin: "chain".to_owned(),
                fault: e.to_string(),
                retryable: false,
            })?
        };
        let dropped = self
            .dropped
            .into_iter()
            .map(|((plugin, reason), rows)| Dropped { plugin, reason, rows })
            .collect();
        Ok(ChainOutcome {
            batch,
            dropped,
            quarantined: quarantined as u64,
        })
    }
}

fn reunite(parts: Vec<Rows>) -> Result<RecordBatch, ArrowError> {
    let places: Vec<u32> = parts
        .iter()
        .flat_map(|part| part.places.iter().flatten().copied())
        .collect();
    let batches: Vec<RecordBatch> = parts.into_iter().map(|part| part.batch).collect();
    let stacked = columns::stack(&batches)?;
    if places.is_sorted() {
        return Ok(stacked);
    }
    let mut order: Vec<u32> = (0..u32::try_from(places.len()).unwrap_or(u32::MAX)).collect();
    order.sort_by_key(|row| places[*row as usize]);
    columns::take(&stacked, order)
}

fn refused(plugin: &Plugin, fault: &Fault, rows: usize) -> Refused {
    plugin.count(|counters| counters.refused += rows as u64);
    Refused {
        plugin: plugin.name().to_owned(),
        fault: fault.to_string(),
        retryable: matches!(fault, Fault::Open(_) | Fault::Blocked(_)),
    }
}

/// The host could not carry out an answer that it had checked. Whether data is masked is then unknown, so it is refused.
fn broken(plugin: &Plugin, error: &ArrowError, words: Words) -> Refused {
    let fault = Fault::Invalid(error.to_string());
    let fault = match (plugin.kind(), words) {
        (Kind::Mask, _) | (_, Words::OfHost) => fault.without_text(),
        (_, Words::OfGuest) => fault,
    };
    Refused {
        plugin: plugin.name().to_owned(),
        fault: fault.to_string(),
        retryable: false,
    }
}
