//! The tests of the SDKs for interpreted languages, with the languages' own tools. Arrow software that no one here wrote checks what
//! they read and write; it is fetched by npm and pip.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

pub(crate) fn javascript() -> Result<()> {
    let folder = run::root().join("plugins/js");
    let tests = folder.join("test");
    if !tests.join("node_modules").is_dir() {
        let mut install = Command::new("npm");
        install
            .current_dir(&tests)
            .args(["install", "--no-audit", "--no-fund", "--loglevel=error"]);
        run::run(&mut install).context("npm comes with Node.js 20 or newer")?;
    }
    let mut test = Command::new("npm");
    test.current_dir(&folder).args(["test", "--silent"]);
    run::run(&mut test)
}

pub(crate) fn python() -> Result<()> {
    let folder = run::root().join("plugins/python");
    let python = environment(&folder)?;
    let mut test = Command::new(python);
    test.current_dir(&folder)
        .args(["-m", "unittest", "discover", "-q", "-s", "tests"]);
    run::run(&mut test)
}

/// A Python with what the tests need, outside of the checkout if `SLUICE_VENV_DIR` says where.
fn environment(folder: &Path) -> Result<std::path::PathBuf> {
    let base = std::env::var_os("SLUICE_VENV_DIR").map_or_else(|| run::root().join("target/venv"), Into::into);
    let venv = base.join("plugins");
    let python = venv.join("bin/python");
    let wanted = fs::read(folder.join("tests/requirements.txt")).context("requirements of the Python tests")?;
    let mark = venv.join("requirements.installed");
    if fs::read(&mark).ok().as_deref() == Some(&wanted[..]) {
        return Ok(python);
    }
    run::run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).context("python3 with venv is needed")?;
    run::run(Command::new(&python).current_dir(folder).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        "tests/requirements.txt",
    ]))?;
    fs::write(&mark, wanted).with_context(|| format!("cannot write {}", mark.display()))?;
    Ok(python)
}
