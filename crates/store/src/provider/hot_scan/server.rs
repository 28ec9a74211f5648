//! Rows of a ClickHouse server: one statement with the seam's offsets and generations, the tenant, and what of the query it can
//! compute: filters, the first rows of an order, partial aggregates.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use futures::stream;
use sluice_wire::ids::Partition;

use super::partial;
use super::sql;
use super::words::Words;
use crate::erase::Erasures;
use crate::hot::ClickHouseHot;
use crate::hot::clickhouse::{
    Asked, ClickHouseError, Exceeded, Parts, StatementLimits, any_of, fit_rows, rows_between, text_parameter,
};
use crate::provider::events::Wanted;
use crate::provider::inputs;
use crate::provider::part_exec::PartExec;
use crate::rows::LEDGER;
use crate::seam::SeamRecord;

/// Of everything that one statement computes; ClickHouse parses statements of up to 256 KiB, and parameters travel in the address.
const MAX_WORDS_BYTES: usize = 64 << 10;
const MAX_PARAMETER_BYTES: usize = 16 << 10;

/// Puts an expression in terms of the rows of a scan.
type Expand<'a> = dyn Fn(&Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> + 'a;

/// One statement, not yet sent.
#[derive(Clone)]
pub(in crate::provider) struct ServerExec {
    hot: ClickHouseHot,
    asked: Asked,
    /// Rows of the table, or states of aggregates.
    computed: bool,
    /// The filters of the query are all in the statement.
    whole: bool,
    label: String,
    /// What tells this scan apart from others.
    reads: Arc<str>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl fmt::Debug for ServerExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the parameters: they hold what people look for.
        f.debug_struct("ServerExec")
            .field("conditions", &self.asked.conditions)
            .finish_non_exhaustive()
    }
}

/// What is pinned of a server.
pub(super) struct From<'a> {
    pub(super) hot: &'a ClickHouseHot,
    pub(super) seam: &'a BTreeMap<Partition, SeamRecord>,
    pub(super) parts: &'a Parts,
    /// The first and the last offset of each partition.
    pub(super) served: &'a BTreeMap<Partition, (u64, u64)>,
}

/// Plans the scan of the offsets that hot serves; and whether it applies all filters exactly.
pub(super) fn plan(
    from: From<'_>,
    wanted: &Wanted<'_>,
    hidden: &Erasures,
    filters: &[Expr],
    physical: &[Arc<dyn PhysicalExpr>],
) -> Result<(Arc<dyn ExecutionPlan>, bool)> {
    let From {
        hot,
        seam,
        parts,
        served,
    } = from;
    let Some(places) = places(seam, served) else {
        let schema = wanted.projected()?;
        let input = Arc::new(EmptyExec::new(Arc::clone(&schema)));
        let nothing = PartExec::new("HotScan", "hot: nothing".to_owned(), input, None, schema);
        return Ok((Arc::new(nothing), false));
    };
    // Of a server it is not known when the oldest row was taken in.
    let erased = inputs::erasures(hidden, wanted.tenant, std::iter::once(None));
    let reads = format!("{} {erased} {} {places}", wanted.text, hot.endpoint());
    let mut asked = seen_in(places, wanted.tenant, wanted.hidden);
    asked.parts = parts.split(seam, served);
    // What narrows, by what the server has an index for; then what decides.
    let said = sql::say(filters, &wanted.schema);
    let narrows = said.conditions.len();
    asked.conditions.extend(said.conditions);
    asked.parameters.extend(said.parameters);
    let mut whole = said.whole;
    if !whole {
        whole = decide(&mut asked, &wanted.schema, physical);
    }
    let filtered = if whole { filters.len() } else { narrows };
    let whole_parts = match asked.parts.counting() {
        0 => String::new(),
        parts => format!(", {parts} parts whole"),
    };
    let clean_parts = match asked.parts.clean.len() {
        parts if parts > 0 && asked.leaves_out_set_aside => format!(", nothing set aside in {parts}"),
        _ => String::new(),
    };
    let label = format!(
        "hot: {} partitions on the server{whole_parts}{clean_parts}, {filtered} of {} filters there",
        served.len(),
        filters.len()
    );
    let schema = if whole { wanted.asked()? } else { wanted.projected()? };
    asked.limit = if whole { wanted.limit_if_filtered } else { wanted.limit };
    asked.columns = schema
        .fields()
        .iter()
        .map(|field| format!("`{}`", field.name()))
        .collect();
    let exec = ServerExec {
        hot: hot.clone(),
        asked,
        computed: false,
        whole,
        label,
        reads: reads.into(),
        properties: properties(schema),
        metrics: ExecutionPlanMetricsSet::new(),
    };
    Ok((Arc::new(exec), whole))
}

/// Where the rows are that hot serves; `None`: nowhere.
pub(super) fn places(
    seam: &BTreeMap<Partition, SeamRecord>,
    served: &BTreeMap<Partition, (u64, u64)>,
) -> Option<String> {
    let place = |(partition, (first, last)): (&Partition, &(u64, u64))| {
        rows_between(*partition, seam.get(partition)?, *first, *last)
    };
    let places: Vec<String> = served.iter().filter_map(place).collect();
    (!places.is_empty()).then(|| any_of(places.into_iter()))
}

/// A statement on what a tenant sees of some places, or everyone together; `hidden`: with the ledger and what was set aside.
pub(super) fn seen_in(places: String, tenant: Option<&str>, hidden: bool) -> Asked {
    let mut asked = Asked {
        places,
        ..Asked::default()
    };
    if let Some(tenant) = tenant {
        let (text, parameter) = text_parameter("tenant", tenant);
        asked.conditions.push(format!("`tenant` = {text}"));
        asked.parameters.push(parameter);
    }
    if !hidden {
        asked.conditions.push(format!("`signal` != '{LEDGER}'"));
        asked.leaves_out_set_aside = true;
    }
    asked
}

/// Says all filters exactly, if there are words for all of them.
fn decide(asked: &mut Asked, schema: &SchemaRef, filters: &[Arc<dyn PhysicalExpr>]) -> bool {
    let mut words = Words::new(schema, asked.parameters.len());
    let conditions: Option<Vec<String>> = filters.iter().map(|filter| words.condition(filter)).collect();
    let parameters = words.parameters;
    let Some(conditions) = conditions.filter(|all| fits(all, &parameters, asked)) else {
        return false;
    };
    asked.conditions.extend(conditions);
    asked.parameters.extend(parameters);
    true
}

fn fits(texts: &[String], parameters: &[(String, String)], asked: &Asked) -> bool {
    let known = texts.iter().chain(&asked.conditions).chain([&asked.places]);
    let words: usize = known.map(String::len).sum();
    let values: usize = parameters
        .iter()
        .chain(&asked.parameters)
        .map(|(_, value)| value.len())
        .sum();
    words <= MAX_WORDS_BYTES && values <= 2 * MAX_PARAMETER_BYTES
}

fn properties(schema: SchemaRef) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

impl ServerExec {
    pub(in crate::provider) fn reads(&self) -> &str {
        &self.reads
    }

    /// Nothing of the query is left to be checked in these rows.
    fn is_open(&self) -> bool {
        self.whole && !self.computed && self.asked.limit.is_none()
    }

    /// The same, but for the first rows of an order alone; `None`: the server orders differently.
    pub(in crate::provider) fn first(&self, order: &LexOrdering, fetch: usize) -> Option<Arc<dyn ExecutionPlan>> {
        if !self.is_open() {
            return None;
        }
        let schema = self.schema();
        let mut words = Words::new(&schema, self.asked.parameters.len());
        let mut by = Vec::new();
        for sort in order.iter() {
            // Rows that are alike up to a key without words must all come.
            let key = words.key(&sort.expr)?;
            let way = if sort.options.descending { "DESC" } else { "ASC" };
            let nulls = if sort.options.nulls_first { "FIRST" } else { "LAST" };
            by.push(format!("{} {way} NULLS {nulls}", key.text));
        }
        let parameters = words.parameters;
        let mut first = self.clone();
        if !fits(&by, &parameters, &self.asked) {
            return None;
        }
        first.asked.parameters.extend(parameters);
        first.asked.order = by;
        first.asked.limit = Some(fetch);
        first.label.push_str(&format!(", ordered there, the first {fetch}"));
        first.metrics = ExecutionPlanMetricsSet::new();
        Some(Arc::new(first))
    }

    /// The state of a partial aggregate over these rows; `expand` puts its expressions in terms of these rows.
    pub(in crate::provider) fn aggregated(
        &self,
        aggregate: &AggregateExec,
        expand: &Expand<'_>,
        besides: &str,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let groups = aggregate.group_expr();
        if !self.is_open() || !(groups.is_true_no_grouping() || groups.is_single()) {
            return Ok(None);
        }
        let schema = self.schema();
        let mut words = Words::new(&schema, self.asked.parameters.len());
        let mut columns = Vec::new();
        for (expr, _) in groups.expr() {
            match words.key(&expand(expr)?) {
                Some(key) => columns.push(key.text),
                None => return Ok(None),
            }
        }
        let keys: Vec<String> = (0..columns.len()).map(|at| format!("`k {at}`")).collect();
        let mut columns: Vec<String> = columns
            .iter()
            .zip(&keys)
            .map(|(text, key)| format!("{text} AS {key}"))
            .collect();
        for (function, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
            let args = function.expressions().iter().map(expand).collect::<Result<Vec<_>>>()?;
            let ranked = function
                .order_bys()
                .iter()
                .map(|by| expand(&by.expr))
                .collect::<Result<Vec<_>>>()?;
            let Some(function) = function.with_new_expressions(args, ranked) else {
                return Ok(None);
            };
            let filter = filter.as_ref().map(expand).transpose()?;
            match partial::state(&mut words, &function, filter.as_ref()) {
                Some(states) => columns.extend(states),
                None => return Ok(None),
            }
        }
        let schema = aggregate.schema();
        let parameters = words.parameters;
        if columns.len() != schema.fields().len() || columns.is_empty() || !fits(&columns, &parameters, &self.asked) {
            return Ok(None);
        }
        let mut asked = self.asked.clone();
        asked.columns = columns;
        asked.parameters.extend(parameters);
        asked.groups = keys;
        let is_long = |field: &Arc<Field>| field.data_type().is_nested();
        asked.has_long_states = schema.fields().iter().any(is_long);
        Ok(Some(Arc::new(Self {
            hot: self.hot.clone(),
            asked,
            computed: true,
            whole: true,
            label: format!("{}, aggregated there{besides}", self.label),
            reads: Arc::clone(&self.reads),
            properties: properties(schema),
            metrics: ExecutionPlanMetricsSet::new(),
        })))
    }
}

impl ServerExec {
    /// The groups of a partial aggregate and what it counts the different values of, each once; and the aggregate over those. For one that
    /// gives the same however often it sees a value.
    pub(in crate::provider) fn distinct(
        &self,
        aggregate: &AggregateExec,
        expand: &Expand<'_>,
        besides: &str,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let groups = aggregate.group_expr();
        let ([function], [None]) = (aggregate.aggr_expr(), aggregate.filter_expr()) else {
            return Ok(None);
        };
        let args = function.expressions();
        let ("approx_distinct", [counted]) = (function.fun().name(), args.as_slice()) else {
            return Ok(None);
        };
        if !self.is_open() || !(groups.is_true_no_grouping() || groups.is_single()) {
            return Ok(None);
        }
        let schema = self.schema();
        let mut words = Words::new(&schema, self.asked.parameters.len());
        let mut columns = Vec::new();
        for expr in groups.expr().iter().map(|(expr, _)| expr).chain([counted]) {
            match words.key(&expand(expr)?) {
                Some(key) => columns.push(format!("{} AS `k {}`", key.text, columns.len())),
                None => return Ok(None),
            }
        }
        let parameters = words.parameters;
        if !fits(&columns, &parameters, &self.asked) {
            return Ok(None);
        }
        let of_group = |at: usize| aggregate.schema().field(at).clone().with_name(format!("k {at}"));
        let last = columns.len() - 1;
        let mut fields: Vec<Field> = (0..last).map(of_group).collect();
        let kind = counted.data_type(&aggregate.input_schema())?;
        fields.push(Field::new(format!("k {last}"), kind, true));
        let found = Arc::new(Schema::new(fields));
        let mut asked = self.asked.clone();
        asked.groups = (0..columns.len()).map(|at| format!("`k {at}`")).collect();
        asked.columns = columns;
        asked.parameters.extend(parameters);
        let values = Self {
            hot: self.hot.clone(),
            asked,
            computed: true,
            whole: true,
            label: format!("{}, each value once{besides}", self.label),
            reads: Arc::clone(&self.reads),
            properties: properties(Arc::clone(&found)),
            metrics: ExecutionPlanMetricsSet::new(),
        };
        let column = |at: usize| Arc::new(Column::new(&format!("k {at}"), at)) as Arc<dyn PhysicalExpr>;
        let names = groups.expr().iter().map(|(_, name)| name);
        let by: Vec<_> = names.enumerate().map(|(at, name)| (column(at), name.clone())).collect();
        let by = match by.is_empty() {
            true => groups.clone(),
            false => PhysicalGroupBy::new_single(by),
        };
        let Some(function) = function.with_new_expressions(vec![column(last)], Vec::new()) else {
            return Ok(None);
        };
        AggregateExec::try_new(
            AggregateMode::Partial,
            by,
            vec![Arc::new(function)],
            vec![None],
            Arc::new(values),
            found,
        )
        .map(|counted| Some(Arc::new(counted) as Arc<dyn ExecutionPlan>))
    }
}

impl DisplayAs for ServerExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HotScan: {}", self.label)?;
        match self.asked.limit {
            Some(limit) => write!(f, ", limit {limit}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for ServerExec {
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

    /// The first rows of an order may come twice as many: once of the parts that count as a whole, and once of the others.
    fn fetch(&self) -> Option<usize> {
        self.asked.limit.filter(|_| self.asked.order.is_empty())
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        if !self.asked.order.is_empty() {
            return None;
        }
        let mut fewer = self.clone();
        fewer.asked.limit = match (self.asked.limit, limit) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        Some(Arc::new(fewer))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    /// Batches come as they are asked for; dropping the stream ends the statement.
    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let limits = context.session_config().get_extension::<StatementLimits>();
        let (hot, asked, schema, computed) = (self.hot.clone(), self.asked.clone(), self.schema(), self.computed);
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let shown = Arc::clone(&schema);
        let begun = async move {
            let answer = hot.select(asked, limits.as_deref()).await;
            let failed = move |error| failed(error, limits.as_deref());
            let answer = answer.map_err(&failed)?;
            let state = (answer, schema, metrics, computed, failed);
            Ok::<_, DataFusionError>(stream::try_unfold(
                state,
                async |(mut answer, schema, metrics, computed, failed)| {
                    let Some(batch) = answer.next().await.map_err(&failed)? else {
                        return Ok(None);
                    };
                    let batch = match computed {
                        true => states(&batch, &schema)?,
                        false => fit_rows(&batch, &schema)?,
                    };
                    let batch = batch.record_output(&metrics);
                    Ok(Some((batch, (answer, schema, metrics, computed, failed))))
                },
            ))
        };
        let rows = futures::TryStreamExt::try_flatten(stream::once(begun));
        Ok(Box::pin(RecordBatchStreamAdapter::new(shown, rows)))
    }
}

/// States of aggregates as the engine has them.
fn states(answer: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (field, column) in schema.fields().iter().zip(answer.columns()) {
        let is_digest = matches!(field.data_type(), DataType::List(item) if item.data_type() == &DataType::Float64);
        arrays.push(match column.as_string_opt::<i32>() {
            Some(digests) if is_digest => digested(digests, &arrays)?,
            _ => cast(column, field.data_type())?,
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(answer.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}

/// Centroids stand behind the most and the least of what they were made of.
fn digested(digests: &StringArray, before: &[ArrayRef]) -> Result<ArrayRef> {
    let ends = match before {
        [.., most, least] => most
            .as_primitive_opt::<Float64Type>()
            .zip(least.as_primitive_opt::<Float64Type>()),
        _ => None,
    };
    let lists = ends.and_then(|(most, least)| partial::centroids(digests, least, most));
    let strange = || DataFusionError::Execution("ClickHouse sent a digest that is none".to_owned());
    lists.map(|lists| Arc::new(lists) as ArrayRef).ok_or_else(strange)
}

/// A limit that the server kept is told as if it had been kept here.
fn failed(error: ClickHouseError, limits: Option<&StatementLimits>) -> DataFusionError {
    let said = match (error.exceeded(), limits) {
        (Some(Exceeded::Bytes), Some(limits)) => format!(
            "the query reads more than `limits.max_scan` allows, which is {} bytes",
            limits.bytes
        ),
        (Some(Exceeded::Memory), Some(limits)) => format!(
            "the query needs more memory than `limits.memory` allows, which is {} bytes",
            limits.memory
        ),
        _ => return DataFusionError::External(Box::new(error)),
    };
    DataFusionError::ResourcesExhausted(said)
}
