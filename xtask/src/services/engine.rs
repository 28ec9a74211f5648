//! An engine: what it is called, where it is found, how it is started and when it answers.

use std::env;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::cache::{Cache, tail};
use super::child::Running;
use super::keeper::TICK;
use super::tools::{self, GO, JAVA, MVN, PYTHON, Tool};
use super::{clickhouse, kafka, registry, s3};

/// How long an engine may take until it answers. A broker takes 6 s on two idle cores; others build meanwhile.
const PATIENCE: Duration = Duration::from_secs(180);
/// Somebody may take a port between the moment we find it free and the moment the engine binds it.
const ATTEMPTS: u32 = 3;
/// How long an engine with data to keep may take to put them down.
const FAREWELL: Duration = Duration::from_secs(20);
const LOG_TAIL_LINES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Engine {
    /// A Kafka 4.0.0 broker.
    Kafka,
    /// The ClickHouse engine behind its HTTP interface.
    #[value(name = "clickhouse")]
    ClickHouse,
    /// MinIO.
    S3,
    /// A registry for packages of plugins.
    Registry,
}

impl Engine {
    pub(super) const ALL: [Self; 4] = [Self::Kafka, Self::ClickHouse, Self::S3, Self::Registry];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::ClickHouse => "clickhouse",
            Self::S3 => "s3",
            Self::Registry => "registry",
        }
    }

    /// What tests read. The first one decides: if the environment has it, the engine is there already.
    pub(super) fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Kafka => &["SLUICE_TEST_KAFKA_BROKERS"],
            Self::ClickHouse => &["SLUICE_TEST_CLICKHOUSE_URL"],
            Self::S3 => &[
                "SLUICE_TEST_S3_ENDPOINT",
                "SLUICE_TEST_S3_ACCESS_KEY",
                "SLUICE_TEST_S3_SECRET_KEY",
                "SLUICE_TEST_S3_REGION",
                "SLUICE_TEST_S3_BUCKET",
            ],
            Self::Registry => &[
                "SLUICE_TEST_REGISTRY",
                "SLUICE_TEST_REGISTRY_USER",
                "SLUICE_TEST_REGISTRY_PASSWORD",
            ],
        }
    }

    /// The variables of an engine that the environment already has.
    pub(super) fn given(self) -> Option<Vec<(&'static str, String)>> {
        let value = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        value(self.variables().first()?)?;
        let all = self.variables().iter().copied();
        Some(all.filter_map(|name| Some((name, value(name)?))).collect())
    }

    /// What has to be on this machine: more, if the engine has to be fetched first.
    pub(super) fn tools(self, cache: &Cache) -> Vec<&'static Tool> {
        match (self, self.is_cached(cache)) {
            (Self::Kafka, true) => vec![&JAVA],
            (Self::Kafka, false) => vec![&JAVA, &MVN],
            (Self::ClickHouse, _) => vec![&PYTHON],
            (Self::S3 | Self::Registry, true) => vec![],
            (Self::S3 | Self::Registry, false) => vec![&GO],
        }
    }

    fn is_cached(self, cache: &Cache) -> bool {
        match self {
            Self::Kafka => cache.find(&kafka::recipe()).is_some(),
            // Python is needed to run it, too.
            Self::ClickHouse => false,
            Self::S3 => cache.find(&s3::recipe()).is_some(),
            Self::Registry => cache.find(&registry::recipe()).is_some(),
        }
    }

    /// Its folder in the cache, fetched if need be.
    pub(super) async fn installed(self, cache: &Cache) -> Result<PathBuf> {
        match self {
            Self::Kafka => kafka::installed(cache).await,
            Self::ClickHouse => clickhouse::installed(cache).await,
            Self::S3 => s3::installed(cache).await,
            Self::Registry => registry::installed(cache).await,
        }
    }

    fn launch(self, installed: &Path, data: &Path) -> Result<Launch> {
        match self {
            Self::Kafka => kafka::launch(installed, data),
            Self::ClickHouse => clickhouse::launch(installed, data),
            Self::S3 => s3::launch(installed, data),
            Self::Registry => registry::launch(installed, data),
        }
    }
}

/// How to start an engine, and how to know that it is there.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) command: Command,
    pub(super) address: SocketAddr,
    /// Asks the engine something that it can only answer when it is ready.
    pub(super) probe: fn(SocketAddr) -> Result<()>,
    pub(super) variables: Vec<(&'static str, String)>,
}

/// An engine that answered once.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) engine: Engine,
    pub(super) running: Running,
    pub(super) launch: Launch,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    pub(super) seconds: f64,
    /// Ended, or is about to, because of what somebody did to it.
    pub(super) is_put_down: bool,
}

/// How an engine is doing.
#[derive(Debug)]
pub(super) enum State {
    Answers,
    /// With what its probe said last.
    Starts(anyhow::Error),
    Down,
}

impl Started {
    /// Ends it, and waits for that; it may be started again.
    pub(super) fn put_down(&mut self, signal: Signal) {
        self.is_put_down = true;
        if signal == Signal::TERM {
            self.running.be_gentle(FAREWELL);
            self.running.stop();
        } else {
            self.running.kill();
        }
    }

    /// What will be done to it makes it end by itself.
    pub(super) fn expect_end(&mut self) {
        self.is_put_down = true;
    }

    /// At its old address and on its old data; does not wait until it answers.
    pub(super) fn start_again(&mut self) -> Result<()> {
        if self.running.ended().is_none() {
            bail!("{} runs", self.engine.name());
        }
        self.running = spawn(&self.launch, &self.log)?;
        self.is_put_down = false;
        Ok(())
    }

    pub(super) async fn state(&mut self) -> State {
        if self.running.ended().is_some() {
            return State::Down;
        }
        let (probe, address) = (self.launch.probe, self.launch.address);
        match tokio::task::spawn_blocking(move || probe(address)).await {
            Ok(Ok(())) => State::Answers,
            Ok(Err(error)) => State::Starts(error),
            Err(error) => State::Starts(error.into()),
        }
    }
}

/// Starts an engine on a free port of the loopback and waits until it answers.
pub(super) async fn start(engine: Engine, installed: &Path, data: &Path, keep: bool) -> Result<Started> {
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let begun = Instant::now();
    let log = data.with_extension("log");
    for attempt in 1.. {
        let launch = engine.launch(installed, data)?;
        File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut running = spawn(&launch, &log)?;
        if keep {
            running.be_gentle(FAREWELL);
        }
        match answers(&mut running, &launch).await {
            Ok(()) => {
                return Ok(Started {
                    engine,
                    running,
                    launch,
                    data: data.to_path_buf(),
                    log,
                    seconds: begun.elapsed().as_secs_f64(),
                    is_put_down: false,
                });
            }
            Err(error) => {
                let words = tail(&log, LOG_TAIL_LINES);
                let taken = words.to_lowercase().contains("in use");
                if attempt >= ATTEMPTS || !taken || running.ended().is_none() {
                    bail!(
                        "{}: {error:#}. Its last words (all of them in {}):\n{words}",
                        engine.name(),
                        log.display()
                    );
                }
            }
        }
    }
    unreachable!("the last attempt returns")
}

/// What it says goes to the end of its log.
fn spawn(launch: &Launch, log: &Path) -> Result<Running> {
    let output = File::options().append(true).open(log);
    let output = output.with_context(|| format!("cannot write {}", log.display()))?;
    let errors = output.try_clone().context("cannot share the log")?;
    Running::engine(&launch.command, |outer| {
        // A group of its own: Ctrl-C in a terminal is for us, and we stop engines when their users are gone.
        std::os::unix::process::CommandExt::process_group(outer, 0);
        outer.stdin(Stdio::null()).stdout(output).stderr(errors);
    })
}

/// Waits until the engine answers its probe; fails if it ends or takes too long.
async fn answers(running: &mut Running, launch: &Launch) -> Result<()> {
    let begun = Instant::now();
    loop {
        if let Some(status) = running.ended() {
            bail!("ended with {status} before it answered");
        }
        let (probe, address) = (launch.probe, launch.address);
        // Sockets with time-outs of their own: beside the loop, so that a signal is heard meanwhile.
        let answer = tokio::task::spawn_blocking(move || probe(address))
            .await
            .context("the probe failed")?;
        match answer {
            // The port could be somebody else's, should the engine have failed to bind it.
            Ok(()) if running.ended().is_none() => return Ok(()),
            Ok(()) => bail!(
                "ended, and something else answers on {}: the port is in use",
                launch.address
            ),
            Err(error) if begun.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("does not answer within {} s", PATIENCE.as_secs()));
            }
            Err(_) => tokio::time::sleep(2 * TICK).await,
        }
    }
}

/// Fails, naming every program that is missing for these engines.
pub(super) fn need_tools(engines: &[Engine], checks: bool, cache: &Cache) -> Result<()> {
    let mut needed: Vec<&Tool> = engines.iter().flat_map(|engine| engine.tools(cache)).collect();
    if checks && !needed.iter().any(|tool| std::ptr::eq(*tool, &PYTHON)) {
        needed.push(&PYTHON);
    }
    tools::need(&needed)
}
