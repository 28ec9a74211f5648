//! Functions whose answers can be much larger than what they are given (`repeat`, `lpad`, `range`, `replace`, …), or whose time is a
//! product of two sizes (`levenshtein`): each is looked at before it runs, and refused beyond a limit that its error names. Arrays of one
//! step of a plan are in no account of memory, so without this a query of one line takes all of a machine.

mod growth;
mod literals;
mod reviewed;
mod rule;

use std::fmt;
use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::plan_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

pub(crate) use self::literals::Literals;

use self::growth::{Estimate, Growth, size_of_value};
use self::rule::{Bounding, rewrapped};

/// What one step may make of a batch of rows, as a part of `limits.memory`: few steps hold their answers at once.
const PART_OF_MEMORY: u64 = 4;
/// Offsets into texts and lists are 32 bits; a few arrays below this can be put together without an overflow.
const MOST_OF_ALL: u64 = 256 << 20;

/// Items of a type of a fixed length, which has room for all of them in each row, null or not.
pub(crate) const MAX_FIXED: u64 = 4_096;

/// How many bytes one step may make where a query may have so much memory.
pub(crate) fn step_bytes(memory: u64) -> u64 {
    (memory / PART_OF_MEMORY).clamp(1, MOST_OF_ALL)
}

/// Puts bounds around the functions of a session in the making.
pub(crate) fn register(builder: &mut SessionStateBuilder, most: u64) {
    let functions = builder.scalar_functions().get_or_insert_default();
    for function in functions.iter_mut() {
        if let Some(bounded) = bounded(function, most) {
            *function = bounded;
        }
    }
    builder
        .analyzer_rules()
        .get_or_insert_default()
        .push(Arc::new(Bounding { most }));
}

/// The function inside its bounds; `None`: it needs none, or has them.
fn bounded(function: &Arc<ScalarUDF>, most: u64) -> Option<Arc<ScalarUDF>> {
    let growth = reviewed::growth(function.name())?;
    if function.inner().is::<Bounded>() {
        return None;
    }
    Some(Arc::new(ScalarUDF::new_from_impl(Bounded {
        inner: Arc::clone(function),
        growth,
        most,
    })))
}

/// The refusal, in the words by which `error` knows whose limit it is.
fn too_much(step: &str, most: u64) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!(
        "one step of the query ({step}) makes more than a quarter of `limits.memory` allows, which is {most} bytes"
    ))
}

/// The items, or bytes, that a type has in each row.
fn fixed_length(kind: &DataType) -> u64 {
    match kind {
        DataType::FixedSizeBinary(length) => u64::from(length.unsigned_abs()),
        DataType::FixedSizeList(item, length) => {
            u64::from(length.unsigned_abs()).saturating_mul(fixed_length(item.data_type()))
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => fixed_length(item.data_type()),
        DataType::Struct(fields) => fields
            .iter()
            .map(|field| fixed_length(field.data_type()))
            .fold(0, u64::saturating_add),
        _ => 1,
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    /// Bytes of one answer.
    most: u64,
}

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded")
            .field("name", &self.inner.name())
            .field("growth", &self.growth)
            .finish_non_exhaustive()
    }
}

impl Bounded {
    /// Runs over so many rows at a time that even the worst answer fits, and gives up when the real one does not.
    fn piecewise(&self, args: &ScalarFunctionArgs, bounds: &[u64]) -> Result<ColumnarValue> {
        let mut parts = Vec::new();
        let (mut first, mut made) = (0, 0);
        while first < bounds.len() {
            let mut end = first;
            let mut bytes = 0u64;
            while let Some(bound) = bounds.get(end)
                && (end == first || bytes.saturating_add(*bound) <= self.most)
            {
                bytes = bytes.saturating_add(*bound);
                end += 1;
            }
            let count = end - first;
            let piece = ScalarFunctionArgs {
                args: args
                    .args
                    .iter()
                    .map(|arg| match arg {
                        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(first, count)),
                        scalar => scalar.clone(),
                    })
                    .collect(),
                arg_fields: args.arg_fields.clone(),
                number_rows: count,
                return_field: Arc::clone(&args.return_field),
                config_options: Arc::clone(&args.config_options),
            };
            let part = self.inner.invoke_with_args(piece)?.into_array(count)?;
            made += growth::size_of_array(part.as_ref());
            if made > self.most {
                return Err(self.refused());
            }
            parts.push(part);
            first = end;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }

    fn refused(&self) -> DataFusionError {
        too_much(&format!("`{}`", self.inner.name()), self.most)
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(args)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = self.inner.return_field_from_args(args)?;
        match fixed_length(field.data_type()) > MAX_FIXED {
            true => plan_err!("`{}` to a type of more than {MAX_FIXED} items in each row", self.name()),
            false => Ok(field),
        }
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let updated = self.inner.inner().with_updated_config(config)?;
        Some(ScalarUDF::new_from_impl(Bounded {
            inner: Arc::new(updated),
            growth: self.growth,
            most: self.most,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if all_scalar { 1 } else { args.number_rows };
        match self.growth.estimate(self.inner.name(), &args.args, rows)? {
            Estimate::Exact(bytes) if bytes > self.most => return Err(self.refused()),
            // The worst that one row could give is far too much.
            Estimate::AtMost(bounds) if bounds.iter().any(|bound| *bound > MOST_OF_ALL.max(self.most)) => {
                return Err(self.refused());
            }
            Estimate::AtMost(bounds) if bounds.iter().fold(0u64, |a, b| a.saturating_add(*b)) > self.most => {
                return match all_scalar {
                    true => self.within(self.inner.invoke_with_args(args)?),
                    false => self.piecewise(&args, &bounds),
                };
            }
            _ => {}
        }
        let made = self.inner.invoke_with_args(args)?;
        self.within(made)
    }

    /// What it becomes may be another function that needs bounds.
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match self.inner.simplify(args, info)? {
            ExprSimplifyResult::Simplified(expr) => ExprSimplifyResult::Simplified(rewrapped(expr, self.most)?.data),
            original => original,
        })
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }

    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>> {
        self.inner.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.placement(args)
    }
}

impl Bounded {
    fn within(&self, made: ColumnarValue) -> Result<ColumnarValue> {
        match size_of_value(&made) > self.most {
            true => Err(self.refused()),
            false => Ok(made),
        }
    }
}

#[cfg(test)]
mod tests;
