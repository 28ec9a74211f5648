//! How a scan of cold files goes to another machine: as what it reads and which rows count, never as the way to the bucket. Whoever
//! receives it reads the files from a lake of its own, and only if that holds the same table.
//!
//! What travels with a scan are the files of the pinned version, the rule on rows and the filters, so tenant, erasures and the point of
//! the log are decided where the query was planned. What steps learn while they run does not travel; the receiver ties them anew.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use object_store::path::Path;

use super::cold_read::ColdRead;
use super::part_exec::PartExec;
use crate::cold::ColdFile;

/// A file that a fragment of a plan reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileToRead {
    /// Within the table.
    pub path: String,
    /// As often as it is read.
    pub bytes: u64,
}

/// Whether a step is a scan of cold files that can travel.
pub fn is_cold_scan(node: &Arc<dyn ExecutionPlan>) -> bool {
    // A scan that stops after some rows is sooner done than sent.
    read(node).is_some_and(|(_, read)| read.limit.is_none())
}

/// The cold files that a fragment reads, the newest of each scan first. A file that several scans read is there once, with the bytes of
/// all of them.
pub fn cold_files(plan: &Arc<dyn ExecutionPlan>) -> Vec<FileToRead> {
    let mut files: Vec<FileToRead> = Vec::new();
    let mut places: HashMap<Path, usize> = HashMap::new();
    // what is visited here returns no error
    let _ = plan.apply(|node| {
        let Some((_, read)) = read(node) else {
            return Ok(TreeNodeRecursion::Continue);
        };
        for file in &read.files {
            match places.entry(file.path.clone()) {
                Entry::Occupied(place) => files[*place.get()].bytes += file.bytes,
                Entry::Vacant(place) => {
                    place.insert(files.len());
                    files.push(FileToRead {
                        path: file.path.to_string(),
                        bytes: file.bytes,
                    });
                }
            }
        }
        Ok(TreeNodeRecursion::Jump)
    });
    files
}

/// The same fragment over some of its files.
pub fn of_files(plan: &Arc<dyn ExecutionPlan>, keep: &dyn Fn(&str) -> bool) -> Result<Arc<dyn ExecutionPlan>> {
    each_scan(plan, |part, read| {
        let files: Vec<Arc<ColdFile>> = read
            .files
            .iter()
            .filter(|file| keep(file.path.as_ref()))
            .cloned()
            .collect();
        let label = format!("{} files of {}", files.len(), part.label());
        let some = Arc::new(read.of(files)).part(label, part.schema(), None)?;
        Ok(Arc::new(some.reading(part.reads().cloned())))
    })
}

/// The fragment as it is sent: its scans as what they read.
pub fn to_travel(plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    each_scan(plan, |part, read| {
        Ok(Arc::new(TravelExec::new(
            Arc::clone(read),
            part.label().to_owned(),
            part.schema(),
        )))
    })
}

fn read(node: &Arc<dyn ExecutionPlan>) -> Option<(&PartExec, &Arc<ColdRead>)> {
    let part = node.downcast_ref::<PartExec>()?;
    Some((part, part.read()?))
}

fn each_scan(
    plan: &Arc<dyn ExecutionPlan>,
    make: impl Fn(&PartExec, &Arc<ColdRead>) -> Result<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let replace = |node: Arc<dyn ExecutionPlan>| match read(&node) {
        Some((part, read)) => Ok(Transformed::new(make(part, read)?, true, TreeNodeRecursion::Jump)),
        None => Ok(Transformed::no(node)),
    };
    Arc::clone(plan).transform_down(replace).map(|changed| changed.data)
}

/// A scan on its way. It gives no rows before it has arrived.
#[derive(Debug)]
pub(super) struct TravelExec {
    pub(super) read: Arc<ColdRead>,
    pub(super) label: String,
    properties: Arc<PlanProperties>,
}

impl TravelExec {
    fn new(read: Arc<ColdRead>, label: String, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            read,
            label,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for TravelExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TravelExec: {}", self.label)
    }
}

impl ExecutionPlan for TravelExec {
    fn name(&self) -> &str {
        "TravelExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
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

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Err(DataFusionError::Internal(
            "a scan that is on its way gives no rows".into(),
        ))
    }
}
