//! The demo: a node with two plugins is killed three times while it takes a flood of distinct events; then every one of
//! them is counted. With a broker, ClickHouse and a bucket beside it, the same for a fleet (`cloud`).
//!
//! What it shows is promise P2: each acknowledged event is in the tables exactly once, or counted by name as dropped.

mod cloud;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_bench::audit::Audit;
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, Finished, LoadOptions, Observer, Outcome, Protocol, Target};
use sluice_bench::oracle::Oracle;
use sluice_bench::process::{Process, Start};
use tokio::sync::watch;

/// Share of the traces that the sampler keeps.
const RATE: f64 = 0.2;
const KILLS: usize = 3;
const EVENTS_PER_REQUEST: usize = 500;
const IN_FLIGHT: usize = 8;
/// A kill comes up to this long after its number of events is reached, so that it falls anywhere within the work.
const KILL_JITTER_MS: u64 = 120;
/// For everything acknowledged to arrive.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(180);

#[derive(Parser)]
#[command(about = "Kills a node three times under load and counts every event.")]
struct Arguments {
    /// Events to be acknowledged.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Chooses the events and the moments of the kills.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop when the verdict is printed.
    #[arg(long)]
    exit: bool,
    /// The `sluice` program.
    #[arg(long)]
    binary: PathBuf,
    /// The `sluice-edge` program: a fleet on the engines that the environment names, instead of one node.
    #[arg(long)]
    edge: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<bool> {
    if let Some(edge) = &arguments.edge {
        return Box::pin(cloud::run(&arguments, edge)).await;
    }
    ensure!(
        arguments.events >= 10 * EVENTS_PER_REQUEST as u64,
        "too few events to kill anything in between"
    );
    let folder = tempfile::Builder::new().prefix("sluice-demo-").tempdir()?;
    let config = folder.path().join("sluice.toml");
    fs::write(&config, configuration())?;
    let data = folder.path().join("data");
    let start = Start::up(&arguments.binary, &data).config(&config);

    println!(
        "seed {}: {} events of all signals, {KILLS} kills",
        arguments.seed, arguments.events
    );
    let process = start.spawn().await.context("the node does not start")?;
    println!(
        "node up in {:.1} s, data in {}",
        process.startup().as_secs_f64(),
        data.display()
    );

    let oracle = Arc::new(Oracle::new(arguments.seed));
    let process = flood(&arguments, &start, process, oracle.clone()).await?;

    println!("waiting until everything acknowledged has arrived");
    let audit = Audit::run(&process, &oracle, |event| event.kept_at(RATE), ARRIVAL_LIMIT).await?;
    println!("\n{audit}");
    let unmasked = unmasked(&process).await?;
    println!("rows with an e-mail address that the mask missed: {unmasked}");
    let holds = audit.holds() && unmasked == 0;
    if !holds {
        let kept = folder.keep();
        println!("\neverything is kept for a look in {}", kept.display());
        return Ok(false);
    }
    if !arguments.exit {
        stay(&process).await?;
    }
    process.terminate(Duration::from_secs(30)).await?;
    Ok(true)
}

/// The chain of the demo: sample, then mask, as the program brings them along.
fn configuration() -> String {
    format!("[[edge.plugin]]\nname = \"sample\"\nconfig = {{ rate = {RATE:?} }}\n\n[[edge.plugin]]\nname = \"mask\"\n")
}

/// Sends until enough is acknowledged, and meanwhile kills the node and starts it again.
async fn flood(arguments: &Arguments, start: &Start, mut process: Process, oracle: Arc<Oracle>) -> Result<Process> {
    let target = Target {
        timeout: Duration::from_secs(10),
        ..Target::new(Protocol::Grpc, process.url("otlp-grpc")?)
    };
    let (accepted, mut progress) = watch::channel(0);
    let observer = Arc::new(Watched { oracle, accepted });
    let load = tokio::spawn(load::run(
        LoadOptions {
            target,
            seed: arguments.seed,
            signals: Signal::ALL.to_vec(),
            first_request: 0,
            batch: EVENTS_PER_REQUEST,
            count: arguments.events,
            until_accepted: true,
            rate: None,
            concurrency: IN_FLIGHT,
        },
        observer,
        Arc::new(AtomicBool::new(false)),
    ));

    let mut random = StdRng::seed_from_u64(arguments.seed);
    let mut moments: Vec<u64> = (0..KILLS)
        .map(|_| random.random_range(arguments.events / 20..arguments.events * 9 / 10))
        .collect();
    moments.sort_unstable();
    for (number, moment) in moments.into_iter().enumerate() {
        progress.wait_for(|accepted| *accepted >= moment).await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..KILL_JITTER_MS))).await;
        let (pid, at) = (process.pid(), *progress.borrow());
        let again = start.clone().listen_as(&process);
        let down = Instant::now();
        process.kill()?;
        process = again.spawn().await.context("the node does not start again")?;
        println!(
            "kill -9 {} of {KILLS}: process {pid} after {at} acknowledged events; up again after {:.1} s",
            number + 1,
            down.elapsed().as_secs_f64()
        );
    }
    let report = load.await??;
    println!(
        "{} acknowledged in {:.1} s; latency p50 {:.1} ms, p99 {:.1} ms",
        report.accepted, report.seconds, report.latency_ms.p50, report.latency_ms.p99
    );
    Ok(process)
}

/// The oracle, with a running total beside it.
struct Watched {
    oracle: Arc<Oracle>,
    accepted: watch::Sender<u64>,
}

impl Observer for Watched {
    fn started(&self, k: u64, signal: Signal, rows: usize) {
        self.oracle.started(k, signal, rows);
    }

    fn finished(&self, request: &Finished) {
        self.oracle.finished(request);
        if let Outcome::Accepted { rejected, .. } = request.outcome {
            self.accepted
                .send_modify(|total| *total += request.rows as u64 - rejected);
        }
    }
}

/// Every log of the corpus names a person in `user.email`.
async fn unmasked(process: &Process) -> Result<u64> {
    let question = "SELECT count(*) FROM events WHERE attrs['user.email'] LIKE '%@%' OR attrs['enduser.id'] LIKE '%@%' \
                    OR body LIKE '%@%' OR span_events LIKE '%@%'";
    Ok(process.sql()?.ask(question).await?.count()?)
}

async fn stay(process: &Process) -> Result<()> {
    let (url, token) = (process.url("http")?, process.token());
    println!(
        "\nThe node stays up until Ctrl-C. Ask it, for example:\n\
         \n  sluice sql --url {url} \"SELECT signal, count(*), sum(weight) FROM events GROUP BY signal\"\
         \n  curl -s {url}/v1/sql -H 'authorization: Bearer {token}' -H 'content-type: application/json' \\\
         \n       -d '{{\"sql\": \"SELECT service, count(*) AS n FROM logs WHERE severity >= 17 GROUP BY service ORDER BY n DESC LIMIT 5\"}}'\
         \n  curl -s {url}/v1/status -H 'authorization: Bearer {token}'\
         \n\nThe token is {token}; SLUICE_TOKEN in the environment saves typing it."
    );
    tokio::signal::ctrl_c().await?;
    Ok(())
}
