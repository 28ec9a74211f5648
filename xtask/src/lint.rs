//! `cargo xtask lint`: what a reviewer should never have to say.

use anyhow::Result;

use crate::docs;
use crate::run::{self, Steps, cargo_with};

pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    steps.step("format", || cargo_with(&["fmt", "--all", "--check"]))?;
    steps.step("format of plugins", || run::in_plugins(&["fmt", "--all", "--check"]))?;
    steps.step("clippy", || {
        cargo_with(&[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    steps.step("clippy of plugins", || {
        run::in_plugins(&[
            "clippy",
            "--locked",
            "--target",
            "wasm32-unknown-unknown",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    steps.step("links in documents", || docs::check(run::root()))
}
