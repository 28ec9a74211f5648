//! Chaos from the command line: one scenario after the other, told while it runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use sluice_bench::chaos::{self, Ended, Length, Options, Programs, Scenario};

#[derive(Parser)]
#[command(about = "Kills, stops, fills, damages and cuts off real processes, and counts every event.")]
struct Arguments {
    /// Chooses the events and the schedule.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Actions of each scenario, instead of as many as its length says.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only this scenario: crash-points, kills, pause, clock, full, flips, relay, mixed. May be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<Scenario>,
    /// The long form of every scenario.
    #[arg(long)]
    long: bool,
    /// The `sluice` program.
    #[arg(long)]
    binary: PathBuf,
    /// The `sluice-edge` program.
    #[arg(long)]
    edge: PathBuf,
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
    let scenarios = match arguments.only.is_empty() {
        true => Scenario::ALL.to_vec(),
        false => arguments.only.clone(),
    };
    let mut summary = Vec::new();
    let mut all_held = true;
    for scenario in scenarios {
        let options = Options {
            programs: Programs {
                sluice: arguments.binary.clone(),
                edge: arguments.edge.clone(),
            },
            scenario,
            seed: arguments.seed,
            length: if arguments.long { Length::Long } else { Length::Short },
            rounds: arguments.rounds,
        };
        println!("==> {} (seed {})", scenario.name(), arguments.seed);
        let begun = Instant::now();
        let ended = chaos::run(&options, &|line| println!("{line}")).await?;
        let word = match ended {
            Ended::Held(judgement) => {
                println!("{judgement}");
                "held"
            }
            Ended::Skipped(why) => {
                println!("SKIPPED: {why}");
                // A machine that checks changes must be able to.
                let must = std::env::var_os("CI").is_some();
                all_held &= !must;
                "skipped"
            }
            Ended::Failed {
                problems,
                schedule,
                folder,
                judgement,
            } => {
                all_held = false;
                tell_failure(&problems, &schedule, judgement.as_deref());
                println!("seed {}; everything is kept in {}", arguments.seed, folder.display());
                "FAILED"
            }
        };
        summary.push(format!(
            "{:<14} {word:<8} {:>7.1} s",
            scenario.name(),
            begun.elapsed().as_secs_f64()
        ));
    }
    println!("\nseed {}\n{}", arguments.seed, summary.join("\n"));
    Ok(all_held)
}

fn tell_failure(problems: &[String], schedule: &[String], judgement: Option<&chaos::Judgement>) {
    println!("THE PROMISE DOES NOT HOLD");
    for problem in problems {
        println!("  {problem}");
    }
    println!("schedule until then:");
    for line in schedule {
        println!("  {line}");
    }
    if let Some(judgement) = judgement {
        println!("{judgement}");
    }
}
