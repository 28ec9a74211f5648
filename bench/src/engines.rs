//! The engines of a fleet, as `cargo xtask services` runs them: where they are, and a way to put one down and start it again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde::Deserialize;

use crate::process::{HttpAnswer, get, http_send};

/// The door through which engines are put down and started.
const DOOR: &str = "SLUICE_TEST_ENGINES";
/// For an engine to answer. A broker takes 4 s on two idle cores; machines that test are busy.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a fleet needs and nobody here wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    Kafka,
    ClickHouse,
    S3,
}

impl Engine {
    pub const ALL: [Engine; 3] = [Engine::Kafka, Engine::ClickHouse, Engine::S3];

    /// As `cargo xtask services` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Kafka => "kafka",
            Engine::ClickHouse => "clickhouse",
            Engine::S3 => "s3",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Kafka => "the broker",
            Engine::ClickHouse => "ClickHouse",
            Engine::S3 => "S3",
        })
    }
}

/// Engines that answered once.
#[derive(Debug)]
pub struct Engines {
    variables: BTreeMap<String, String>,
    // Ends them, if they are ours.
    _own: Option<Own>,
}

impl Engines {
    /// Those of `cargo xtask services … -- this program`; none where one of them, or the way to put it down, is missing.
    pub fn of_environment() -> Option<Engines> {
        let variables: BTreeMap<String, String> = std::env::vars()
            .filter(|(name, value)| name.starts_with("SLUICE_TEST_") && !value.is_empty())
            .collect();
        let needed = [
            DOOR,
            "SLUICE_TEST_KAFKA_BROKERS",
            "SLUICE_TEST_CLICKHOUSE_URL",
            "SLUICE_TEST_S3_ENDPOINT",
        ];
        let are_there = needed.iter().all(|name| variables.contains_key(*name));
        are_there.then_some(Engines { variables, _own: None })
    }

    /// Engines of our own, which end with the handle: nobody else feels it when one of them is down.
    pub async fn start(xtask: &Path, folder: &Path) -> Result<Engines> {
        Engines::start_on(xtask, folder, None).await
    }

    /// The same, with their data in a folder that somebody prepared, each in one that is called like it.
    pub async fn start_on(xtask: &Path, folder: &Path, data: Option<&Path>) -> Result<Engines> {
        #[derive(Deserialize)]
        struct ReadyFile {
            variables: BTreeMap<String, String>,
        }
        let (ready, log) = (folder.join("engines.json"), folder.join("engines.log"));
        let output = std::fs::File::create(&log)?;
        let mut command = Command::new(xtask);
        command
            .args(["services", "kafka", "clickhouse", "s3", "--ready-file"])
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output);
        if let Some(data) = data {
            command.arg("--data").arg(data);
        }
        for (name, _) in std::env::vars_os() {
            // What is given would not be started.
            if name.to_string_lossy().starts_with("SLUICE_TEST_") {
                command.env_remove(name);
            }
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", xtask.display()))?;
        let mut own = Own(child);
        let begun = Instant::now();
        loop {
            if let Ok(text) = std::fs::read(&ready) {
                let file: ReadyFile = serde_json::from_slice(&text).context("the ready file of the engines")?;
                return Ok(Engines {
                    variables: file.variables,
                    _own: Some(own),
                });
            }
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = own.0.try_wait()? {
                bail!("the engines ended with {status} before they answered:\n{}", said());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the engines do not answer within {} s:\n{}",
                PATIENCE.as_secs(),
                said()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A variable without its prefix, such as `S3_BUCKET`.
    pub fn get(&self, name: &str) -> Result<&str> {
        let value = self.variables.get(&format!("SLUICE_TEST_{name}"));
        Ok(value.with_context(|| format!("no SLUICE_TEST_{name}"))?)
    }

    /// SIGKILL.
    pub async fn kill(&self, engine: Engine) -> Result<()> {
        self.ask(engine, "kill").await
    }

    /// What is done to it will make it end by itself.
    pub async fn expect_end(&self, engine: Engine) -> Result<()> {
        self.ask(engine, "expect").await
    }

    /// At its old address and on its old data; returns when it answers.
    pub async fn start_again(&self, engine: Engine) -> Result<()> {
        self.ask(engine, "start").await?;
        let begun = Instant::now();
        let url = format!("{}/{}", self.get("ENGINES")?, engine.name());
        loop {
            let said = get(&url, None).await?.text();
            let said = said.trim();
            if said == "answers" {
                return Ok(());
            }
            if said == "down" {
                // Its port may be held for a moment by a connection that is not quite over.
                self.ask(engine, "start").await?;
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{engine} does not answer within {} s: {said}",
                PATIENCE.as_secs()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn ask(&self, engine: Engine, deed: &str) -> Result<()> {
        let url = format!("{}/{}/{deed}", self.get("ENGINES")?, engine.name());
        let request = Request::post(url).body(Full::default())?;
        let answer = http_send(request, PATIENCE).await?;
        ensure!(answer.status.is_success(), "{engine}: {deed}: {}", answer.text().trim());
        Ok(())
    }

    /// A statement for ClickHouse; the answer of a good one.
    pub async fn clickhouse(&self, statement: &str) -> Result<HttpAnswer> {
        let request = Request::post(self.get("CLICKHOUSE_URL")?).body(Full::from(Bytes::from(statement.to_owned())))?;
        let answer = http_send(request, PATIENCE).await?;
        let shown: String = statement.chars().take(300).collect();
        ensure!(answer.status.is_success(), "{shown}: {}", answer.text());
        Ok(answer)
    }

    /// What lets a process reach the bucket, where it is told nothing else.
    pub fn bucket_environment(&self) -> Result<[(&'static str, String); 5]> {
        Ok([
            ("AWS_ENDPOINT", self.get("S3_ENDPOINT")?.to_owned()),
            ("AWS_REGION", self.get("S3_REGION")?.to_owned()),
            ("AWS_ACCESS_KEY_ID", self.get("S3_ACCESS_KEY")?.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", self.get("S3_SECRET_KEY")?.to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ])
    }
}

/// `xtask services`, which ends its engines when it is asked to end.
#[derive(Debug)]
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id
            && matches!(self.0.try_wait(), Ok(None))
        {
            // An error means that it has ended.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}
