//! `cargo xtask bench`: optimised builds, then the measurements of bench.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::guests;
use crate::run;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Put the table into bench/RESULTS.md.
    #[arg(long)]
    write: bool,
    /// Only the measurements whose name contains this: codec, log, plugins, sandbox, stages, idle, edge, outage, backlog, thin, node, cloud, query.
    filter: Option<String>,
    /// Rows that `query` asks of hot; 20 million unless said.
    #[arg(long)]
    hot: Option<u64>,
    /// Rows that `query` asks of cold; 50 million unless said. They are kept in target/measure.
    #[arg(long)]
    cold: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    guests::build()?;
    let programs = run::build_programs("release", &["sluice", "sluice-edge", "measure"])?;
    let sandbox = build_sandbox()?;
    let mut measure = Command::new(programs.join("measure"));
    measure
        .arg("--binary")
        .arg(programs.join("sluice"))
        .arg("--edge")
        .arg(programs.join("sluice-edge"))
        .arg("--xtask")
        .arg(std::env::current_exe().context("cannot find this program")?)
        .arg("--plugins")
        .arg(run::root().join("plugins/dist"))
        .arg("--sandbox")
        .arg(sandbox);
    measure
        .arg("--chart")
        .arg(run::root().join("bench/charts/thin-link.svg"));
    if arguments.write {
        measure.arg("--write").arg(run::root().join("bench/RESULTS.md"));
    }
    for (name, rows) in [("--hot", arguments.hot), ("--cold", arguments.cold)] {
        if let Some(rows) = rows {
            measure.args([name, &rows.to_string()]);
        }
    }
    measure.args(&arguments.filter);
    run::run(&mut measure)
}

/// A workspace of its own, with the plugins as native libraries.
fn build_sandbox() -> Result<PathBuf> {
    let target = run::target_dir().join("sandbox");
    let mut cargo = run::cargo();
    cargo
        .current_dir(run::root().join("bench/sandbox"))
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--locked", "--release"]);
    run::run(&mut cargo)?;
    Ok(target.join("release/sluice-sandbox"))
}
