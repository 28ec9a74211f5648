//! Keeps a share of the events, the same traces on every node, and gives each kept event its weight.
//!
//! Consistent by trace id as OpenTelemetry has it: the randomness R of a trace is the low 56 bits of its id, the
//! threshold T is `(1 - rate) * 2^56`, and an event is kept if R >= T. So what a rate keeps, every higher rate keeps too.

use std::sync::Arc;

use arrow_array::builder::Float64Builder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, FixedSizeBinaryArray, Float64Array};
use arrow_buffer::BooleanBuffer;
use sluice_plugin::schemars;
use sluice_plugin::{Batch, Context, Description, Kind, Outcome, Plugin, export_plugin};

/// First severity of errors in OpenTelemetry.
const ERROR: i64 = 17;
const REASON: &str = "sampled";

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Share of the traces that is kept.
    rate: f64,
    /// Keep severity 17 and above and spans with status error, with weight 1.
    #[serde(default = "yes")]
    keep_errors: bool,
    /// Events without a trace id.
    #[serde(default)]
    without_trace: WithoutTrace,
}

fn yes() -> bool {
    true
}

/// What happens to events that belong to no trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WithoutTrace {
    #[default]
    Keep,
}

#[derive(Debug)]
pub struct Sample {
    /// Randomness from which on a trace is kept.
    threshold: u64,
    weight: f64,
    keep_errors: bool,
}

impl Plugin for Sample {
    type Config = Config;

    fn describe() -> Description {
        Description::new("sample", env!("CARGO_PKG_VERSION"), Kind::Sample)
            .reads(&["trace_id", "severity", "status", "weight"])
            .writes(&["weight"])
    }

    fn init(config: Config) -> Result<Self, String> {
        let WithoutTrace::Keep = config.without_trace;
        if !(0.0..=1.0).contains(&config.rate) {
            return Err(format!("rate = {} is not between 0 and 1", config.rate));
        }
        Ok(Sample {
            threshold: threshold(config.rate),
            weight: 1.0 / config.rate,
            keep_errors: config.keep_errors,
        })
    }

    fn process(&mut self, batch: &Batch, _: &Context) -> Result<Outcome, String> {
        if self.threshold == 0 {
            return Ok(Outcome::unchanged());
        }
        let Some(trace_ids) = batch.column("trace_id") else {
            return Ok(Outcome::unchanged());
        };
        let trace_ids = trace_ids
            .as_fixed_size_binary_opt()
            .filter(|ids| ids.value_length() == 16)
            .ok_or("trace_id is not 16 bytes")?;
        let rows = batch.rows();
        let always = self.always(batch, trace_ids)?;
        let chosen = BooleanBuffer::collect_bool(rows, |row| randomness(trace_ids.value(row)) >= self.threshold);
        let keep = &always | &chosen;
        let outcome = match self.weights(batch, &always, &chosen) {
            Some(weights) => Outcome::unchanged().column("weight", Arc::new(weights)),
            None => Outcome::unchanged(),
        };
        Ok(outcome.select(keep, REASON))
    }
}

impl Sample {
    /// Rows that no rate touches.
    fn always(&self, batch: &Batch, trace_ids: &FixedSizeBinaryArray) -> Result<BooleanBuffer, String> {
        let mut always = match trace_ids.nulls() {
            Some(nulls) => !nulls.inner(),
            None => BooleanBuffer::new_unset(batch.rows()),
        };
        if self.keep_errors {
            let severity = batch.ints("severity")?;
            let status = batch.text("status")?;
            let errors = BooleanBuffer::collect_bool(batch.rows(), |row| {
                severity.get(row).is_some_and(|s| s >= ERROR) || status.get(row) == Some("error")
            });
            always = &always | &errors;
        }
        Ok(always)
    }

    /// The new column, if any kept row stands for more than itself. A row that an earlier sampler weighed was kept by the
    /// same randomness, so the smaller of both rates is the one that it survived: the larger weight counts, not the product.
    fn weights(&self, batch: &Batch, always: &BooleanBuffer, chosen: &BooleanBuffer) -> Option<Float64Array> {
        let weighed = chosen & &!always;
        if weighed.count_set_bits() == 0 {
            return None;
        }
        let before = batch.column("weight").and_then(|c| c.as_primitive_opt());
        let mut weights = Float64Builder::with_capacity(batch.rows());
        for row in 0..batch.rows() {
            let old = before.filter(|w: &&Float64Array| w.is_valid(row)).map(|w| w.value(row));
            if weighed.value(row) {
                weights.append_value(old.map_or(self.weight, |old| old.max(self.weight)));
            } else {
                weights.append_option(old);
            }
        }
        Some(weights.finish())
    }
}

fn threshold(rate: f64) -> u64 {
    ((1.0 - rate) * (1u64 << 56) as f64).round() as u64
}

/// The low 56 bits of a trace id.
fn randomness(trace_id: &[u8]) -> u64 {
    trace_id
        .iter()
        .rev()
        .take(7)
        .rev()
        .fold(0, |r, byte| r << 8 | u64::from(*byte))
}

export_plugin!(Sample);
