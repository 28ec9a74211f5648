//! Python: pip fetches the componentizer into an environment of the plugin's own, the SDK's script calls it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Tools;
use crate::plugin::project::Project;

pub(super) fn build(project: &Project, tools: &Tools) -> Result<Vec<u8>> {
    tools.version(
        "python3",
        &["--version"],
        (3, 10),
        "Plugins in Python are built with Python 3.10 or newer",
    )?;
    let venv = project.kit().join("venv");
    let python = venv.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    });
    if !python.is_file() {
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&venv);
        tools
            .run("making an environment for Python", &mut make)
            .context("some distributions have it in a package of its own: python3-venv")?;
    }
    let wanted = fs::read(project.root.join("requirements.txt")).context("cannot read requirements.txt")?;
    let mark = venv.join("requirements.installed");
    if fs::read(&mark).ok().as_deref() != Some(&wanted[..]) {
        let mut install = Command::new(&python);
        install.current_dir(&project.root).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            "requirements.txt",
        ]);
        tools.run("fetching the tools (pip install)", &mut install)?;
        fs::write(&mark, &wanted).with_context(|| format!("cannot write {}", mark.display()))?;
    }
    let out = project.kit().join("build/plugin.wasm");
    let mut make = Command::new(&python);
    make.current_dir(&project.root)
        // The componentizer would take modules from there.
        .env_remove("PYTHONPATH")
        .env_remove("VIRTUAL_ENV")
        .arg(Path::new(".sluice/sdk/build.py"))
        .args(["--out", ".sluice/build/plugin.wasm"]);
    tools.run("making the component", &mut make)?;
    fs::read(&out).with_context(|| format!("cannot read {}", out.display()))
}
