//! DuckDB on the files of the cold table, in a process of its own that is asked line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

const PROGRAM: &str = include_str!("duckdb_ask.py");

pub(super) struct DuckDb {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl DuckDb {
    /// In the environment of the tests' Python, which has it.
    pub(super) fn start(lake: &Path) -> Result<DuckDb> {
        let venv = std::env::var_os("SLUICE_VENV_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv"),
            PathBuf::from,
        );
        let python = venv.join("bin/python");
        ensure!(python.exists(), "no {}: the end-to-end tests make it", python.display());
        let mut child = Command::new(&python)
            .args(["-c", PROGRAM])
            .arg(lake.join("events"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let questions = child.stdin.take().context("no way to ask")?;
        let answers = BufReader::new(child.stdout.take().context("no way to hear")?);
        let mut duckdb = DuckDb {
            child,
            questions,
            answers,
        };
        let said = duckdb.hear()?;
        ensure!(said == "ready", "DuckDB: {said}");
        Ok(duckdb)
    }

    /// Milliseconds.
    pub(super) fn ask(&mut self, sql: &str) -> f64 {
        writeln!(self.questions, "{}", sql.replace('\n', " ")).unwrap();
        self.questions.flush().unwrap();
        let said = self.hear().unwrap();
        said.parse().unwrap_or_else(|_| panic!("{sql}: {said}"))
    }

    fn hear(&mut self) -> Result<String> {
        let mut said = String::new();
        self.answers.read_line(&mut said)?;
        Ok(said.trim().to_owned())
    }
}

impl Drop for DuckDb {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
