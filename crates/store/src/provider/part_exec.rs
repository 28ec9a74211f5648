//! The part of a scan that one store serves: names it in EXPLAIN, and turns stored columns into those of the table.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    ReplaceChildrenOptions, StatisticsArgs,
};
use futures::StreamExt;

use super::cold_read::ColdRead;
use super::learnt;
use crate::physical::Mapping;

/// The rows of one store.
#[derive(Debug)]
pub(super) struct PartExec {
    name: &'static str,
    /// What was read and what was passed over.
    label: String,
    input: Arc<dyn ExecutionPlan>,
    restore: Option<Restore>,
    /// What tells this scan apart from others; `None`: it has no rows.
    reads: Option<Arc<str>>,
    /// How the input is made again; `None`: it cannot be.
    read: Option<Arc<ColdRead>>,
    properties: Arc<PlanProperties>,
}

/// Which columns of the table the input's stored columns stand for.
#[derive(Clone, Debug)]
pub(super) struct Restore {
    pub(super) mapping: Mapping,
    pub(super) columns: Vec<usize>,
}

impl PartExec {
    pub(super) fn new(
        name: &'static str,
        label: String,
        input: Arc<dyn ExecutionPlan>,
        restore: Option<Restore>,
        schema: SchemaRef,
    ) -> Self {
        let partitions = input.output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            name,
            label,
            input,
            restore,
            reads: None,
            read: None,
            properties: Arc::new(properties),
        }
    }

    /// Says what it reads.
    pub(super) fn reading(mut self, reads: Option<Arc<str>>) -> Self {
        self.reads = reads;
        self
    }

    /// Says how the input is made again.
    pub(super) fn read_by(mut self, read: Arc<ColdRead>) -> Self {
        self.read = Some(read);
        self
    }

    /// How the files of the input are read, if it is of files.
    pub(super) fn read(&self) -> Option<&Arc<ColdRead>> {
        self.read.as_ref()
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn reads(&self) -> Option<&Arc<str>> {
        self.reads.as_ref()
    }

    /// What is said of a part that gives no rows.
    pub(super) fn empty_label(&self) -> Option<String> {
        self.input.is::<EmptyExec>().then(|| self.label.clone())
    }
}

impl DisplayAs for PartExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.label)
    }
}

impl ExecutionPlan for PartExec {
    fn name(&self) -> &str {
        self.name
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

    /// Of what the engine learns while it runs, files are told what they understand. It is not taken over: it only passes over more.
    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let mut child = ChildFilterDescription::all_unsupported(&parent_filters);
        if phase == FilterPushdownPhase::Post && self.restore.is_some() {
            let (table, files) = (self.schema(), self.input.schema());
            let told = parent_filters
                .iter()
                .filter_map(|filter| learnt::of_files(filter, &table, &files));
            child = child.with_self_filters(told.collect());
        }
        Ok(FilterDescription::new().with_child(child))
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal(format!("{} has one input", self.name)))?;
        let mut part = Self::new(
            self.name,
            self.label.clone(),
            input,
            self.restore.clone(),
            self.schema(),
        );
        part.read = self.read.clone();
        Ok(Arc::new(part.reading(self.reads.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let recompute = datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let Some(Restore { mapping, columns }) = self.restore.clone() else {
            return Ok(input);
        };
        let schema = self.schema();
        let restored = {
            let schema = Arc::clone(&schema);
            input.map(move |batch| -> Result<RecordBatch> { Ok(mapping.to_logical(&columns, &schema, &batch?)?) })
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, restored)))
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if let Some(input) = inputs.first() {
            statistics.num_rows = input.num_rows;
        }
        Ok(Arc::new(statistics))
    }
}
