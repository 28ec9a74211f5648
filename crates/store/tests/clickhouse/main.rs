//! Hot on a real ClickHouse engine: what is stored comes back as it was, what does not count is not seen, and what was lost is noticed.
#![allow(clippy::unwrap_used)]

mod asked;
#[path = "../common/mod.rs"]
mod common;
mod lost;
mod table;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use common::*;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility};
use datafusion::prelude::{SessionContext, create_udf};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use sluice_store::hot::clickhouse::{Audit, ClickHouseConfig, ClickHouseError, MigrateError};
use sluice_store::{ClickHouseHot, HotError, HotRows, OffsetRange, Pinned, Scope, Search, Stores, physical_rules};
use sluice_wire::events::schema;
use sluice_wire::ids::Partition;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A lake whose hot store is the server; `None` without an engine.
async fn world() -> Option<(tempfile::TempDir, Stores)> {
    Some(over(server_hot(&server()?).await).await)
}

async fn over(hot: ClickHouseHot) -> (tempfile::TempDir, Stores) {
    let folder = tempfile::tempdir().unwrap();
    let stores = opened(&folder, hot).await;
    (folder, stores)
}

/// The lake of a world as a process opens it that knows nothing yet.
async fn opened(world: &tempfile::TempDir, hot: ClickHouseHot) -> Stores {
    let lake = world.path().join("lake");
    Stores::open_with(lake.to_str().unwrap(), hot.into()).await.unwrap()
}

/// As another process that writes to the same table.
async fn another_writer(world: &tempfile::TempDir, stores: &Stores) -> Stores {
    let hot = ClickHouseHot::new(&config_of(server_of(stores))).unwrap();
    hot.prepare().await.unwrap();
    opened(world, hot).await
}

fn server_of(stores: &Stores) -> &ClickHouseHot {
    stores.hot.clickhouse().unwrap()
}

async fn ask(pinned: &Pinned, text: &str) -> RecordBatch {
    answer(&asking(pinned), text).await
}

/// Has all rows as `e`, and those that people see as `seen`.
fn asking(pinned: &Pinned) -> SessionContext {
    let state = SessionStateBuilder::new_with_default_features().with_physical_optimizer_rules(physical_rules());
    let ctx = SessionContext::new_with_state(state.build());
    ctx.register_table("e", pinned.everything(Scope::All)).unwrap();
    ctx.register_table("seen", pinned.events(Scope::All)).unwrap();
    ctx
}

async fn answer(ctx: &SessionContext, text: &str) -> RecordBatch {
    let frame = ctx.sql(text).await.unwrap();
    let schema = Arc::clone(frame.schema().inner());
    concat_batches(&schema, &frame.collect().await.unwrap()).unwrap()
}

/// Offsets that a query sees, with the number of rows.
async fn seen(stores: &Stores) -> (Vec<i64>, usize) {
    let pinned = tables(stores).pin().await.unwrap();
    let rows = ask(&pinned, "SELECT \"offset\" FROM e ORDER BY 1").await;
    let mut offsets = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
    let count = offsets.len();
    offsets.dedup();
    (offsets, count)
}

fn rows_of(p: Partition, offsets: std::ops::RangeInclusive<u64>) -> usize {
    records(p, offsets).iter().map(RecordBatch::num_rows).sum()
}

/// Statements of a test's own, as an operator would type them.
async fn operator(hot: &ClickHouseHot, text: &str) -> String {
    let (address, database) = hot
        .endpoint()
        .rsplit_once('/')
        .map(|(a, d)| (a.to_owned(), d.to_owned()))
        .unwrap();
    let host = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut socket = TcpStream::connect(&host).await.unwrap();
    let head = format!(
        "POST /?database={database}&mutations_sync=2 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{text}: {answer}");
    // Chunked: the texts that are asked for are short and come in one chunk.
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    body.lines().nth(1).unwrap_or_default().trim().to_owned()
}

fn config_of(hot: &ClickHouseHot) -> ClickHouseConfig {
    let endpoint = hot.endpoint();
    let (url, database) = endpoint.rsplit_once('/').unwrap();
    ClickHouseConfig {
        url: url.to_owned(),
        database: database.to_owned(),
        ..ClickHouseConfig::default()
    }
}

/// A relay to the engine that adds settings to each request and, when told, takes a whole one and gives no answer back.
struct Relay {
    url: String,
    swallow: Arc<AtomicBool>,
}

async fn relay(url: &str, settings: &'static str) -> Relay {
    let target = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", door.local_addr().unwrap());
    let swallow = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&swallow);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = door.accept().await {
            let (target, told) = (target.clone(), Arc::clone(&told));
            tokio::spawn(async move {
                let mut server = TcpStream::connect(&target).await.unwrap();
                let (mut from_client, mut to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let up = async {
                    let (mut piece, begin) = (vec![0; 16 << 10], b"POST /?");
                    loop {
                        let n = from_client.read(&mut piece).await.unwrap_or(0);
                        let mut rest = &piece[..n];
                        // A request begins a piece: nobody asks before the last answer is there.
                        if let Some(after) = rest.strip_prefix(begin) {
                            let told = [&begin[..], settings.as_bytes()].concat();
                            to_server.write_all(&told).await.unwrap();
                            rest = after;
                        }
                        if n == 0 || to_server.write_all(rest).await.is_err() {
                            return;
                        }
                    }
                };
                let down = async {
                    let mut piece = [0; 16 << 10];
                    loop {
                        let n = from_server.read(&mut piece).await.unwrap_or(0);
                        // The answer is there, so the server has done what it was told.
                        if n == 0 || told.swap(false, Ordering::SeqCst) {
                            return;
                        }
                        to_client.write_all(&piece[..n]).await.unwrap();
                    }
                };
                tokio::select! { () = up => {}, () = down => {} }
            });
        }
    });
    Relay { url, swallow }
}
