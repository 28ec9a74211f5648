//! A batch becomes rows of the table.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array, Int32Array, RecordBatch, TimestampNanosecondArray};
use arrow_schema::{ArrowError, DataType};

use super::Origin;
use super::columns::{Columns, schema};
use super::derived::{Lookup, gpu, hex_column, values};
use super::maps::fold_group;
use crate::layout::cells::GroupCells;
use crate::layout::{Group, LayoutError, core_columns, expanded_bytes};

/// Text of one batch, written out: what 32-bit offsets can hold, with room for the maps' keys.
const MAX_TEXT_BYTES: usize = 1 << 30;

/// Why a batch cannot become rows. A batch that `layout::from_ipc` let through folds, unless its maps pass 2 GiB.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error("text of the batch takes {found} bytes once written out, at most {max} are possible")]
    TooLarge { found: usize, max: usize },
    #[error("batch is not of the layout")]
    Layout(#[from] LayoutError),
    #[error("rows cannot be built")]
    Arrow(#[from] ArrowError),
}

/// The rows of a batch with all columns of `schema()`, in order.
pub fn fold(batch: &RecordBatch, origin: &Origin<'_>) -> Result<RecordBatch, FoldError> {
    let found = expanded_bytes(batch);
    if found > MAX_TEXT_BYTES {
        return Err(FoldError::TooLarge {
            found,
            max: MAX_TEXT_BYTES,
        });
    }
    let rows = batch.num_rows();
    let mut columns = Columns::new(rows);
    columns.put_origin(origin);
    columns.put(
        "row",
        Arc::new(Int32Array::from_iter_values(0..i32::try_from(rows).unwrap_or(i32::MAX))),
    );
    put_core(&mut columns, batch)?;
    put_groups(&mut columns, batch)?;
    Ok(columns.finish()?)
}

fn put_core(columns: &mut Columns, batch: &RecordBatch) -> Result<(), FoldError> {
    for (name, _) in core_columns() {
        let Some(column) = batch.column_by_name(name) else {
            continue;
        };
        columns.put(name, table_column(name, column)?);
    }
    if let Some(values) = values(batch) {
        columns.put("value", Arc::new(values));
    }
    let weights = match batch
        .column_by_name("weight")
        .and_then(|c| c.as_primitive_opt::<Float64Type>())
    {
        Some(weights) => weights.iter().map(|w| Some(w.unwrap_or(1.0))).collect(),
        None => Float64Array::from_value(1.0, batch.num_rows()),
    };
    columns.put("weight", Arc::new(weights));
    Ok(())
}

/// A core column with the type that it has in the table.
fn table_column(name: &str, column: &ArrayRef) -> Result<ArrayRef, FoldError> {
    let wrong = || LayoutError::Column {
        column: name.into(),
        what: "has another type than its name demands",
    };
    let wanted = schema().field_with_name(name)?.data_type().clone();
    Ok(match wanted {
        DataType::Timestamp(..) => {
            let nanos = column.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
            let nanos = TimestampNanosecondArray::new(nanos.values().clone(), nanos.nulls().cloned());
            Arc::new(nanos.with_timezone("UTC"))
        }
        _ if matches!(column.data_type(), DataType::FixedSizeBinary(_)) => {
            hex_column(column.as_ref()).ok_or_else(wrong)?
        }
        wanted if wanted == *column.data_type() => Arc::clone(column),
        // Dictionaries, and lists whose items are named otherwise.
        wanted => arrow_cast::cast(column, &wanted)?,
    })
}

fn put_groups(columns: &mut Columns, batch: &RecordBatch) -> Result<(), FoldError> {
    let rows = batch.num_rows();
    let names = [
        ("attrs", "attr_types"),
        ("resource", "resource_types"),
        ("scope", "scope_types"),
    ];
    for (group, (map, types)) in Group::ALL.into_iter().zip(names) {
        let cells = GroupCells::of(batch, group)?;
        let [texts, kinds] = fold_group(&cells, rows)?;
        columns.put(map, texts);
        columns.put(types, kinds);
        match group {
            Group::Resource => put_texts(
                columns,
                &cells,
                rows,
                &[("service", &["service.name"]), ("host", &["host.name"])],
            ),
            Group::Attrs => put_attrs(columns, batch, &cells),
            Group::Scope => {}
        }
    }
    Ok(())
}

type Names = (&'static str, &'static [&'static str]);

const AI_TEXTS: &[Names] = &[
    ("ai_system", &["gen_ai.provider.name", "gen_ai.system"]),
    ("ai_model", &["gen_ai.response.model", "gen_ai.request.model"]),
    ("ai_operation", &["gen_ai.operation.name"]),
];
const AI_INTS: &[Names] = &[
    (
        "ai_input_tokens",
        &["gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"],
    ),
    (
        "ai_output_tokens",
        &["gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"],
    ),
];

fn put_attrs(columns: &mut Columns, batch: &RecordBatch, cells: &GroupCells<'_>) {
    let rows = batch.num_rows();
    put_texts(columns, cells, rows, AI_TEXTS);
    for (name, keys) in AI_INTS {
        if let Some(ints) = Lookup::new(cells, keys).ints(rows) {
            columns.put(name, Arc::new(ints));
        }
    }
    if let Some(costs) = Lookup::new(cells, &["gen_ai.usage.cost", "gen_ai.cost"]).doubles(rows) {
        columns.put("ai_cost", Arc::new(costs));
    }
    let (utilization, memory) = gpu(batch, cells);
    if let Some(utilization) = utilization {
        columns.put("gpu_utilization", Arc::new(utilization));
    }
    if let Some(memory) = memory {
        columns.put("gpu_memory_bytes", Arc::new(memory));
    }
}

fn put_texts(columns: &mut Columns, cells: &GroupCells<'_>, rows: usize, wanted: &[Names]) {
    for (name, keys) in wanted {
        if let Some(texts) = Lookup::new(cells, keys).texts(rows) {
            columns.put(name, texts);
        }
    }
}
