//! What of a query each tier computes itself: aggregates and the first rows of an order go to hot where hot is a server.
//!
//! The engine plans an aggregate as partial states that are merged. Where the partial one stands over both tiers, hot's states are asked
//! of the server, and those of cold are made here; where cold has nothing, the server's are all.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::SessionConfig;

use super::hot_scan::ServerExec;
use super::part_exec::PartExec;

/// What the engine calls the rule that ties steps which learn while they run to the scans below them.
const TIES: &str = "FilterPushdown(Post)";

/// What a session over the tables must be set to, or answers are wrong.
pub fn needed_settings(mut config: SessionConfig) -> SessionConfig {
    // What least and greatest values teach leaves out those of expressions, and those that are still null (datafusion#24816, #25147):
    // rows that hold these were passed over.
    config.options_mut().optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    config
}

/// The rules that plan a query over the tables: ours while the plan is as it was first made, then the engine's own.
pub fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = vec![Arc::new(Federate)];
    rules.extend(PhysicalOptimizer::new().rules);
    rules
}

/// The same with one more, which sees the plan when it is whole but for the ties between its steps: those do not travel.
pub fn physical_rules_with(
    rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = physical_rules();
    let at = rules.iter().position(|rule| rule.name() == TIES);
    rules.insert(at.unwrap_or(rules.len()), rule);
    rules
}

#[derive(Debug)]
struct Federate;

impl PhysicalOptimizerRule for Federate {
    fn name(&self) -> &str {
        "federate"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let rewrite = |node: Arc<dyn ExecutionPlan>| {
            let rewritten = if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
                partial_aggregate(aggregate)?
            } else if let Some(sort) = node.downcast_ref::<SortExec>() {
                first_rows(sort)?
            } else {
                None
            };
            Ok(rewritten.map_or_else(|| Transformed::no(node), Transformed::yes))
        };
        plan.transform_up(rewrite).map(|changed| changed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The tiers below some projections.
struct Below<'a> {
    /// The outermost first.
    projections: Vec<&'a ProjectionExec>,
    tiers: Vec<Arc<dyn ExecutionPlan>>,
}

impl<'a> Below<'a> {
    fn of(input: &'a Arc<dyn ExecutionPlan>) -> Option<Self> {
        let (mut node, mut projections) = (input, Vec::new());
        while let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            projections.push(projection);
            node = projection.input();
        }
        let tiers = match node.downcast_ref::<UnionExec>() {
            Some(union) => union.inputs().clone(),
            None => vec![Arc::clone(node)],
        };
        Some(Self { projections, tiers }).filter(|below| below.servers().count() == 1)
    }

    fn servers(&self) -> impl Iterator<Item = &ServerExec> {
        self.tiers.iter().filter_map(|tier| tier.downcast_ref::<ServerExec>())
    }

    /// An expression over the projections as one over the tiers.
    fn expand(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let mut expr = Arc::clone(expr);
        for projection in &self.projections {
            let replace = |part: Arc<dyn PhysicalExpr>| {
                let below = part
                    .downcast_ref::<Column>()
                    .and_then(|c| projection.expr().get(c.index()));
                Ok(match below {
                    Some(below) => Transformed::new(
                        Arc::clone(&below.expr),
                        true,
                        datafusion::common::tree_node::TreeNodeRecursion::Jump,
                    ),
                    None => Transformed::no(part),
                })
            };
            expr = expr.transform_down(replace)?.data;
        }
        Ok(expr)
    }

    /// The projections over other tiers.
    fn over(&self, tiers: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let mut plan = UnionExec::try_new(tiers)?;
        for projection in self.projections.iter().rev() {
            plan = Arc::new(ProjectionExec::try_new(projection.expr().to_vec(), plan)?);
        }
        Ok(plan)
    }
}

fn partial_aggregate(aggregate: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if *aggregate.mode() != AggregateMode::Partial {
        return Ok(None);
    }
    let Some(below) = Below::of(aggregate.input()) else {
        return Ok(None);
    };
    let others: Vec<&Arc<dyn ExecutionPlan>> = below.tiers.iter().filter(|tier| !tier.is::<ServerExec>()).collect();
    // What says that it has no rows need not be aggregated, but is still told.
    let (empty, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|tier| empty_label(tier).is_some());
    let told: String = empty
        .iter()
        .filter_map(|tier| empty_label(tier))
        .map(|label| format!("; {label}"))
        .collect();
    let Some(server) = below.servers().next() else {
        return Ok(None);
    };
    let expand = |expr: &Arc<dyn PhysicalExpr>| below.expand(expr);
    let hot = match server.aggregated(aggregate, &expand, &told)? {
        Some(hot) => Some(hot),
        None => server.distinct(aggregate, &expand, &told)?,
    };
    let Some(hot) = hot else {
        return Ok(None);
    };
    if others.is_empty() {
        return Ok(Some(hot));
    }
    let others = below.over(others.into_iter().map(Arc::clone).collect())?;
    let others = AggregateExec::try_new(
        AggregateMode::Partial,
        aggregate.group_expr().clone(),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        others,
        aggregate.input_schema(),
    )?;
    UnionExec::try_new(vec![hot, Arc::new(others)]).map(Some)
}

/// What a tier says of itself that gives no rows.
fn empty_label(tier: &Arc<dyn ExecutionPlan>) -> Option<String> {
    let tier = match tier.downcast_ref::<FilterExec>() {
        Some(filter) => filter.input(),
        None => tier,
    };
    tier.downcast_ref::<PartExec>()?.empty_label()
}

fn first_rows(sort: &SortExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let (Some(fetch), Some(below)) = (sort.fetch(), Below::of(sort.input())) else {
        return Ok(None);
    };
    let mut order = Vec::new();
    for by in sort.expr().iter() {
        order.push(PhysicalSortExpr::new(below.expand(&by.expr)?, by.options));
    }
    let Some(order) = LexOrdering::new(order) else {
        return Ok(None);
    };
    let Some(first) = below.servers().next().and_then(|server| server.first(&order, fetch)) else {
        return Ok(None);
    };
    let tiers = below.tiers.iter().map(|tier| match tier.is::<ServerExec>() {
        true => Arc::clone(&first),
        false => Arc::clone(tier),
    });
    let input = below.over(tiers.collect())?;
    let sorted = SortExec::new(sort.expr().clone(), input)
        .with_fetch(Some(fetch))
        .with_preserve_partitioning(sort.preserve_partitioning());
    Ok(Some(Arc::new(sorted)))
}
