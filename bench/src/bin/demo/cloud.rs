//! The fleet shape on real engines, with everything killed and every engine gone for a while.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_bench::chaos::Programs;
use sluice_bench::chaos::fleet::{self, FleetOptions, FleetRun};
use sluice_bench::engines::Engines;
use sluice_bench::fleet::Part;
use sluice_bench::load::Observer;

use crate::Arguments;

/// In each round everything is hit once.
const ROUNDS: usize = 2;
const LEAST_EVENTS: u64 = 20_000;
/// What goes on coming in when the count is over, for people who look around.
const TRICKLE_PER_SECOND: f64 = 200.0;
const TRICKLE_BATCH: usize = 20;
const FAREWELL: Duration = Duration::from_secs(30);

pub(crate) async fn run(arguments: &Arguments, edge: &Path) -> Result<bool> {
    ensure!(
        arguments.events >= LEAST_EVENTS,
        "too few events to kill everything in between: {LEAST_EVENTS} at least"
    );
    let engines = Engines::of_environment();
    let engines = engines.context("no engines: `cargo xtask demo --cloud` starts them")?;
    let folder = tempfile::Builder::new().prefix("sluice-demo-").tempdir()?;
    println!(
        "seed {}: {} events of all signals into two edges; in each of {ROUNDS} rounds every process is killed and every engine goes away once",
        arguments.seed, arguments.events
    );
    let options = FleetOptions {
        programs: Programs {
            sluice: arguments.binary.clone(),
            edge: edge.to_owned(),
        },
        events: arguments.events,
        seed: arguments.seed,
        rounds: ROUNDS,
    };
    let begun = Instant::now();
    let tell = |line: &str| println!("{line}");
    let done = Box::pin(fleet::run(&options, &engines, folder.path(), &tell)).await;
    let mut run = match done {
        Ok(run) => run,
        Err(error) => {
            println!(
                "\nseed {}; data and logs are kept in {}",
                arguments.seed,
                folder.keep().display()
            );
            return Err(error);
        }
    };
    println!("\n{}", run.judgement);
    let verdict = &run.judgement.audit.verdict;
    let holds = run.judgement.problems.is_empty();
    println!(
        "\n{}: missing {}, duplicated {}, ledger {}, hot and cold {}   ({:.0} s, seed {})",
        if holds {
            "THE PROMISE HOLDS"
        } else {
            "THE PROMISE DOES NOT HOLD"
        },
        verdict.missing.count,
        verdict.duplicated.count,
        if run.judgement.audit.ledger.balances() {
            "balanced"
        } else {
            "NOT balanced"
        },
        if run.judgement.twins.agree() { "agree" } else { "DIFFER" },
        begun.elapsed().as_secs_f64(),
        arguments.seed
    );
    if !holds {
        println!("data and logs are kept in {}", folder.keep().display());
        return Ok(false);
    }
    if !arguments.exit {
        stay(&mut run, &engines, arguments.seed).await?;
    }
    run.fleet.stop(FAREWELL).await?;
    Ok(true)
}

/// Goes on until Ctrl-C, with events trickling in.
async fn stay(run: &mut FleetRun, engines: &Engines, seed: u64) -> Result<()> {
    let fleet = &mut run.fleet;
    for number in 1..=2 {
        fleet.processes.start(Part::Edge(number)).await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let nobody = Arc::new(()) as Arc<dyn Observer>;
    let loads = fleet.load(seed + 1, TRICKLE_PER_SECOND, TRICKLE_BATCH, &nobody, &stop)?;
    println!("\nThe fleet stays up until Ctrl-C, and {TRICKLE_PER_SECOND} events a second go on coming in.\n");
    for part in fleet.processes.names() {
        let process = fleet.processes.process(part)?;
        let doors = ["otlp-grpc", "otlp-http", "link", "http", "pg"];
        let doors = doors
            .into_iter()
            .filter_map(|door| Some(format!("{door} {}", process.address(door)?)));
        println!("  {:<14} {}", part.to_string(), doors.collect::<Vec<_>>().join("   "));
    }
    let (url, token) = (fleet.processes.process(Part::Query)?.url("http")?, &fleet.token);
    let pg = fleet.processes.process(Part::Query)?.address("pg");
    let pg = pg.context("no door for Postgres")?;
    println!(
        "  {:<14} {}\n  {:<14} {}, database {}\n  {:<14} {}\n\nAsk it, for example:\n\
         \n  export SLUICE_URL={url} SLUICE_TOKEN={token}\
         \n  sluice sql \"SELECT node, signal, count(*), max(ingested_at) FROM events GROUP BY node, signal\"\
         \n  sluice sql \"SELECT bucket, plugin, reason, sum(\\\"rows\\\") FROM ledger GROUP BY bucket, plugin, reason\"\
         \n  sluice sql \"SELECT node, last_heard, backlog, gaps, duplicates FROM streams\"\
         \n  PGPASSWORD={token} psql -h {} -p {} -d sluice -U demo -c \"SELECT service, count(*) FROM logs WHERE severity >= 17 GROUP BY service\"\
         \n  curl -s '{}' --data-binary 'SELECT node, signal, count() FROM {}.events_visible GROUP BY node, signal'",
        "Kafka",
        engines.get("KAFKA_BROKERS")?,
        "ClickHouse",
        engines.get("CLICKHOUSE_URL")?,
        fleet.places.database,
        "lake",
        fleet.places.lake,
        pg.ip(),
        pg.port(),
        engines.get("CLICKHOUSE_URL")?,
        fleet.places.database,
    );
    tokio::signal::ctrl_c().await?;
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await??;
    }
    Ok(())
}
