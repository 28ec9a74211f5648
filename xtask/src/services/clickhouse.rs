//! The ClickHouse engine, which comes as a Python package, behind a thin HTTP door of ours (`xtask/services/clickhouse/door.py`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::{self, Cache, Recipe};
use super::engine::Launch;
use super::ports::free_ports;
use super::probe;
use super::tools::PYTHON;
use crate::run;

const REQUIREMENTS: &str = include_str!("../../services/clickhouse/requirements.txt");

/// In the folder of a virtual environment.
pub(super) const INTERPRETER: &str = "venv/bin/python";

pub(super) async fn installed(cache: &Cache) -> Result<PathBuf> {
    let what = "fetching the engine 26.9 (chdb-core) from PyPI, 190 MB, once";
    environment(cache, "clickhouse-26.9.0", "clickhouse", what, REQUIREMENTS).await
}

/// A virtual environment with exactly these packages.
pub(super) async fn environment(
    cache: &Cache,
    name: &str,
    shown: &str,
    what: &str,
    requirements: &str,
) -> Result<PathBuf> {
    let python = PYTHON.find()?;
    let version = Command::new(&python)
        .args(["-c", "import sys; print(sys.prefix, sys.version)"])
        .output()
        .context("cannot run python3")?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let recipe = Recipe {
        name: name.into(),
        inputs: &[requirements, &version],
        proof: INTERPRETER,
    };
    cache
        .get(&recipe, async |folder| {
            let mut venv = isolated(&python);
            venv.args(["-m", "venv"]).arg(folder.join("venv"));
            cache::fetch(
                shown,
                "making a virtual environment for Python",
                &venv,
                &folder.join("venv.log"),
            )
            .await
            .context("Python cannot make virtual environments (Debian, Ubuntu: apt install python3-venv)")?;
            let list = folder.join("requirements.txt");
            std::fs::write(&list, requirements).context("cannot write the requirements")?;
            let mut pip = isolated(&folder.join(INTERPRETER));
            // --no-deps: the list is whole, and nothing that is not in it gets in.
            pip.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check"])
                .args(["--no-deps", "--only-binary=:all:", "--progress-bar=off", "-r"])
                .arg(list);
            cache::fetch(shown, what, &pip, &folder.join("fetch.log")).await
        })
        .await
}

/// Python that sees the packages of its environment and no others, and leaves no files beside its sources.
pub(super) fn isolated(python: &Path) -> Command {
    let mut command = Command::new(python);
    command
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME")
        .args(["-B", "-s"]);
    command
}

pub(super) fn launch(installed: &Path, data: &Path) -> Result<Launch> {
    let [address] = free_ports()?;
    let mut command = isolated(&installed.join(INTERPRETER));
    command
        // Files and tables in folders may be read where they are: the engine reads below its working folder.
        .current_dir("/")
        .arg(run::root().join("xtask/services/clickhouse/door.py"))
        .arg("--path")
        .arg(data)
        .args(["--port", &address.port().to_string()]);
    Ok(Launch {
        command,
        address,
        probe: probe::clickhouse,
        variables: vec![("SLUICE_TEST_CLICKHOUSE_URL", format!("http://{address}"))],
    })
}
