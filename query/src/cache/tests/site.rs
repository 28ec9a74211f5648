//! Two engines over the same stores, whose rows come late, move and go.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use sluice_store::hot::clickhouse::ClickHouseConfig;
use sluice_store::{ClickHouseHot, EmbeddedHot, Hot, HotRows, OffsetRange, Stores, Tables, TablesOptions};
use sluice_wire::counts::Counts;
use sluice_wire::events::{self, Origin, Outcome};
use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId};
use sluice_wire::otlp::{DecodeLimits, Decoder, json_to_protobuf};

use super::{NoEnds, PARTITION, question, tenant};
use crate::config::{CacheConfig, LimitsConfig};
use crate::engine::{Dialect, Engine, Question};
use crate::tokens::{Identity, Reach, Tokens, mint};

pub(super) const SECOND: i64 = 1_000_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
/// Where rows lie beside a minute, in nanoseconds: around its beginning, as floats of seconds round it, and as cold files store it.
const BESIDE: [i64; 8] = [0, -1, 1, -128, -129, 999, 30 * SECOND, -1_000];

pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

/// Two engines over the same stores: one keeps, the other never does.
pub(super) struct Site {
    pub(super) stores: Stores,
    pub(super) keeps: Engine,
    plain: Engine,
    pub(super) acme: Identity,
    pub(super) operator: Identity,
    /// When the first row was, and what the senders' clock says.
    pub(super) begin: i64,
    clock: AtomicI64,
    next: AtomicU64,
    cold: AtomicU64,
    _folder: tempfile::TempDir,
}

fn engine(stores: &Stores, cache: &CacheConfig) -> Engine {
    let options = TablesOptions {
        pin_max_age: Duration::ZERO,
        seam_max_age: Duration::ZERO,
    };
    let tables = Tables::new(stores.clone(), std::sync::Arc::new(NoEnds), options);
    let limits = LimitsConfig {
        threads: 1,
        ..LimitsConfig::default()
    };
    Engine::start(tables, limits, cache, None).unwrap()
}

fn record(owner: &str, offset: u64, taken_in: i64, times: &[i64]) -> Vec<RecordBatch> {
    let limits = DecodeLimits::default();
    let logs: Vec<_> = times
        .iter()
        .zip(0u64..)
        .map(|(time, row)| {
            let severity = 5 + (offset * 7 + row * 5) % 16;
            serde_json::json!({"timeUnixNano": time.to_string(), "severityNumber": severity,
                "body": {"stringValue": format!("body {}", (offset + row) % 11)}})
        })
        .collect();
    let body = serde_json::json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": format!("service-{}", offset % 3)}}]},
        "scopeLogs": [{"logRecords": logs}],
    }]});
    let body = json_to_protobuf(sluice_wire::Signal::Log, body.to_string().as_bytes(), &limits).unwrap();
    let decoded = Decoder::new(limits).decode(sluice_wire::Signal::Log, &body, taken_in as u64);
    let batch = decoded.unwrap().batch;
    let id = BatchId {
        stream: StreamId {
            tenant: tenant(owner),
            node: NodeId::new("site-1").unwrap(),
            spool: [7; 16],
        },
        epoch: Epoch { number: 1, random: 42 },
        seq: offset,
    };
    let origin = Origin {
        id: &id,
        partition: PARTITION,
        offset,
        ingested_at_us: taken_in / 1_000,
    };
    let counts = Counts {
        accepted: times.len() as u64,
        stored: times.len() as u64,
        ..Counts::default()
    };
    vec![
        events::fold(&batch, &origin).unwrap(),
        events::ledger_row(&origin, Outcome::Accepted, &counts, ""),
    ]
}

/// A database of its own on the engine; `None`: there is none, which is a failure where all must be.
pub(super) async fn server_hot() -> Option<ClickHouseHot> {
    Some(server_database().await?.0)
}

async fn server_database() -> Option<(ClickHouseHot, ClickHouseConfig)> {
    let url = std::env::var("SLUICE_TEST_CLICKHOUSE_URL")
        .ok()
        .filter(|url| !url.is_empty());
    let Some(url) = url else {
        assert!(std::env::var_os("CI").is_none(), "no SLUICE_TEST_CLICKHOUSE_URL");
        eprintln!("NOT TESTED on ClickHouse: there is no SLUICE_TEST_CLICKHOUSE_URL");
        return None;
    };
    let config = ClickHouseConfig {
        url,
        database: format!("test_ranges_{}", now_ns()),
        ..ClickHouseConfig::default()
    };
    let hot = ClickHouseHot::new(&config).unwrap();
    hot.migrate(false).await.unwrap();
    hot.prepare().await.unwrap();
    Some((hot, config))
}

/// The same, said to be one of some copies.
pub(super) async fn copied_hot() -> Option<ClickHouseHot> {
    let (_, config) = server_database().await?;
    let copied = ClickHouseConfig {
        replicated_path: "/clickhouse/tables/sluice".to_owned(),
        ..config
    };
    Some(ClickHouseHot::new(&copied).unwrap())
}

impl Site {
    pub(super) async fn new(cache: CacheConfig) -> Site {
        Site::over(EmbeddedHot::new(64 << 20).into(), cache).await
    }

    pub(super) async fn over(hot: Hot, cache: CacheConfig) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let lake = folder.path().join("lake");
        let stores = Stores::open_with(lake.to_str().unwrap(), hot).await.unwrap();
        let record = stores.seam.claim(PARTITION, 0, &stores.hot.endpoint()).await.unwrap();
        stores.hot.claim(PARTITION, record.last_claim().unwrap());
        let none = CacheConfig {
            answers: 0,
            ..CacheConfig::default()
        };
        let (acme_token, acme) = mint([1; 32], "acme", &tenant("acme"), Reach::Tenant);
        let (ops_token, ops) = mint([2; 32], "ops", &tenant("ops"), Reach::Operator);
        let tokens = Tokens::from_entries(&[acme, ops]).unwrap();
        let begin = (now_ns() - 6 * HOUR).div_euclid(MINUTE) * MINUTE;
        Site {
            keeps: engine(&stores, &cache),
            plain: engine(&stores, &none),
            acme: tokens.identify(&acme_token).unwrap(),
            operator: tokens.identify(&ops_token).unwrap(),
            stores,
            begin,
            clock: AtomicI64::new(begin),
            next: AtomicU64::new(0),
            cold: AtomicU64::new(0),
            _folder: folder,
        }
    }

    pub(super) fn clock(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// What an offset holds follows from it and from what the senders' clock said; kept, to be written to cold too.
    pub(super) async fn insert(&self, log: &mut Vec<Vec<RecordBatch>>, minutes: i64, late: i64) {
        let clock = self.clock.fetch_add(minutes * MINUTE, Ordering::Relaxed) + minutes * MINUTE;
        let offset = self.next.fetch_add(1, Ordering::Relaxed);
        let second = (offset as i64 * 17) % 60 * SECOND;
        let beside = BESIDE[offset as usize % BESIDE.len()];
        let mut times = vec![clock + second, clock + (second + 31 * SECOND) % MINUTE, clock + beside];
        if late != 0 {
            times.push(clock - late * MINUTE + second);
        }
        let owner = if offset % 5 == 4 { "beta" } else { "acme" };
        let rows = record(owner, offset, clock, &times);
        let range = OffsetRange {
            partition: PARTITION,
            first: offset,
            last: offset,
        };
        let slice = HotRows {
            range,
            rows: rows.clone(),
        };
        self.stores.hot.insert(&[slice]).await.unwrap();
        log.push(rows);
    }

    pub(super) async fn commit(&self, log: &[Vec<RecordBatch>], more: u64) {
        let first = self.cold.load(Ordering::Relaxed);
        let end = (first + more).min(log.len() as u64);
        if first == end {
            return;
        }
        let range = OffsetRange {
            partition: PARTITION,
            first,
            last: end - 1,
        };
        let rows = log[first as usize..end as usize].concat();
        self.stores.cold.commit(&[range], rows).await.unwrap();
        self.cold.store(end, Ordering::Relaxed);
    }

    pub(super) async fn hand_off(&self) {
        let Some(low) = self.cold.load(Ordering::Relaxed).checked_sub(1) else {
            return;
        };
        self.stores.seam.advance(PARTITION, low).await.unwrap();
        // A server does so by days, later.
        if let Some(hot) = self.stores.hot.embedded() {
            hot.drop_to(PARTITION, low);
        }
    }

    async fn rows(&self, engine: &Engine, who: &Identity, question: Question) -> Result<String, String> {
        let mut answer = engine.ask(who, question).await.map_err(|error| format!("{error:?}"))?;
        let mut rows = Vec::new();
        while let Some(batch) = answer.rows.next().await {
            rows.push(batch.map_err(|error| format!("{error:?}"))?);
        }
        Ok(arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string())
    }

    /// Asks both in some dialect; they say the same, or fail alike.
    pub(super) async fn ask_in(&self, dialect: Dialect, who: &Identity, sql: &str) -> Result<String, String> {
        let asked = || Question {
            dialect,
            ..question(sql)
        };
        let kept = self.rows(&self.keeps, who, asked()).await;
        let made = self.rows(&self.plain, who, asked()).await;
        assert!(
            kept == made || kept.is_err() && made.is_err(),
            "{sql}\n{kept:?}\n{made:?}"
        );
        kept
    }

    /// Asks both; they say the same.
    pub(super) async fn ask(&self, who: &Identity, sql: &str) -> String {
        let said = self.ask_in(Dialect::Ours, who, sql).await;
        said.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// How many ranges were given again, and how many computed, while something was done.
    pub(super) async fn ranges<T>(&self, done: impl Future<Output = T>) -> (u64, u64) {
        let before = self.keeps.ranges();
        done.await;
        let after = self.keeps.ranges();
        (after.0 - before.0, after.1 - before.1)
    }
}
