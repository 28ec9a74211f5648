//! A real round trip on each engine, with software that nobody here wrote: does it do what tests will ask of it?

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cache::{Cache, tail};
use super::child::Running;
use super::engine::Engine;
use super::keeper::TICK;
use super::{clickhouse, kafka};
use crate::run;

const REQUIREMENTS: &str = include_str!("../../services/check/requirements.txt");
/// For one program of a round trip; starting Java takes a second of it.
const PATIENCE: Duration = Duration::from_secs(120);
const RECORDS: [&str; 3] = ["first", "second", "third with \u{fc}"];

/// What checks need beside the engines.
#[derive(Debug)]
pub(super) struct Clients {
    /// Kafka's console tools.
    kafka: Option<PathBuf>,
    python: Option<PathBuf>,
}

pub(super) async fn clients(engines: &[Engine], cache: &Cache) -> Result<Clients> {
    let kafka = if engines.contains(&Engine::Kafka) {
        Some(kafka::installed(cache).await?)
    } else {
        None
    };
    let python = if engines.iter().any(|engine| *engine != Engine::Kafka) {
        let what = "fetching pyarrow and boto3 from PyPI, 60 MB, once";
        let folder = clickhouse::environment(cache, "check-1", "check", what, REQUIREMENTS).await?;
        Some(folder.join(clickhouse::INTERPRETER))
    } else {
        None
    };
    Ok(Clients { kafka, python })
}

impl Clients {
    /// What the round trip on this engine showed.
    pub(super) async fn check(
        &self,
        engine: Engine,
        variables: &[(&'static str, String)],
        folder: &Path,
    ) -> Result<String> {
        let begun = Instant::now();
        fs::create_dir_all(folder).context("cannot make the folder of the checks")?;
        let shown = match engine {
            Engine::Kafka => self.kafka(variables, folder).await?,
            Engine::ClickHouse | Engine::S3 | Engine::Registry => {
                let python = self.python.as_ref().context("no Python for the checks")?;
                let mut command = clickhouse::isolated(python);
                command
                    .arg(run::root().join("xtask/services/check/round_trip.py"))
                    .arg(engine.name())
                    .envs(variables.iter().map(|(name, value)| (name, value)));
                said(&command, "", folder).await?.trim().to_owned()
            }
        };
        Ok(format!("{shown}; {:.1} s", begun.elapsed().as_secs_f64()))
    }

    async fn kafka(&self, variables: &[(&'static str, String)], folder: &Path) -> Result<String> {
        let jars = self.kafka.as_ref().context("no console tools for the checks")?;
        let (_, brokers) = variables.first().context("no brokers")?;
        let topic = format!("sluice-check-{}-{}", process::id(), fresh());
        let tool = |main: &str, words: &[&str]| -> Result<Command> {
            let mut java = kafka::java(jars, main)?;
            java.args(["--bootstrap-server", brokers, "--topic", &topic])
                .args(words);
            Ok(java)
        };
        let topics = "org.apache.kafka.tools.TopicCommand";
        said(&tool(topics, &["--create"])?, "", folder).await?;
        let producer = tool(
            "org.apache.kafka.tools.ConsoleProducer",
            &["--producer-property", "acks=all"],
        )?;
        let consumer = tool(
            "org.apache.kafka.tools.consumer.ConsoleConsumer",
            &["--from-beginning", "--max-messages", "3", "--timeout-ms", "60000"],
        )?;
        let trip = async {
            said(&producer, &(RECORDS.join("\n") + "\n"), folder).await?;
            let text = said(&consumer, "", folder).await?;
            let mut got: Vec<&str> = text.lines().collect();
            got.sort_unstable();
            if got != RECORDS {
                bail!("{RECORDS:?} were produced, and {got:?} were consumed");
            }
            Ok(())
        };
        let result = trip.await;
        // The topic goes either way; which of two errors was first is what counts.
        let deleted = said(&tool(topics, &["--delete"])?, "", folder).await;
        result?;
        deleted?;
        Ok(format!("{} records produced with acks=all and consumed", RECORDS.len()))
    }
}

/// Seconds since 1970: a topic's name has to be new, and nothing else.
fn fresh() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}

/// What the program prints if it succeeds; what it complains of, if not.
async fn said(command: &Command, input: &str, folder: &Path) -> Result<String> {
    let (stdin, stdout, stderr) = (folder.join("in"), folder.join("out"), folder.join("err"));
    fs::write(&stdin, input).context("cannot write the input of a check")?;
    let input = File::open(&stdin).context("cannot read the input of a check")?;
    let output = File::create(&stdout).context("cannot keep the output of a check")?;
    let errors = File::create(&stderr).context("cannot keep the output of a check")?;
    let begun = Instant::now();
    let mut running = Running::tool(command, |outer| {
        outer.stdin(input).stdout(output).stderr(errors);
    })?;
    let status = loop {
        if let Some(status) = running.ended() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            running.stop();
            bail!("`{}` did not end within {} s", last_word(command), PATIENCE.as_secs());
        }
        tokio::time::sleep(TICK).await;
    };
    if !status.success() {
        bail!("{}", tail(&stderr, 5).trim());
    }
    fs::read_to_string(&stdout).context("cannot read the output of a check")
}

/// The class or script: the rest of such commands is long and says little.
fn last_word(command: &Command) -> String {
    let words: Vec<String> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let telling = words
        .iter()
        .find(|word| word.starts_with("org.") || word.ends_with(".py"));
    telling.cloned().unwrap_or_else(|| run::show(command))
}
