//! How some files of the cold table are read: all that it takes to make a scan of them, here, again for a part of the files, or on another
//! machine that reaches the same table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExecBuilder;

use super::part_exec::{PartExec, Restore};
use crate::cold::{ColdFile, ColdTable};
use crate::reading::{Caches, object_meta};

/// What EXPLAIN calls a scan of cold files.
pub(super) const NAME: &str = "ColdScan";
/// Read of the end of a file at first: the footer and page index of a million rows take about as much.
const FOOTER_BYTES: usize = 512 << 10;
/// What a rule on rows looks at beside the columns that are asked for.
const RULED: [&str; 5] = ["tenant", "signal", "quarantined_by", "partition", "offset"];

/// One scan of cold files before it is made.
#[derive(Clone, Debug)]
pub(super) struct ColdRead {
    pub(super) table: ColdTable,
    pub(super) caches: Arc<Caches>,
    /// The files of the version that the query pinned.
    pub(super) files: Vec<Arc<ColdFile>>,
    /// The columns of the table that are asked for.
    pub(super) columns: Vec<usize>,
    /// On stored columns: it may drop rows that it refuses, or leave them in.
    pub(super) filter: Option<Arc<dyn PhysicalExpr>>,
    /// On `rule_schema`: what every row must meet, where not all of them count.
    pub(super) rule: Option<Arc<dyn PhysicalExpr>>,
    pub(super) limit: Option<usize>,
    /// Groups of files that are read at once.
    pub(super) partitions: usize,
}

impl ColdRead {
    /// The scan, as columns of the table. `runtime` comes to know the way to the files; without one, it knows it already.
    pub(super) fn part(
        self: Arc<Self>,
        label: String,
        schema: SchemaRef,
        runtime: Option<&RuntimeEnv>,
    ) -> Result<PartExec> {
        let restore = Restore {
            mapping: self.table.mapping().clone(),
            columns: self.columns.clone(),
        };
        let part = PartExec::new(NAME, label, self.input(runtime)?, Some(restore), schema);
        Ok(part.read_by(self))
    }

    /// The same of some files only.
    pub(super) fn of(&self, files: Vec<Arc<ColdFile>>) -> ColdRead {
        ColdRead {
            table: self.table.clone(),
            caches: Arc::clone(&self.caches),
            files,
            columns: self.columns.clone(),
            filter: self.filter.clone(),
            rule: self.rule.clone(),
            limit: self.limit,
            partitions: self.partitions,
        }
    }

    /// The stored columns that a rule sees.
    pub(super) fn rule_schema(&self) -> Result<SchemaRef> {
        let physical = self.table.mapping().physical();
        Ok(Arc::new(physical.project(&self.ruled()?)?))
    }

    /// The stored columns that are asked for.
    fn stored(&self) -> Vec<usize> {
        self.table.mapping().physical_indices(&self.columns)
    }

    fn ruled(&self) -> Result<Vec<usize>> {
        let mut columns = self.stored();
        for name in RULED {
            let index = self.table.mapping().physical().index_of(name)?;
            if !columns.contains(&index) {
                columns.push(index);
            }
        }
        Ok(columns)
    }

    fn input(&self, runtime: Option<&RuntimeEnv>) -> Result<Arc<dyn ExecutionPlan>> {
        let asked = self.stored();
        if self.files.is_empty() {
            let schema = self.table.mapping().physical().project(&asked)?;
            return Ok(Arc::new(EmptyExec::new(Arc::new(schema))));
        }
        let Some(rule) = &self.rule else {
            return self.files_of(&asked, runtime);
        };
        let kept: Vec<usize> = (0..asked.len()).collect();
        let checked = FilterExecBuilder::new(Arc::clone(rule), self.files_of(&self.ruled()?, runtime)?);
        Ok(Arc::new(checked.apply_projection(Some(kept))?.build()?))
    }

    fn files_of(&self, columns: &[usize], runtime: Option<&RuntimeEnv>) -> Result<Arc<dyn ExecutionPlan>> {
        let table = &self.table;
        let (objects, readers) = self.caches.files(table, &self.files);
        if let Some(runtime) = runtime {
            runtime.register_object_store(table.url().as_ref(), objects);
        }
        let mut source = ParquetSource::new(Arc::clone(table.mapping().physical()))
            .with_parquet_file_reader_factory(readers)
            .with_metadata_size_hint(FOOTER_BYTES)
            .with_pushdown_filters(true);
        if let Some(filter) = &self.filter {
            source = source.with_predicate(Arc::clone(filter));
        }
        let config = FileScanConfigBuilder::new(table.url().clone(), Arc::new(source))
            .with_file_groups(file_groups(&self.files, self.partitions))
            .with_projection_indices(Some(columns.to_vec()))?
            .with_limit(self.limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

fn file_groups(files: &[Arc<ColdFile>], partitions: usize) -> Vec<FileGroup> {
    let mut groups = vec![FileGroup::default(); partitions.clamp(1, files.len().max(1))];
    let count = groups.len();
    // In turn, so that each group keeps their order.
    for (at, file) in files.iter().enumerate() {
        let mut listed = PartitionedFile::new(String::new(), file.bytes);
        listed.object_meta = object_meta(file);
        groups[at % count].push(listed);
    }
    groups
}
