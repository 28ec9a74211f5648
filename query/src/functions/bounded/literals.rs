//! A long text that stands beside each row is written out for each of them, which no account of memory sees: refused where a batch of
//! rows with it would be too large. What is only compared with is not written out.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, InListExpr, LikeExpr, Literal};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;

use super::growth::size_of_scalar;
use super::too_much;

/// Looks at a plan whose constants have been computed.
#[derive(Debug)]
pub(crate) struct Literals {
    /// Bytes of one array.
    pub(crate) most: u64,
}

impl PhysicalOptimizerRule for Literals {
    fn name(&self) -> &str {
        "literals"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let batch = config.execution.batch_size.get() as u64;
        plan.apply(|node| {
            let rows = match node.children().as_slice() {
                [input] if has_one_row(input) => 1,
                _ => batch,
            };
            node.apply_expressions(&mut |expr| {
                self.check(expr, rows)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(plan)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl Literals {
    fn check(&self, expr: &Arc<dyn PhysicalExpr>, rows: u64) -> Result<()> {
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            return match size_of_scalar(literal.value()).saturating_mul(rows) > self.most {
                true => Err(too_much("a long text or list beside each row", self.most)),
                false => Ok(()),
            };
        }
        let compares = expr.is::<LikeExpr>()
            || expr.is::<InListExpr>()
            || expr
                .downcast_ref::<BinaryExpr>()
                .is_some_and(|binary| *binary.op() != Operator::StringConcat);
        for child in expr.children() {
            if !(compares && child.is::<Literal>()) {
                self.check(child, rows)?;
            }
        }
        Ok(())
    }
}

/// Whether a plan gives one row at most, as far as its shape tells.
fn has_one_row(plan: &Arc<dyn ExecutionPlan>) -> bool {
    match plan.name() {
        "PlaceholderRowExec" => true,
        "AggregateExec" => plan
            .downcast_ref::<AggregateExec>()
            .is_some_and(|aggregate| aggregate.group_expr().is_empty()),
        "ProjectionExec" | "FilterExec" | "CooperativeExec" | "CoalescePartitionsExec" => {
            matches!(plan.children().as_slice(), [input] if has_one_row(input))
        }
        _ => false,
    }
}
