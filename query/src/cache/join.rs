//! Which aggregates of a query are put together of ranges, and of which.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{EmptyRelation, Extension, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use sluice_store::hot::clickhouse::StatementLimits;
use sluice_store::{Inputs, Looks, Scope, TimeRange};

use super::budget::{Budget, size};
use super::joined::{Join, Joined, Joins};
use super::kept::{Key, OfRange};
use super::seen::Seen;
use super::sliced::{Grouping, Piece, Sliced};
use super::taking::{Taking, Wanted};
use super::{Answers, LARGEST};

/// Aggregates of one query that are put together of ranges.
const MAX_JOINS: usize = 8;
/// Pieces of a window that are computed in one query; where there are more, what lies between the closest is computed too.
const MAX_PIECES: usize = 16;
/// So long after hot did not say what the ranges of a grouping hold, it is not asked again.
const REST: Duration = Duration::from_secs(30);

/// What one query may use for all of its joins.
struct Means {
    looks: Looks,
    /// Bytes of groups that may still be given again.
    again: u64,
    /// And of those that are kept as they pass.
    taken: Arc<Budget>,
}

impl Answers {
    /// The plan in which aggregates over windows of time are put together of ranges; `None`: there are none.
    pub(super) async fn join(
        self: &Arc<Self>,
        scope: &Scope,
        plan: &LogicalPlan,
        state: &SessionState,
        now_ns: i64,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if !self.by_range {
            return Ok(None);
        }
        let limits = state.config().get_extension::<StatementLimits>();
        let most = self.caps.tenant_most / LARGEST;
        let mut means = Means {
            looks: Looks::new(limits.as_deref()),
            again: most,
            taken: Budget::new(most),
        };
        let mut joined = HashMap::new();
        for (at, sliced) in slices(plan, state, now_ns)? {
            if let Some(instead) = self.join_one(scope, &sliced, &mut means).await? {
                joined.insert(at, instead);
            }
        }
        if joined.is_empty() {
            return Ok(None);
        }
        let mut aggregates = 0;
        let replaced = plan.clone().transform_down(|node| {
            if !matches!(node, LogicalPlan::Aggregate(_)) {
                return Ok(Transformed::no(node));
            }
            aggregates += 1;
            Ok(match joined.remove(&(aggregates - 1)) {
                Some(instead) => Transformed::new(instead, true, TreeNodeRecursion::Jump),
                None => Transformed::no(node),
            })
        })?;
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Joins)]);
        planner.create_physical_plan(&replaced.data, state).await.map(Some)
    }

    async fn join_one(
        self: &Arc<Self>,
        scope: &Scope,
        sliced: &Sliced,
        means: &mut Means,
    ) -> Result<Option<LogicalPlan>> {
        let grouping = Arc::new(sliced.grouping(scope, &self.hasher)?);
        if !self.seen().again(grouping.hash, Instant::now()) {
            return Ok(None);
        }
        let looked = means.looks.look(&sliced.table, &sliced.ranges, &sliced.filters).await;
        let inputs = match looked {
            Ok(Some(inputs)) if inputs.len() == sliced.ranges.len() => inputs,
            Ok(_) => return Ok(None),
            Err(error) => {
                tracing::debug!(%error, "a window of time is computed as a whole");
                self.seen().rest(grouping.hash, Instant::now() + REST);
                return Ok(None);
            }
        };
        let ranges = || sliced.ranges.iter().copied().zip(inputs.iter().copied());
        let (asked, mut kept) = self.lock().ranges(&grouping, ranges());
        // The newest ones first: the window moves towards them.
        for range in kept.iter_mut().rev() {
            let bytes = range.as_ref().map_or(0, |groups| groups.as_ref().map_or(0, size));
            match means.again.checked_sub(bytes) {
                Some(left) => means.again = left,
                None => *range = None,
            }
        }
        let pieces = pieces(sliced, &mut kept);
        let is_again = |kept: &Option<Option<RecordBatch>>| kept.is_some();
        let made: Vec<(TimeRange, Inputs)> = ranges()
            .zip(&kept)
            .filter(|(_, kept)| !is_again(kept))
            .filter_map(|((range, inputs), _)| Some((range, inputs?)))
            .collect();
        let ranges_again = kept.iter().filter(|kept| is_again(kept)).count();
        if ranges_again == 0 && made.is_empty() {
            return Ok(None);
        }
        let input = match pieces.as_slice() {
            [] => LogicalPlan::EmptyRelation(EmptyRelation {
                produce_one_row: false,
                schema: Arc::clone(&sliced.aggregate.schema),
            }),
            // Nothing is left out: the window as it was asked for.
            _ if ranges_again == 0 => sliced.plan(),
            pieces => sliced.plan_of(pieces)?,
        };
        let taking = match made.is_empty() {
            true => None,
            false => {
                let times: Vec<TimeRange> = made.iter().map(|(range, _)| *range).collect();
                let (first, last) = sliced.keys(&times)?;
                let wanted = Wanted {
                    grouping,
                    asked,
                    key: sliced.key,
                    ranges: made,
                };
                Taking::new(self, wanted, (&first, &last), means.taken.share())?
            }
        };
        let join = Join {
            answers: Arc::clone(self),
            ranges_again,
            ranges: sliced.ranges.len(),
            again: kept.into_iter().flatten().flatten().collect(),
            taking,
        };
        Ok(Some(LogicalPlan::Extension(Extension {
            node: Arc::new(Joined {
                input,
                schema: Arc::clone(&sliced.aggregate.schema),
                join: Arc::new(join),
            }),
        })))
    }

    /// Keeps the groups of ranges that were `asked` for at some moment.
    pub(super) fn keep_ranges(&self, grouping: &Arc<Grouping>, asked: u64, ranges: Vec<(TimeRange, OfRange)>) {
        let most = self.caps.tenant_most / LARGEST;
        if Key::Ranges(Arc::clone(grouping)).bytes() <= most {
            let gone = self
                .lock()
                .put_ranges(Arc::clone(grouping), asked, ranges, most, self.caps);
            drop(gone);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each change is complete before anything can fail.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Aggregates that can be put together of ranges, by their number on the way down the plan.
fn slices(plan: &LogicalPlan, state: &SessionState, now_ns: i64) -> Result<Vec<(usize, Sliced)>> {
    let (mut found, mut aggregates, mut is_cut_off) = (Vec::new(), 0, false);
    plan.apply(|node| {
        match node {
            LogicalPlan::Limit(limit) => is_cut_off = is_distinct(&limit.input),
            LogicalPlan::Aggregate(aggregate) => {
                let at = aggregates;
                aggregates += 1;
                if !std::mem::take(&mut is_cut_off)
                    && found.len() < MAX_JOINS
                    && let Some(sliced) = Sliced::of(aggregate, state, now_ns)?
                {
                    found.push((at, sliced));
                    return Ok(TreeNodeRecursion::Jump);
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Whether a plan gives each of its rows once, in any order: the first few are found sooner than all are.
fn is_distinct(mut plan: &LogicalPlan) -> bool {
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Aggregate(aggregate) => return aggregate.aggr_expr.is_empty(),
            _ => return false,
        };
    }
}

/// What of a window must be computed. Where that would be too many pieces, ranges that are kept are computed again: the fewest.
fn pieces(sliced: &Sliced, kept: &mut [Option<Option<RecordBatch>>]) -> Vec<Piece> {
    loop {
        let again: Vec<bool> = kept.iter().map(Option::is_some).collect();
        let pieces = sliced.missing(&again);
        if pieces.len() <= MAX_PIECES {
            return pieces;
        }
        let mut at = 0;
        let runs = again.chunk_by(|one, next| one == next).map(|run| {
            at += run.len();
            (run[0], at - run.len()..at)
        });
        let shortest = runs.filter(|(again, _)| *again).min_by_key(|(_, run)| run.len());
        let Some((_, run)) = shortest else { return pieces };
        kept[run].iter_mut().for_each(|kept| *kept = None);
    }
}
