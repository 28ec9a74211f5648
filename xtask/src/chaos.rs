//! `cargo xtask chaos`: builds what it needs and hands over to the chaos program of bench.

use std::process::Command;

use anyhow::Result;

use crate::guests;
use crate::run;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Chooses the events and the schedule.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Actions of each scenario, instead of as many as its length says.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only this scenario: crash-points, kills, pause, clock, full, flips, relay, mixed. May be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The long form: 200 kills, pauses of a minute, an outage of ten, 50 flipped bits. About two hours.
    #[arg(long)]
    long: bool,
    /// Build without optimisation: ready sooner, runs slower.
    #[arg(long)]
    dev: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    guests::build()?;
    let profile = if arguments.dev { "dev" } else { "release" };
    let programs = run::build_programs(profile, &["sluice", "sluice-edge", "chaos"])?;
    let mut chaos = Command::new(programs.join("chaos"));
    chaos.args(["--seed", &arguments.seed.to_string()]);
    if let Some(rounds) = arguments.rounds {
        chaos.args(["--rounds", &rounds.to_string()]);
    }
    for name in &arguments.only {
        chaos.args(["--only", name]);
    }
    if arguments.long {
        chaos.arg("--long");
    }
    chaos.arg("--binary").arg(programs.join("sluice"));
    chaos.arg("--edge").arg(programs.join("sluice-edge"));
    run::run(&mut chaos)
}
