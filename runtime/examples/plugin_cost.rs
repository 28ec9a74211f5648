//! Prints what the host itself costs, and what the shipped plugins cost on log records of about 520 bytes:
//! `cargo run --release --example plugin_cost`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::builder::{FixedSizeBinaryBuilder, StringDictionaryBuilder};
use arrow_array::types::UInt16Type;
use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use serde_json::json;
use sluice_runtime::{
    Call, Capability, Chain, Grants, Host, HostOptions, Limits, Plugin, PluginConfig, called_as_compiler,
    compile_command, measure,
};
use sluice_wire::Signal;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if called_as_compiler() {
        return compile_command();
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let host = Host::new(HostOptions::default())?;
    host_costs(&host)?;
    let sample = load(&host, "sample", json!({"rate": 0.1}))?;
    let keep = load(&host, "sample", json!({"rate": 1.0}))?;
    let mask = load(&host, "mask", json!({}))?;
    println!(
        "{:>6} {:>14} {:>12} {:>14} {:>8}",
        "rows", "chain", "rows/s", "CPU s/million", "left"
    );
    for rows in [100, 1000, 8192] {
        let batches: Vec<RecordBatch> = (0..8).map(|n| corpus(n, rows)).collect::<Result<_, _>>()?;
        for (name, plugins) in [
            ("sample 0.1", vec![sample.clone()]),
            ("sample 1.0", vec![keep.clone()]),
            ("mask", vec![mask.clone()]),
            ("mask, sample", vec![mask.clone(), sample.clone()]),
        ] {
            let chain = Chain::new(plugins);
            let call = Call::new(Signal::Log, 0, "acme");
            let cost = measure(&chain, &batches, &call, 100_000 / rows / 2 + 1)?;
            if let Some(fault) = chain.stats().into_iter().find_map(|stats| stats.last_fault) {
                return Err(format!("{name}: {fault}").into());
            }
            println!(
                "{rows:>6} {name:>14} {:>12.0} {:>14.2} {:>7.1}%",
                cost.rows_per_s(),
                cost.cpu_s_per_million(),
                100.0 * cost.rows_left as f64 / cost.rows as f64
            );
        }
    }
    Ok(())
}

/// A fresh instance, a trap with its recovery, and the hand-over of batches to a guest that does nothing with them.
fn host_costs(host: &Host) -> Result<(), Failure> {
    let one = [corpus(0, 1)?];
    let call = Call::new(Signal::Log, 0, "acme");
    let per_call = |plugin: Arc<Plugin>, batches: &[RecordBatch]| -> Result<f64, Failure> {
        const ROUNDS: usize = 500;
        let cost = measure(&Chain::new(vec![plugin]), batches, &call, ROUNDS)?;
        Ok(cost.wall_s / (ROUNDS * batches.len()) as f64 * 1e6)
    };
    let idle = json!({"mode": "ok"});
    let same = per_call(load(host, "faulty", idle.clone())?, &one)?;
    let once = Limits {
        recycle_after: 1,
        ..Limits::default()
    };
    let fresh = per_call(load_with(host, "faulty", idle.clone(), once)?, &one)?;
    // Every instance but the first traps at its second batch, which is then tried again on a fresh one.
    let traps = load(host, "faulty", json!({"mode": "trap", "after": 1}))?;
    let trapping = per_call(traps, &one)?;
    println!("a batch of one row for a guest that does nothing: {same:.0} µs");
    println!("instantiate and init: {:.0} µs", fresh - same);
    println!("a trap, a fresh instance and the batch once more: {trapping:.0} µs");
    for rows in [100, 1000, 8192] {
        let batch = [corpus(1, rows)?];
        let took = per_call(load(host, "faulty", idle.clone())?, &batch)?;
        println!(
            "hand-over of two columns of {rows} rows: {took:.0} µs, {:.1} M rows/s",
            rows as f64 / took
        );
    }
    Ok(())
}

fn load(host: &Host, name: &str, config: serde_json::Value) -> Result<Arc<Plugin>, Failure> {
    load_with(host, name, config, Limits::default())
}

fn load_with(host: &Host, name: &str, config: serde_json::Value, limits: Limits) -> Result<Arc<Plugin>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{name}.wasm"));
    let component =
        std::fs::read(&path).map_err(|e| format!("{}: {e}; build it with `cargo xtask guests`", path.display()))?;
    let start = Instant::now();
    let plugin = host.load(PluginConfig {
        name: name.to_owned(),
        component,
        config,
        limits,
        on_fault: None,
        enabled: true,
        signals: Vec::new(),
        grants: Grants {
            capabilities: Capability::ALL.into(),
            ..Grants::none()
        },
    })?;
    println!("{name} loaded in {:?}", start.elapsed());
    Ok(plugin)
}

/// Log records as a web shop writes them: ids that never repeat, a dozen attributes, one body in 20 with an address in it.
fn corpus(seed: u64, rows: usize) -> Result<RecordBatch, Failure> {
    let mut state = seed + 1;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mixed = state ^ (state >> 33);
        mixed.wrapping_mul(0xff51_afd7_ed55_8ccd)
    };
    let mut trace_ids = FixedSizeBinaryBuilder::with_capacity(rows, 16);
    let mut routes = StringDictionaryBuilder::<UInt16Type>::new();
    let mut signals = StringDictionaryBuilder::<UInt16Type>::new();
    let mut severity = Vec::new();
    let mut bodies = Vec::new();
    let (mut requests, mut users, mut addresses, mut agents) = (vec![], vec![], vec![], vec![]);
    for row in 0..rows {
        let id = [random().to_be_bytes(), random().to_be_bytes()].concat();
        trace_ids.append_value(id)?;
        signals.append_value("log");
        routes.append_value(format!("/api/v1/{}", ["orders", "users", "carts", "items"][row % 4]));
        severity.push(if random() % 50 == 0 { 17 } else { 9 });
        let contact = if row % 20 == 0 {
            " contact jane.doe@example.com"
        } else {
            ""
        };
        bodies.push(format!(
            "request {:016x} for order {} finished in {} ms with status 200 after {} retries on shard {}{contact}",
            random(),
            random() % 1_000_000,
            random() % 5000,
            random() % 3,
            random() % 64
        ));
        requests.push(format!("{:016x}-{:08x}", random(), random() as u32));
        users.push(format!("user-{}", random() % 100_000));
        addresses.push(format!("10.{}.{}.{}", random() % 256, random() % 256, random() % 256));
        agents.push("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36".to_owned());
    }
    let text = |values: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let numbers = |from: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(from..from + rows as i64)) };
    Ok(RecordBatch::try_from_iter(vec![
        ("signal", Arc::new(signals.finish()) as ArrayRef),
        ("time", numbers(1_760_000_000_000_000_000)),
        ("trace_id", Arc::new(trace_ids.finish())),
        ("severity", Arc::new(Int32Array::from(severity))),
        ("body", text(bodies)),
        ("attrs:s:request.id", text(requests)),
        ("attrs:s:user.id", text(users)),
        ("attrs:s:client.address", text(addresses)),
        ("attrs:s:user_agent", text(agents)),
        ("attrs:s:http.route", Arc::new(routes.finish())),
        ("attrs:i:size", numbers(0)),
        ("attrs:i:shard", numbers(5)),
        (
            "attrs:d:duration",
            Arc::new(Float64Array::from_iter_values((0..rows).map(|n| n as f64))),
        ),
    ])?)
}
