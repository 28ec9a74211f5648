//! `cargo xtask test`: in the order in which things need each other, with the time of each step.

use anyhow::Result;

use crate::guests;
use crate::run::{Steps, cargo_with};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut steps = Steps::default();
    steps.step("guests", guests::build)?;
    // The end-to-end tests run the programs themselves, which building a test does not build.
    steps.step("build", || {
        cargo_with(&["build", "--locked", "-p", "sluice", "-p", "sluice-edge"])
    })?;
    let filter = arguments.filter.as_deref();
    let with_filter = |first: &[&'static str]| {
        let mut words: Vec<&str> = first.to_vec();
        words.extend(filter);
        cargo_with(&words)
    };
    steps.step("unit and integration", || {
        with_filter(&[
            "test",
            "--locked",
            "--workspace",
            "--exclude",
            "sluice-tests",
        ])
    })?;
    steps.step("end to end", || {
        with_filter(&["test", "--locked", "-p", "sluice-tests"])
    })
}
