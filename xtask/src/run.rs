//! Running other programs, and where things are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where cargo puts what it builds for the host.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where cargo puts what it builds for the sandbox: beside the host's folder, so that neither clears the other.
pub(crate) fn guest_target_dir() -> PathBuf {
    match env::var("CARGO_TARGET_DIR") {
        Ok(dir) => PathBuf::from(format!("{}-guests", dir.trim_end_matches('/'))),
        Err(_) => root().join("plugins/target"),
    }
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // What the outer cargo tells us of ourselves would reach build scripts that watch these variables, and half of the libraries
    // would be built again at every change between `cargo xtask` and plain `cargo`.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text == "CARGO_CRATE_NAME"
            || text == "CARGO_BIN_NAME"
        {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// A cargo command with these arguments, run to its end.
pub(crate) fn cargo_with(arguments: &[&str]) -> Result<()> {
    run(cargo().args(arguments))
}

/// Builds programs that are run, not tested. Always of the same three packages: another choice of packages would give the
/// libraries other features and build them again. Returns the programs' folder.
pub(crate) fn build_programs(profile: &str, programs: &[&str]) -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--locked", "--profile", profile]);
    cargo.args(["-p", "sluice", "-p", "sluice-edge", "-p", "sluice-bench"]);
    for program in programs {
        cargo.args(["--bin", program]);
    }
    run(&mut cargo)?;
    Ok(target_dir().join(if profile == "dev" { "debug" } else { profile }))
}

/// Runs, with what it prints going where ours goes; fails if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let mut words = vec![name.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Steps with names, timed; the table of durations comes at the end, also when one fails.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, f64, bool)>,
}

impl Steps {
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("==> {name}");
        let start = Instant::now();
        let result = work();
        self.done.push((name, start.elapsed().as_secs_f64(), result.is_ok()));
        result.with_context(|| format!("step `{name}` failed"))
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        eprintln!();
        for (name, seconds, ok) in &self.done {
            eprintln!("{name:<24} {seconds:>8.1} s  {}", if *ok { "ok" } else { "FAILED" });
        }
    }
}

/// Runs cargo in the plugins' own workspace.
pub(crate) fn in_plugins(arguments: &[&str]) -> Result<()> {
    let mut command = cargo();
    command
        .current_dir(root().join("plugins"))
        .env("CARGO_TARGET_DIR", guest_target_dir())
        .args(arguments);
    run(&mut command)
}
