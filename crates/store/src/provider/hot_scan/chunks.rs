//! Reading chunks of memory, but those that the query has learned meanwhile cannot matter: the first rows of an order are found in the
//! newest ones.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_expr_common::physical_expr::snapshot_physical_expr;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use futures::stream;

use super::memory::Held;
use crate::provider::events::Wanted;
use crate::provider::prune;

/// Chunks of memory, dealt to the tasks of a query.
#[derive(Clone)]
pub(in crate::provider) struct ChunksExec {
    label: String,
    /// What tells this scan apart from others.
    reads: Arc<str>,
    groups: Arc<Vec<Vec<Held>>>,
    projection: Option<Vec<usize>>,
    limit: Option<usize>,
    /// What the query learns as it runs, in terms of the columns that come out of here.
    learned: Vec<Arc<dyn PhysicalExpr>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ChunksExec {
    pub(super) fn new(label: String, reads: String, groups: Vec<Vec<Held>>, wanted: &Wanted<'_>) -> Result<Self> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(wanted.projected()?),
            Partitioning::UnknownPartitioning(groups.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            label,
            reads: reads.into(),
            groups: Arc::new(groups),
            projection: wanted.projection.cloned(),
            limit: wanted.limit,
            learned: Vec::new(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    pub(in crate::provider) fn reads(&self) -> &str {
        &self.reads
    }

    /// Whether a chunk may hold rows that still matter.
    fn matters(&self, held: &Held) -> Result<bool> {
        for filter in &self.learned {
            let now = snapshot_physical_expr(Arc::clone(filter))?;
            if prune::keep(std::slice::from_ref(&held.piece), Some(&now), &self.schema())? == [false] {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl fmt::Debug for ChunksExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunksExec")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl DisplayAs for ChunksExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HotScan: {}", self.label)?;
        for filter in &self.learned {
            write!(f, ", newest first, learns {filter}")?;
        }
        match self.limit {
            Some(limit) => write!(f, ", limit {limit}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for ChunksExec {
    fn name(&self) -> &str {
        "HotScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for filter in &self.learned {
            if visit(filter)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let mut fewer = self.clone();
        fewer.limit = match (self.limit, limit) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        Some(Arc::new(fewer))
    }

    /// What the query learns passes over chunks only: it is not taken over.
    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let answers = FilterPushdownPropagation::with_parent_pushdown_result(
            result.parent_filters.iter().map(|_| PushedDown::No).collect(),
        );
        if phase != FilterPushdownPhase::Post || result.parent_filters.is_empty() {
            return Ok(answers);
        }
        let mut wiser = self.clone();
        wiser
            .learned
            .extend(result.parent_filters.into_iter().map(|parent| parent.filter));
        Ok(answers.with_updated_node(Arc::new(wiser) as _))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let counted = BaselineMetrics::new(&self.metrics, partition);
        let passed: Count = MetricBuilder::new(&self.metrics).counter("chunks_passed_over", partition);
        let (scan, schema) = (self.clone(), self.schema());
        let left = self.limit.unwrap_or(usize::MAX);
        let rows = stream::try_unfold((0, left), move |(mut at, left)| {
            let step = (|| {
                let group = scan.groups.get(partition).map_or(&[][..], Vec::as_slice);
                while let Some(held) = group.get(at).filter(|_| left > 0) {
                    at += 1;
                    if !scan.matters(held)? {
                        passed.add(1);
                        continue;
                    }
                    let rows = match &scan.projection {
                        Some(columns) => held.rows.project(columns)?,
                        None => held.rows.clone(),
                    };
                    let rows = rows.slice(0, rows.num_rows().min(left));
                    let left = left - rows.num_rows();
                    return Ok(Some((rows.record_output(&counted), (at, left))));
                }
                Ok(None)
            })();
            std::future::ready(step)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
