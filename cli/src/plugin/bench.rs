//! `sluice plugin bench`: what the plugin costs, against one that does nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use serde_json::json;
use sluice_bench::corpus::{Corpus, Signal};
use sluice_runtime::{Call, Chain, Host, measure};
use sluice_wire::otlp::{DecodeLimits, Decoder};

use super::project::Project;
use super::sandbox::{self, Setup};

/// A plugin that answers "unchanged", made by the same SDK. Absent when it was not built before this program.
const NOOP: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/noop.rs"));
/// Rows of one batch: what an edge seals at most.
const ROWS: usize = 8192;
/// Batches that are different from each other.
const BATCHES: u64 = 4;

/// Measure speed and memory, against a plugin that does nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The rows are log records and spans of about 500 bytes, made up, in batches of 8,192 as an edge has them at most. Processor time
counts, not the clock on the wall, so that other work on the machine does not matter much. The deadline of a Rust plugin on an edge
is 20 ms plus 5 µs a row, that of one in JavaScript or Python 50 ms plus 50 µs a row.")]
pub(crate) struct Args {
    /// The plugin's folder; by default this one, one above or the only one below.
    #[arg(long, value_name = "DIR", default_value = ".")]
    project: PathBuf,
    #[command(flatten)]
    setup: Setup,
    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, serde::Serialize)]
struct Figures {
    rows_per_s: f64,
    us_per_1000_rows: f64,
    rows_left_percent: f64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let project = Project::find(&args.project)?;
    let host = sandbox::host()?;
    let began = Instant::now();
    let plugin = sandbox::load_project(&host, &project, &args.setup)?;
    let first_load = began.elapsed();
    let began = Instant::now();
    sandbox::load_project(&host, &project, &args.setup)?;
    let load = began.elapsed();
    let batches = batches()?;
    let own = figures(&Chain::new(vec![plugin.clone()]), &batches, args.seconds)?;
    let stats = plugin.stats();
    if let Some(fault) = stats.last_fault {
        anyhow::bail!("{} of the calls failed, the last one with: {fault}", stats.faults);
    }
    let noop = noop(&host, &batches, args.seconds / 3.0)?;
    let component_bytes = std::fs::metadata(project.component()).map_or(0, |file| file.len());
    if args.json {
        let all = json!({
            "plugin": project.name, "figures": own, "noop": noop, "memory_bytes": stats.memory_bytes,
            "component_bytes": component_bytes, "compile_ms": millis(first_load), "load_ms": millis(load),
        });
        println!("{all:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let line = |name: &str, f: &Figures| {
        println!(
            "{name:<24} {:>12.0} rows/s {:>10.1} µs per 1,000 rows   {:>5.1} % of the rows left",
            f.rows_per_s, f.us_per_1000_rows, f.rows_left_percent
        );
    };
    line(&project.name, &own);
    match &noop {
        Some(noop) => {
            line("a plugin without work", noop);
            let times = own.us_per_1000_rows / noop.us_per_1000_rows.max(f64::EPSILON);
            println!("{:<24} {times:>12.1} times the plugin without work", "");
        }
        None => println!(
            "a plugin without work: not in this program; `cargo xtask guests` before building it puts it there"
        ),
    }
    println!(
        "memory of an instance    {:>12.1} MiB\ncomponent                {:>12.1} KiB\nfirst load, compiled     {:>12.1} ms\nload of what is compiled {:>12.1} ms",
        stats.memory_bytes as f64 / f64::from(1 << 20),
        component_bytes as f64 / 1024.0,
        millis(first_load),
        millis(load),
    );
    Ok(ExitCode::SUCCESS)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn batches() -> Result<Vec<(sluice_wire::Signal, RecordBatch)>> {
    let corpus = Corpus::new(1);
    let mut decoder = Decoder::new(DecodeLimits {
        max_bytes: 64 << 20,
        ..DecodeLimits::default()
    });
    let mut batches = Vec::new();
    for k in 0..BATCHES {
        for (made, signal) in [
            (Signal::Log, sluice_wire::Signal::Log),
            (Signal::Span, sluice_wire::Signal::Span),
        ] {
            let body = corpus.request(made, k, ROWS, 0);
            let decoded = decoder
                .decode(signal, &body, 1)
                .context("made-up events cannot be decoded")?;
            batches.push((signal, decoded.batch));
        }
    }
    Ok(batches)
}

/// Runs all batches again and again until the time is over.
fn figures(chain: &Chain, batches: &[(sluice_wire::Signal, RecordBatch)], seconds: f64) -> Result<Figures> {
    let began = Instant::now();
    let (mut rows, mut left, mut cpu_s) = (0, 0, 0.0);
    let mut now_ns = 0;
    while rows == 0 || began.elapsed().as_secs_f64() < seconds {
        for (signal, batch) in batches {
            now_ns += 1_000_000;
            let call = Call::new(*signal, now_ns, "bench");
            let cost = measure(chain, std::slice::from_ref(batch), &call, 1).context("the plugin refused the batch")?;
            rows += cost.rows;
            left += cost.rows_left;
            cpu_s += cost.cpu_s;
        }
    }
    Ok(Figures {
        rows_per_s: rows as f64 / cpu_s.max(f64::EPSILON),
        us_per_1000_rows: cpu_s * 1e9 / rows as f64,
        rows_left_percent: 100.0 * left as f64 / rows as f64,
    })
}

fn noop(host: &Host, batches: &[(sluice_wire::Signal, RecordBatch)], seconds: f64) -> Result<Option<Figures>> {
    let Some(component) = NOOP else {
        return Ok(None);
    };
    let plugin = sandbox::load(host, "noop", component.to_vec(), json!({}), Vec::new(), false)?;
    figures(&Chain::new(vec![plugin]), batches, seconds).map(Some)
}
