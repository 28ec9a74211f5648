//! The plugins in their order: what each does to the rows, and to those that were set aside before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::BooleanBuffer;
use arrow_schema::ArrowError;
use sluice_wire::counts::Dropped;

use crate::answer::Answer;
use crate::call::Call;
use crate::columns;
use crate::fault::Fault;
use crate::plugin::{Failure, Plugin};
use crate::policy::{Kind, Verdict};
use crate::reasons::Reasons;
use crate::stats::PluginStats;

/// An ordered list of plugins. Cheap to clone; to change it, make a new one and put it in place of the old.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    plugins: Arc<[Arc<Plugin>]>,
    reasons: Arc<Reasons>,
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
        Chain {
            plugins: plugins.into(),
            reasons: Arc::default(),
        }
    }

    pub fn plugins(&self) -> &[Arc<Plugin>] {
        &self.plugins
    }

    /// The names under which what the plugins did is counted.
    pub fn reasons(&self) -> &Reasons {
        &self.reasons
    }

    pub fn stats(&self) -> Vec<PluginStats> {
        self.plugins.iter().map(|plugin| plugin.stats()).collect()
    }

    /// Runs all plugins over a batch. Blocks while guests run; call it where blocking is allowed, on a thread with a
    /// stack of at least 2 MiB.
    pub fn run(&self, batch: RecordBatch, call: &Call<'_>) -> Result<ChainOutcome, Refused> {
        let mut work = Work::new(batch, &self.reasons);
        for plugin in self.plugins.iter().filter(|p| p.applies_to(call.signal)) {
            work.apply(plugin, call)?;
        }
        work.finish()
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

    fn apply(&mut self, plugin: &Plugin, call: &Call<'_>) -> Result<(), Refused> {
        if plugin.kind() == Kind::Mask {
            for index in 0..self.held.len() {
                self.mask_held(index, plugin, call)?;
            }
        }
        let rows = self.active.batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        plugin.count(|counters| counters.rows_in += rows as u64);
        match plugin.apply(&self.active.batch, call) {
            Ok(answer) => self.accept(plugin, answer).map_err(|e| broken(plugin, &e))?,
            Err(failure) => self.fail(plugin, &failure)?,
        }
        let rows = self.active.batch.num_rows() as u64;
        plugin.count(|counters| counters.rows_out += rows);
        Ok(())
    }

    fn accept(&mut self, plugin: &Plugin, answer: Answer) -> Result<(), ArrowError> {
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
            self.hold(plugin, &rows, reason)?;
            self.active.filter(&stay)?;
        } else if let Some(keep) = &answer.keep {
            self.active.filter(keep)?;
        }
        self.count_drops(plugin, answer.drops);
        Ok(())
    }

    fn fail(&mut self, plugin: &Plugin, failure: &Failure) -> Result<(), Refused> {
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
                    .map_err(|e| broken(plugin, &e))
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
    fn mask_held(&mut self, index: usize, plugin: &Plugin, call: &Call<'_>) -> Result<(), Refused> {
        let held = &mut self.held[index];
        let rows = held.batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let answer = plugin
            .apply(&held.batch, call)
            .map_err(|failure| refused(plugin, &failure.fault, rows))?;
        if let Some(changed) = answer.changed {
            held.batch = changed;
        }
        if let Some(keep) = &answer.keep {
            held.filter(keep).map_err(|e| broken(plugin, &e))?;
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
        retryable: matches!(fault, Fault::Open(_)),
    }
}

/// The host could not carry out an answer that it had checked. Whether data is masked is then unknown, so it is refused.
fn broken(plugin: &Plugin, error: &ArrowError) -> Refused {
    Refused {
        plugin: plugin.name().to_owned(),
        fault: error.to_string(),
        retryable: false,
    }
}
