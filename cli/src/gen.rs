//! `sluice gen`: the load generator. Distinct events, the same bytes for the same seed.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, Compression, Finished, LoadOptions, LoadReport, Observer, Outcome, Protocol, Target};

/// Where nobody watches, a line this often says how far it is.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Send distinct, realistic events and report what was acknowledged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice gen --count 100000                      as fast as it is acknowledged
  sluice gen --rate 5000 --count 300000          5,000 events a second for a minute
  sluice gen --signal log --protocol http --endpoint http://127.0.0.1:4318

The same seed sends the same bytes. Every event has a text attribute evt.id = SEED-REQUEST-ROW.
To go on where a run ended, give --first the `next_request` that it reported.")]
pub(crate) struct Args {
    /// Where to send; by default the usual port of the protocol on this machine.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    #[arg(long, value_enum, default_value = "grpc")]
    protocol: ProtocolArg,
    #[arg(long, value_enum, default_value = "none")]
    compression: CompressionArg,
    /// Which signal; all in turn by default.
    #[arg(long, value_enum, default_value = "all")]
    signal: SignalArg,
    /// Events in all.
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Events per second. Without it: as fast as answers come.
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of the first request.
    #[arg(long, default_value_t = 0, value_name = "K")]
    first: u64,
    /// Events per request.
    #[arg(long, default_value_t = 500)]
    batch: usize,
    /// Requests in flight at most.
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Seconds to wait for an answer.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    timeout: f64,
    /// A file with a bearer token to send along.
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// Write what became of each request to this file, a JSON object a line.
    #[arg(long, value_name = "PATH")]
    record: Option<PathBuf>,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArg {
    Grpc,
    Http,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CompressionArg {
    None,
    Gzip,
    Zstd,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SignalArg {
    Log,
    Span,
    Metric,
    All,
}

/// Exit code 0 only if every event was acknowledged.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let options = options(&args)?;
    let watcher = Arc::new(Watcher::new(&args)?);
    let stop = Arc::new(AtomicBool::new(false));
    let interrupted = tokio::spawn(stop_on_interrupt(stop.clone()));
    let report = load::run(options, watcher.clone(), stop).await?;
    interrupted.abort();
    watcher.finish();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_report(&report);
    }
    let complete = report.accepted >= args.count;
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(args: &Args) -> Result<LoadOptions> {
    ensure!(args.batch > 0, "--batch must be at least 1");
    ensure!(args.rate.is_none_or(|rate| rate > 0.0), "--rate must be above 0");
    ensure!(args.timeout > 0.0 && args.timeout < 1e6, "--timeout must be above 0");
    let (protocol, endpoint) = match args.protocol {
        ProtocolArg::Grpc => (Protocol::Grpc, "http://127.0.0.1:4317"),
        ProtocolArg::Http => (Protocol::Http, "http://127.0.0.1:4318"),
    };
    let token = match &args.token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Some(text.trim().to_owned())
        }
        None => None,
    };
    Ok(LoadOptions {
        target: Target {
            endpoint: args.endpoint.clone().unwrap_or_else(|| endpoint.to_owned()),
            protocol,
            compression: match args.compression {
                CompressionArg::None => Compression::None,
                CompressionArg::Gzip => Compression::Gzip,
                CompressionArg::Zstd => Compression::Zstd,
            },
            token,
            timeout: Duration::from_secs_f64(args.timeout),
        },
        seed: args.seed,
        signals: match args.signal {
            SignalArg::Log => vec![Signal::Log],
            SignalArg::Span => vec![Signal::Span],
            SignalArg::Metric => vec![Signal::Metric],
            SignalArg::All => Signal::ALL.to_vec(),
        },
        first_request: args.first,
        batch: args.batch,
        count: args.count,
        until_accepted: false,
        rate: args.rate,
        concurrency: args.concurrency,
    })
}

async fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.store(true, Ordering::Relaxed);
    }
}

/// Shows progress on stderr and keeps the record.
struct Watcher {
    bar: ProgressBar,
    /// Without a terminal: when the last line was written.
    last_line: Option<Mutex<Instant>>,
    done: AtomicU64,
    count: u64,
    record: Option<Mutex<std::fs::File>>,
}

impl Watcher {
    fn new(args: &Args) -> Result<Watcher> {
        let watched = std::io::stderr().is_terminal();
        let bar = if watched {
            ProgressBar::new(args.count)
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} events  {per_sec}  {eta} left")?;
        bar.set_style(style);
        let record = match &args.record {
            Some(path) => {
                let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
                Some(Mutex::new(file))
            }
            None => None,
        };
        Ok(Watcher {
            bar,
            last_line: (!watched).then(|| Mutex::new(Instant::now())),
            done: AtomicU64::new(0),
            count: args.count,
            record,
        })
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, done: u64) {
        let Some(last) = &self.last_line else { return };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            eprintln!("{done} of {} events", self.count);
        }
    }
}

impl Observer for Watcher {
    fn finished(&self, request: &Finished) {
        self.bar.inc(request.rows as u64);
        let done = self.done.fetch_add(request.rows as u64, Ordering::Relaxed) + request.rows as u64;
        self.line(done);
        if let Some(record) = &self.record {
            let (outcome, detail) = match &request.outcome {
                Outcome::Accepted { note, .. } => ("accepted", note),
                Outcome::Refused { message, .. } => ("refused", message),
                Outcome::Unknown { message } => ("unknown", message),
            };
            let line = json!({
                "request": request.k,
                "signal": request.signal.as_str(),
                "rows": request.rows,
                "outcome": outcome,
                "detail": detail,
                "ms": request.latency.as_secs_f64() * 1000.0,
            });
            let mut file = record.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = writeln!(file, "{line}") {
                self.bar.println(format!("cannot write the record: {error}"));
            }
        }
    }
}

fn print_report(report: &LoadReport) {
    println!(
        "{} accepted, {} rejected, {} refused, {} without an answer, in {:.1} s ({:.0} events/s, {:.1} MB/s)",
        report.accepted,
        report.rejected,
        report.refused,
        report.unknown,
        report.seconds,
        report.events_per_second,
        report.bytes as f64 / 1e6 / report.seconds.max(1e-9)
    );
    let latency = report.latency_ms;
    println!(
        "latency p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms; next request {}",
        latency.p50, latency.p90, latency.p99, latency.max, report.next_request
    );
    for error in &report.errors {
        println!("note: {error}");
    }
}
