//! `cargo xtask demo`: builds what it needs and hands over to the demo program of bench.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::guests;
use crate::run;
use crate::services;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A fleet on real engines instead of one node: two edges, two gateways, Kafka, two hot writers, ClickHouse, a cold writer, S3, queries.
    #[arg(long)]
    cloud: bool,
    /// Stop when the verdict is printed, and say by the exit code whether it held.
    #[arg(long)]
    exit: bool,
    /// Events to be acknowledged [default: 200000, with --cloud 500000]
    #[arg(long)]
    events: Option<u64>,
    /// Chooses the events and the moments of the kills.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Build without optimisation: ready sooner, runs slower.
    #[arg(long)]
    dev: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    guests::build()?;
    let profile = if arguments.dev { "dev" } else { "release" };
    let programs = run::build_programs(profile, &["sluice", "sluice-edge", "demo"])?;
    let events = arguments
        .events
        .unwrap_or(if arguments.cloud { 500_000 } else { 200_000 });
    let mut words: Vec<OsString> = ["--events", &events.to_string(), "--seed", &arguments.seed.to_string()]
        .map(OsString::from)
        .into();
    words.extend(["--binary".into(), programs.join("sluice").into()]);
    if arguments.exit {
        words.push("--exit".into());
    }
    let demo = programs.join("demo");
    if arguments.cloud {
        words.extend(["--edge".into(), programs.join("sluice-edge").into()]);
        words.insert(0, demo.into());
        return services::beside(words);
    }
    run::run(Command::new(demo).args(words))?;
    Ok(ExitCode::SUCCESS)
}
