//! The head of a part on its worker: it runs only while it has one of the worker's places, counts the rows that leave, and says whether
//! they ended or only stopped. A step that panics stops the rows; who serves them would take that for their end.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};
use futures::StreamExt;
use futures::stream::poll_fn;
use tokio::sync::Semaphore;

/// How the head calls that its rows came to their end: 1, and nothing else will do.
pub(super) const ENDED: &str = "part_ended";

/// How many parts a worker computes, and what became of those that came.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    all: usize,
    pub(super) taken: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl Places {
    pub(super) fn new(parts: usize) -> Places {
        Places {
            free: Arc::new(Semaphore::new(parts)),
            all: parts,
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(super) fn refuses(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Parts that are computed now.
    pub(super) fn running(&self) -> usize {
        self.all - self.free.available_permits()
    }
}

#[derive(Debug)]
pub(super) struct AtWorkExec {
    input: Arc<dyn ExecutionPlan>,
    places: Arc<Places>,
    metrics: ExecutionPlanMetricsSet,
}

impl AtWorkExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, places: Arc<Places>) -> AtWorkExec {
        AtWorkExec {
            input,
            places,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for AtWorkExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AtWorkExec")
    }
}

impl ExecutionPlan for AtWorkExec {
    fn name(&self) -> &str {
        "AtWorkExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(AtWorkExec::new(input, Arc::clone(&self.places)))),
            _ => Err(DataFusionError::Internal("the head of a part has one input".into())),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let recompute = datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(recompute))
    }

    /// The place is given back with the rows, however they end: the library keeps what it knows of a part for longer.
    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Ok(place) = Arc::clone(&self.places.free).try_acquire_owned() else {
            self.places.refuses();
            return Err(DataFusionError::Plan(
                "this worker computes as many parts as it may (`worker.parts`)".into(),
            ));
        };
        self.places.taken.fetch_add(1, Ordering::Relaxed);
        let input = self.input.execute(partition, context)?;
        let counted = MetricBuilder::new(&self.metrics).output_rows(partition);
        let ended = MetricBuilder::new(&self.metrics).counter(ENDED, partition);
        let schema = input.schema();
        let mut input = AssertUnwindSafe(input).catch_unwind();
        let mut over = false;
        let rows = poll_fn(move |context| {
            // moves the place into the stream
            let _ = &place;
            if over {
                return Poll::Ready(None);
            }
            let next = match ready!(input.poll_next_unpin(context)) {
                Some(Ok(next)) => Some(next),
                Some(Err(_)) => Some(Err(DataFusionError::Internal(
                    "a part of the query stopped unexpectedly".into(),
                ))),
                None => None,
            };
            match &next {
                Some(Ok(batch)) => counted.add(batch.num_rows()),
                Some(Err(_)) => over = true,
                None => {
                    over = true;
                    ended.add(1);
                }
            }
            Poll::Ready(next)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
