//! `sluice plugin bench`: what the plugin costs, against one that does nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use serde_json::json;
use sluice_bench::corpus::{Corpus, Signal};
use sluice_runtime::{Call, Chain, Host, Limits, measure};
use sluice_settings::readable;
use sluice_wire::otlp::{DecodeLimits, Decoder};

use super::project::Project;
use super::sandbox::{self, Candidate, Setup};

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
counts, not the clock on the wall, so that other work on the machine does not matter much. Limits are those that a node gives the
plugin: the defaults (for Rust 20 ms plus 5 µs a row and 16 MiB, for JavaScript and Python 50 ms plus 50 µs a row and 128 MiB), and
what [limits] in plugin.toml asks for instead. A call that reaches one of them is a fault.")]
pub(crate) struct Args {
    /// The plugin's folder; by default this one, one above or the only one below.
    #[arg(long, value_name = "DIR", default_value = ".")]
    project: PathBuf,
    #[command(flatten)]
    setup: Setup,
    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Compile it anew, too: what every node does once, with an embedded Python for 5 to 10 seconds.
    #[arg(long)]
    compile: bool,
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.ok_or_else(|| format!("{text:?} is no number of seconds from 0 to 3600"))
}

#[derive(Debug, serde::Serialize)]
struct Figures {
    rows_per_s: f64,
    us_per_1000_rows: f64,
    rows_left_percent: f64,
    /// Processor time of the most expensive batch.
    slowest_batch_ms: f64,
}

/// All that is shown.
struct Report {
    name: String,
    own: Figures,
    noop: Option<Figures>,
    memory_bytes: u64,
    component_bytes: u64,
    limits: Limits,
    compile: Option<Duration>,
    load: Duration,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let project = Project::find(&args.project)?;
    let candidate = Candidate::of_project(&project)?;
    let host = sandbox::host()?;
    let load_on = |host: &Host| candidate.load(host, args.setup.config()?, args.setup.tables()?);
    let compile = match args.compile {
        true => {
            let forgetful = sandbox::forgetful_host()?;
            let began = Instant::now();
            load_on(&forgetful)?;
            Some(began.elapsed())
        }
        false => None,
    };
    let plugin = load_on(&host)?;
    let began = Instant::now();
    load_on(&sandbox::host()?)?;
    let load = began.elapsed();
    let batches = batches()?;
    let own = figures(&Chain::new(vec![plugin.clone()]), &batches, args.seconds)?;
    let stats = plugin.stats();
    if let Some(fault) = stats.last_fault {
        anyhow::bail!("{} of the calls failed, the last one with: {fault}", stats.faults);
    }
    let report = Report {
        own,
        noop: noop(&host, &batches, args.seconds / 3.0)?,
        memory_bytes: stats.memory_bytes,
        component_bytes: candidate.component.len() as u64,
        limits: candidate.limits.clone(),
        compile,
        load,
        name: project.name,
    };
    if args.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.text());
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn json(&self) -> serde_json::Value {
        json!({
            "plugin": self.name, "figures": self.own, "noop": self.noop, "memory_bytes": self.memory_bytes,
            "memory_limit_bytes": self.limits.memory_bytes, "batch_rows": ROWS,
            "batch_deadline_ms": millis(self.limits.deadline_for(ROWS, 0, 0)), "component_bytes": self.component_bytes,
            "compile_ms": self.compile.map(millis), "load_ms": millis(self.load),
        })
    }

    fn text(&self) -> String {
        let mut out = format!("{:<24}{:>14}{:>18}{:>12}\n", "", "rows/s", "µs/1,000 rows", "rows left");
        let mut line = |name: &str, figures: &Figures| {
            let name: String = name.chars().take(24).collect();
            out.push_str(&format!(
                "{name:<24}{:>14}{:>18.1}{:>10.1} %\n",
                readable::count(figures.rows_per_s as u64),
                figures.us_per_1000_rows,
                figures.rows_left_percent
            ));
        };
        line(&self.name, &self.own);
        let compared = match &self.noop {
            Some(noop) => {
                line("a plugin without work", noop);
                let times = self.own.us_per_1000_rows / noop.us_per_1000_rows.max(f64::EPSILON);
                format!("{times:.1} times the cost of a plugin without work")
            }
            None => "not compared: this program was built without the plugin that does nothing".to_owned(),
        };
        // What large values add to it is not known here.
        let deadline = self.limits.deadline_for(ROWS, 0, 0);
        let compile = match self.compile {
            Some(time) => readable::span(time.as_millis() as u64),
            None => "not measured; --compile does it".to_owned(),
        };
        let rows = [
            ("cost", compared),
            (
                "slowest batch",
                format!(
                    "{:.1} ms of {} ms allowed for {ROWS} rows, and more for their bytes",
                    self.own.slowest_batch_ms,
                    deadline.as_millis()
                ),
            ),
            (
                "memory of an instance",
                format!(
                    "{} of {} allowed",
                    readable::bytes(self.memory_bytes),
                    readable::bytes(self.limits.memory_bytes as u64)
                ),
            ),
            ("component", readable::bytes(self.component_bytes)),
            ("compiling, once a node", compile),
            ("loading what is compiled", format!("{:.1} ms", millis(self.load))),
        ];
        out.push('\n');
        for (name, said) in rows {
            out.push_str(&format!("{name:<24}  {said}\n"));
        }
        out
    }
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
    let mut slowest_s: f64 = 0.0;
    let mut now_ns = 0;
    while rows == 0 || began.elapsed().as_secs_f64() < seconds {
        for (signal, batch) in batches {
            now_ns += 1_000_000;
            let call = Call::new(*signal, now_ns, "bench");
            let cost = measure(chain, std::slice::from_ref(batch), &call, 1).context("the plugin refused the batch")?;
            rows += cost.rows;
            left += cost.rows_left;
            cpu_s += cost.cpu_s;
            slowest_s = slowest_s.max(cost.cpu_s);
        }
    }
    Ok(Figures {
        rows_per_s: rows as f64 / cpu_s.max(f64::EPSILON),
        us_per_1000_rows: cpu_s * 1e9 / rows as f64,
        rows_left_percent: 100.0 * left as f64 / rows as f64,
        slowest_batch_ms: slowest_s * 1e3,
    })
}

fn noop(host: &Host, batches: &[(sluice_wire::Signal, RecordBatch)], seconds: f64) -> Result<Option<Figures>> {
    let Some(component) = NOOP else {
        return Ok(None);
    };
    let plugin = Candidate::unknown("noop", component.to_vec(), Limits::default()).load(host, json!({}), Vec::new())?;
    figures(&Chain::new(vec![plugin]), batches, seconds).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_author_wants_to_know_stands_beside_what_is_allowed() {
        let figures = |us: f64| Figures {
            rows_per_s: 1e9 / us,
            us_per_1000_rows: us,
            rows_left_percent: 5.9,
            slowest_batch_ms: 12.34,
        };
        let mut report = Report {
            name: "drop-health".to_owned(),
            own: figures(53.6),
            noop: Some(figures(11.3)),
            memory_bytes: 1_258_291,
            component_bytes: 609_280,
            limits: Limits::default(),
            compile: Some(Duration::from_millis(7_300)),
            load: Duration::from_micros(9_700),
        };
        assert_eq!(
            report.text(),
            "                                rows/s     µs/1,000 rows   rows left\n\
             drop-health                     18.7 M              53.6       5.9 %\n\
             a plugin without work           88.5 M              11.3       5.9 %\n\
             \n\
             cost                      4.7 times the cost of a plugin without work\n\
             slowest batch             12.3 ms of 60 ms allowed for 8192 rows, and more for their bytes\n\
             memory of an instance     1.2 MiB of 16.0 MiB allowed\n\
             component                 595.0 KiB\n\
             compiling, once a node    7 s\n\
             loading what is compiled  9.7 ms\n"
        );
        (report.noop, report.compile) = (None, None);
        let text = report.text();
        assert!(text.contains("not compared") && text.contains("--compile"), "{text}");
    }
}
