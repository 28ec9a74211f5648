//! A harmless batch: one small event, as any plugin must be able to take it.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use sluice_wire::Signal;

pub(crate) fn batch(signal: Signal, now_ns: u64) -> Result<RecordBatch, ArrowError> {
    let text = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let time = i64::try_from(now_ns).unwrap_or(i64::MAX);
    let columns: [(&str, ArrayRef, bool); 4] = [
        ("signal", text(signal.as_str()), false),
        ("time", Arc::new(Int64Array::from(vec![time])), false),
        ("name", text("probe"), true),
        ("body", text("ready"), true),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column, nullable)| Field::new(*name, DataType::clone(column.data_type()), *nullable))
        .collect();
    let columns = columns.into_iter().map(|(_, column, _)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use sluice_wire::layout::{IpcLimits, validate};

    #[test]
    fn it_is_a_batch_as_any_other() {
        for signal in [Signal::Log, Signal::Span, Signal::Metric] {
            let batch = batch(signal, u64::MAX).unwrap();
            validate(&batch, &IpcLimits::default()).unwrap();
        }
    }
}
