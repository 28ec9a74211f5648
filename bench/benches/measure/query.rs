//! Questions that people ask of telemetry: of hot rows through us beside the same ClickHouse asked directly, of cold rows beside DuckDB on
//! the same files, of both tiers beside one ClickHouse table of all rows; what the last five minutes read of cold, how long a trace takes, and a crowd of dashboards beside a monster.
//!
//! The rows are stored by the stores' own write side: records of a log as the writers insert and commit them. Cold rows are kept in
//! `target/measure` (or where `SLUICE_MEASURE_DIR` says) from one run to the next; hot ones go into a new database each time.

mod both;
mod crowd;
mod data;
mod peers;
mod questions;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use sluice_bench::engines::Engines;
use sluice_bench::process::{HttpAnswer, http_send};
use sluice_query::config::CacheConfig;
use sluice_query::tokens::{Reach, mint};
use sluice_query::{QueryConfig, QueryService, Tokens};
use sluice_store::hot::clickhouse::ClickHouseConfig;
use sluice_store::{ClickHouseHot, EmbeddedHot, Stores, Tables, TablesOptions};
use sluice_wire::ids::TenantId;
use tokio_util::sync::CancellationToken;

use self::data::{Rows, Unknown};
use self::peers::DuckDb;
use self::questions::{ALL, Dialect, Question, Span};
use crate::{Line, line};

/// Each question is asked once for nothing, and then so often; the median counts.
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(600);
/// Beside the ratio, an answer may take this much longer: half of the questions take less than it themselves.
const ALLOWANCE_MS: f64 = 5.0;
const GOAL_HOT: f64 = 1.1;
const GOAL_TRACE_MS: f64 = 300.0;
const TRACES: u64 = 9;

/// How many rows there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) hot: u64,
    pub(crate) cold: u64,
}

/// A query role over some stores, in this process, behind its HTTP door.
struct Door {
    url: String,
    token: String,
    tables: Tables,
    end: CancellationToken,
}

pub(crate) fn measure(xtask: &Path, sizes: Sizes) -> Vec<Line> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run(xtask, sizes))
}

async fn run(xtask: &Path, sizes: Sizes) -> Vec<Line> {
    let folder = tempfile::tempdir().unwrap();
    let kept = data::cold(sizes.cold).await;
    let cold = Rows::first(sizes.cold);
    let mut lines = cold_against_duckdb(&kept, cold).await;

    // The same files in a lake of this run, whose seam says what the new database holds.
    let lake = folder.path().join("lake");
    data::link(&kept, &lake);
    let engines = Engines::start(xtask, folder.path()).await.unwrap();
    let database = format!("measure_{}", std::process::id());
    let config = ClickHouseConfig {
        url: engines.get("CLICKHOUSE_URL").unwrap().to_owned(),
        database: database.clone(),
        ..ClickHouseConfig::default()
    };
    let hot = ClickHouseHot::new(&config).unwrap();
    hot.migrate(false).await.unwrap();
    hot.prepare().await.unwrap();
    let stores = Stores::open_with(lake.to_str().unwrap(), hot.into()).await.unwrap();
    let rows = cold.next(sizes.hot);
    data::hot(&stores, rows).await;
    lines.extend(hot_against_clickhouse(&engines, &database, &stores, rows).await);
    lines.extend(crowd::measure(&stores, cold, rows).await);
    lines.extend(both::against_clickhouse(&engines, &database, &stores, &lake, (cold, rows)).await);
    lines
}

impl Door {
    async fn open(stores: Stores, cache: CacheConfig) -> Door {
        let (token, entry) = mint([7; 32], "measure", &TenantId::new(data::TENANT).unwrap(), Reach::Tenant);
        let any = "127.0.0.1:0".parse().unwrap();
        let mut config = QueryConfig {
            listen: any,
            pg: any,
            flight: any,
            cache,
            ..QueryConfig::default()
        };
        config.limits.timeout = PATIENCE;
        config.limits.max_timeout = PATIENCE;
        let tables = Tables::new(stores, std::sync::Arc::new(Unknown), TablesOptions::default());
        let tokens = Tokens::from_entries(&[entry]).unwrap();
        let service = QueryService::build(config, tables.clone(), tokens).await.unwrap();
        let address = service
            .listen()
            .into_iter()
            .find(|(name, _)| *name == "http")
            .unwrap()
            .1;
        let end = CancellationToken::new();
        tokio::spawn(service.run(end.clone()));
        Door {
            url: format!("http://{address}/v1/sql"),
            token,
            tables,
            end,
        }
    }

    /// What a question is answered, and in how many milliseconds.
    async fn ask(&self, sql: &str) -> (String, f64) {
        let begun = Instant::now();
        let answer = self.try_ask(sql).await;
        let took = milliseconds(begun);
        assert!(answer.status.is_success(), "{sql}: {}", answer.text());
        (answer.text(), took)
    }

    async fn try_ask(&self, sql: &str) -> HttpAnswer {
        let body = serde_json::json!({ "sql": sql }).to_string();
        let request = Request::post(&self.url)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(Bytes::from(body)))
            .unwrap();
        http_send(request, PATIENCE).await.unwrap()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Every answer is made: what was answered before says nothing of how fast it is.
fn no_answers() -> CacheConfig {
    CacheConfig {
        answers: 0,
        ..CacheConfig::default()
    }
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn median_of(mut ask: impl AsyncFnMut() -> f64) -> f64 {
    ask().await;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        took.push(ask().await);
    }
    median(took)
}

async fn cold_against_duckdb(lake: &Path, rows: Rows) -> Vec<Line> {
    let stores = Stores::open_with(lake.to_str().unwrap(), EmbeddedHot::new(0).into())
        .await
        .unwrap();
    let door = Door::open(stores, no_answers()).await;
    let mut lines = traces(&door, rows).await;
    let mut duckdb = match DuckDb::start(lake) {
        Ok(duckdb) => duckdb,
        Err(error) => {
            lines.push(line(
                "query, cold against DuckDB",
                "not measured".to_owned(),
                format!("{error:#}"),
            ));
            return lines;
        }
    };
    let span = rows.span();
    let mut compared = Compared::default();
    for question in ALL {
        let ours = median_of(async || door.ask(&question.text(Dialect::Sluice, span, rows)).await.1).await;
        let theirs = median_of(async || duckdb.ask(&question.text(Dialect::DuckDb, span, rows))).await;
        compared.add(&question, ours, theirs);
    }
    lines.extend(compared.lines("cold", "DuckDB", rows, |ours, theirs| ours <= theirs));
    lines
}

/// One trace each, in different places of the table.
async fn traces(door: &Door, rows: Rows) -> Vec<Line> {
    let trace = questions::ONE_TRACE;
    let mut took = Vec::new();
    let mut bytes = Vec::new();
    for at in 0..=TRACES {
        let sql = trace.text(Dialect::Sluice, rows.span(), rows.place(at, TRACES));
        let before = door.tables.reads();
        let (answer, ms) = door.ask(&sql).await;
        assert!(!answer.contains("\"rows\":[]"), "the trace is there: {answer}");
        // The first one reads the footers.
        if at > 0 {
            took.push(ms);
            bytes.push((door.tables.reads().lake_bytes - before.lake_bytes) as f64 / f64::from(1 << 20));
        }
    }
    let most = took.iter().copied().fold(0.0, f64::max);
    let verdict = if most <= GOAL_TRACE_MS { "met" } else { "missed" };
    vec![line(
        &format!("query: a trace id across {} M cold rows", rows.count() / 1_000_000),
        format!("{:.0} ms", median(took)),
        format!(
            "slowest of {TRACES} {most:.0} ms (goal {GOAL_TRACE_MS} ms: {verdict}), {:.1} MiB read",
            median(bytes)
        ),
    )]
}

async fn hot_against_clickhouse(engines: &Engines, database: &str, stores: &Stores, rows: Rows) -> Vec<Line> {
    let door = Door::open(stores.clone(), no_answers()).await;
    let span = rows.span();
    let mut compared = Compared::default();
    for question in ALL {
        let ours = median_of(async || door.ask(&question.text(Dialect::Sluice, span, rows)).await.1).await;
        let theirs = question.text(Dialect::ClickHouse { database }, span, rows);
        let theirs = median_of(async || {
            let begun = Instant::now();
            engines.clickhouse(&theirs).await.unwrap();
            milliseconds(begun)
        });
        compared.add(&question, ours, theirs.await);
    }
    let mut lines = compared.lines("hot", "ClickHouse", rows, |ours, theirs| {
        ours <= GOAL_HOT * theirs + ALLOWANCE_MS
    });
    let before = door.tables.reads();
    let last = Span {
        from_us: (span.to_us - 300_000_000).max(span.from_us),
        ..span
    };
    let mut asked = 0;
    for question in ALL.iter().filter(|question| question.is_timed) {
        door.ask(&question.text(Dialect::Sluice, last, rows)).await;
        asked += 1;
    }
    let after = door.tables.reads();
    let read = (
        after.lake_reads - before.lake_reads,
        after.lake_bytes - before.lake_bytes,
    );
    assert_eq!(read, (0, 0), "the last five minutes read nothing of cold");
    lines.push(line(
        "query: cold objects read for the last five minutes",
        "0".to_owned(),
        format!("{asked} questions, both tiers there"),
    ));
    lines
}

/// Milliseconds of both sides, by question.
#[derive(Default)]
struct Compared(Vec<(&'static str, f64, f64)>);

impl Compared {
    fn add(&mut self, question: &Question, ours: f64, theirs: f64) {
        println!("  {:<44} {ours:>10.1} ms, the other {theirs:.1} ms", question.name);
        self.0.push((question.name, ours, theirs));
    }

    fn lines(&self, tier: &str, peer: &str, rows: Rows, is_met: impl Fn(f64, f64) -> bool) -> Vec<Line> {
        let shown = |(name, ours, theirs): &(&str, f64, f64)| {
            let verdict = if is_met(*ours, *theirs) { "" } else { "; loses" };
            line(
                &format!("query, {tier}: {name}"),
                format!("{:.2} times {peer}", ours / theirs),
                format!("{ours:.1} ms, {peer} {theirs:.1} ms{verdict}"),
            )
        };
        let mut lines: Vec<Line> = self.0.iter().map(shown).collect();
        let losers: Vec<&str> = self
            .0
            .iter()
            .filter(|(_, ours, theirs)| !is_met(*ours, *theirs))
            .map(|(name, ..)| *name)
            .collect();
        let ratio = median(self.0.iter().map(|(_, ours, theirs)| ours / theirs).collect());
        lines.push(line(
            &format!(
                "query, {tier}: median of {} questions, {} M rows",
                self.0.len(),
                rows.count() / 1_000_000
            ),
            format!("{ratio:.2} times {peer}"),
            match losers.is_empty() {
                true => "none loses".to_owned(),
                false => format!("lose: {}", losers.join(", ")),
            },
        ));
        lines
    }
}
