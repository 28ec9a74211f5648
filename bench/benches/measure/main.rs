//! The measurements, as ratios within one run: machines differ, and one machine differs from hour to hour, but two numbers
//! taken one after the other on the same data say something.
//!
//! `cargo xtask bench` runs it. With `--write PATH` the table is written there, too.
#![allow(clippy::unwrap_used)]

mod backlog;
mod chart;
mod cloud;
mod codec;
mod edge;
mod idle;
mod log;
mod node;
mod noisy;
mod outage;
mod plugins;
mod query;
mod sandbox;
mod stages;
mod thin;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

/// Each side of a comparison runs at least this long.
const ENOUGH: Duration = Duration::from_millis(1500);
/// The best of so many is taken: noise only ever adds.
const ROUNDS: usize = 3;

#[derive(Parser)]
struct Arguments {
    /// Only the measurements whose name contains this.
    filter: Option<String>,
    /// The `sluice` program; without it, nothing is measured end to end.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The `sluice-edge` program.
    #[arg(long)]
    edge: Option<PathBuf>,
    /// The `xtask` program, which runs Kafka, ClickHouse and S3 for the measurement of the cloud side.
    #[arg(long)]
    xtask: Option<PathBuf>,
    /// The folder of sample.wasm and mask.wasm.
    #[arg(long)]
    plugins: Option<PathBuf>,
    /// The `sluice-sandbox` program: plugins in the sandbox against the same code native.
    #[arg(long)]
    sandbox: Option<PathBuf>,
    /// Rows that are asked of hot and of cold.
    #[arg(long, default_value_t = 20_000_000)]
    hot: u64,
    #[arg(long, default_value_t = 50_000_000)]
    cold: u64,
    /// Draw what happens on a thin link into this file.
    #[arg(long)]
    chart: Option<PathBuf>,
    /// Put the table into this file, between its two marks.
    #[arg(long)]
    write: Option<PathBuf>,
}

/// One line of the table.
struct Line {
    what: String,
    value: String,
    /// What it was compared with, and how it came out.
    against: String,
}

fn line(what: &str, value: String, against: String) -> Line {
    Line {
        what: what.to_owned(),
        value,
        against,
    }
}

type Measurement<'a> = (&'static str, Box<dyn Fn() -> Vec<Line> + 'a>);

fn main() -> ExitCode {
    if sluice_runtime::called_as_compiler() {
        return sluice_runtime::compile_command();
    }
    let arguments = Arguments::parse();
    let mut all: Vec<Measurement<'_>> = vec![("codec", Box::new(codec::measure)), ("log", Box::new(log::measure))];
    if let Some(dist) = &arguments.plugins {
        all.push(("plugins", Box::new(|| plugins::measure(dist))));
        all.push(("stages", Box::new(|| stages::measure(dist))));
    }
    if let (Some(sandbox), Some(dist)) = (&arguments.sandbox, &arguments.plugins) {
        all.push(("sandbox", Box::new(|| sandbox::measure(sandbox, dist))));
    }
    if let Some(edge) = &arguments.edge {
        all.push(("idle", Box::new(|| idle::measure(edge))));
    }
    if let (Some(binary), Some(edge)) = (&arguments.binary, &arguments.edge) {
        all.push(("edge", Box::new(|| edge::measure(binary, edge))));
        all.push(("outage", Box::new(|| outage::measure(binary, edge))));
        all.push(("backlog", Box::new(|| backlog::measure(binary, edge))));
        let chart = arguments.chart.as_deref();
        all.push(("thin", Box::new(move || thin::measure(binary, edge, chart))));
    }
    if let Some(binary) = &arguments.binary {
        all.push(("node", Box::new(|| node::measure(binary))));
        all.push(("noisy", Box::new(|| noisy::measure(binary))));
    }
    if let (Some(binary), Some(edge), Some(xtask)) = (&arguments.binary, &arguments.edge, &arguments.xtask) {
        all.push(("cloud", Box::new(|| cloud::measure(binary, edge, xtask))));
    }
    if let Some(xtask) = &arguments.xtask {
        let sizes = query::Sizes {
            hot: arguments.hot,
            cold: arguments.cold,
        };
        all.push(("query", Box::new(move || query::measure(xtask, sizes))));
    }
    let filter = arguments.filter.unwrap_or_default();
    let mut table = String::from("| what | measured | against |\n|---|---|---|\n");
    for (_, measure) in all.iter().filter(|(name, _)| name.contains(&filter)) {
        for line in measure() {
            println!("{:<44} {:>24}   {}", line.what, line.value, line.against);
            writeln!(table, "| {} | {} | {} |", line.what, line.value, line.against).unwrap();
        }
    }
    if let Some(path) = arguments.write {
        let document = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, with_table(&document, &table)).unwrap();
        println!("written to {}", path.display());
    }
    ExitCode::SUCCESS
}

const BEGIN: &str = "<!-- table of the last full run -->\n";
const END: &str = "<!-- end of the table -->\n";

/// What stands around the table is written by people and stays.
fn with_table(document: &str, table: &str) -> String {
    let (before, rest) = document.split_once(BEGIN).expect("the mark that begins the table");
    let (_, after) = rest.split_once(END).expect("the mark that ends the table");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let today = std::process::Command::new("date").args(["-u", "+%F"]).output().unwrap();
    let today = String::from_utf8(today.stdout).unwrap();
    format!(
        "{before}{BEGIN}\n{}, {cores} cores, which also ran the load generator.\n\n{table}\n{END}{after}",
        today.trim()
    )
}

/// Seconds for one call: the best round, each long enough to be trusted.
fn seconds(mut work: impl FnMut()) -> f64 {
    work();
    let round = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        let mut calls = 0u32;
        while start.elapsed() < ENOUGH {
            work();
            calls += 1;
        }
        start.elapsed().as_secs_f64() / f64::from(calls)
    };
    (0..ROUNDS).map(|_| round(&mut work)).fold(f64::INFINITY, f64::min)
}

/// `1.23 M rows/s`.
fn per_second(count: f64, seconds: f64, unit: &str) -> String {
    let rate = count / seconds;
    match rate {
        r if r >= 1e6 => format!("{:.2} M {unit}/s", r / 1e6),
        r if r >= 1e3 => format!("{:.1} k {unit}/s", r / 1e3),
        r => format!("{r:.1} {unit}/s"),
    }
}
