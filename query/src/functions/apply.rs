//! `apply('plugin@version', 'which rows', 'configuration')`: what a plugin would have done with rows that are stored.
//!
//! The plugin runs in its sandbox over the rows that the caller may see, and changes nothing. How plugins are found and run is not known
//! here: whoever composes the program brings it.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

use crate::guard;

/// Columns behind those of `events`.
const APPLIED: &str = "applied";
const REASON: &str = "applied_reason";

/// Runs plugins over rows of the table.
pub trait Plugins: Send + Sync + 'static {
    /// Every row, with the columns of [`applied_schema`]: as the plugin left it where it was kept, else as it was. Blocks.
    fn apply(&self, plugin: &PluginCall, rows: &RecordBatch) -> Result<RecordBatch, ApplyError>;
}

/// Which plugin, and how it is set up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginCall {
    pub name: String,
    pub version: Option<String>,
    /// A JSON object.
    pub config: String,
}

/// Why a plugin could not be run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ApplyError(pub String);

/// The columns of `events`, what became of the row (`kept`, `dropped` or `quarantined`), and why.
pub fn applied_schema() -> SchemaRef {
    let events = sluice_wire::events::schema();
    let mut fields: Vec<Arc<Field>> = events.fields().iter().cloned().collect();
    fields.extend([APPLIED, REASON].map(|name| Arc::new(Field::new(name, DataType::Utf8, true))));
    Arc::new(arrow::datatypes::Schema::new(fields))
}

pub(super) struct Apply {
    events: Arc<dyn TableProvider>,
    plugins: Arc<dyn Plugins>,
}

impl Apply {
    pub(super) fn new(events: &Arc<dyn TableProvider>, plugins: &Arc<dyn Plugins>) -> Apply {
        Apply {
            events: Arc::clone(events),
            plugins: Arc::clone(plugins),
        }
    }

    /// The rows that a condition on `events` names.
    fn rows(&self, condition: Option<&str>, session: &dyn Session) -> Result<LogicalPlan> {
        let all = LogicalPlanBuilder::scan("events", provider_as_source(Arc::clone(&self.events)), None)?;
        let Some(condition) = condition.filter(|text| !text.trim().is_empty()) else {
            return all.build();
        };
        let Some(state) = session.as_any().downcast_ref::<SessionState>() else {
            return plan_err!("apply cannot read a condition here");
        };
        // A text within the text of the query, which was one word to whoever measured that.
        if let Err(error) = guard::measure(&guard::words(condition)) {
            return plan_err!("the condition of apply: {error}");
        }
        let schema = DFSchema::try_from(sluice_wire::events::schema())?;
        let condition = state.create_logical_expr(condition, &schema)?;
        let mut own = true;
        condition.apply(|node| {
            own &= !matches!(
                node,
                Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)
            );
            Ok(TreeNodeRecursion::Continue)
        })?;
        match own {
            true => all.filter(condition)?.build(),
            false => plan_err!("the condition of apply is on columns of events, without queries inside"),
        }
    }
}

impl fmt::Debug for Apply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Apply")
    }
}

impl TableFunctionImpl for Apply {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let mut texts = Vec::new();
        for arg in args.exprs() {
            match arg {
                Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => {
                    texts.push(text.as_str())
                }
                other => return plan_err!("apply takes texts, not {other}"),
            }
        }
        let (plugin, rows, config) = match texts.as_slice() {
            [plugin] => (*plugin, None, "{}"),
            [plugin, rows] => (*plugin, Some(*rows), "{}"),
            [plugin, rows, config] => (*plugin, Some(*rows), *config),
            _ => return plan_err!("apply('plugin@version', 'condition on events', '{{configuration}}')"),
        };
        if !serde_json::from_str::<serde_json::Value>(config).is_ok_and(|value| value.is_object()) {
            return plan_err!("the configuration of apply is no JSON object");
        }
        let (name, version) = plugin
            .split_once('@')
            .map_or((plugin, None), |(name, version)| (name, Some(version)));
        Ok(Arc::new(AppliedTable {
            rows: self.rows(rows, args.session())?,
            call: PluginCall {
                name: name.to_owned(),
                version: version.map(str::to_owned),
                config: config.to_owned(),
            },
            plugins: Arc::clone(&self.plugins),
            schema: applied_schema(),
        }))
    }
}

struct AppliedTable {
    rows: LogicalPlan,
    call: PluginCall,
    plugins: Arc<dyn Plugins>,
    schema: SchemaRef,
}

impl fmt::Debug for AppliedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppliedTable")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for AppliedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = state.create_physical_plan(&self.rows).await?;
        Ok(Arc::new(ApplyExec::new(
            input,
            self.call.clone(),
            Arc::clone(&self.plugins),
            projection.cloned(),
        )?))
    }
}

/// Sends each batch through the plugin, on a thread that may block.
struct ApplyExec {
    input: Arc<dyn ExecutionPlan>,
    call: PluginCall,
    plugins: Arc<dyn Plugins>,
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
}

impl ApplyExec {
    fn new(
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
        Ok(Arc::new(ApplyExec::new(input, call, plugins, self.projection.clone())?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (plugins, call, projection) = (Arc::clone(&self.plugins), self.call.clone(), self.projection.clone());
        let applied = input.then(move |batch| {
            let (plugins, call, projection) = (Arc::clone(&plugins), call.clone(), projection.clone());
            async move {
                let batch = batch?;
                let work = move || plugins.apply(&call, &batch);
                let applied = tokio::task::spawn_blocking(work).await;
                let applied = applied.map_err(|error| DataFusionError::External(Box::new(error)))?;
                let applied = applied.map_err(|error| DataFusionError::Execution(error.to_string()))?;
                match projection {
                    Some(columns) => Ok(applied.project(&columns)?),
                    None => Ok(applied),
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), applied)))
    }
}
