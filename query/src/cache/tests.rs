#![allow(clippy::unwrap_used)]
mod extremes;
mod panels;
mod ranges;
mod site;

use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use sluice_store::{LogEnds, OffsetRange, Retention, Rule, Stores, Tables, TablesOptions};
use sluice_wire::counts::Counts;
use sluice_wire::events::{self, Origin, Outcome};
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};
use sluice_wire::otlp::{DecodeLimits, Decoder, json_to_protobuf};

use super::*;
use crate::catalog::Catalog;
use crate::config::LimitsConfig;

const PARTITION: Partition = Partition {
    generation: 1,
    index: 0,
};
/// 2025-11-21T00:00:00Z; the record of an offset is of so many hours later.
const BASE_NS: u64 = 1_763_683_200_000_000_000;
const HOUR_NS: u64 = 3_600_000_000_000;

struct NoEnds;

impl LogEnds for NoEnds {
    fn end(&self, _: Partition) -> Option<u64> {
        None
    }

    fn oldest_unread_us(&self, _: Partition, _: u64) -> Option<i64> {
        None
    }
}

struct Site {
    stores: Stores,
    answers: Arc<Answers>,
    catalog: Catalog,
    _folder: tempfile::TempDir,
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn ingested_at(offset: u64) -> i64 {
    ((BASE_NS + offset * HOUR_NS) / 1_000) as i64
}

fn record(owner: &str, offset: u64) -> Vec<RecordBatch> {
    let limits = DecodeLimits::default();
    let at = BASE_NS + offset * HOUR_NS;
    let body = serde_json::json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": format!("service-{}", offset % 3)}}]},
        "scopeLogs": [{"logRecords": [
            {"timeUnixNano": at.to_string(), "severityNumber": 9, "body": {"stringValue": format!("{owner} {offset}")}},
            {"timeUnixNano": (at + 1).to_string(), "severityNumber": 17, "body": {"stringValue": "second"}},
        ]}],
    }]});
    let body = json_to_protobuf(sluice_wire::Signal::Log, body.to_string().as_bytes(), &limits).unwrap();
    let batch = Decoder::new(limits)
        .decode(sluice_wire::Signal::Log, &body, at)
        .unwrap()
        .batch;
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
        ingested_at_us: ingested_at(offset),
    };
    let counts = Counts {
        accepted: 2,
        stored: 2,
        ..Counts::default()
    };
    vec![
        events::fold(&batch, &origin).unwrap(),
        events::ledger_row(&origin, Outcome::Accepted, &counts, ""),
    ]
}

fn owner(offset: u64) -> &'static str {
    if offset % 4 == 3 { "beta" } else { "acme" }
}

impl Site {
    /// Offsets 0 to 3 cold, 4 to 7 hot.
    async fn new(config: &CacheConfig) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::open(folder.path().join("lake").to_str().unwrap(), 64 << 20)
            .await
            .unwrap();
        let site = Site {
            stores,
            answers: Answers::new(config),
            catalog: Catalog::new(&LimitsConfig::default()),
            _folder: folder,
        };
        site.commit(0, 3).await;
        site.stores.seam.claim(PARTITION, 4, "embedded").await.unwrap();
        site.stores.hot.embedded().unwrap().claim(PARTITION, 4);
        (4..=7).for_each(|offset| site.insert(offset));
        site
    }

    fn insert(&self, offset: u64) {
        let hot = self.stores.hot.embedded().unwrap();
        hot.insert(PARTITION, offset, offset, record(owner(offset), offset))
            .unwrap();
    }

    async fn commit(&self, first: u64, last: u64) {
        let range = OffsetRange {
            partition: PARTITION,
            first,
            last,
        };
        let rows = (first..=last)
            .flat_map(|offset| record(owner(offset), offset))
            .collect();
        self.stores.cold.commit(&[range], rows).await.unwrap();
    }

    /// Asks with the cache and without; both must say the same. Returns whether the answer had been kept.
    async fn ask(&self, scope: &Scope, sql: &str) -> bool {
        let options = TablesOptions {
            pin_max_age: Duration::ZERO,
            seam_max_age: Duration::ZERO,
        };
        let tables = Tables::new(self.stores.clone(), Arc::new(NoEnds), options);
        let pinned = tables.pin().await.unwrap();
        let ctx = self
            .catalog
            .session(&pinned, scope.clone(), Duration::from_secs(60))
            .await
            .unwrap();
        let (question, plan) = (question(sql), ctx.state().create_logical_plan(sql).await.unwrap());
        // A plan is run once: its scans share what is left to be read.
        let again = ctx.state().create_physical_plan(&plan).await.unwrap();
        let physical = ctx.state().create_physical_plan(&plan).await.unwrap();
        let fresh = collect(execute(&ctx, &physical)).await;
        let inputs = sluice_store::inputs(&physical);
        let Some((asked, inputs)) = Asked::of(scope, &question, &plan).zip(inputs) else {
            return false;
        };
        match self.answers.recall(&asked, inputs) {
            Some(kept) => {
                assert_eq!(collect(kept).await, fresh, "{sql}");
                true
            }
            None => {
                let rows = self.answers.remember(asked, inputs, execute(&ctx, &again));
                assert_eq!(collect(rows).await, fresh, "{sql}");
                false
            }
        }
    }

    async fn acme(&self, sql: &str) -> bool {
        self.ask(&Scope::Tenant(tenant("acme")), sql).await
    }
}

fn question(sql: &str) -> Question {
    Question {
        sql: sql.to_owned(),
        params: Vec::new(),
        timeout: None,
        max_rows: None,
        dialect: Dialect::Ours,
    }
}

fn execute(ctx: &SessionContext, plan: &Arc<dyn ExecutionPlan>) -> SendableRecordBatchStream {
    datafusion::physical_plan::execute_stream(Arc::clone(plan), ctx.task_ctx()).unwrap()
}

async fn collect(rows: SendableRecordBatchStream) -> String {
    let rows = datafusion::physical_plan::common::collect(rows).await.unwrap();
    arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
}

const ALL: &str = "SELECT \"offset\", body FROM events ORDER BY \"offset\", \"row\"";
/// Of cold files alone, whatever comes later.
const FIRST_HOURS: &str = "SELECT date_bin(INTERVAL '1 hour', time) AS hour, count(*) FROM events \
     WHERE time < TIMESTAMP '2025-11-21T03:00:00Z' GROUP BY 1 ORDER BY 1";
/// Of pieces in memory alone.
const FIFTH_HOUR: &str = "SELECT service, count(*) FROM events WHERE time >= TIMESTAMP '2025-11-21T05:00:00Z' \
     AND time < TIMESTAMP '2025-11-21T06:00:00Z' GROUP BY 1 ORDER BY 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_given_again_until_what_it_reads_changes_and_is_never_stale() {
    let site = Site::new(&CacheConfig::default()).await;
    for sql in [ALL, FIRST_HOURS, FIFTH_HOUR] {
        assert!(
            !site.acme(sql).await && site.acme(sql).await && site.acme(sql).await,
            "{sql}"
        );
    }

    // New rows: only what reads them is made anew.
    for offset in 8..=30 {
        site.insert(offset);
    }
    assert!(site.acme(FIRST_HOURS).await, "nothing of it changed");
    assert!(!site.acme(ALL).await && site.acme(ALL).await);

    // A hand-off: cold holds more, hot still serves it; then hot lets go of it.
    site.commit(4, 7).await;
    assert!(site.acme(FIRST_HOURS).await, "other files");
    site.acme(ALL).await;
    site.stores.seam.advance(PARTITION, 7).await.unwrap();
    site.stores.hot.embedded().unwrap().drop_to(PARTITION, 7);
    assert!(site.acme(FIRST_HOURS).await, "its files are the same");
    assert!(!site.acme(FIFTH_HOUR).await, "memory gave it away");
    assert!(site.acme(FIFTH_HOUR).await);
    site.acme(ALL).await;

    // An erasure of what the fifth hour says, and of nothing that the first hours say.
    let from = (BASE_NS + 5 * HOUR_NS) as i64;
    let rule = Rule::new(&tenant("acme"), ingested_at(1_000), Some(from), Some(from + 1));
    site.stores.erase(&rule).await.unwrap();
    assert!(!site.acme(FIFTH_HOUR).await && site.acme(FIFTH_HOUR).await);
    assert!(!site.acme(ALL).await && site.acme(ALL).await);

    // Retention, as a rule that moves: rows of offset 0 go first, then those of 1.
    for offset in [1, 2] {
        let rule = Rule::new(&tenant("acme"), ingested_at(offset), None, None);
        site.stores.erase(&rule).await.unwrap();
        for sql in [ALL, FIRST_HOURS] {
            assert!(!site.acme(sql).await && site.acme(sql).await, "{sql}");
        }
    }
    let rule = Rule::new(&tenant("acme"), ingested_at(0), None, None);
    site.stores.erase(&rule).await.unwrap();
    assert!(site.acme(FIRST_HOURS).await, "no row that it reads is older than this");
    let keep = Retention::new(1, std::collections::BTreeMap::new());
    site.stores.keep_for(&keep).await.unwrap();
    assert!(!site.acme(ALL).await, "all of it is too old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_tenant_was_told_another_never_is() {
    let site = Site::new(&CacheConfig::default()).await;
    assert!(!site.acme(ALL).await && site.acme(ALL).await);
    for scope in [Scope::Tenant(tenant("beta")), Scope::All] {
        assert!(!site.ask(&scope, ALL).await && site.ask(&scope, ALL).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_depends_on_more_than_rows_is_made_each_time() {
    let site = Site::new(&CacheConfig::default()).await;
    for sql in [
        "SELECT count(*) FROM events WHERE time < now()",
        "SELECT random() < 2 FROM events LIMIT 1",
        "SELECT body, current_date FROM events ORDER BY body",
        "SELECT count(*) FROM (SELECT uuid() AS id FROM events) WHERE id <> ''",
        "SELECT (SELECT max(now()) FROM events) > time FROM events",
        "SELECT count(*) FROM streams",
        "SELECT count(*) AS n, (SELECT count(*) FROM streams) AS m FROM events",
        "SELECT 1",
        "EXPLAIN SELECT count(*) FROM events",
    ] {
        assert!(!site.acme(sql).await && !site.acme(sql).await, "{sql}");
    }
    for sql in [
        "SELECT count(*), approx_distinct(body), approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY severity) FROM logs",
        "SELECT service, row_number() OVER (PARTITION BY service ORDER BY time) FROM events ORDER BY 1, 2",
        "SELECT a.body FROM events a JOIN events b ON a.\"offset\" = b.\"offset\" WHERE a.severity < b.severity ORDER BY 1 LIMIT 3",
        "SELECT upper(body) FROM trace('00') UNION ALL SELECT service FROM spans",
    ] {
        assert!(!site.acme(sql).await, "{sql}");
        assert!(site.acme(sql).await, "{sql}");
    }
}

#[tokio::test]
async fn the_cap_holds_for_each_tenant_and_for_all() {
    let answers = Answers::new(&CacheConfig {
        answers: 100_000,
        tenant_answers: 64_000,
        ..CacheConfig::default()
    });
    let inputs = inputs().await;
    let batch = |rows: usize| {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1; rows]));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    };
    let asked = |owner: &str, number: usize| Asked {
        scope: Scope::Tenant(tenant(owner)),
        postgres: false,
        sql: format!("SELECT {number}").into(),
        params: Arc::new([]),
    };
    let ask = async |owner: &str, number: usize, batches: Vec<RecordBatch>| {
        let rows = stream::iter(batches.clone().into_iter().map(Ok));
        let rows = Box::pin(RecordBatchStreamAdapter::new(batches[0].schema(), rows));
        let mut rows = answers.remember(asked(owner, number), inputs, rows);
        while rows.next().await.is_some() {}
    };
    let knows = |owner: &str, number: usize| answers.recall(&asked(owner, number), inputs).is_some();
    ask("acme", 0, vec![batch(10), batch(20)]).await;
    assert!(knows("acme", 0) && !knows("beta", 0));
    for number in 1..50 {
        ask("acme", number, vec![batch(400)]).await;
        let held = answers.lock().of_scope[&Scope::Tenant(tenant("acme"))];
        assert!(held <= 64_000 && held == answers.bytes());
    }
    assert!(!knows("acme", 0) && knows("acme", 49), "the oldest went");
    for number in 0..50 {
        ask("beta", number, vec![batch(400)]).await;
        assert!(answers.bytes() <= 100_000);
    }
    assert!(knows("beta", 49));
    // Too large, or not read to its end.
    ask("acme", 99, vec![batch(1_200)]).await;
    assert!(!knows("acme", 99));
    let rows = stream::iter([Ok(batch(1)), Ok(batch(1))]);
    let rows = Box::pin(RecordBatchStreamAdapter::new(batch(1).schema(), rows));
    let mut rows = answers.remember(asked("acme", 100), inputs, rows);
    rows.next().await.unwrap().unwrap();
    drop(rows);
    assert!(!knows("acme", 100));
}

/// Of any plan.
async fn inputs() -> Inputs {
    let site = Site::new(&CacheConfig::default()).await;
    let tables = Tables::new(site.stores.clone(), Arc::new(NoEnds), TablesOptions::default());
    let pinned = tables.pin().await.unwrap();
    let ctx = site
        .catalog
        .session(&pinned, Scope::All, Duration::from_secs(60))
        .await
        .unwrap();
    let plan = ctx.sql(ALL).await.unwrap().create_physical_plan().await.unwrap();
    sluice_store::inputs(&plan).unwrap()
}
