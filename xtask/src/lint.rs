//! `cargo xtask lint`: what a reviewer should never have to say.

use anyhow::Result;

use crate::docs;
use crate::run::{self, Steps, cargo_with};

pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    steps.step("format", || cargo_with(&["fmt", "--all", "--check"]))?;
    steps.step("format of plugins", || in_plugins(&["fmt", "--all", "--check"]))?;
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
        in_plugins(&[
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

fn in_plugins(arguments: &[&str]) -> Result<()> {
    let mut cargo = run::cargo();
    cargo
        .current_dir(run::root().join("plugins"))
        .env("CARGO_TARGET_DIR", run::guest_target_dir())
        .args(arguments);
    run::run(&mut cargo)
}
