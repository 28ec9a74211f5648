//! One batch through the sampler: what is kept anyway, what the draws keep, what the kept rows stand for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow_array::builder::Float64Builder;
use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, DictionaryArray, Float64Array, StringArray, UInt32Array};
use arrow_buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use sluice_plugin::{Batch, Context, Outcome, Signal, bits};

use crate::budget::{Budget, Limit, Offer};
use crate::config::{BudgetConfig, Config, TraceState, WithoutTrace};
use crate::consistent;
use crate::draw::{self, Before, Draws};
use crate::field::Field;
use crate::keep::Keep;
use crate::memory::Memory;
use crate::rates::{Classes, Gates, Rates};
use crate::units;

/// Reasons of the ledger: the rate, the budget that shrank it, the link that shrank it further.
pub const SAMPLED: &str = "sampled";
pub const BUDGET: &str = "budget";
pub const LINK: &str = "link";

/// Where randomness comes from.
pub type Entropy = Box<dyn FnMut() -> u64>;

pub struct Sample {
    keep: Keep,
    rates: Rates,
    budget: Option<Budget>,
    /// Bytes of a row as long as the node does not know them.
    row_bytes: f64,
    without_trace: WithoutTrace,
    hash_by: Vec<Field>,
    update_trace_state: bool,
    memory: Option<Box<dyn Memory>>,
    entropy: Entropy,
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sample")
            .field("keep", &self.keep)
            .field("rates", &self.rates)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl Sample {
    /// With the memory that the instances of a node share; none if the host grants none.
    pub fn new(config: Config, memory: Option<Box<dyn Memory>>, entropy: Entropy) -> Result<Sample, String> {
        if memory.is_none() {
            check_without_memory(&config)?;
        }
        let limit = config.budget.as_ref().map(limit).transpose()?;
        let row_bytes = config.budget.as_ref().map_or(1.0, |budget| budget.row_bytes);
        let hash_by = config
            .hash_by
            .iter()
            .map(|name| Field::parse(name).map_err(|e| format!("hash_by: {e}")));
        let hash_by = hash_by.collect::<Result<Vec<_>, _>>()?;
        if hash_by.is_empty() && config.without_trace == WithoutTrace::Hash {
            return Err("hash_by is empty, so all events without a trace would be chosen together".to_owned());
        }
        Ok(Sample {
            keep: Keep::new(&config)?,
            rates: Rates::new(&config)?,
            budget: limit.map(Budget::new),
            row_bytes,
            without_trace: config.without_trace,
            hash_by,
            update_trace_state: config.trace_state == TraceState::Update,
            memory,
            entropy,
        })
    }

    /// The columns that this configuration looks at.
    pub fn reads(&self) -> Vec<String> {
        let mut reads = ["trace_id", "trace_state", "weight"].map(str::to_owned).to_vec();
        reads.extend(self.keep.reads());
        reads.extend(self.rates.reads());
        if self.without_trace == WithoutTrace::Hash {
            reads.extend(self.hash_by.iter().flat_map(Field::names));
        }
        reads
    }

    pub fn sample(&mut self, batch: &Batch, context: &Context) -> Result<Outcome, String> {
        let link = context.hints.share;
        let link = if link.is_finite() { link.clamp(0.0, 1.0) } else { 1.0 };
        let all = self.budget.is_none() && link >= 1.0 && self.rates.are_all_one();
        // Points of a metric are no sample of anything: without one of them, sums and rates are wrong.
        if context.signal == Signal::Metric || batch.rows() == 0 || all {
            return Ok(Outcome::unchanged());
        }
        let keep = self.keep.rows(batch, self.memory.as_deref(), context.now)?;
        let arrived = draw::arrived(batch)?;
        let draws = Draws::new(
            batch,
            arrived.as_deref(),
            self.without_trace,
            &self.hash_by,
            &mut self.entropy,
        )?;
        let always = &keep | &!&draws.drawn;
        let classes = self.rates.classes(batch)?;

        let row_bytes = context.hints.row_bytes;
        let row_bytes = if row_bytes.is_finite() && row_bytes > 0.0 {
            row_bytes
        } else {
            self.row_bytes
        };
        let share = match (&mut self.budget, &self.memory) {
            (Some(budget), Some(memory)) => {
                let offer = Offer {
                    always: always.count_set_bits() as f64,
                    rates: self.rates.expected(&!&always, &classes),
                };
                budget.share(&**memory, context.now, row_bytes, offer)
            }
            _ => 1.0,
        };
        let gates = self.rates.gates(share, link);
        let through = |gate: fn(&Gates) -> u64| pass(&always, &draws, &classes, &gates, gate);
        let by_rate = through(|gates| gates.rate.threshold());
        let by_budget = if share < 1.0 {
            through(|gates| gates.budget.threshold())
        } else {
            by_rate.clone()
        };
        let kept = if link < 1.0 {
            through(|gates| gates.link.threshold())
        } else {
            by_budget.clone()
        };
        if let (Some(budget), Some(memory)) = (&mut self.budget, &self.memory) {
            budget.spend(&**memory, context.now, row_bytes, kept.count_set_bits() as f64);
        }

        let chosen = Chosen {
            by_chance: &kept & &!&always,
            always: &always,
            draws: &draws,
            classes: &classes,
            gates: &gates,
        };
        let mut outcome = Outcome::unchanged();
        outcome = chosen.weigh(outcome, &Before::new(batch, arrived.as_deref()));
        if self.update_trace_state && context.signal == Signal::Span {
            outcome = chosen.update_trace_state(outcome, batch)?;
        }
        Ok(outcome
            .select(by_rate, SAMPLED)
            .select(by_budget, BUDGET)
            .select(kept, LINK))
    }
}

/// Rows that are kept anyway or that one gate of their class lets through.
fn pass(
    always: &BooleanBuffer,
    draws: &Draws,
    classes: &Classes,
    gates: &[Gates],
    gate: fn(&Gates) -> u64,
) -> BooleanBuffer {
    let randomness = draws.all();
    let thresholds: Vec<u64> = gates.iter().map(gate).collect();
    let passed = match classes {
        Classes::One => {
            let threshold = thresholds[0];
            // Both have 56 bits; there is a vector instruction for signed numbers only.
            bits::of(randomness, |randomness| randomness as i64 >= threshold as i64)
        }
        Classes::Many(_) => {
            BooleanBuffer::collect_bool(randomness.len(), |row| randomness[row] >= thresholds[classes.of(row)])
        }
    };
    always | &passed
}

/// Rows that stay, and how.
struct Chosen<'a> {
    by_chance: BooleanBuffer,
    always: &'a BooleanBuffer,
    draws: &'a Draws,
    classes: &'a Classes,
    gates: &'a [Gates],
}

impl Chosen<'_> {
    /// A row kept by chance stands for as many events as its chance says. If an earlier sampler had weighed it, that one chose
    /// by the same draw, so the row survived the smaller chance: the larger weight counts, not the product. Only where the draw
    /// was the row's own the two were independent, and the product counts.
    fn weigh(&self, outcome: Outcome, before: &Before<'_>) -> Outcome {
        let nobody = self.by_chance.count_set_bits() == 0;
        let weight_of = |class: usize| self.gates[class].link.weight();
        if let (true, Classes::One) = (before.is_one(), self.classes) {
            let weight = weight_of(0);
            if nobody || weight == 1.0 {
                return outcome;
            }
            if self.always.count_set_bits() == 0 {
                return outcome.weight(weight);
            }
            let weights = ScalarBuffer::from(vec![weight; self.by_chance.len()]);
            let weights = Float64Array::new(weights, Some(NullBuffer::new(self.by_chance.clone())));
            return outcome.column("weight", Arc::new(weights));
        }
        let mut weights = Float64Builder::with_capacity(self.by_chance.len());
        let mut changed = false;
        for row in 0..self.by_chance.len() {
            let old = before.weight(row, self.draws);
            let weight = match self.by_chance.value(row) {
                false => old,
                true => {
                    let own = weight_of(self.classes.of(row));
                    let weight = match old {
                        Some(old) if self.draws.alone.value(row) => own * old,
                        Some(old) => own.max(old),
                        None => own,
                    };
                    Some(weight).filter(|weight| *weight != 1.0 || old.is_some())
                }
            };
            changed |= weight.is_some();
            weights.append_option(weight);
        }
        if changed {
            outcome.column("weight", Arc::new(weights.finish()))
        } else {
            outcome
        }
    }

    /// Spans say in their trace state by which threshold they were kept. Each distinct state is written once.
    fn update_trace_state(&self, outcome: Outcome, batch: &Batch) -> Result<Outcome, String> {
        let states = batch.text("trace_state")?;
        let mut places: HashMap<(Option<&str>, u64), u32> = HashMap::new();
        let mut values: Vec<String> = Vec::new();
        let mut changed = false;
        let keys = (0..batch.rows()).map(|row| {
            let state = states.get(row);
            // A draw that nobody else has is no randomness of a trace.
            let threshold = if self.by_chance.value(row) && !self.draws.alone.value(row) {
                self.gates[self.classes.of(row)].link.threshold()
            } else {
                0
            };
            if threshold == 0 && state.is_none() {
                return None;
            }
            changed |= threshold != 0;
            Some(*places.entry((state, threshold)).or_insert_with(|| {
                values.push(match (threshold, state) {
                    (0, Some(state)) => state.to_owned(),
                    (threshold, state) => consistent::with_threshold(state, threshold),
                });
                values.len() as u32 - 1
            }))
        });
        let keys: UInt32Array = keys.collect();
        if !changed {
            return Ok(outcome);
        }
        let states = DictionaryArray::<UInt32Type>::try_new(keys, Arc::new(StringArray::from(values)));
        let states: ArrayRef = Arc::new(states.map_err(|e| e.to_string())?);
        Ok(outcome.column("trace_state", states))
    }
}

fn limit(budget: &BudgetConfig) -> Result<Limit, String> {
    let positive = |key: &str, value: f64| match value.is_finite() && value > 0.0 {
        true => Ok(value),
        false => Err(format!("budget.{key} = {value} is not above 0")),
    };
    positive("row_bytes", budget.row_bytes)?;
    match (budget.rows_per_second, &budget.bytes_per_day) {
        (Some(rows), None) => Ok(Limit::RowsPerSecond(positive("rows_per_second", rows)?)),
        (None, Some(bytes)) => {
            let bytes = units::bytes(bytes).map_err(|e| format!("budget.bytes_per_day: {e}"))?;
            Ok(Limit::BytesPerDay(positive("bytes_per_day", bytes)?))
        }
        _ => Err("budget: give either `rows_per_second` or `bytes_per_day`".to_owned()),
    }
}

/// Without the host's memory each instance would be on its own: a pattern would be new to each of them, and each would spend
/// the whole budget.
fn check_without_memory(config: &Config) -> Result<(), String> {
    let slow = config.keep_slow.as_ref().is_some_and(|slow| slow.quantile.is_some());
    let needing = [
        ("keep_first", config.keep_first.is_some()),
        ("keep_slow.quantile", slow),
        ("budget", config.budget.is_some()),
    ];
    let needing: Vec<&str> = needing.iter().filter(|(_, on)| *on).map(|(key, _)| *key).collect();
    if needing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} must remember something between batches: grant the capability `state`, or leave that out",
        needing.join(", ")
    ))
}
