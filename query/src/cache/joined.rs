//! In a plan: groups of some ranges that were computed before, and of the others as they are computed now.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};
use std::task::Poll;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, stream};

use super::Answers;
use super::budget::size;
use super::taking::Taking;

/// What one aggregate is put together of.
pub(super) struct Join {
    pub(super) answers: Arc<Answers>,
    /// Groups that are given again.
    pub(super) again: Vec<RecordBatch>,
    /// Ranges whose groups they are, and how many ranges the window has.
    pub(super) ranges_again: usize,
    pub(super) ranges: usize,
    /// `None`: no range that is computed is worth keeping.
    pub(super) taking: Option<Taking>,
}

/// In a plan: the groups of an aggregate, whose missing ranges the input computes.
#[derive(Clone)]
pub(super) struct Joined {
    pub(super) input: LogicalPlan,
    pub(super) schema: DFSchemaRef,
    pub(super) join: Arc<Join>,
}

impl Join {
    fn label(&self) -> String {
        let groups: usize = self.again.iter().map(RecordBatch::num_rows).sum();
        let (again, all) = (self.ranges_again, self.ranges);
        format!("{again} of {all} ranges of time given again, {groups} groups")
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ranges: {}", self.join.label())
    }
}

impl PartialEq for Joined {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.join, &other.join) && self.input == other.input
    }
}

impl Eq for Joined {}

impl PartialOrd for Joined {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl Hash for Joined {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for Joined {
    fn name(&self) -> &str {
        "Ranges"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let [input] = <[_; 1]>::try_from(inputs).map_err(|_| one_input())?;
        Ok(Self { input, ..self.clone() })
    }
}

fn one_input() -> DataFusionError {
    DataFusionError::Internal("ranges of time have one input".into())
}

/// Plans what is joined.
pub(super) struct Joins;

#[async_trait]
impl ExtensionPlanner for Joins {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(joined), [input]) = (node.as_any().downcast_ref::<Joined>(), inputs) else {
            return Ok(None);
        };
        Ok(Some(Arc::new(JoinedExec::new(
            Arc::clone(input),
            Arc::clone(&joined.join),
        ))))
    }
}

/// Groups given again, then those of the input. Nothing that is learned or limited above may reach the input: it would be kept as if it
/// were all.
pub(super) struct JoinedExec {
    input: Arc<dyn ExecutionPlan>,
    join: Arc<Join>,
    properties: Arc<PlanProperties>,
}

impl JoinedExec {
    fn new(input: Arc<dyn ExecutionPlan>, join: Arc<Join>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            input,
            join,
            properties: Arc::new(properties),
        }
    }

    /// The groups given again, with the first part alone.
    fn again(&self, part: usize) -> Result<Vec<Result<RecordBatch>>> {
        if part > 0 {
            return Ok(Vec::new());
        }
        let Join {
            answers,
            again,
            ranges_again,
            ranges,
            ..
        } = self.join.as_ref();
        let count = |counter: &AtomicU64, by: usize| counter.fetch_add(by as u64, Atomic::Relaxed);
        count(&answers.ranges_again, *ranges_again);
        count(&answers.ranges_made, ranges - ranges_again);
        let schema = self.schema();
        let fit = |rows: &RecordBatch| {
            let fit = RecordBatch::try_new(Arc::clone(&schema), rows.columns().to_vec());
            fit.map_err(DataFusionError::from)
        };
        Ok(again.iter().map(fit).collect())
    }
}

impl fmt::Debug for JoinedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinedExec")
            .field("join", &self.join.label())
            .finish_non_exhaustive()
    }
}

impl DisplayAs for JoinedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ranges: {}", self.join.label())
    }
}

impl ExecutionPlan for JoinedExec {
    fn name(&self) -> &str {
        "Ranges"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children).map_err(|_| one_input())?;
        Ok(Arc::new(Self::new(input, Arc::clone(&self.join))))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, part: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let parts = self.input.output_partitioning().partition_count();
        let pool = Arc::clone(context.memory_pool());
        let input = self.input.execute(part, context)?;
        let again = self.again(part)?;
        let held = MemoryConsumer::new("ranges of time given again").register(&pool);
        held.grow(again.iter().flatten().map(size).sum::<u64>() as usize);
        let again = stream::iter(again).inspect(move |_| {
            // until the last of them is given
            let _ = &held;
        });
        let Some(taking) = &self.join.taking else {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(
                self.schema(),
                again.chain(input),
            )));
        };
        taking.begin(part, &pool);
        let (takes, ends) = (Arc::clone(&self.join), Arc::clone(&self.join));
        let made = input.inspect(move |rows| {
            if let Some(taking) = &takes.taking {
                taking.take(rows);
            }
        });
        let end = stream::poll_fn(move |_| {
            if let Some(taking) = &ends.taking {
                taking.end(part, parts);
            }
            Poll::Ready(None)
        });
        let rows = again.chain(made).chain(end);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
