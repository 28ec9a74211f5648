//! A plugin without the sandbox, as a node would run it if it were part of the node.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array, RecordBatch};
use arrow_schema::{Field, Schema};
use serde_json::Value;
use sluice_plugin::{Batch, Context, Outcome, Plugin};

/// Runs a plugin over a batch, with carrying out its answer or without; answers how many rows there are then.
pub(crate) type Native = Box<dyn FnMut(&RecordBatch, bool) -> usize>;

pub(crate) fn native<P: Plugin>(config: Value) -> Native {
    let config = serde_json::from_value(config).unwrap();
    let mut plugin = P::init(config).unwrap();
    let reads = P::describe().reads;
    let context = Context::default();
    Box::new(move |batch, carry| {
        let declared = Batch::from(declared(batch, &reads));
        let outcome = plugin.process(&declared, &context).unwrap();
        if carry {
            carry_out(batch, &outcome).num_rows()
        } else {
            declared.rows()
        }
    })
}

/// The columns that the patterns name, sharing their buffers.
fn declared(batch: &RecordBatch, reads: &[String]) -> RecordBatch {
    let named = |name: &str, pattern: &String| match pattern.split_once('*') {
        Some((group, "")) if !matches!(group, "attrs:" | "resource:" | "scope:") => name.starts_with(group),
        _ => name == pattern,
    };
    let fields = batch.schema_ref().fields().iter().enumerate();
    let own = fields.filter(|(_, field)| reads.iter().any(|pattern| named(field.name(), pattern)));
    let own: Vec<usize> = own.map(|(place, _)| place).collect();
    batch.project(&own).unwrap()
}

/// As the host does it, without its checks.
fn carry_out(batch: &RecordBatch, outcome: &Outcome) -> RecordBatch {
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    let mut put = |name: &str, column: ArrayRef| {
        let field = Arc::new(Field::new(name, column.data_type().clone(), true));
        match fields.iter().position(|field| field.name() == name) {
            Some(place) => (fields[place], columns[place]) = (field, column),
            None => {
                fields.push(field);
                columns.push(column);
            }
        }
    };
    for (name, column) in outcome.columns() {
        put(name, column.clone());
    }
    if let Some(factor) = outcome.weight_factor() {
        let old = batch
            .column_by_name("weight")
            .map(|old| old.as_primitive::<Float64Type>());
        let weight = |row: usize| old.filter(|old| old.is_valid(row)).map_or(1.0, |old| old.value(row)) * factor;
        put(
            "weight",
            Arc::new(Float64Array::from_iter_values((0..batch.num_rows()).map(weight))),
        );
    }
    let changed = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    match outcome.selection() {
        Some(keep) => {
            arrow_select::filter::filter_record_batch(&changed, &BooleanArray::new(keep.clone(), None)).unwrap()
        }
        None => changed,
    }
}
