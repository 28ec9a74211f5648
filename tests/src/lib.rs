//! The harness of the end-to-end tests: a real `sluice up` in a folder of its own, questions by SQL, and waiting for
//! conditions instead of for time.

pub mod python;

use std::env;
use std::fmt;
use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sluice_bench::process::{Answer, Process, Sql, Start, StartError};
use tempfile::TempDir;

/// For anything that happens by itself and soon. Far above what it takes, because machines that test are busy.
pub const SOON: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A node under test, with its data and its log in a temporary folder that goes when the node goes. A test that panics
/// keeps the folder and says where it is.
pub struct Node {
    folder: Option<TempDir>,
    start: Start,
    process: Option<Process>,
}

impl Node {
    /// `sluice up` with defaults.
    pub async fn up() -> Result<Node> {
        Node::prepare("")?.started().await
    }

    /// `sluice up` with a configuration file, not started yet.
    pub fn prepare(config: &str) -> Result<Node> {
        let folder = tempfile::Builder::new().prefix("sluice-test-").tempdir()?;
        let mut start = Start::up(&binary()?, &folder.path().join("data"));
        if !config.is_empty() {
            let path = folder.path().join("sluice.toml");
            fs::write(&path, config)?;
            start = start.config(&path);
        }
        Ok(Node {
            folder: Some(folder),
            start,
            process: None,
        })
    }

    /// Starts the node through another program, which gets these arguments, then the node's program and its arguments.
    pub fn wrap(&mut self, program: &str, arguments: &[&str]) {
        let inner = std::mem::replace(&mut self.start.binary, program.into());
        let before = arguments.iter().map(|&a| a.to_owned());
        let before = before.chain([inner.display().to_string()]);
        self.start.arguments.splice(0..0, before);
    }

    pub async fn started(mut self) -> Result<Node> {
        self.start_again().await?;
        Ok(self)
    }

    /// Starts with the addresses that it had before, if it ran before.
    pub async fn start_again(&mut self) -> Result<(), StartError> {
        self.start_with(&[]).await
    }

    /// The same, with variables in its environment for this one start.
    pub async fn start_with(&mut self, environment: &[(&str, &str)]) -> Result<(), StartError> {
        if let Some(before) = self.process.take() {
            self.start = self.start.clone().listen_as(&before);
            // Dropping the handle ends what runs.
        }
        let start = environment.iter().fold(self.start.clone(), |start, (name, value)| {
            start.environment(name, value)
        });
        self.process = Some(start.spawn().await?);
        Ok(())
    }

    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the node is not running")
    }

    /// SIGKILL; the addresses stay known for the next start.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take().context("the node is not running")?;
        self.start = self.start.clone().listen_as(&process);
        process.kill()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> Result<std::process::ExitStatus> {
        let process = self.process.take().context("the node is not running")?;
        self.start = self.start.clone().listen_as(&process);
        let log = process.log_tail();
        let status = process.terminate(SOON).await?;
        status.with_context(|| format!("did not end after SIGTERM; its last lines:\n{log}"))
    }

    /// `http://HOST:PORT` of a door.
    pub fn url(&self, door: &str) -> Result<String> {
        Ok(self.running()?.url(door)?)
    }

    pub fn sql(&self) -> Result<Sql> {
        Ok(self.running()?.sql()?)
    }

    /// The folder with its data.
    pub fn data(&self) -> PathBuf {
        let folder = self.folder.as_ref().map(|f| f.path().to_owned()).unwrap_or_default();
        folder.join("data")
    }

    /// Asks until there are `rows` rows or more.
    pub async fn rows(&self, sql: &str, rows: usize) -> Result<Answer> {
        let client = self.sql()?;
        let question = || async {
            match client.ask(sql).await {
                Ok(answer) if answer.rows.len() >= rows => Ok(answer),
                Ok(answer) => Err(format!("{} rows: {:?}", answer.rows.len(), answer.rows.first())),
                Err(error) => Err(error_chain(&error)),
            }
        };
        eventually(&format!("{rows} rows of {sql}"), question).await
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the node is not running")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(process) = &self.process {
                eprintln!("last lines of the node:\n{}", process.log_tail());
            }
            if let Some(folder) = self.folder.take() {
                eprintln!("the node's folder is kept: {}", folder.keep().display());
            }
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// Asks again until it is so; fails with the last reason when it takes too long.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return Ok(value),
            Err(why) if started.elapsed() > SOON => bail!("waited in vain for {what}; last: {why}"),
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// The `sluice` program of this build: in the folder where the test itself lies.
pub fn binary() -> Result<PathBuf> {
    match env::var_os("SLUICE_TEST_BINARY") {
        Some(path) => Ok(path.into()),
        None => program("sluice"),
    }
}

/// Any program of this build.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = env::current_exe()?;
    let mut folders = here.ancestors().skip(1).take(3);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()));
    found.with_context(|| {
        format!("there is no `{name}` program beside this test: `cargo build -p {name}` makes it, `cargo xtask test` does all")
    })
}

/// The folder of built plugins.
pub fn plugins() -> Result<PathBuf> {
    let dist = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
    dist.canonicalize()
        .context("no plugins: `cargo xtask guests` builds them")
}

/// An error and what caused it.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
