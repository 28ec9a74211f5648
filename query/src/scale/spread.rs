//! The step of a plan that runs on workers: one group of rows for each part, computed there or, if that cannot be, here.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use datafusion_distributed::DistributedConfig;

use super::Workers;
use super::out::{BATCHES_AHEAD, Out};
use super::part::Running;
use crate::metered::Meter;

/// What may lie here of the rows of one part, as they were sent, when there are so many parts that each could have less.
const LEAST_KEPT: usize = 1 << 20;

/// What one worker computes.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Its place among the workers.
    pub(super) peer: usize,
    pub(super) files: usize,
    /// The steps as they are sent.
    pub(super) there: Arc<dyn ExecutionPlan>,
    /// The same steps over the same files on this machine.
    pub(super) here: Arc<dyn ExecutionPlan>,
}

/// The parts of one fragment. `sluice_store::inputs` knows it by its name.
#[derive(Debug)]
pub(crate) struct ColdOnWorkers {
    workers: Arc<Workers>,
    parts: Vec<Part>,
    /// Counts what workers read; none before the plan is finished.
    meter: Option<Arc<Meter>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ColdOnWorkers {
    /// `fragment`: the steps over all files.
    pub(super) fn new(workers: Arc<Workers>, parts: Vec<Part>, fragment: &dyn ExecutionPlan) -> ColdOnWorkers {
        let properties = PlanProperties::new(
            fragment.properties().equivalence_properties().clone(),
            Partitioning::UnknownPartitioning(parts.len()),
            fragment.pipeline_behavior(),
            fragment.boundedness(),
        );
        ColdOnWorkers {
            workers,
            parts,
            meter: None,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The same, which tells a meter what workers read.
    pub(crate) fn metered(&self, meter: Arc<Meter>) -> ColdOnWorkers {
        ColdOnWorkers {
            workers: Arc::clone(&self.workers),
            parts: self.parts.clone(),
            meter: Some(meter),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl ColdOnWorkers {
    /// What is kept of the rows that workers sent is of all parts together.
    fn share_of(&self, context: &TaskContext) -> Result<Arc<TaskContext>> {
        let mut config = context.session_config().clone();
        let distributed = DistributedConfig::from_config_options_mut(config.options_mut())?;
        let all = distributed.worker_connection_buffer_budget_bytes;
        distributed.worker_connection_buffer_budget_bytes = (all / self.parts.len().max(1)).max(LEAST_KEPT.min(all));
        Ok(Arc::new(TaskContext::new(
            context.task_id(),
            context.session_id(),
            config,
            context.scalar_functions().clone(),
            context.higher_order_functions().clone(),
            context.aggregate_functions().clone(),
            context.window_functions().clone(),
            context.runtime_env(),
        )))
    }
}

impl DisplayAs for ColdOnWorkers {
    /// Workers by their number: where they are is not for everyone who may ask, nor is how large files are that hold rows of others too.
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ColdOnWorkers: {} of {} workers",
            self.parts.len(),
            self.workers.len()
        )?;
        for part in &self.parts {
            let number = part.peer + 1;
            write!(f, ", worker {number}: {} files", part.files)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for ColdOnWorkers {
    fn name(&self) -> &str {
        "ColdOnWorkers"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.parts.iter().map(|part| &part.here).collect()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true; self.parts.len()]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.parts.len()]
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
        if children.len() != self.parts.len() {
            return Err(DataFusionError::Internal(
                "each part of ColdOnWorkers has its steps".into(),
            ));
        }
        let parts = self.parts.iter().zip(children);
        Ok(Arc::new(ColdOnWorkers {
            workers: Arc::clone(&self.workers),
            parts: parts.map(|(part, here)| Part { here, ..part.clone() }).collect(),
            meter: self.meter.clone(),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let recompute = datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(part) = self.parts.get(partition) else {
            return Err(DataFusionError::Internal(format!(
                "ColdOnWorkers has no part {partition}"
            )));
        };
        let reserved = MemoryConsumer::new("ColdOnWorkers").register(context.memory_pool());
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema(), BATCHES_AHEAD);
        let running = Running::new(
            part.clone(),
            &self.workers,
            self.meter.clone(),
            &self.metrics,
            partition,
            (self.schema(), self.share_of(&context)?),
        );
        let out = Out::new(builder.tx(), reserved);
        builder.spawn(running.run(out));
        Ok(builder.build())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
