//! The log in Kafka on a real broker (`SLUICE_TEST_KAFKA_BROKERS`, as `cargo xtask services kafka` gives it), and what both logs
//! have in common.
#![allow(clippy::unwrap_used)]

mod broker;
mod contract;
mod dying;
#[path = "../../../bench/src/ports.rs"]
#[allow(unreachable_pub)]
mod ports;
mod quarantine;
#[path = "../common/batch.rs"]
mod sealed;
mod secure;
mod shared;
mod topics;
mod unreliable;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_ingest::{KafkaLog, KafkaOptions, Log, LogError};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Where tests must run an engine that is not there is a failure.
pub(crate) fn engine_is_missing(what: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "this test needs {what}; see `cargo xtask services --help`"
    );
    eprintln!("NOT RUN: this test needs {what}; see `cargo xtask services --help`");
}

pub(crate) fn brokers() -> Option<String> {
    let brokers = std::env::var("SLUICE_TEST_KAFKA_BROKERS").ok();
    if brokers.is_none() {
        engine_is_missing("a broker in SLUICE_TEST_KAFKA_BROKERS");
    }
    brokers
}

/// A topic that can be opened any number of times.
pub(crate) struct OpenKafka {
    pub(crate) options: KafkaOptions,
}

impl OpenKafka {
    /// A topic that nobody made yet.
    pub(crate) fn fresh(partitions: u16) -> Option<OpenKafka> {
        Some(Self::at(brokers()?, partitions))
    }

    pub(crate) fn at(brokers: String, partitions: u16) -> OpenKafka {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let options = KafkaOptions {
            brokers,
            topic: format!("log-{}-{}-{number}", std::process::id(), since.as_micros()),
            generation: 0,
            partitions,
            replication: 1,
            min_insync: 1,
            create: true,
            unsafe_settings: false,
            max_record_bytes: 8 << 20,
            queue_bytes: 32 << 20,
            timeout: Duration::from_secs(20),
            properties: BTreeMap::new(),
        };
        OpenKafka { options }
    }

    /// The log, once it answers; it is watched until the guard goes.
    pub(crate) async fn open(&self) -> Result<(KafkaLog, DropGuard), LogError> {
        let log = KafkaLog::open(self.options.clone())?;
        let stop = CancellationToken::new();
        let (watched, until) = (log.clone(), stop.clone());
        tokio::spawn(async move { watched.run(until).await });
        let guard = stop.drop_guard();
        soon("the log answers", log.opened()).await?;
        Ok((log, guard))
    }
}
