//! What an outcome makes of a batch, with the checks that the host has.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};
use serde_json::Value;
use sluice_plugin_fixture::{Actual, Row, rows};

use crate::{Batch, Outcome, Plugin, names};

pub(super) fn apply<P: Plugin>(batch: &RecordBatch, outcome: &Outcome) -> Result<Actual, String> {
    let writes = P::describe().writes;
    let changed = with_columns(batch, outcome, &writes)?;
    let mut all: Vec<Row> = rows(&changed)?;
    if let Some(factor) = outcome.weight_factor() {
        check_weight(factor, outcome, &writes)?;
        for row in &mut all {
            let before = row.get("weight").and_then(Value::as_f64).unwrap_or(1.0);
            row.insert("weight".to_owned(), Value::from(before * factor));
        }
    }
    let keep = outcome.selection();
    let dropped = keep.map_or(0, |keep| keep.len() - keep.count_set_bits()) as u64;
    let mut drops = BTreeMap::new();
    for (reason, rows) in outcome.drops() {
        check_reason(reason)?;
        *drops.entry(reason.clone()).or_insert(0) += rows;
    }
    if drops.values().sum::<u64>() != dropped {
        return Err(format!(
            "counts {} dropped rows; the selection drops {dropped}",
            drops.values().sum::<u64>()
        ));
    }
    let mut quarantined = BTreeMap::new();
    let mut stay = Vec::with_capacity(all.len());
    for (index, row) in all.into_iter().enumerate() {
        if keep.is_some_and(|keep| !keep.value(index)) {
            continue;
        }
        match outcome.quarantined() {
            Some((set, reason)) if set.value(index) => {
                check_reason(reason)?;
                *quarantined.entry(reason.to_owned()).or_insert(0) += 1;
            }
            _ => stay.push(row),
        }
    }
    Ok(Actual {
        rows: stay,
        drops,
        quarantined,
        error: None,
    })
}

/// The batch with the columns of the outcome, which have gone over the border once.
fn with_columns(batch: &RecordBatch, outcome: &Outcome, writes: &[String]) -> Result<RecordBatch, String> {
    let encoded = outcome.clone().encode(&Batch::from(batch.clone()))?;
    let lengths = [encoded.selection.as_ref(), encoded.quarantine.as_ref().map(|q| &q.rows)];
    if lengths
        .into_iter()
        .flatten()
        .any(|bits| bits.len() != batch.num_rows().div_ceil(8))
    {
        return Err("a selection that does not have one bit per row".to_owned());
    }
    let Some(bytes) = encoded.columns else {
        return Ok(batch.clone());
    };
    let given = crate::ipc::read(bytes)?;
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    for (field, column) in given.schema_ref().fields().iter().zip(given.columns()) {
        let name = field.name();
        if !names::declared(writes, name) || name == "signal" {
            return Err(format!("gives back column `{name}`, which is not among `writes`"));
        }
        match batch.schema_ref().index_of(name) {
            Ok(place) => {
                if column.null_count() > 0 && !fields[place].is_nullable() {
                    return Err(format!("gives back column `{name}` with nulls"));
                }
                if plain(column.data_type()) != plain(fields[place].data_type()) {
                    return Err(format!("gives back column `{name}` of type {}", column.data_type()));
                }
                fields[place] = field.clone();
                columns[place] = column.clone();
            }
            Err(_) => {
                fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
                columns.push(column.clone());
            }
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(|e| e.to_string())
}

fn plain(kind: &arrow_schema::DataType) -> &arrow_schema::DataType {
    match kind {
        arrow_schema::DataType::Dictionary(_, values) => values,
        other => other,
    }
}

fn check_weight(factor: f64, outcome: &Outcome, writes: &[String]) -> Result<(), String> {
    if !factor.is_finite() || factor < 1.0 {
        return Err(format!("a weight factor of {factor}"));
    }
    if !names::declared(writes, "weight") {
        return Err("gives a weight factor without `weight` among `writes`".to_owned());
    }
    if outcome.columns().iter().any(|(name, _)| name == "weight") {
        return Err("gives a weight factor and the column `weight`".to_owned());
    }
    Ok(())
}

fn check_reason(reason: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.- ".contains(&byte);
    if (1..=64).contains(&reason.len()) && reason.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "the reason `{reason}`: a reason has 1 to 64 letters, digits, `_`, `.`, `-` or spaces"
    ))
}
