//! `cargo xtask bench`: optimised builds, then the measurements of bench.

use anyhow::Result;

use crate::guests;
use crate::run::{self, cargo_with};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write the table to bench/RESULTS.md.
    #[arg(long)]
    write: bool,
    /// Only the measurements whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    guests::build()?;
    cargo_with(&["build", "--locked", "--release", "-p", "sluice"])?;
    let mut cargo = run::cargo();
    cargo
        .args(["bench", "--locked", "-p", "sluice-bench", "--bench", "measure", "--"])
        .arg("--binary")
        .arg(run::target_dir().join("release/sluice"))
        .arg("--plugins")
        .arg(run::root().join("plugins/dist"));
    if arguments.write {
        cargo.arg("--write").arg(run::root().join("bench/RESULTS.md"));
    }
    cargo.args(&arguments.filter);
    run::run(&mut cargo)
}
