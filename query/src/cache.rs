//! Answers that are given again. A dashboard asks the same again and again, of many people at once; as long as what the query reads is
//! the same, so is what it is answered.
//!
//! An answer belongs to the text of a query with its parameters, asked for one scope, and to the inputs that its plan reads
//! (`sluice_store::inputs`): those are looked at each time, for the point of the log that the query pinned. So a new row, a hand-off, an
//! erasure or the retention that touches what the query reads makes another answer, and nothing has to be told to this cache.
//!
//! A window that moves asks something else each time, and most of it was computed before. So of an aggregate over a window of time whose groups
//! are pieces of that time, the window is cut into ranges (`cuts`), and the groups of each range are kept, with what the rows of the range are made of
//! (`sluice_store::Looks`). Only ranges that are new or whose rows changed are computed, in one query, with the pieces at both ends of the
//! window, which are never whole; what stands above the aggregate (HAVING, ORDER BY, LIMIT) sees all groups together (`joined`). It is right because
//! each row belongs to one range by its time alone, and no group has rows of two. The window and its clock are no part of what is kept, so
//! `time >= now() - INTERVAL '1 hour'` is answered so too. It begins with the second time that a grouping is asked for (`seen`), and whatever goes
//! wrong with it, the window is computed as a whole.

mod budget;
mod cuts;
mod join;
mod joined;
mod kept;
mod remembering;
mod seen;
mod sliced;
mod taking;

use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility, WindowFunctionDefinition};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::stream;
use sluice_store::{Inputs, Scope};

use self::kept::{Caps, Key, State, What};
use self::remembering::{Kept, Remembering};
use self::seen::Seen;
use crate::config::CacheConfig;
use crate::engine::{Dialect, Question};

/// Answers of one tenant are no larger than this share of what it may fill, so that one does not push out all others.
const LARGEST: u64 = 8;

/// What was asked, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    scope: Scope,
    postgres: bool,
    sql: Arc<str>,
    params: Arc<[ScalarValue]>,
}

#[derive(Debug)]
pub(crate) struct Answers {
    caps: Caps,
    /// Windows are put together of ranges.
    by_range: bool,
    state: Mutex<State>,
    seen: Mutex<Seen>,
    hasher: RandomState,
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    /// Ranges of time whose groups were given again, and those that were computed.
    pub(crate) ranges_again: AtomicU64,
    pub(crate) ranges_made: AtomicU64,
}

impl Asked {
    /// `None`: the same question may be answered differently by the same rows.
    pub(crate) fn of(scope: &Scope, question: &Question, plan: &LogicalPlan) -> Option<Asked> {
        // what is visited returns no error
        let steady = is_steady(plan).unwrap_or(false);
        steady.then(|| Asked {
            scope: scope.clone(),
            postgres: question.dialect == Dialect::Postgres,
            sql: question.sql.as_str().into(),
            params: question.params.as_slice().into(),
        })
    }
}

/// Whether nothing in a plan depends on the clock, on chance, on the session or on other tables than that of the rows.
fn is_steady(plan: &LogicalPlan) -> Result<bool> {
    let mut steady = true;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            steady &= match scan.source.get_logical_plan() {
                Some(inner) => is_steady(&inner)?,
                None => source_as_provider(&scan.source).is_ok_and(|table| sluice_store::is_rows(&table)),
            };
        }
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                steady &= match part {
                    Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                    Expr::AggregateFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                    Expr::WindowFunction(call) => match &call.fun {
                        WindowFunctionDefinition::AggregateUDF(f) => f.signature().volatility == Volatility::Immutable,
                        WindowFunctionDefinition::WindowUDF(f) => f.signature().volatility == Volatility::Immutable,
                    },
                    Expr::HigherOrderFunction(..) | Expr::ScalarVariable(..) => false,
                    _ => true,
                };
                Ok(match steady {
                    true => TreeNodeRecursion::Continue,
                    false => TreeNodeRecursion::Stop,
                })
            })
        })
    })?;
    Ok(steady)
}

impl Answers {
    pub(crate) fn new(config: &CacheConfig) -> Arc<Answers> {
        Arc::new(Answers {
            caps: Caps {
                most: config.answers,
                tenant_most: config.tenant_answers.min(config.answers),
            },
            by_range: config.ranges && config.answers > 0,
            state: Mutex::default(),
            seen: Mutex::default(),
            hasher: RandomState::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            ranges_again: AtomicU64::new(0),
            ranges_made: AtomicU64::new(0),
        })
    }

    /// What was answered before, or the rows as they are made.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        scope: &Scope,
        asked: Option<Asked>,
        frame: DataFrame,
        now_ns: i64,
    ) -> Result<SendableRecordBatchStream> {
        let context = Arc::new(frame.task_ctx());
        let (state, plan) = frame.into_parts();
        let plan = state.optimize(&plan)?;
        let mut whole = None;
        let mut known = None;
        if let Some(asked) = asked {
            let planned = plan_of(&plan, &state).await?;
            known = sluice_store::inputs(&planned).map(|inputs| (asked, inputs));
            whole = Some(planned);
        }
        if let Some((asked, inputs)) = &known
            && let Some(rows) = self.recall(asked, *inputs)
        {
            return Ok(rows);
        }
        let joined = Box::pin(self.join(scope, &plan, &state, now_ns)).await;
        // What cannot be put together of ranges is computed as a whole.
        let joined = joined.unwrap_or_else(|error| {
            tracing::debug!(%error, "a query is not put together of ranges of time");
            None
        });
        let planned = match (joined, whole) {
            (Some(joined), _) => joined,
            (None, Some(whole)) => whole,
            (None, None) => plan_of(&plan, &state).await?,
        };
        let rows = execute_stream(planned, context)?;
        Ok(match known {
            Some((asked, inputs)) => self.remember(asked, inputs, rows),
            None => rows,
        })
    }

    /// What was answered before, if the plan still reads the same.
    fn recall(&self, asked: &Asked, inputs: Inputs) -> Option<SendableRecordBatchStream> {
        let recalled = self.lock().answer(asked, inputs);
        let counter = if recalled.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        let (schema, rows) = recalled?;
        let rows = stream::iter((0..rows.len()).map(move |at| Ok(rows[at].clone())));
        Some(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// Keeps the rows that a stream gives, if it gives all of them and they are not too many.
    fn remember(
        self: &Arc<Self>,
        asked: Asked,
        inputs: Inputs,
        rows: SendableRecordBatchStream,
    ) -> SendableRecordBatchStream {
        let left = (self.caps.tenant_most / LARGEST).checked_sub(Key::Answer(asked.clone()).bytes());
        let Some(left) = left else { return rows };
        Box::pin(Remembering::new(self, asked, inputs, rows, left))
    }

    /// Bytes that are held.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn keep(&self, kept: Kept, schema: SchemaRef) {
        let what = What::Answer {
            inputs: kept.inputs,
            schema,
            rows: kept.rows.into(),
        };
        let gone = self.lock().put(Key::Answer(kept.asked), what, self.caps);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything can fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn plan_of(plan: &LogicalPlan, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
    state.query_planner().create_physical_plan(plan, state).await
}

#[cfg(test)]
mod tests;
