//! How much one query may read: what leaves a table is counted over all parts of a plan, and beyond the limit the query ends.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, RecordBatch};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

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
        let meter = Arc::new(Meter {
            read: AtomicU64::new(0),
            most: self.most,
        });
        let wrap = |node: Arc<dyn ExecutionPlan>| {
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

#[derive(Debug)]
struct Meter {
    read: AtomicU64,
    most: u64,
}

impl Meter {
    fn count(&self, batch: &RecordBatch) -> Result<()> {
        let bytes: usize = batch.columns().iter().map(|column| size(column.as_ref())).sum();
        let read = self
            .read
            .fetch_add(bytes as u64, Ordering::Relaxed)
            .saturating_add(bytes as u64);
        match read > self.most {
            false => Ok(()),
            true => Err(DataFusionError::ResourcesExhausted(format!(
                "the query reads more than `limits.max_scan` allows, which is {} bytes",
                self.most
            ))),
        }
    }
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
}

impl MeteredExec {
    fn new(input: Arc<dyn ExecutionPlan>, meter: Arc<Meter>) -> MeteredExec {
        MeteredExec { input, meter }
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
        let input = self.input.execute(partition, context)?;
        let meter = Arc::clone(&self.meter);
        let schema = input.schema();
        let counted = input.map(move |batch| {
            let batch = batch?;
            meter.count(&batch)?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }
}
