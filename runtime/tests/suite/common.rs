//! Batches and plugins for tests.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow_array::builder::{FixedSizeBinaryBuilder, StringDictionaryBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::UInt16Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{Field, Schema};
use sluice_runtime::{
    Call, Capability, Chain, Compiler, Grants, Hints, Host, HostOptions, Limits, OnFault, Plugin, PluginConfig,
};
use sluice_wire::Signal;

/// One host for all tests, as a process has one.
pub(crate) fn host() -> &'static Host {
    static HOST: LazyLock<(Host, Vec<Arc<Plugin>>)> = LazyLock::new(|| {
        let host = Host::new(options()).unwrap();
        // Machine code stays as long as a plugin made of it lives; these live as long as the tests.
        let plugins = vec![
            host.load(golden_config("sample", serde_json::json!({"rate": 1.0})))
                .unwrap(),
            host.load(golden_config("mask", serde_json::json!({}))).unwrap(),
            host.load(config("faulty", serde_json::json!({"mode": "ok"}))).unwrap(),
            host.load(config("faulty_mask", serde_json::json!({"mode": "ok"})))
                .unwrap(),
        ];
        (host, plugins)
    });
    &HOST.0
}

/// What compiles for tests: a test program cannot be its own compiler.
pub(crate) fn options() -> HostOptions {
    HostOptions {
        compiler: Compiler::new(COMPILER, [""; 0]),
        cache: None,
    }
}

pub(crate) const COMPILER: &str = env!("CARGO_BIN_EXE_sluice-compile");

/// A component of an old version of the contract, kept as it was released.
pub(crate) fn golden_component(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/0.1.0/{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub(crate) fn golden_config(name: &str, json: serde_json::Value) -> PluginConfig {
    entry(name, golden_component(name), json)
}

pub(crate) fn golden(name: &str, json: serde_json::Value) -> Arc<Plugin> {
    host().load(golden_config(name, json)).unwrap()
}

pub(crate) fn component(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; build it with `cargo xtask guests`", path.display()))
}

/// The plugin as it was released with contract 0.1, where there is one: tests of the host alone do not care for its later life.
pub(crate) fn released_or_built(name: &str) -> Vec<u8> {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/0.1.0/{name}.wasm"));
    std::fs::read(released).unwrap_or_else(|_| component(name))
}

pub(crate) fn config(name: &str, json: serde_json::Value) -> PluginConfig {
    entry(name, component(name), json)
}

/// With everything granted and no table.
pub(crate) fn entry(name: &str, component: Vec<u8>, config: serde_json::Value) -> PluginConfig {
    PluginConfig {
        name: name.to_owned(),
        component,
        config,
        limits: Limits::default(),
        on_fault: None,
        enabled: true,
        signals: Vec::new(),
        grants: Grants {
            capabilities: Capability::ALL.into(),
            ..Grants::none()
        },
    }
}

pub(crate) fn load(name: &str, json: serde_json::Value) -> Arc<Plugin> {
    host().load(config(name, json)).unwrap()
}

pub(crate) fn faulty(mode: &str, on_fault: OnFault) -> Arc<Plugin> {
    let mut config = config("faulty", serde_json::json!({ "mode": mode }));
    config.on_fault = Some(on_fault);
    if mode != "loop" {
        // What is tested is another limit than this one.
        config.limits.deadline = Duration::from_secs(5);
    }
    host().load(config).unwrap()
}

pub(crate) fn chain(plugins: impl IntoIterator<Item = Arc<Plugin>>) -> Chain {
    Chain::new(plugins.into_iter().collect())
}

/// Log records with these bodies, in the layout of a batch.
pub(crate) fn logs(bodies: &[&str]) -> RecordBatch {
    let rows = bodies.len();
    let body: ArrayRef = Arc::new(StringArray::from(bodies.to_vec()));
    let severity = (0..rows).map(|row| if row % 10 == 9 { 17 } else { 9 });
    batch(vec![
        ("signal", constant("log", rows), false),
        ("time", Arc::new(Int64Array::from_iter_values(0..rows as i64)), false),
        ("body", body, true),
        ("severity", Arc::new(Int32Array::from_iter_values(severity)), true),
    ])
}

pub(crate) fn batch(columns: Vec<(&str, ArrayRef, bool)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, values, nullable)| Field::new(*name, values.data_type().clone(), *nullable))
        .collect();
    let values = columns.into_iter().map(|(_, values, _)| values).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), values).unwrap()
}

pub(crate) fn with(batch_: &RecordBatch, name: &str, values: ArrayRef) -> RecordBatch {
    let mut columns: Vec<(&str, ArrayRef, bool)> = Vec::new();
    let schema = batch_.schema();
    for (field, column) in schema.fields().iter().zip(batch_.columns()) {
        columns.push((field.name(), column.clone(), field.is_nullable()));
    }
    columns.push((name, values, true));
    batch(columns)
}

pub(crate) fn constant(text: &str, rows: usize) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<UInt16Type>::new();
    (0..rows).for_each(|_| builder.append_value(text));
    Arc::new(builder.finish())
}

pub(crate) fn dictionary(texts: &[Option<&str>]) -> ArrayRef {
    Arc::new(texts.iter().copied().collect::<DictionaryArray<UInt16Type>>())
}

/// Trace ids spread over all values; row `n` always has the same.
pub(crate) fn trace_ids(rows: usize) -> ArrayRef {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(rows, 16);
    for row in 0..rows as u64 {
        let low = (row + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(31)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mut id = [7u8; 16];
        id[8..].copy_from_slice(&low.to_be_bytes());
        builder.append_value(id).unwrap();
    }
    Arc::new(builder.finish())
}

/// The numbers of a column.
pub(crate) fn numbers(batch: &RecordBatch, name: &str) -> Vec<i64> {
    let column: &Int64Array = batch.column_by_name(name).unwrap().as_primitive();
    column.values().to_vec()
}

/// The texts of a column, whatever its form.
pub(crate) fn texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(name).unwrap();
    let plain = arrow_cast::cast(column, &arrow_schema::DataType::Utf8).unwrap();
    let plain: &StringArray = plain.as_string();
    plain.iter().map(|text| text.map(str::to_owned)).collect()
}

pub(crate) fn times(batch: &RecordBatch) -> Vec<i64> {
    let times: &Int64Array = batch.column_by_name("time").unwrap().as_primitive();
    assert_eq!(times.null_count(), 0);
    times.values().to_vec()
}

/// Log records of one tenant.
pub(crate) const CALL: &Call<'static> = &of("acme");

/// Log records of this tenant.
pub(crate) const fn of(tenant: &str) -> Call<'_> {
    Call {
        signal: Signal::Log,
        now_ns: 1_760_000_000_000_000_000,
        tenant,
        hints: Hints {
            share: 1.0,
            row_bytes: 0.0,
        },
    }
}
