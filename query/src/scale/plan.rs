//! Finds what of a plan reads cold files alone and takes each group of rows by itself, and puts a step in its place that runs on workers.
//!
//! A step is row-wise if it may be run over any division of its input's rows into groups, and whoever stands above it asks for nothing
//! more: a filter, a projection, the first half of an aggregate, the first rows of each group. Row-wise steps above a union are the
//! union of such steps, and that is how the cold part is taken from below an aggregate over hot and cold rows.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, InputOrderMode, Partitioning};
use sluice_store::{cold_files, is_cold_scan, of_files, to_travel};

use super::Workers;
use super::share::share;
use super::spread::{ColdOnWorkers, Part};

type Plan = Arc<dyn ExecutionPlan>;

/// Fewer files than this are not divided.
const MIN_FILES: usize = 2;

/// The rule. Without a worker that can be reached it changes nothing.
#[derive(Debug)]
pub(crate) struct Spreading {
    pub(crate) workers: Arc<Workers>,
}

impl PhysicalOptimizerRule for Spreading {
    fn name(&self) -> &str {
        "spreading"
    }

    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        let mut spreader = Spreader {
            workers: &self.workers,
            present: self.workers.present(),
            spread: 0,
        };
        if spreader.present.is_empty() {
            return Ok(plan);
        }
        let spread = spreader.look(&plan).and_then(|found| spreader.settle(found));
        if spreader.spread == 0 {
            return Ok(plan);
        }
        // What the engine would refuse is run as it would be without workers.
        match spread.and_then(|spread| SanityCheckPlan::new().optimize(spread, config)) {
            Ok(spread) => Ok(spread),
            Err(error) => {
                tracing::warn!(%error, "a query runs here, as its plan could not be divided");
                Ok(plan)
            }
        }
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What a part of a plan is.
enum Found {
    /// Row-wise over cold files.
    Cold {
        cold: Plan,
        was: Plan,
    },
    /// The same beside other rows: the rows of both together are those of `was`.
    Beside {
        cold: Plan,
        rest: Plan,
        was: Plan,
    },
    Other(Plan),
}

struct Spreader<'a> {
    workers: &'a Arc<Workers>,
    present: Vec<(usize, &'a str)>,
    /// Fragments that were put on workers.
    spread: usize,
}

impl Spreader<'_> {
    fn look(&mut self, node: &Plan) -> Result<Found> {
        if is_cold_scan(node) {
            let cold = Arc::clone(node);
            return Ok(Found::Cold {
                was: Arc::clone(&cold),
                cold,
            });
        }
        let children = node.children();
        if let [child] = children[..] {
            if is_round_robin(node) {
                // Workers divide the rows in their own way.
                return self.lift(node, child, Ok);
            }
            if is_row_wise(node) {
                return self.lift(node, child, |cold| over(node, vec![cold]));
            }
        }
        let found: Vec<Found> = children
            .into_iter()
            .map(|child| self.look(child))
            .collect::<Result<_>>()?;
        if node.is::<UnionExec>() {
            return self.union(node, found);
        }
        let settled: Vec<Plan> = found.into_iter().map(|one| self.settle(one)).collect::<Result<_>>()?;
        Ok(Found::Other(over(node, settled)?))
    }

    /// A step over one input, which goes with the cold part of it as `above` says.
    fn lift(&mut self, node: &Plan, child: &Plan, above: impl Fn(Plan) -> Result<Plan>) -> Result<Found> {
        Ok(match self.look(child)? {
            Found::Cold { cold, was } => Found::Cold {
                cold: above(cold)?,
                was: over(node, vec![was])?,
            },
            Found::Beside { cold, rest, was } => Found::Beside {
                cold: above(cold)?,
                rest: over(node, vec![rest])?,
                was: over(node, vec![was])?,
            },
            Found::Other(child) => Found::Other(over(node, vec![child])?),
        })
    }

    fn union(&mut self, node: &Plan, found: Vec<Found>) -> Result<Found> {
        let (mut cold, mut rest) = (Vec::new(), Vec::new());
        let mut was = Vec::new();
        for one in found {
            match one {
                Found::Cold {
                    cold: part,
                    was: before,
                } => {
                    cold.push(part);
                    was.push(before);
                }
                Found::Beside {
                    cold: part,
                    rest: other,
                    was: before,
                } => {
                    cold.push(part);
                    rest.push(other);
                    was.push(before);
                }
                Found::Other(plan) => {
                    rest.push(Arc::clone(&plan));
                    was.push(plan);
                }
            }
        }
        if cold.is_empty() {
            return Ok(Found::Other(over(node, was)?));
        }
        let was = over(node, was)?;
        let cold = UnionExec::try_new(cold)?;
        Ok(match rest.is_empty() {
            true => Found::Cold { cold, was },
            false => Found::Beside {
                cold,
                rest: UnionExec::try_new(rest)?,
                was,
            },
        })
    }

    /// The plan of what was found, with its cold part on workers if that is worth it.
    fn settle(&mut self, found: Found) -> Result<Plan> {
        match found {
            Found::Other(plan) => Ok(plan),
            // Of one group of rows the engine leaves out what puts groups together, and the first rows of it may be all that are asked for.
            Found::Cold { was, .. } if was.output_partitioning().partition_count() == 1 => Ok(was),
            Found::Cold { cold, was } => Ok(self.on_workers(&cold)?.unwrap_or(was)),
            Found::Beside { cold, rest, was } => match self.on_workers(&cold)? {
                Some(spread) => UnionExec::try_new(vec![rest, spread]),
                None => Ok(was),
            },
        }
    }

    /// `None`: it is too little.
    fn on_workers(&mut self, fragment: &Plan) -> Result<Option<Plan>> {
        // Each path once, however many scans read it: a worker that reads a file does so in all of them.
        let files = cold_files(fragment);
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        if files.len() < MIN_FILES || bytes < self.workers.min_bytes {
            return Ok(None);
        }
        let names: Vec<&str> = self.present.iter().map(|(_, name)| *name).collect();
        let mut parts = Vec::new();
        let mut left: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        for ((peer, _), share) in self.present.iter().zip(share(&files, &names)) {
            if share.is_empty() {
                continue;
            }
            let paths: HashSet<&str> = share.iter().map(|at| files[*at].path.as_str()).collect();
            if paths.iter().any(|path| !left.remove(path)) {
                return Err(DataFusionError::Internal("a file was given to two workers".into()));
            }
            let here = one_group(&of_files(fragment, &|path: &str| paths.contains(path))?);
            parts.push(Part {
                peer: *peer,
                files: share.len(),
                there: to_travel(&here)?,
                here,
            });
        }
        if !left.is_empty() {
            return Err(DataFusionError::Internal("a file was given to no worker".into()));
        }
        self.spread += 1;
        let spread = ColdOnWorkers::new(Arc::clone(self.workers), parts, fragment.as_ref());
        Ok(Some(Arc::new(spread)))
    }
}

/// The step over these inputs; itself if they are what it has.
fn over(node: &Plan, children: Vec<Plan>) -> Result<Plan> {
    replace_children_if_necessary(Arc::clone(node), children)
}

/// All groups of rows as one, in their order if they have one.
fn one_group(plan: &Plan) -> Plan {
    match plan.output_ordering() {
        Some(order) => Arc::new(SortPreservingMergeExec::new(order.clone(), Arc::clone(plan))),
        None => Arc::new(CoalescePartitionsExec::new(Arc::clone(plan))),
    }
}

fn is_round_robin(node: &Plan) -> bool {
    node.downcast_ref::<RepartitionExec>().is_some_and(|repartition| {
        matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_)) && !repartition.preserve_order()
    })
}

fn is_row_wise(node: &Plan) -> bool {
    let is_row_wise = if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        *aggregate.mode() == AggregateMode::Partial && *aggregate.input_order_mode() == InputOrderMode::Linear
    } else if let Some(sort) = node.downcast_ref::<SortExec>() {
        sort.preserve_partitioning()
    } else {
        node.is::<FilterExec>()
            || node.is::<ProjectionExec>()
            || node.is::<LocalLimitExec>()
            || node.is::<CooperativeExec>()
    };
    // On the way a limit has 32 bits, and what does not fit is cut off.
    let travels = node.fetch().is_none_or(|fetch| u32::try_from(fetch).is_ok());
    is_row_wise && travels && !needs_another_query(node)
}

/// Whether it waits for the answer of a subquery, which is here.
fn needs_another_query(node: &Plan) -> bool {
    let mut needs = false;
    // what is visited here returns no error
    let _ = node.apply_expressions(&mut |expr| {
        expr.apply(|part| {
            needs |= part.is::<ScalarSubqueryExpr>();
            Ok(match needs {
                true => TreeNodeRecursion::Stop,
                false => TreeNodeRecursion::Continue,
            })
        })
    });
    needs
}
