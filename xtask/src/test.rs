//! `cargo xtask test`: in the order in which things need each other, with the time of each step.

use anyhow::Result;

use crate::guests;
use crate::mutants;
use crate::run::{self, Steps, cargo_with};
use crate::sdks;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut steps = Steps::default();
    steps.step("guests", guests::build)?;
    // What plugins do to text needs no sandbox to be tested.
    steps.step("plugins on this machine", || {
        run::in_plugins(&["test", "--locked", "--workspace"])
    })?;
    steps.step("SDK for JavaScript", sdks::javascript)?;
    steps.step("SDK for Python", sdks::python)?;
    // Everything at once, with its tests: another choice of packages would give the libraries other features and build
    // them again. The end-to-end tests run the programs themselves, which building a test does not build.
    steps.step("build", || {
        cargo_with(&["build", "--locked", "--workspace", "--all-targets"])
    })?;
    steps.step("mutants", mutants::check)?;
    steps.step("tests", || {
        let mut words = vec!["test", "--locked", "--workspace"];
        words.extend(arguments.filter.as_deref());
        cargo_with(&words)
    })
}
