//! How much one query may read: what leaves a table is counted over all parts of a plan, and what its files gave before any filter, and
//! beyond the limit the query ends. A server that computes by itself is told the same limit with each statement.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use arrow::array::{Array, RecordBatch};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use futures::stream::poll_fn;

use crate::scale::ColdOnWorkers;

/// Puts a meter above everything that reads; each plan has one count.
#[derive(Debug)]
pub(crate) struct Metering {
    pub(crate) most: u64,
}

impl PhysicalOptimizerRule for Metering {
    fn name(&self) -> &str {
        "metering"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let meter = Arc::new(Meter::new(self.most));
        let wrap = |node: Arc<dyn ExecutionPlan>| {
            // What workers read is of this query too.
            if let Some(spread) = node.downcast_ref::<ColdOnWorkers>() {
                let metered = spread.metered(Arc::clone(&meter));
                return Ok(Transformed::yes(Arc::new(metered) as Arc<dyn ExecutionPlan>));
            }
            Ok(match node.children().is_empty() {
                true => {
                    Transformed::yes(Arc::new(MeteredExec::new(node, Arc::clone(&meter))) as Arc<dyn ExecutionPlan>)
                }
                false => Transformed::no(node),
            })
        };
        plan.transform_up(wrap).map(|changed| changed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What a meter calls the bytes that it counted.
pub(crate) const METERED: &str = "metered_bytes";
/// How files call what they gave.
const FILE_BYTES: &str = "bytes_scanned";
/// Files are asked what they gave once in so many turns: they keep a count for each file.
const LOOK_EVERY: u32 = 8;

/// One query's count.
#[derive(Debug)]
pub(crate) struct Meter {
    read: AtomicU64,
    most: u64,
}

impl Meter {
    pub(crate) fn new(most: u64) -> Meter {
        Meter {
            read: AtomicU64::new(0),
            most,
        }
    }

    /// Fails when that is too much.
    pub(crate) fn add(&self, bytes: u64) -> Result<()> {
        let read = self.read.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        match read > self.most {
            false => Ok(()),
            true => Err(DataFusionError::ResourcesExhausted(format!(
                "the query reads more than `limits.max_scan` allows, which is {} bytes",
                self.most
            ))),
        }
    }
}

/// What one part of a plan read: rows as they are in memory, or what its files gave, whichever is more.
#[derive(Debug, Default)]
struct Part {
    rows: AtomicU64,
    /// Of both, what the meter has been told.
    told: AtomicU64,
}

impl Part {
    fn look(&self, rows: u64, node: &dyn ExecutionPlan, at_files: bool, meter: &Meter, told: &Count) -> Result<()> {
        let rows = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        let files = if at_files { file_bytes(node) } else { 0 };
        let now = rows.max(files);
        let before = self.told.fetch_max(now, Ordering::Relaxed);
        match now.checked_sub(before) {
            None | Some(0) => Ok(()),
            Some(more) => {
                told.add(usize::try_from(more).unwrap_or(usize::MAX));
                meter.add(more)
            }
        }
    }
}

/// What the files of a scan gave so far, before filters, for all of its tasks.
fn file_bytes(node: &dyn ExecutionPlan) -> u64 {
    let metrics = node.metrics().and_then(|metrics| metrics.sum_by_name(FILE_BYTES));
    metrics.map_or(0, |bytes| bytes.as_usize() as u64)
}

fn bytes_of(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|column| size(column.as_ref()) as u64).sum()
}

/// Of the rows that are there, and not of all that their buffers hold.
fn size(column: &dyn Array) -> usize {
    column
        .to_data()
        .get_slice_memory_size()
        .unwrap_or_else(|_| column.get_buffer_memory_size())
}

#[derive(Debug)]
struct MeteredExec {
    input: Arc<dyn ExecutionPlan>,
    meter: Arc<Meter>,
    part: Arc<Part>,
    metrics: ExecutionPlanMetricsSet,
}

impl MeteredExec {
    fn new(input: Arc<dyn ExecutionPlan>, meter: Arc<Meter>) -> MeteredExec {
        MeteredExec {
            input,
            meter,
            part: Arc::default(),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for MeteredExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeteredExec")
    }
}

impl ExecutionPlan for MeteredExec {
    fn name(&self) -> &str {
        "MeteredExec"
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

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(MeteredExec::new(input, Arc::clone(&self.meter)))),
            _ => Err(DataFusionError::Internal("a meter has one input".into())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, context)?;
        let (node, meter, part) = (Arc::clone(&self.input), Arc::clone(&self.meter), Arc::clone(&self.part));
        let schema = input.schema();
        let told = MetricBuilder::new(&self.metrics).counter(METERED, partition);
        let mut turns = 0u32;
        let mut over = false;
        // Each turn, because files whose rows a filter drops give none for a long time.
        let counted = poll_fn(move |context| {
            if over {
                return Poll::Ready(None);
            }
            let polled = input.poll_next_unpin(context);
            let (rows, ended) = match &polled {
                Poll::Ready(Some(Ok(batch))) => (bytes_of(batch), false),
                Poll::Ready(_) => (0, true),
                Poll::Pending => (0, false),
            };
            let at_files = ended || turns.is_multiple_of(LOOK_EVERY);
            turns = turns.wrapping_add(1);
            match part.look(rows, node.as_ref(), at_files, &meter, &told) {
                Ok(()) => polled,
                Err(error) => {
                    over = true;
                    Poll::Ready(Some(Err(error)))
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
