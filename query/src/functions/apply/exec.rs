//! The step of a plan that sends rows through a plugin.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;
use tokio::sync::OnceCell;

use super::{Applier, ApplyError, PluginCall, Plugins, applied_schema};

/// Sends each batch through the plugin, on a thread that may block.
pub(super) struct ApplyExec {
    input: Arc<dyn ExecutionPlan>,
    call: PluginCall,
    plugins: Arc<dyn Plugins>,
    /// The plugin of this query alone, once its first rows came: what it remembers is of no other's rows.
    opened: Arc<OnceCell<Arc<dyn Applier>>>,
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
}

impl ApplyExec {
    pub(super) fn new(
        input: Arc<dyn ExecutionPlan>,
        call: PluginCall,
        plugins: Arc<dyn Plugins>,
        projection: Option<Vec<usize>>,
    ) -> Result<ApplyExec> {
        let all = applied_schema();
        let schema = match &projection {
            Some(columns) => Arc::new(all.project(columns)?),
            None => all,
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(ApplyExec {
            input,
            call,
            plugins,
            opened: Arc::default(),
            projection,
            properties: Arc::new(properties),
        })
    }
}

impl fmt::Debug for ApplyExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyExec")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

impl DisplayAs for ApplyExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApplyExec: plugin={}", self.call.name)?;
        match &self.call.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for ApplyExec {
    fn name(&self) -> &str {
        "ApplyExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
        let [input] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("ApplyExec has one input".to_owned()))?;
        let (call, plugins) = (self.call.clone(), Arc::clone(&self.plugins));
        let mut replaced = ApplyExec::new(input, call, plugins, self.projection.clone())?;
        replaced.opened = Arc::clone(&self.opened);
        Ok(Arc::new(replaced))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (plugins, call, projection) = (Arc::clone(&self.plugins), self.call.clone(), self.projection.clone());
        let opened = Arc::clone(&self.opened);
        let applied = input.then(move |batch| {
            let (plugins, call, projection) = (Arc::clone(&plugins), call.clone(), projection.clone());
            let opened = Arc::clone(&opened);
            async move {
                let batch = batch?;
                let open = || blocking(move || plugins.open(&call));
                let applier = Arc::clone(opened.get_or_try_init(open).await?);
                let applied = blocking(move || applier.apply(&batch)).await?;
                match projection {
                    Some(columns) => Ok(applied.project(&columns)?),
                    None => Ok(applied),
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), applied)))
    }
}

/// Off the threads that must not wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ApplyError> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| DataFusionError::External(Box::new(error)))?;
    done.map_err(|error| DataFusionError::Execution(error.to_string()))
}
