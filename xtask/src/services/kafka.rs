//! A Kafka broker: one process that is broker and controller, from jars whose every byte is known.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::cache::{self, Cache, Recipe};
use super::engine::Launch;
use super::ports::free_ports;
use super::tools::{JAVA, MVN};
use super::{keeper, probe};
use crate::run;

const POM: &str = include_str!("../../services/kafka/pom.xml");
/// As `sha256sum` prints it.
const JARS: &str = include_str!("../../services/kafka/jars.sha256");
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
/// Any 16 bytes, in the alphabet of URLs.
const CLUSTER: &str = "c2x1aWNlLXNlcnZpY2VzAA";
/// What a broker needs for tests; it was seen at 300 MB.
const HEAP: &str = "-Xmx512m";

pub(super) fn recipe() -> Recipe<'static> {
    Recipe {
        name: "kafka-4.0.0".into(),
        inputs: &[POM, JARS],
        proof: "libs/kafka_2.13-4.0.0.jar",
    }
}

pub(super) async fn installed(cache: &Cache) -> Result<PathBuf> {
    cache
        .get(&recipe(), async |folder| {
            let mut mvn = Command::new(MVN.find()?);
            mvn.current_dir(folder)
                // -C: a wrong checksum of the repository is an error, not a warning.
                .args(["-B", "-C", "-f"])
                .arg(run::root().join("xtask/services/kafka/pom.xml"))
                .arg(COPY)
                .arg(format!("-DoutputDirectory={}", folder.join("libs").display()));
            let what = "fetching the broker 4.0.0 from Maven Central, 90 jars, 51 MB, once";
            cache::fetch("kafka", what, &mvn, &folder.join("fetch.log")).await?;
            verify(&folder.join("libs"), JARS)
        })
        .await
}

/// Exactly the jars of the list, byte for byte.
fn verify(libs: &Path, list: &str) -> Result<()> {
    let mut known = 0;
    for line in list.lines() {
        let (sum, name) = line
            .split_once("  ")
            .context("a line of jars.sha256 is not `sum  name`")?;
        let bytes = fs::read(libs.join(name)).with_context(|| format!("kafka: the jar {name} was not fetched"))?;
        let mut found = String::new();
        for byte in Sha256::digest(&bytes) {
            write!(found, "{byte:02x}").context("cannot format a checksum")?;
        }
        if found != sum {
            bail!("kafka: the checksum of {name} is {found}, and {sum} was expected");
        }
        known += 1;
    }
    let fetched = fs::read_dir(libs).context("cannot list the jars")?.count();
    if fetched != known {
        bail!("kafka: {fetched} jars were fetched, and jars.sha256 knows {known}");
    }
    Ok(())
}

/// Java with the broker's classes.
pub(super) fn java(installed: &Path, main: &str) -> Result<Command> {
    let mut java = Command::new(JAVA.find()?);
    java.arg(HEAP)
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        // The tools of a developer's machine have no say in a test's broker.
        .env_remove("JAVA_TOOL_OPTIONS")
        .env_remove("_JAVA_OPTIONS")
        .env_remove("JDK_JAVA_OPTIONS")
        .env_remove("CLASSPATH")
        .arg("-cp")
        .arg(installed.join("libs/*"))
        .arg(main);
    Ok(java)
}

pub(super) fn launch(installed: &Path, data: &Path) -> Result<Launch> {
    let [broker, controller] = free_ports()?;
    let settings = data.with_extension("properties");
    fs::write(&settings, properties(broker, controller, data)).context("cannot write the broker's settings")?;

    let mut format = java(installed, "kafka.tools.StorageTool")?;
    format
        .args(["format", "--ignore-formatted", "-t", CLUSTER, "-c"])
        .arg(&settings);
    if !data.join("meta.properties").exists() {
        let done = keeper::leashed(&format)?.output().context("cannot run java")?;
        if !done.status.success() {
            bail!(
                "kafka: formatting {} failed:\n{}{}",
                data.display(),
                String::from_utf8_lossy(&done.stdout),
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }

    let mut command = java(installed, "kafka.Kafka")?;
    command.arg(&settings);
    Ok(Launch {
        command,
        address: broker,
        probe: probe::kafka,
        variables: vec![("SLUICE_TEST_KAFKA_BROKERS", broker.to_string())],
    })
}

fn properties(broker: SocketAddr, controller: SocketAddr, data: &Path) -> String {
    let data = data.display();
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@{controller}\n\
         listeners=PLAINTEXT://{broker},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{broker}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         log.dirs={data}\n\
         # one node: nothing can have a second copy\n\
         default.replication.factor=1\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         # records of the size that the log asks for\n\
         message.max.bytes=8388608\n\
         replica.fetch.max.bytes=8388608\n\
         # tests start many groups, and none of them waits for members to come\n\
         group.initial.rebalance.delay.ms=0\n\
         num.network.threads=2\n\
         num.io.threads=4\n\
         log.cleaner.dedupe.buffer.size=16777216\n"
    )
}

#[cfg(test)]
mod tests {
    use super::verify;

    /// SHA-256 of the three bytes `abc`, from the standard.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn only_exactly_the_listed_jars_pass() -> anyhow::Result<()> {
        let libs = tempfile::tempdir()?;
        let list = format!("{ABC}  a.jar\n");
        let refused = |reason: &str| match verify(libs.path(), &list) {
            Ok(()) => panic!("verified, though {reason}"),
            Err(error) => format!("{error:#}"),
        };
        assert!(refused("it is missing").contains("a.jar was not fetched"));
        std::fs::write(libs.path().join("a.jar"), "abd")?;
        assert!(refused("it is another one").contains("checksum of a.jar"));
        std::fs::write(libs.path().join("a.jar"), "abc")?;
        verify(libs.path(), &list)?;
        std::fs::write(libs.path().join("b.jar"), "")?;
        assert!(refused("there is one too many").contains("2 jars were fetched"));
        Ok(())
    }
}
