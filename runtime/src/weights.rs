//! How many events one row stands for, after a plugin said that those which stay stand for more.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch};
use arrow_buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema};

use crate::answer::invalid;
use crate::fault::Fault;
use crate::pattern::Patterns;

/// The column, nullable; null is one event.
pub(crate) const WEIGHT: &str = "weight";

/// A weight is a count of events that one row stands for.
pub(crate) fn check_column(column: &dyn Array) -> Result<(), Fault> {
    let Some(weights) = column.as_primitive_opt::<Float64Type>() else {
        return Ok(());
    };
    // All at once first, which most often is the answer; what stands where there is a null does not count.
    if weights
        .values()
        .iter()
        .fold(true, |good, weight| good & is_weight(*weight))
    {
        return Ok(());
    }
    match weights.iter().flatten().find(|weight| !is_weight(*weight)) {
        Some(weight) => invalid(format!("weight {weight}")),
        None => Ok(()),
    }
}

fn is_weight(weight: f64) -> bool {
    // Without a branch, so that several are compared at once.
    weight.is_finite() & (weight >= 0.0)
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
    let weights: Float64Array = match before {
        None => {
            let weights = ScalarBuffer::from(vec![factor; batch.num_rows()]);
            Float64Array::new(weights, stays.cloned().map(NullBuffer::new))
        }
        Some(before) => (0..batch.num_rows())
            .map(|row| {
                let weight = before.is_valid(row).then(|| before.value(row));
                if stays.is_none_or(|stays| stays.value(row)) {
                    Some(weight.unwrap_or(1.0) * factor)
                } else {
                    weight
                }
            })
            .collect(),
    };
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
        let stays: BooleanBuffer = [true, true, false, false].into_iter().collect();
        let check = |batch: &RecordBatch, stays: Option<&BooleanBuffer>, expected: [Option<f64>; 4]| {
            let columns = multiply(2.5, None, batch, stays, &patterns(&["weight"])).unwrap();
            let weights = columns.column_by_name(WEIGHT).unwrap().as_primitive::<Float64Type>();
            assert_eq!(weights.iter().collect::<Vec<_>>(), expected);
        };
        let weighed = batch(vec![Some(3.0), None, Some(5.0), None]);
        check(&weighed, Some(&stays), [Some(7.5), Some(2.5), Some(5.0), None]);
        check(&weighed, None, [Some(7.5), Some(2.5), Some(12.5), Some(2.5)]);
        let other: ArrayRef = Arc::new(Float64Array::from(vec![1.0; 4]));
        let other = RecordBatch::try_from_iter([("sum", other)]).unwrap();
        check(&other, Some(&stays), [Some(2.5), Some(2.5), None, None]);
        check(&other, None, [Some(2.5); 4]);
    }

    #[test]
    fn a_weight_is_a_count_and_what_a_null_hides_is_none() {
        let check = |weights: Vec<f64>, nulls: Vec<bool>, good: bool| {
            let weights = Float64Array::new(weights.into(), Some(NullBuffer::from(nulls)));
            assert_eq!(check_column(&weights).is_ok(), good, "{weights:?}");
        };
        check(vec![0.0, 1.0, 1e300], vec![true; 3], true);
        for wrong in [f64::NAN, f64::INFINITY, -0.1] {
            check(vec![1.0, wrong], vec![true, true], false);
            check(vec![1.0, wrong], vec![true, false], true);
        }
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
