//! Plugins over rows that are stored, for `apply` in SQL: the composition of the query layer with the host of plugins.
//!
//! Rows go through a plugin in the layout that edges have, so they are taken back to what was sent first, and folded into rows again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use sluice_edge::{NodeOptions, load_plugin};
use sluice_query::{Applier, ApplyError, PluginCall, Plugins, applied_schema};
use sluice_runtime::{Call, Chain};
use sluice_wire::Signal;
use sluice_wire::events::{Origin, fold};
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};
use sluice_wire::limits::DecodeLimits;
use sluice_wire::otlp::{Decoder, encode_rows};

/// Tells rows apart on their way; a plugin that reads all attributes sees it.
const PLACE: &str = "attrs:i:sluice.apply.row";
const WEIGHT: &str = "weight";
/// Where a row came from: no plugin changes it.
const ORIGIN: [&str; 9] = [
    "tenant",
    "node",
    "stream",
    "epoch",
    "seq",
    "partition",
    "offset",
    "row",
    "ingested_at",
];
/// Plugins that are loaded at once: each compilation takes much memory.
const LOADS_AT_ONCE: usize = 2;

/// The plugins that are installed in a folder, and the standard ones.
pub(crate) struct LocalPlugins {
    folder: PathBuf,
    strict_revocations: bool,
    /// Nothing is behind them. A plugin has always the same one, so that it is compiled once when many ask for it at first.
    loading: [Mutex<()>; LOADS_AT_ONCE],
}

/// The plugin of one query: nobody else's rows reach what it remembers, and nobody else's rows switch it off.
struct Loaded {
    name: String,
    chain: Chain,
}

impl LocalPlugins {
    pub(crate) fn new(folder: PathBuf, strict_revocations: bool) -> Arc<LocalPlugins> {
        Arc::new(LocalPlugins {
            folder,
            strict_revocations,
            loading: Default::default(),
        })
    }

    /// Verified and loaded anew, from the image that was compiled once: what was revoked meanwhile is not loaded again.
    fn load(&self, call: &PluginCall) -> Result<Chain> {
        let config: serde_json::Value = serde_json::from_str(&call.config).context("the configuration is no JSON")?;
        ensure!(
            !names_secrets(&config),
            "the configuration of apply cannot name variables or files of the node (`env`, `file`)"
        );
        let config = toml::Table::try_from(config).context("the configuration")?;
        let version = call.version.as_deref();
        let turn = call.name.bytes().map(usize::from).sum::<usize>() % LOADS_AT_ONCE;
        let _turn = self.loading[turn].lock().unwrap_or_else(PoisonError::into_inner);
        let options = NodeOptions::default();
        Ok(load_plugin(
            &self.folder,
            &options,
            self.strict_revocations,
            &call.name,
            version,
            config,
        )?)
    }
}

impl Plugins for LocalPlugins {
    fn open(&self, plugin: &PluginCall) -> Result<Arc<dyn Applier>, ApplyError> {
        match self.load(plugin) {
            Ok(chain) => Ok(Arc::new(Loaded {
                name: plugin.name.clone(),
                chain,
            })),
            Err(error) => Err(failed(&plugin.name, &error)),
        }
    }
}

impl Applier for Loaded {
    fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch, ApplyError> {
        through(&self.chain, rows).map_err(|error| failed(&self.name, &error))
    }
}

fn failed(plugin: &str, error: &anyhow::Error) -> ApplyError {
    ApplyError(format!("apply('{plugin}'): {error:#}"))
}

/// `{ env = … }` and `{ file = … }` in the configuration of an edge are replaced by what they name. That is for its operator alone.
fn names_secrets(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(members) => {
            members.contains_key("env") || members.contains_key("file") || members.values().any(names_secrets)
        }
        serde_json::Value::Array(items) => items.iter().any(names_secrets),
        _ => false,
    }
}

fn through(chain: &Chain, rows: &RecordBatch) -> Result<RecordBatch> {
    let (tenants, signals) = (text(rows, "tenant")?, text(rows, "signal")?);
    let mut groups: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let key = (tenants.value(row), signals.value(row));
        groups.entry(key).or_default().push(row as u64);
    }
    let mut parts = Vec::new();
    for ((tenant, signal), places) in groups {
        let known = [Signal::Log, Signal::Span, Signal::Metric];
        let signal = known
            .into_iter()
            .find(|known| known.as_str() == signal)
            .context("rows of no signal")?;
        let own = take_record_batch(rows, &UInt64Array::from(places))?;
        parts.extend(one_signal(chain, tenant, signal, &own)?);
    }
    Ok(concat_batches(&applied_schema(), &parts)?)
}

fn one_signal(chain: &Chain, tenant: &str, signal: Signal, rows: &RecordBatch) -> Result<Vec<RecordBatch>> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos() as u64;
    let sent = encode_rows(signal, rows).context("the rows cannot be taken back to what was sent")?;
    let decoded = Decoder::new(DecodeLimits::default()).decode(signal, &sent, now)?;
    ensure!(
        decoded.batch.num_rows() == rows.num_rows(),
        "some rows were not taken back to what was sent"
    );
    let batch = with_own_columns(&decoded.batch, rows)?;
    let outcome = match chain.run(batch, &Call::new(signal, now, tenant)) {
        Ok(outcome) => outcome,
        Err(refused) => {
            return Ok(vec![marked(
                rows.clone(),
                |_| "refused",
                |_| Some(refused.to_string()),
            )?]);
        }
    };
    let places = places(&outcome.batch)?;
    let quarantined = optional_text(&outcome.batch, "quarantined_by")?;
    let reasons = optional_text(&outcome.batch, "quarantine_reason")?;
    let is_quarantined = |row: usize| quarantined.as_ref().is_some_and(|by| by.is_valid(row));
    let stayed = folded(&without(&outcome.batch, PLACE)?, &take_record_batch(rows, &places)?)?;
    let stayed = marked(
        stayed,
        |row| if is_quarantined(row) { "quarantined" } else { "kept" },
        |row| {
            reasons
                .as_ref()
                .filter(|_| is_quarantined(row))
                .map(|reasons| reasons.value(row).to_owned())
        },
    )?;
    let there: std::collections::BTreeSet<u64> = places.values().iter().copied().collect();
    let gone: Vec<u64> = (0..rows.num_rows() as u64)
        .filter(|place| !there.contains(place))
        .collect();
    // A plugin counts reasons by batch, so of several it is not known which one a row had.
    let reason: Vec<String> = outcome.dropped.iter().map(|dropped| dropped.reason.clone()).collect();
    let gone = take_record_batch(rows, &UInt64Array::from(gone))?;
    let gone = marked(gone, |_| "dropped", |_| Some(reason.join(", ")))?;
    Ok(vec![stayed, gone])
}

/// What rows of a batch have beside what OTLP has.
fn with_own_columns(batch: &RecordBatch, rows: &RecordBatch) -> Result<RecordBatch> {
    ensure!(
        batch.column_by_name(PLACE).is_none(),
        "the rows have an attribute `sluice.apply.row`, which is taken"
    );
    let mut fields: Vec<Arc<Field>> = batch.schema_ref().fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    fields.push(Arc::new(Field::new(PLACE, DataType::Int64, true)));
    columns.push(Arc::new(Int64Array::from_iter_values(0..batch.num_rows() as i64)));
    if batch.column_by_name(WEIGHT).is_none() {
        fields.push(Arc::new(Field::new(WEIGHT, DataType::Float64, true)));
        columns.push(Arc::clone(
            rows.column_by_name(WEIGHT).context("rows without a weight")?,
        ));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn places(batch: &RecordBatch) -> Result<UInt64Array> {
    if batch.num_rows() == 0 {
        return Ok(UInt64Array::from(Vec::<u64>::new()));
    }
    let column = batch
        .column_by_name(PLACE)
        .context("the plugin removed an attribute that it was not to touch")?;
    let numbers = cast(column, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    ensure!(
        numbers.null_count() == 0,
        "the plugin removed an attribute that it was not to touch"
    );
    Ok(numbers.values().iter().map(|place| *place as u64).collect())
}

/// A batch as rows of the table, which came from where `from` came from.
fn folded(batch: &RecordBatch, from: &RecordBatch) -> Result<RecordBatch> {
    let id = BatchId {
        stream: StreamId {
            tenant: TenantId::new("apply")?,
            node: NodeId::new("apply")?,
            spool: [0; 16],
        },
        epoch: Epoch { number: 0, random: 0 },
        seq: 0,
    };
    let origin = Origin {
        id: &id,
        partition: Partition {
            generation: 0,
            index: 0,
        },
        offset: 0,
        ingested_at_us: 0,
    };
    let rows = fold(batch, &origin)?;
    let mut columns = rows.columns().to_vec();
    for name in ORIGIN {
        columns[rows.schema_ref().index_of(name)?] = Arc::clone(
            from.column_by_name(name)
                .with_context(|| format!("rows without {name}"))?,
        );
    }
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

fn marked(
    rows: RecordBatch,
    applied: impl Fn(usize) -> &'static str,
    reason: impl Fn(usize) -> Option<String>,
) -> Result<RecordBatch> {
    let count = rows.num_rows();
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(StringArray::from_iter_values((0..count).map(applied))));
    columns.push(Arc::new((0..count).map(reason).collect::<StringArray>()));
    Ok(RecordBatch::try_new(applied_schema(), columns)?)
}

fn without(batch: &RecordBatch, name: &str) -> Result<RecordBatch> {
    let fields = batch.schema_ref().fields();
    let kept: Vec<usize> = (0..fields.len()).filter(|at| fields[*at].name() != name).collect();
    Ok(batch.project(&kept)?)
}

fn text(batch: &RecordBatch, name: &str) -> Result<StringArray> {
    match optional_text(batch, name)? {
        Some(column) => Ok(column),
        None => bail!("rows without {name}"),
    }
}

fn optional_text(batch: &RecordBatch, name: &str) -> Result<Option<StringArray>> {
    let Some(column) = batch.column_by_name(name) else {
        return Ok(None);
    };
    Ok(cast(column, &DataType::Utf8)?.as_string_opt::<i32>().cloned())
}
