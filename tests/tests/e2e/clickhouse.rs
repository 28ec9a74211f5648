//! Hot on a real ClickHouse engine, from end to end: what was acknowledged is there once, whoever dies, and other processes read it.

use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sluice_bench::ports::free_ports;
use sluice_bench::process::{Start, get};
use sluice_tests::python::must_not_skip;
use sluice_tests::{Node, binary, eventually};

use crate::crash::{Flood, crash_at};

/// The steps of the writer, and at which hit the process dies.
const POINTS: [(&str, u32); 6] = [
    ("writer.hot.after_claim", 1),
    ("writer.hot.before_insert", 3),
    ("writer.hot.after_insert", 3),
    ("writer.hot.before_position", 1),
    ("writer.hot.after_position", 1),
    ("writer.cold.after_commit", 2),
];

/// A configuration with a database of its own; `None` without an engine, which is a failure where all must be tested.
pub(crate) fn config(commit_every: &str) -> Option<String> {
    let Some(url) = std::env::var("SLUICE_TEST_CLICKHOUSE_URL")
        .ok()
        .filter(|url| !url.is_empty())
    else {
        assert!(
            !must_not_skip(),
            "no SLUICE_TEST_CLICKHOUSE_URL: `cargo xtask services clickhouse` gives one"
        );
        eprintln!("NOT TESTED on ClickHouse: there is no SLUICE_TEST_CLICKHOUSE_URL");
        return None;
    };
    Some(config_of(&url, commit_every))
}

fn config_of(url: &str, commit_every: &str) -> String {
    let number = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!(
        "[ingest.log]\nsegment = \"1 MiB\"\nreplay_window = \"0 s\"\n\n\
         [ingest.hot]\nstore = \"clickhouse\"\n\n[ingest.hot.clickhouse]\nurl = \"{url}\"\ndatabase = \"e2e_{number:016x}\"\n\n\
         [ingest.cold]\ncommit_every = \"{commit_every}\"\n"
    )
}

/// An engine of a test's own, to be killed: the door of `xtask/services` with the Python that `cargo xtask services` has fetched.
struct Engine {
    python: PathBuf,
    data: PathBuf,
    port: u16,
    child: Child,
}

impl Engine {
    async fn start(folder: &Path) -> Option<Engine> {
        let engines = std::env::var_os("SLUICE_ENGINES_DIR").map(PathBuf::from);
        let python = engines.and_then(|engines| {
            let folders = std::fs::read_dir(engines).ok()?.filter_map(Result::ok);
            folders
                .filter(|folder| folder.file_name().to_string_lossy().starts_with("clickhouse-"))
                .map(|folder| folder.path().join("venv/bin/python"))
                .find(|python| python.is_file())
        });
        let Some(python) = python else {
            assert!(
                !must_not_skip(),
                "no engine in $SLUICE_ENGINES_DIR: `cargo xtask services clickhouse` fetches it"
            );
            eprintln!("NOT TESTED on ClickHouse: no engine in $SLUICE_ENGINES_DIR");
            return None;
        };
        let [address] = free_ports().unwrap();
        let port = address.port();
        let data = folder.join("engine");
        let child = launch(&python, &data, port);
        let engine = Engine {
            python,
            data,
            port,
            child,
        };
        engine.answers().await;
        Some(engine)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn start_again(&mut self) {
        self.child = launch(&self.python, &self.data, self.port);
        self.answers().await;
    }

    async fn answers(&self) {
        let ping = || async {
            let answer = get(&format!("{}/ping", self.url()), None).await;
            answer.map(drop).map_err(|error| error.to_string())
        };
        eventually("an answer of the engine", ping).await.unwrap();
    }

    /// The parts of the table of events on disk, the newest last.
    fn parts(&self) -> Vec<PathBuf> {
        let mut parts = Vec::new();
        for group in entries(&self.data.join("store")) {
            for part in entries(&group).iter().flat_map(|table| entries(table)) {
                // Parts of that table begin with their day.
                let is_part = part
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("20"));
                if is_part && part.join("checksums.txt").exists() {
                    parts.push((part.metadata().unwrap().modified().unwrap(), part));
                }
            }
        }
        parts.sort();
        parts.into_iter().map(|(_, part)| part).collect()
    }

    async fn inserted_since(&self, before: &Option<PathBuf>) {
        let newer = || async {
            match self.parts().pop() {
                part if part.is_some() && part != *before => Ok(()),
                part => Err(format!("{part:?}")),
            }
        };
        eventually("a new part", newer).await.unwrap();
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn launch(python: &Path, data: &Path, port: u16) -> Child {
    let door = concat!(env!("CARGO_MANIFEST_DIR"), "/../xtask/services/clickhouse/door.py");
    let mut command = Command::new(python);
    command.args(["-B", "-s", door, "--path"]).arg(data);
    command
        .args(["--port", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

/// F11: the server dies with inserts on their way, comes back, dies again and comes back without its rows. Accepting goes on
/// all the time, and everything is there once in the end.
#[tokio::test(flavor = "multi_thread")]
async fn p2_holds_while_the_server_is_killed_and_loses_rows() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut engine) = Engine::start(folder.path()).await else {
        return;
    };
    // Cold would hide what hot has lost.
    let config = config_of(&engine.url(), "1 h");
    let mut node = Node::prepare(&config).unwrap().started().await.unwrap();
    let flood = Flood::start(&node, 11);
    flood.acknowledged(1_000).await;
    let mut before = None;
    for loses in [false, true] {
        engine.inserted_since(&before).await;
        engine.kill();
        before = engine.parts().pop();
        flood.acknowledged(1_000).await;
        if loses {
            // All of them: the newest may hold only what was never acknowledged, or stand beside what it was merged from.
            for part in engine.parts() {
                std::fs::remove_dir_all(part).unwrap();
            }
        }
        engine.start_again().await;
        flood.acknowledged(1_000).await;
    }
    engine.inserted_since(&before).await;
    let audit = flood.audit(&mut node).await;
    assert!(audit.holds(), "{audit}");
    let url = format!("{}/metrics", node.url("http").unwrap());
    let token = node.process().unwrap().token().to_owned();
    let noticed = || async {
        let text = get(&url, Some(&token)).await.map_err(|error| error.to_string())?.text();
        match text
            .lines()
            .find_map(|line| line.strip_prefix("sluice_hot_losses_total "))
        {
            Some(count) if count != "0" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    eventually("a loss that was noticed", noticed).await.unwrap();
}

/// F7: one point after the other; with a cold store that keeps up, and with one that leaves all to hot.
#[tokio::test(flavor = "multi_thread")]
async fn p2_holds_at_every_crash_point_of_the_writer_to_clickhouse() {
    let only = std::env::var("SLUICE_TEST_CRASH_POINT").unwrap_or_default();
    let mut broken = Vec::new();
    for (number, (point, hit)) in POINTS
        .into_iter()
        .enumerate()
        .filter(|(_, (point, _))| point.contains(&only))
    {
        let commit_every = if number % 2 == 0 || point.contains("cold") {
            "1 s"
        } else {
            "1 h"
        };
        let Some(config) = config(commit_every) else { return };
        match crash_at(&config, point, hit, 20_260_200 + number as u64).await {
            Ok(audit) if audit.holds() => eprintln!("{point}:{hit}: {} accepted", audit.verdict.accepted),
            Ok(audit) => broken.push(format!("{point}:{hit}: {audit}")),
            Err(why) => broken.push(format!("{point}:{hit}: {why}")),
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

/// A query process that shares nothing with ingest but lake and server sees every event once, before cold has any of them.
#[tokio::test(flavor = "multi_thread")]
async fn another_process_reads_hot_from_the_server() {
    let Some(config) = config("1 h") else { return };
    let mut node = Node::prepare(&config).unwrap().started().await.unwrap();
    let flood = Flood::start(&node, 7);
    flood.acknowledged(600).await;
    let audit = flood.audit(&mut node).await;
    assert!(audit.holds(), "{audit}");
    let stored = node
        .sql()
        .unwrap()
        .ask("SELECT count(*) FROM events")
        .await
        .unwrap()
        .count()
        .unwrap();
    assert!(stored >= 600, "{stored}");

    let data = node.data();
    let file = data.with_file_name("query.toml");
    let settings = config
        .split("[ingest.hot]")
        .nth(1)
        .unwrap()
        .split("[ingest.cold]")
        .next()
        .unwrap();
    let settings = settings.replace("[ingest.hot.clickhouse]", "[hot.clickhouse]");
    let tokens = data.join("tokens.json");
    std::fs::write(&file, format!("tokens = {tokens:?}\n[hot]{settings}")).unwrap();
    let mut start = Start::up(&binary().unwrap(), &data.with_file_name("query"));
    start.arguments = ["query", "--lake"].map(str::to_owned).to_vec();
    let start = start.argument(data.join("lake").display().to_string());
    let doors = ["http", "flight", "pg"];
    let start = doors
        .iter()
        .fold(start.config(&file), |start, door| start.listen(door, "127.0.0.1:0"));
    let query = start.spawn().await.unwrap();
    let token = std::fs::read_to_string(data.join("token")).unwrap();
    let url = query.url("http").unwrap();
    let sql = sluice_bench::process::Sql::new(url, token.trim().to_owned());
    let counted = || async {
        let text = "SELECT count(*) FROM events";
        let answer = sql.ask(text).await.map_err(|error| error.to_string())?;
        match answer.count() {
            Ok(count) if count == stored => Ok(()),
            other => Err(format!("{other:?} of {stored}")),
        }
    };
    eventually("all events in another process", counted).await.unwrap();
    // The node is gone, and hot is not.
    node.stop().await.unwrap();
    eventually("all events without the node", counted).await.unwrap();
}
