//! Rows through one plugin, and what became of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch, is_null};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use sluice_plugin_fixture::{Actual, Row};
use sluice_runtime::{Call, Chain, Plugin};

/// Tells rows apart on their way; a plugin that reads all attributes sees it.
const PLACE: &str = "attrs:i:sluice.preview.row";

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Trial {
    /// The rows that stayed, by their place in the input.
    pub(super) stayed: BTreeMap<usize, Row>,
    /// Reasons of those that were set aside.
    pub(super) quarantined: BTreeMap<usize, String>,
    pub(super) drops: BTreeMap<String, u64>,
    /// What went wrong instead.
    pub(super) error: Option<String>,
}

impl Trial {
    pub(super) fn run(plugin: &Arc<Plugin>, batch: &RecordBatch, call: &Call<'_>) -> Result<Trial> {
        let faults = plugin.stats().faults;
        let numbered = with_places(batch)?;
        let failed = |error: String| Trial {
            stayed: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            drops: BTreeMap::new(),
            error: Some(error),
        };
        let outcome = match Chain::new(vec![plugin.clone()]).run(numbered, call) {
            Ok(outcome) => outcome,
            Err(refused) => return Ok(failed(refused.fault)),
        };
        let stats = plugin.stats();
        if stats.faults > faults {
            return Ok(failed(stats.last_fault.unwrap_or_default()));
        }
        let mut trial = Trial {
            stayed: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            drops: BTreeMap::new(),
            error: None,
        };
        for dropped in outcome.dropped {
            *trial.drops.entry(dropped.reason).or_default() += dropped.rows;
        }
        let (by, reason) = (
            text(&outcome.batch, "quarantined_by")?,
            text(&outcome.batch, "quarantine_reason")?,
        );
        let places = places(&outcome.batch)?;
        let rest = without(&outcome.batch, &[PLACE, "quarantined_by", "quarantine_reason"])?;
        let stays = match &by {
            Some(by) => {
                for row in (0..by.len()).filter(|row| by.is_valid(*row)) {
                    let why = reason.as_ref().map_or("", |reason| reason.value(row));
                    trial.quarantined.insert(places[row], why.to_owned());
                }
                filter_record_batch(&rest, &is_null(by)?)?
            }
            None => rest,
        };
        let stayed = places
            .into_iter()
            .filter(|place| !trial.quarantined.contains_key(place));
        trial.stayed = stayed.zip(rows(&stays)?).collect();
        Ok(trial)
    }

    /// As a fixture expects it.
    pub(super) fn actual(self) -> Actual {
        let mut quarantined = BTreeMap::new();
        for reason in self.quarantined.into_values() {
            *quarantined.entry(reason).or_insert(0) += 1;
        }
        Actual {
            rows: self.stayed.into_values().collect(),
            drops: self.drops,
            quarantined,
            error: self.error,
        }
    }
}

/// The rows of a batch as people read them.
pub(super) fn rows(batch: &RecordBatch) -> Result<Vec<Row>> {
    sluice_plugin_fixture::rows(batch).map_err(anyhow::Error::msg)
}

fn with_places(batch: &RecordBatch) -> Result<RecordBatch> {
    if batch.schema_ref().index_of(PLACE).is_ok() {
        bail!("the rows have an attribute `sluice.preview.row`, which is taken");
    }
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    fields.push(Arc::new(Field::new(PLACE, DataType::Int64, true)));
    columns.push(Arc::new(Int64Array::from_iter_values(0..batch.num_rows() as i64)));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn places(batch: &RecordBatch) -> Result<Vec<usize>> {
    if batch.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let column = batch.column_by_name(PLACE).context("the plugin removed an attribute")?;
    let numbers = column
        .as_primitive_opt::<Int64Type>()
        .context("the plugin changed an attribute that it was not shown")?;
    Ok(numbers.iter().map(|place| place.unwrap_or_default() as usize).collect())
}

fn text(batch: &RecordBatch, name: &str) -> Result<Option<StringArray>> {
    let Some(column) = batch.column_by_name(name) else {
        return Ok(None);
    };
    let plain = cast(column, &DataType::Utf8)?;
    Ok(plain.as_string_opt::<i32>().cloned())
}

fn without(batch: &RecordBatch, names: &[&str]) -> Result<RecordBatch> {
    let fields = batch.schema_ref().fields();
    let kept: Vec<usize> = (0..fields.len())
        .filter(|place| !names.contains(&fields[*place].name().as_str()))
        .collect();
    Ok(batch.project(&kept)?)
}
