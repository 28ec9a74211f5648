//! What the sandbox costs: the standard plugins in Wasm against the same logic native, in the same process on the same batches.
//!
//! Both sides do what a node does with a batch: pick the declared columns, run the plugin, carry out its answer. The sandbox adds
//! encoding the columns, copying them in, decoding them there, the same back, and looking at the answer with suspicion.
//! Processor time of the thread, both sides by turns, the best round of each.
//!
//! `cargo xtask bench` runs it and puts its lines into the table: what, measured, against, with tabs between them.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the corpus of all measurements; here only its logs are needed"
)]
#[path = "../../src/corpus/mod.rs"]
mod corpus;
mod instructions;
mod native;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use arrow_array::RecordBatch;
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use sluice_plugin::testing::Table;
use sluice_plugin::{Batch, Plugin};
use sluice_runtime::{Call, Capability, Chain, Grants, Host, HostOptions, Limits, PluginConfig, TableSource};
use sluice_wire::otlp::{DecodeLimits, Decoder};

use crate::corpus::{Corpus, Signal};
use crate::instructions::{Counted, Side};
use crate::native::{Native, native};

const ROWS: usize = 8192;
const BATCHES: u64 = 8;
/// Batches with fresh instances, and batches that trap.
const STARTS: usize = 300;

#[derive(Parser)]
struct Arguments {
    /// The folder of the components.
    #[arg(long)]
    plugins: PathBuf,
    /// Count instructions, too; takes minutes.
    #[arg(long)]
    instructions: bool,
    /// Only the cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Rounds of each side over all batches, by turns; more on a busy machine.
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    #[command(flatten)]
    counted: Counted,
}

/// What, measured, against.
type Line = [String; 3];

fn line(what: &str, value: String, against: String) -> Line {
    [what.to_owned(), value, against]
}

fn per_second(seconds: f64) -> String {
    format!("{:.2} M rows/s", ROWS as f64 / seconds / 1e6)
}

fn main() -> ExitCode {
    if sluice_runtime::called_as_compiler() {
        return sluice_runtime::compile_command();
    }
    let arguments = Arguments::parse();
    if !arguments.counted.run(&arguments.plugins) {
        for line in measure(&arguments) {
            println!("{}", line.join("\t"));
        }
    }
    ExitCode::SUCCESS
}

/// A plugin with a configuration, in Wasm and native.
struct Case {
    what: &'static str,
    component: &'static str,
    wasm: Value,
    native: Native,
}

/// What is compared. `match` searches at the host; the native side searches by itself, as there is no host to ask.
fn cases() -> Vec<Case> {
    let rules = |search: &str| {
        json!({"rate": 0.1, "keep_first": true, "keep_security": {"search": search},
            "keep_when": [{"field": "attrs.http.request.method", "equals": "DELETE"}]})
    };
    let security = |search: &str| json!({"rate": 0.1, "keep_security": {"search": search}});
    vec![
        case::<sample::Sample>("sample, a rate", "sample", json!({"rate": 0.1}), json!({"rate": 0.1})),
        case::<sample::Sample>(
            "sample, keywords, without `match`",
            "sample",
            security("own"),
            security("own"),
        ),
        case::<sample::Sample>(
            "sample, keywords, with `match`",
            "sample",
            security("match"),
            security("own"),
        ),
        case::<sample::Sample>(
            "sample, all rules, without `match`",
            "sample",
            rules("own"),
            rules("own"),
        ),
        same::<filter::Filter>(
            "filter, numbers and texts",
            "filter",
            json!({"keep":
            "severity >= warn and not (service == \"checkout\" or attrs[\"http.route\"] starts_with \"/api/v1/\") or attrs.latency_ms > 100"}),
        ),
        same::<filter::Filter>(
            "filter, a regular expression, by `match`",
            "filter",
            json!({"drop": "body ~ \"(took|in) [0-9.]+ ms\""}),
        ),
        same::<enrich::Enrich>(
            "enrich, a static attribute",
            "enrich",
            json!({"set": {"attrs.site": "fra1"}}),
        ),
        same::<enrich::Enrich>(
            "enrich, a look-up by service",
            "enrich",
            json!({"lookup": [
            {"table": TABLE, "key": "service", "set": {"attrs.team": "team"}}]}),
        ),
        same::<mask::Mask>("mask, as it comes", "mask", json!({})),
    ]
}

fn same<P: Plugin>(what: &'static str, component: &'static str, config: Value) -> Case {
    case::<P>(what, component, config.clone(), config)
}

/// The table of the look-ups: a team for each service.
const TABLE: &str = "owners";

/// The same table for both sides.
fn owners(folder: &Path, batches: &[RecordBatch]) -> TableSource {
    let mut services = BTreeSet::new();
    for batch in batches {
        let text = Batch::from(batch.clone());
        let text = text.text("resource:s:service.name").unwrap();
        services.extend(text.values().unwrap().iter().flatten().map(str::to_owned));
    }
    let rows: Vec<Vec<String>> = services
        .into_iter()
        .enumerate()
        .map(|(n, service)| vec![service, format!("team-{}", n % 7)])
        .collect();
    let fields = ["service", "team"].map(str::to_owned).to_vec();
    let lines: Vec<String> = [&fields]
        .into_iter()
        .chain(&rows)
        .map(|cells| cells.join(","))
        .collect();
    let path = folder.join("owners.csv");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let key = fields[0].clone();
    sluice_plugin::testing::Host::set_table(
        TABLE,
        &Table {
            key: key.clone(),
            fields,
            rows,
        },
    );
    TableSource {
        name: TABLE.to_owned(),
        path,
        key: Some(key),
    }
}

fn case<P: Plugin>(what: &'static str, component: &'static str, wasm: Value, own: Value) -> Case {
    Case {
        what,
        component,
        wasm,
        native: native::<P>(own),
    }
}

fn batches() -> Vec<RecordBatch> {
    let corpus = Corpus::new(5);
    let mut decoder = Decoder::new(DecodeLimits::default());
    let bodies = (0..BATCHES).map(|k| corpus.request(Signal::Log, k, ROWS, 0));
    let decode = |body: Vec<u8>| decoder.decode(sluice_wire::Signal::Log, &body, 1).unwrap().batch;
    bodies.map(decode).collect()
}

fn call() -> Call<'static> {
    Call::new(sluice_wire::Signal::Log, 1_000_000_000, "acme")
}

fn chain(host: &Host, dist: &Path, component: &str, config: Value, limits: Limits) -> Chain {
    chain_with(host, dist, component, config, limits, Vec::new())
}

fn chain_with(
    host: &Host,
    dist: &Path,
    component: &str,
    config: Value,
    limits: Limits,
    tables: Vec<TableSource>,
) -> Chain {
    let path = dist.join(format!("{component}.wasm"));
    let plugin = host.load(PluginConfig {
        name: component.to_owned(),
        component: std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        config,
        limits,
        on_fault: None,
        enabled: true,
        signals: Vec::new(),
        grants: Grants {
            capabilities: Capability::ALL.into(),
            tables,
            ..Grants::none()
        },
    });
    Chain::new(vec![plugin.unwrap()])
}

/// Processor seconds of this thread.
fn thread_seconds() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn timed(work: impl FnOnce()) -> f64 {
    let before = thread_seconds();
    work();
    thread_seconds() - before
}

fn measure(arguments: &Arguments) -> Vec<Line> {
    let dist = &arguments.plugins;
    let chosen = |case: &Case| case.what.contains(&arguments.only);
    let host = Host::new(HostOptions::default()).unwrap();
    let batches = batches();
    let folder = tempfile::tempdir().unwrap();
    let owners = owners(folder.path(), &batches);
    let names: Vec<&str> = cases().into_iter().filter(chosen).map(|case| case.what).collect();
    let counted = if arguments.instructions {
        instructions::count(dist, &names)
    } else {
        BTreeMap::new()
    };
    let mut lines = match arguments.only.is_empty() {
        true => host_costs(&host, dist, &batches),
        false => Vec::new(),
    };
    for case in cases().into_iter().filter(chosen) {
        let tables = vec![owners.clone()];
        let chain = chain_with(
            &host,
            dist,
            case.component,
            case.wasm.clone(),
            Limits::default(),
            tables,
        );
        let times = compare(case.native, &chain, &batches, arguments.rounds);
        let mut against = format!(
            "{:.2} times native ({}); {:.2} times without what either side does with the answer",
            times.wasm / times.native,
            per_second(times.native),
            (times.wasm - times.carrying()) / times.process,
        );
        if let Some(said) = counted.get(case.what) {
            against.push_str("; ");
            against.push_str(said);
        }
        let what = format!("sandbox: {}", case.what);
        lines.push(line(&what, per_second(times.wasm), against));
    }
    lines
}

/// Seconds of a batch.
struct Times {
    wasm: f64,
    native: f64,
    /// Native, without carrying out the answer.
    process: f64,
}

impl Times {
    fn carrying(&self) -> f64 {
        (self.native - self.process).max(0.0)
    }
}

fn compare(mut native: Native, chain: &Chain, batches: &[RecordBatch], rounds: usize) -> Times {
    let mut best = [f64::INFINITY; 3];
    for _ in 0..rounds {
        let mut sandbox = || {
            batches
                .iter()
                .for_each(|batch| drop(chain.run(batch.clone(), &call()).unwrap()))
        };
        let wasm = timed(&mut sandbox);
        let whole = timed(|| batches.iter().for_each(|batch| assert!(native(batch, true) <= ROWS)));
        let process = timed(|| batches.iter().for_each(|batch| assert!(native(batch, false) == ROWS)));
        for (best, time) in best.iter_mut().zip([wasm, whole, process]) {
            *best = best.min(time / batches.len() as f64);
        }
    }
    assert!(
        chain.stats().iter().all(|stats| stats.faults == 0),
        "{:?}",
        chain.stats()
    );
    let [wasm, native, process] = best;
    Times { wasm, native, process }
}

/// One side of a case, so many batches, for a count of its instructions.
pub(crate) fn run(host: &Host, dist: &Path, what: &str, side: Side, rounds: usize) {
    let batches = batches();
    let folder = tempfile::tempdir().unwrap();
    let tables = vec![owners(folder.path(), &batches)];
    let mut case = cases().into_iter().find(|case| case.what == what).unwrap();
    // An emulated processor is fifty times as slow; no plugin may have more than this.
    let limits = Limits {
        deadline: Duration::from_secs(10),
        ..Limits::default()
    };
    let chain = chain_with(host, dist, case.component, case.wasm, limits, tables);
    for batch in batches.iter().cycle().take(rounds) {
        match side {
            Side::Native => drop((case.native)(batch, true)),
            Side::Wasm => drop(chain.run(batch.clone(), &call()).unwrap()),
        }
    }
}

/// A fresh instance, a trap with its recovery, and the hand-over of batches to a guest that does nothing with them.
fn host_costs(host: &Host, dist: &Path, batches: &[RecordBatch]) -> Vec<Line> {
    let one = batches[0].slice(0, 1);
    let microseconds = |chain: &Chain, batch: &RecordBatch, calls: usize| {
        // The wall: what a sender waits for.
        let mut all: Vec<f64> = (0..calls)
            .map(|_| {
                let start = std::time::Instant::now();
                drop(chain.run(batch.clone(), &call()).unwrap());
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        all.sort_by(f64::total_cmp);
        (all[calls / 2], all[calls * 99 / 100])
    };
    let fresh_each = Limits {
        recycle_after: 1,
        ..Limits::default()
    };
    let nothing = json!({"rate": 1.0});
    let reused = microseconds(
        &chain(host, dist, "sample", nothing.clone(), Limits::default()),
        &one,
        STARTS,
    );
    let fresh = microseconds(&chain(host, dist, "sample", nothing.clone(), fresh_each), &one, STARTS);
    // Every instance but the first traps at its second batch, which is then tried again on a fresh one.
    let trapping = chain(
        host,
        dist,
        "faulty",
        json!({"mode": "trap", "after": 1}),
        Limits::default(),
    );
    let trap = microseconds(&trapping, &one, STARTS);
    let idle = chain(host, dist, "sample", nothing, Limits::default());
    let hand_over = microseconds(&idle, &batches[0], STARTS);
    vec![
        line(
            "sandbox: one row to a plugin that keeps all",
            format!("{:.0} µs", reused.0),
            format!("99 % within {:.0} µs", reused.1),
        ),
        line(
            "sandbox: a fresh instance of `sample`",
            format!("{:.0} µs", fresh.0 - reused.0),
            format!("99 % within {:.0} µs, call included", fresh.1),
        ),
        line(
            "sandbox: a trap, a fresh instance, the batch again",
            format!("{:.0} µs", trap.0),
            format!("99 % within {:.0} µs", trap.1),
        ),
        line(
            "sandbox: hand-over of all that `sample` declares",
            format!("{:.0} µs", hand_over.0),
            format!("{}, nothing done with them", per_second(hand_over.0 / 1e6)),
        ),
    ]
}
