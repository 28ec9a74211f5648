//! Python with the OpenTelemetry SDK and readers of tables from their registry, in an environment of its own, made once.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

/// The interpreter of an environment in which `tests/python/requirements.txt` is installed.
pub fn interpreter() -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = fs::read_to_string(here.join("python/requirements.txt"))?;
    let venv = env::var_os("SLUICE_VENV_DIR").map_or_else(|| here.join("../target/venv"), PathBuf::from);
    let interpreter = venv.join("bin/python");
    let installed = venv.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(interpreter);
    }
    run("python3", [OsStr::new("-m"), OsStr::new("venv"), venv.as_os_str()])?;
    let file = here.join("python/requirements.txt");
    run(
        &interpreter,
        [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ]
        .map(OsStr::new)
        .into_iter()
        .chain([file.as_os_str()]),
    )?;
    fs::write(&installed, wanted)?;
    Ok(interpreter)
}

/// Runs a program to its end and returns what it printed.
pub fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{errors}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether a missing tool fails a test. On a developer's machine it prints what was skipped and why.
pub fn must_not_skip() -> bool {
    env::var_os("CI").is_some()
}
