//! The whole way on the engines of a fleet: edge, gateway, log in Kafka, lake in S3, SQL. Addresses come from the environment, as
//! `cargo xtask services kafka s3` gives them.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_tests::Node;

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
        node.start_with(&crash).await.unwrap();
        let ended = node.process().unwrap().ended(Duration::from_secs(30)).await.unwrap();
        died += u32::from(ended.is_some());
        if ended.is_none() {
            node.kill().unwrap();
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
