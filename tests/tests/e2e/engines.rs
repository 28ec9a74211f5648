//! The whole way on the engines of a fleet: edge, gateway, log in Kafka, lake in S3, SQL. Addresses come from the environment, as
//! `cargo xtask services kafka s3` gives them.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_bench::process::{Sql, Start, StartError};
use sluice_tests::{Node, SOON, binary, eventually};

use super::crash::{AFTERWARDS, Flood};

const SEED: u64 = 20_261_121;

/// Where the processes of this test die, and at which hit, beside random moments.
const POINTS: [(&str, u32); 6] = [
    ("gw.before_append", 3),
    ("gw.after_append", 5),
    ("writer.cold.before_commit", 2),
    ("writer.cold.after_commit", 2),
    ("writer.after_snapshot", 1),
    ("writer.seam.advanced", 1),
];

/// A topic and a place in the bucket that nobody used before; `None` where no engines are and none must be.
fn config() -> Option<(String, [(String, String); 2])> {
    let variable = |name: &str| std::env::var(format!("SLUICE_TEST_{name}")).ok();
    let (Some(brokers), Some(endpoint)) = (variable("KAFKA_BROKERS"), variable("S3_ENDPOINT")) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "this test needs a broker and a bucket; see `cargo xtask services --help`"
        );
        eprintln!("NOT RUN: this test needs a broker and a bucket; see `cargo xtask services --help`");
        return None;
    };
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let name = format!("e2e-{}-{}", std::process::id(), since.as_nanos());
    let bucket = variable("S3_BUCKET").unwrap();
    let text = format!(
        "[ingest]\nlake = \"s3://{bucket}/{name}\"\n\n\
         [ingest.s3]\nendpoint = \"{endpoint}\"\nallow_http = true\n\
         access_key = {{ env = \"SLUICE_TEST_S3_ACCESS_KEY\" }}\nsecret_key = {{ env = \"SLUICE_TEST_S3_SECRET_KEY\" }}\n\n\
         [ingest.log]\nkind = \"kafka\"\npartitions = 2\nreplay_window = \"0 s\"\n\n\
         [ingest.log.kafka]\nbrokers = \"{brokers}\"\ntopic = \"{name}\"\nreplication = 1\nmin_insync = 1\n\n\
         [ingest.hot]\nmax_memory = \"64 MiB\"\nkeep = \"1 MiB\"\n\n\
         [ingest.cold]\ncommit_every = \"1 s\"\n"
    );
    let keys =
        ["S3_ACCESS_KEY", "S3_SECRET_KEY"].map(|key| (format!("SLUICE_TEST_{key}"), variable(key).unwrap_or_default()));
    Some((text, keys))
}

/// A query process that knows ingest's file finds the bucket and the log, and says what of the log it cannot show yet.
#[tokio::test(flavor = "multi_thread")]
async fn another_process_finds_lake_and_log_by_the_file_of_ingest() {
    let Some((config, keys)) = config() else { return };
    let config = config.replace("commit_every = \"1 s\"", "commit_every = \"1 h\"");
    let keys: Vec<(&str, &str)> = keys
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut node = Node::prepare(&config).unwrap();
    node.start_with(&keys).await.unwrap();
    let flood = Flood::start(&node, SEED + 1);
    flood.acknowledged(300).await;
    let audit = flood.audit(&mut node).await;
    assert!(audit.holds(), "{audit}");

    let data = node.data();
    let beside = |name: &str| data.with_file_name(name);
    let ingest = config.replace("[ingest]\n", "").replace("[ingest.", "[");
    std::fs::write(beside("ingest.toml"), ingest).unwrap();
    let tokens = data.join("tokens.json");
    std::fs::write(beside("query.toml"), format!("tokens = {tokens:?}\n")).unwrap();
    let mut start = Start::up(&binary().unwrap(), &beside("query"));
    start.arguments = ["query", "--ingest"].map(str::to_owned).to_vec();
    for (name, value) in &keys {
        start = start.environment(name, value);
    }
    let start = start.argument(beside("ingest.toml").display().to_string());
    let doors = ["http", "flight", "pg"];
    let start = start.config(&beside("query.toml"));
    let query = doors
        .iter()
        .fold(start, |start, door| start.listen(door, "127.0.0.1:0"));
    let query = query.spawn().await.unwrap();
    let token = std::fs::read_to_string(data.join("token")).unwrap();
    let sql = Sql::new(query.url("http").unwrap(), token.trim().to_owned());
    // The rows are in the memory of the node alone: they are missing, and known to be.
    let lacking = || async {
        let answer = sql
            .ask("SELECT count(*) FROM events")
            .await
            .map_err(|error| error.to_string())?;
        let (complete, missing) = (
            &answer.completeness["complete"],
            answer.completeness["missing_records"].as_u64(),
        );
        match (complete.as_bool(), missing) {
            (Some(false), Some(1..)) => Ok(()),
            _ => Err(answer.completeness.to_string()),
        }
    };
    eventually("what is missing is known", lacking).await.unwrap();
    // A writer that ends commits what it has read.
    node.stop().await.unwrap();
    let whole = || async {
        let answer = sql
            .ask("SELECT count(*) FROM events")
            .await
            .map_err(|error| error.to_string())?;
        match (answer.is_complete(), answer.count()) {
            (true, Ok(300..)) => Ok(()),
            other => Err(format!("{other:?}: {}", answer.completeness)),
        }
    };
    eventually("everything is there", whole).await.unwrap();
}

/// P2 on Kafka and S3: killed at named points and at random moments on the same data, every acknowledged event is there once.
#[tokio::test(flavor = "multi_thread")]
async fn p2_holds_on_kafka_and_s3_under_kill_9() {
    let Some((config, keys)) = config() else { return };
    let mut random = StdRng::seed_from_u64(SEED);
    let keys: Vec<(&str, &str)> = keys
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut node = Node::prepare(&config).unwrap();
    node.start_with(&keys).await.unwrap();
    let flood = Flood::start(&node, SEED);
    let mut died = 0;
    for (point, hit) in POINTS {
        flood.acknowledged(random.random_range(100..800)).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
        node.kill().unwrap();
        let at = format!("{point}:{hit}");
        let crash = [&keys[..], &[("SLUICE_CRASH_AT", at.as_str())]].concat();
        match node.start_with(&crash).await {
            Ok(()) => {
                let ended = node.process().unwrap().ended(SOON).await.unwrap();
                died += u32::from(ended.is_some());
                if ended.is_none() {
                    node.kill().unwrap();
                }
            }
            // What waits in the spool reaches the point before anyone has asked whether the node is ready.
            Err(StartError::Ended { status, .. }) if !status.success() => died += 1,
            Err(error) => panic!("{at}: {error}"),
        }
        node.start_with(&keys).await.unwrap();
    }
    flood.acknowledged(AFTERWARDS).await;
    let audit = flood.audit(&mut node).await;
    assert!(audit.holds(), "{audit}");
    assert!(died >= 4, "only {died} of the points were reached");
    assert!(
        audit.verdict.unknown_requests > 0,
        "nothing was in flight at any kill: {audit}"
    );
    assert!(
        audit.ledger.duplicates > 0,
        "no batch came twice, so nothing was suppressed: {audit}"
    );
}
