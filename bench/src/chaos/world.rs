//! The processes of one scenario: an edge, a relay in front of the gateway, and a cloud with gateway, log, stores and queries. The
//! observer lives outside of all of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::action::{Files, Who};
use super::clock::Clock;
use super::plan::Setup;
use super::processes::Processes;
use crate::disk::SmallDisk;
use crate::process::{Process, Start, StartError, ca, get};
use crate::relay::{Relay, Weather};

const AUTHORITY: &str = "ca.pem";
const EDGE_CERTIFICATE: &str = "default.site-1.pem";
const EDGE_KEY: &str = "default.site-1.key";

/// Events of one batch at most.
pub(super) const MAX_BATCH_ROWS: u64 = 1_000;

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    pub sluice: PathBuf,
    pub edge: PathBuf,
}

/// Why a world did not come to be.
pub(super) enum Built {
    World(Box<World>),
    /// What this machine does not allow.
    Impossible(&'static str),
}

/// Running processes, their data and their logs.
#[derive(Debug)]
pub(super) struct World {
    folder: PathBuf,
    processes: Processes<Who>,
    clocks: BTreeMap<Who, Clock>,
    // Behind the processes: a disk in use is not unmounted.
    disks: BTreeMap<Who, SmallDisk>,
    pub(super) relay: Relay,
}

impl World {
    /// Makes everything below `folder` and starts it.
    pub(super) async fn build(programs: &Programs, setup: &Setup, folder: &Path) -> Result<Built> {
        let data = |who: Who| folder.join(who.to_string());
        let mut disks = BTreeMap::new();
        for (who, mib) in setup.small_disks {
            let Some(disk) = SmallDisk::mount(&data(*who), *mib)? else {
                return Ok(Built::Impossible(
                    "this machine does not let us mount a small file system",
                ));
            };
            disks.insert(*who, disk);
        }
        let mut clocks = BTreeMap::new();
        if setup.with_clock {
            for who in Who::PAIR {
                clocks.insert(who, Clock::new(folder, &who.to_string())?);
            }
        }
        let authority = data(Who::Cloud).join("ca");
        certificates(&programs.sluice, &authority, &folder.join("certificates"))?;

        let mut processes = Processes::new();
        let config = folder.join("cloud.toml");
        fs::write(&config, cloud_config(setup))?;
        let cloud = Start::up(&programs.sluice, &data(Who::Cloud)).config(&config);
        let cloud = with_clock(cloud, clocks.get(&Who::Cloud));
        let gateway = processes.add(Who::Cloud, cloud).await?.address("link");
        let relay = Relay::start(gateway.context("the cloud has no gateway")?, Weather::CLEAR).await?;
        let config = folder.join("edge.toml");
        fs::write(&config, edge_config(setup, relay.address.port(), folder))?;
        let edge = Start::edge(&programs.edge, &data(Who::Edge)).config(&config);
        processes
            .add(Who::Edge, with_clock(edge, clocks.get(&Who::Edge)))
            .await?;
        relay.change(setup.weather);
        Ok(Built::World(Box::new(World {
            folder: folder.to_owned(),
            processes,
            clocks,
            disks,
            relay,
        })))
    }

    pub(super) fn process(&mut self, who: Who) -> Result<&mut Process> {
        self.processes.process_mut(who)
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, who: Who) -> Result<()> {
        self.processes.kill(who)
    }

    /// At the addresses that it had before.
    pub(super) async fn start(&mut self, who: Who) -> Result<()> {
        self.processes.start(who).await
    }

    /// The same; it ends by itself at the n-th passage of a point.
    pub(super) async fn start_with(&mut self, who: Who, crash_at: Option<String>) -> Result<(), StartError> {
        self.processes.start_with(who, crash_at).await
    }

    pub(super) fn set_clock(&self, who: Who, seconds: i64) -> Result<()> {
        let clock = self.clocks.get(&who).context("the clock cannot be set here")?;
        Ok(clock.set(seconds)?)
    }

    pub(super) fn disk(&self, who: Who) -> Result<&SmallDisk> {
        self.disks.get(&who).with_context(|| format!("{who} has no small disk"))
    }

    /// Those that are there now, in the order of their names.
    pub(super) fn files(&self, files: Files) -> Result<Vec<PathBuf>> {
        let data = self.folder.join(files.owner().to_string());
        let mut found = match files {
            Files::Journal => segments(&data.join("journal"))?,
            Files::Spool => segments(&data.join("spool"))?,
            Files::Log => segments(&data.join("log/g0-p0"))?,
            Files::EdgeState => ["identity", "cursor"].map(|name| data.join(name)).to_vec(),
            Files::CloudState => ["writers/duplicates-0", "writers/duplicates-0.copy", "log/meta.json"]
                .map(|name| data.join(name))
                .to_vec(),
        };
        found.retain(|path| path.is_file());
        found.sort();
        ensure!(
            !found.is_empty(),
            "there are no files of {files:?} below {}",
            data.display()
        );
        Ok(found)
    }

    /// What the edge says of itself.
    pub(super) async fn edge_status(&self) -> Result<Value> {
        let edge = self.processes.process(Who::Edge)?;
        let answer = get(&format!("{}/v1/status", edge.url("http")?), None).await?;
        if !answer.status.is_success() {
            bail!("the edge answers {} to /v1/status", answer.status);
        }
        Ok(serde_json::from_slice(&answer.body)?)
    }
}

fn segments(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("there is no log in {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            found.push(path);
        }
    }
    Ok(found)
}

fn with_clock(start: Start, clock: Option<&Clock>) -> Start {
    let variables = clock.map(Clock::environment);
    variables
        .into_iter()
        .flatten()
        .fold(start, |start, (name, value)| start.environment(name, &value))
}

/// The authority that `sluice up` would make for itself, and a certificate of it for the edge.
fn certificates(sluice: &Path, authority: &Path, out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    ca(sluice, authority, &["init"])?;
    let folder = out.display().to_string();
    ca(
        sluice,
        authority,
        &["issue", "--tenant", "default", "--node", "site-1", "--out", &folder],
    )?;
    // The edge must not depend on the disk of the cloud.
    fs::copy(authority.join(AUTHORITY), out.join(AUTHORITY))?;
    Ok(())
}

/// Small segments and frequent commits: every step happens often within seconds.
fn cloud_config(setup: &Setup) -> String {
    format!(
        "[edge.spool]\nmax_bytes = \"32 MiB\"\n\n\
         [ingest.log]\nsegment = \"1 MiB\"\nreplay_window = \"0 s\"\n\n\
         [ingest.hot]\nmax_memory = \"64 MiB\"\nkeep = \"1 MiB\"\n\n\
         [ingest.cold]\ncommit_every = \"{} ms\"\n\n\
         [query.limits]\ntimeout = \"2 min\"\n",
        setup.commit_every.as_millis()
    )
}

/// A link that notices soon that it is down.
fn edge_config(setup: &Setup, port: u16, folder: &Path) -> String {
    let certificates = folder.join("certificates");
    let mut text = format!(
        "[seal]\nmax_rows = {MAX_BATCH_ROWS}\noffline_age = \"2 s\"\n\n\
         [spool]\nmax_bytes = \"{} MiB\"\n\n\
         [link]\ngateways = [\"127.0.0.1:{port}\"]\nserver_name = \"localhost\"\n\
         certificate = \"{}\"\nkey = \"{}\"\nca = \"{}\"\n\
         idle_timeout = \"2 s\"\nkeep_alive = \"500 ms\"\nconnect_timeout = \"2 s\"\nack_timeout = \"5 s\"\nreport_every = \"2 s\"\n",
        setup.spool_mib,
        certificates.join(EDGE_CERTIFICATE).display(),
        certificates.join(EDGE_KEY).display(),
        certificates.join(AUTHORITY).display(),
    );
    if let Some(rate) = setup.sample {
        text.push_str(&format!(
            "\n[[plugin]]\nname = \"sample\"\nconfig = {{ rate = {rate:?} }}\n"
        ));
    }
    text
}
