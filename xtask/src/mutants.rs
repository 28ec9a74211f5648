//! `cargo xtask mutants`: builds of the log in which one sync or one check is left out. A suite that stays green with one of them
//! would not notice its loss.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run::{Steps, cargo, root, run};

/// What is left out, as features of `sluice-wal`, and the tests that must notice.
const MUTANTS: [(&str, &str); 5] = [
    ("break-fsync", "model"),
    ("break-header-sync", "model"),
    ("break-dir-sync", "model"),
    ("break-rewrite", "model"),
    ("break-checksum", "damage"),
];

pub(crate) fn check() -> Result<()> {
    let mut steps = Steps::default();
    for test in ["model", "damage"] {
        steps.step("as it is", || run(&mut tests(None, test)))?;
    }
    for (feature, test) in MUTANTS {
        steps.step(feature, || {
            let mut build = tests(Some(feature), test);
            // A build that fails shows nothing.
            run(build.arg("--no-run"))?;
            let mut suite = tests(Some(feature), test);
            let ended = suite.stdout(Stdio::null()).stderr(Stdio::null()).status();
            if ended.context("cannot run the tests")?.success() {
                bail!("`{test}` of sluice-wal is green although {feature} is left out: it shows nothing");
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn tests(feature: Option<&str>, test: &str) -> Command {
    let mut command = cargo();
    command.args(["test", "--locked", "-p", "sluice-wal", "--test", test]);
    if let Some(feature) = feature {
        command.args(["--features", feature]);
    }
    // Failures are meant here: the smallest example of one is of no use.
    command.env("PROPTEST_MAX_SHRINK_ITERS", "0").env("RUST_BACKTRACE", "0");
    command.env("CARGO_TARGET_DIR", target_dir());
    command
}

/// A folder of its own: other features of few and small libraries.
fn target_dir() -> PathBuf {
    match env::var("CARGO_TARGET_DIR") {
        Ok(dir) => PathBuf::from(format!("{}-mutants", dir.trim_end_matches('/'))),
        Err(_) => root().join("target/mutants"),
    }
}
