//! Bounds for what the planner writes by itself: operators that stand for functions, and `||`, which is none.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::plan_err;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use super::growth::size_of_value;
use super::{MAX_FIXED, bounded, fixed_length, too_much};

/// Points of a sketch that `approx_percentile_cont` may keep for each group: it takes room for all of them at once.
const MAX_CENTROIDS: u64 = 10_000;

/// Comes last among the rules that give expressions their types, and before anything is computed.
#[derive(Debug)]
pub(super) struct Bounding {
    pub(super) most: u64,
}

impl AnalyzerRule for Bounding {
    fn name(&self) -> &str {
        "bounding"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let most = self.most;
        let done = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let saved = names.save(&expr);
                let changed = rewrapped(expr, most)?;
                Ok(match changed.transformed {
                    true => changed.update_data(|expr| saved.restore(expr)),
                    false => changed,
                })
            })
        });
        done.map(|done| done.data)
    }
}

/// An expression with bounds around each function in it that needs them.
pub(super) fn rewrapped(expr: Expr, most: u64) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::ScalarFunction(call) if call.func.inner().is::<Within>() => Ok(single(call)),
        Expr::ScalarFunction(call) => Ok(match bounded(&call.func, most) {
            Some(func) => Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: call.args })),
            None => Transformed::no(Expr::ScalarFunction(call)),
        }),
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => {
            let func = Arc::new(ScalarUDF::new_from_impl(Within {
                most,
                signature: Signature::any(1, Volatility::Immutable),
            }));
            let args = vec![Expr::BinaryExpr(binary)];
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
        }
        Expr::Cast(cast) if fixed_length(cast.field.data_type()) > MAX_FIXED => {
            plan_err!("a cast to a type of more than {MAX_FIXED} items in each row")
        }
        Expr::TryCast(cast) if fixed_length(cast.field.data_type()) > MAX_FIXED => {
            plan_err!("a cast to a type of more than {MAX_FIXED} items in each row")
        }
        Expr::AggregateFunction(call) => {
            let places = match call.func.name() {
                "approx_percentile_cont" => 2,
                "approx_percentile_cont_with_weight" => 3,
                _ => return Ok(Transformed::no(Expr::AggregateFunction(call))),
            };
            let asked = call.params.args.get(places).and_then(number);
            match asked.filter(|points| *points > MAX_CENTROIDS) {
                Some(points) => plan_err!(
                    "{} keeps up to {MAX_CENTROIDS} points of a sketch, not {points}: leave the number out, or use percentile_cont",
                    call.func.name()
                ),
                None => Ok(Transformed::no(Expr::AggregateFunction(call))),
            }
        }
        other => Ok(Transformed::no(other)),
    })
}

/// The number that a literal is, through casts.
fn number(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Cast(cast) => number(&cast.expr),
        Expr::Literal(value, _) => match value.cast_to(&DataType::UInt64).ok()? {
            ScalarValue::UInt64(number) => number,
            _ => None,
        },
        _ => None,
    }
}

/// A plan that is looked at twice has its bounds once.
fn single(mut call: ScalarFunction) -> Transformed<Expr> {
    match call.args.pop() {
        Some(Expr::ScalarFunction(inner)) if inner.func.inner().is::<Within>() => {
            Transformed::yes(Expr::ScalarFunction(inner))
        }
        Some(arg) => {
            call.args.push(arg);
            Transformed::no(Expr::ScalarFunction(call))
        }
        None => Transformed::no(Expr::ScalarFunction(call)),
    }
}

/// Its argument, if that is not too large. Of two that are not, one that is both is not yet too large for an array.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Within {
    most: u64,
    signature: Signature,
}

impl ScalarUDFImpl for Within {
    fn name(&self) -> &str {
        "within_limits"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [kind] => Ok(kind.clone()),
            _ => plan_err!("within_limits has one argument"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields {
            [field] => Ok(Arc::new(field.as_ref().clone().with_name(self.name()))),
            _ => plan_err!("within_limits has one argument"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = args.args.into_iter().next();
        let value = value.ok_or_else(|| DataFusionError::Internal("within_limits has one argument".into()))?;
        match size_of_value(&value) > self.most {
            true => Err(too_much("`||`", self.most)),
            false => Ok(value),
        }
    }
}
