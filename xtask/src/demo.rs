//! `cargo xtask demo`: builds what it needs and hands over to the demo program of bench.

use std::process::Command;

use anyhow::Result;

use crate::guests;
use crate::run;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Stop when the verdict is printed, and say by the exit code whether it held.
    #[arg(long)]
    exit: bool,
    /// Events to be acknowledged.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Chooses the events and the moments of the kills.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Build without optimisation: ready sooner, runs slower.
    #[arg(long)]
    dev: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    guests::build()?;
    let profile = if arguments.dev { "dev" } else { "release" };
    let programs = run::build_programs(profile, &["sluice", "demo"])?;
    let mut demo = Command::new(programs.join("demo"));
    demo.args([
        "--events",
        &arguments.events.to_string(),
        "--seed",
        &arguments.seed.to_string(),
    ])
    .arg("--binary")
    .arg(programs.join("sluice"));
    if arguments.exit {
        demo.arg("--exit");
    }
    run::run(&mut demo)
}
