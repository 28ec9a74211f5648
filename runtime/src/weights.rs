//! How many events one row stands for, after a plugin said that those which stay stand for more.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field, Schema};

use crate::answer::invalid;
use crate::fault::Fault;
use crate::pattern::Patterns;

/// The column, nullable; null is one event.
pub(crate) const WEIGHT: &str = "weight";

/// A weight is a count of events that one row stands for.
pub(crate) fn check_column(column: &dyn Array) -> Result<(), Fault> {
    let weights = column.as_primitive_opt::<Float64Type>();
    match weights.and_then(|weights| weights.iter().flatten().find(|w| !w.is_finite() || *w < 0.0)) {
        Some(weight) => invalid(format!("weight {weight}")),
        None => Ok(()),
    }
}

/// The columns of an answer, and the weights of the batch times `factor` where `stays` is set.
pub(crate) fn multiply(
    factor: f64,
    columns: Option<RecordBatch>,
    batch: &RecordBatch,
    stays: Option<&BooleanBuffer>,
    writes: &Patterns,
) -> Result<RecordBatch, Fault> {
    if !factor.is_finite() || factor < 1.0 {
        return invalid(format!("weight factor {factor}; it is finite and at least 1"));
    }
    if !writes.matches(WEIGHT) {
        return invalid("a weight factor without `weight` among the columns that it writes");
    }
    let given = columns.as_ref().and_then(|columns| columns.column_by_name(WEIGHT));
    if given.is_some() {
        return invalid("a weight factor and the column `weight`");
    }
    let before = match batch.column_by_name(WEIGHT) {
        Some(column) => Some(
            column
                .as_primitive_opt::<Float64Type>()
                .ok_or_else(|| Fault::Input(format!("its weights are of type {}", column.data_type())))?,
        ),
        None => None,
    };
    let weights: Float64Array = (0..batch.num_rows())
        .map(|row| {
            let weight = before
                .filter(|weights| weights.is_valid(row))
                .map(|weights| weights.value(row));
            if stays.is_none_or(|stays| stays.value(row)) {
                Some(weight.unwrap_or(1.0) * factor)
            } else {
                weight
            }
        })
        .collect();
    check_column(&weights)?;
    let (mut fields, mut arrays): (Vec<Arc<Field>>, Vec<ArrayRef>) = match columns {
        Some(columns) => (columns.schema_ref().fields().to_vec(), columns.columns().to_vec()),
        None => Default::default(),
    };
    fields.push(Arc::new(Field::new(WEIGHT, DataType::Float64, true)));
    arrays.push(Arc::new(weights));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|e| Fault::Invalid(e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn batch(weights: Vec<Option<f64>>) -> RecordBatch {
        let weights: ArrayRef = Arc::new(Float64Array::from(weights));
        RecordBatch::try_from_iter_with_nullable([(WEIGHT, weights, true)]).unwrap()
    }

    fn patterns(names: &[&str]) -> Patterns {
        Patterns::new(names.iter().map(|name| (*name).to_owned()).collect()).unwrap()
    }

    #[test]
    fn rows_that_stay_stand_for_more_and_null_stands_for_one() {
        let batch = batch(vec![Some(3.0), None, Some(5.0), None]);
        let stays: BooleanBuffer = [true, true, false, false].into_iter().collect();
        let columns = multiply(2.5, None, &batch, Some(&stays), &patterns(&["weight"])).unwrap();
        let weights = columns.column_by_name(WEIGHT).unwrap().as_primitive::<Float64Type>();
        assert_eq!(
            weights.iter().collect::<Vec<_>>(),
            [Some(7.5), Some(2.5), Some(5.0), None]
        );
    }

    #[test]
    fn a_factor_that_makes_no_sense_is_a_fault() {
        let heavy = batch(vec![Some(1e300)]);
        let check = |factor, columns, writes: &[&str], expected: &str| {
            let fault = multiply(factor, columns, &heavy, None, &patterns(writes)).unwrap_err();
            assert!(fault.to_string().contains(expected), "{fault}");
        };
        for factor in [f64::NAN, f64::INFINITY, 0.999, -1.0, 0.0] {
            check(factor, None, &["*"], "at least 1");
        }
        check(2.0, None, &["body"], "without `weight`");
        check(2.0, Some(heavy.clone()), &["*"], "and the column");
        check(1e300, None, &["*"], "weight inf");
    }
}
