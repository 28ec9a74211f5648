//! How much of what the log held is in an answer, said with every answer.

pub(crate) mod function;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::{Map, Value};
use sluice_store::Scope;
use sluice_wire::ids::TenantId;

use crate::encode::time::utc_millis;
use crate::encode::value;

/// The streams of a tenant are read again when what is known is older than this.
const FRESH: Duration = Duration::from_secs(1);
/// An answer waits this long for its streams, then takes the last known ones.
const PATIENCE: Duration = Duration::from_secs(2);
/// Streams listed with one answer, those that were heard last.
const MOST_STREAMS: usize = 1_000;

/// What is said with an answer.
#[derive(Clone, Debug, Serialize)]
pub struct Statement {
    /// All that the log held when the query began is in the answer. Unknown counts as no.
    pub complete: bool,
    /// Log records that no store holds yet; `null`: the end of the log is unknown.
    pub missing_records: Option<u64>,
    /// How long the oldest of them has been in the log.
    pub oldest_missing_age_ms: Option<i64>,
    /// Hot did not answer, so the answer is from cold alone.
    pub hot_unreachable: bool,
    /// When the query began.
    pub as_of: String,
    pub partitions: Vec<sluice_store::provider::PartitionState>,
    /// The edges that send to this tenant; `null`: they could not be read in time.
    pub streams: Option<Arc<Vec<Value>>>,
}

impl Statement {
    pub(crate) fn new(store: sluice_store::Completeness, streams: Option<Arc<Vec<Value>>>, now_ms: i64) -> Statement {
        Statement {
            complete: store.complete == Some(true),
            missing_records: store.complete.is_some().then_some(store.missing),
            oldest_missing_age_ms: store
                .oldest_missing_us
                .map(|us| now_ms.saturating_sub(us.div_euclid(1_000)).max(0)),
            hot_unreachable: store.hot_unreachable,
            as_of: utc_millis(now_ms),
            partitions: store.partitions,
            streams,
        }
    }

    /// As a header's value, without the lists if they would make it longer than `limit` bytes.
    pub(crate) fn header(&self, limit: usize) -> String {
        let full = ascii_json(self);
        if full.len() <= limit {
            return full;
        }
        ascii_json(&serde_json::json!({
            "complete": self.complete,
            "missing_records": self.missing_records,
            "oldest_missing_age_ms": self.oldest_missing_age_ms,
            "hot_unreachable": self.hot_unreachable,
            "as_of": self.as_of,
            "lists_omitted": true,
        }))
    }
}

/// JSON in the characters that a header may hold.
fn ascii_json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "{}".into());
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// By tenant (`None`: all of them), when they were read and what was read.
type Last = HashMap<Option<TenantId>, (Instant, Arc<Vec<Value>>)>;

/// The streams of each scope as last read.
#[derive(Debug, Default)]
pub(crate) struct StreamsCache {
    last: Mutex<Last>,
}

impl StreamsCache {
    /// The streams that a scope may see, not older than a second unless reading them takes too long.
    pub(crate) async fn get(&self, ctx: &SessionContext, scope: &Scope) -> Option<Arc<Vec<Value>>> {
        let key = match scope {
            Scope::Tenant(tenant) => Some(tenant.clone()),
            Scope::All => None,
        };
        let last = self.lock().get(&key).cloned();
        if let Some((_, streams)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Some(Arc::clone(streams));
        }
        let began = Instant::now();
        match tokio::time::timeout(PATIENCE, read(ctx)).await {
            Ok(Ok(streams)) => {
                let streams = Arc::new(streams);
                self.lock().insert(key, (began, Arc::clone(&streams)));
                Some(streams)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "streams not read");
                last.map(|(_, streams)| streams)
            }
            Err(_) => last.map(|(_, streams)| streams),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(ctx: &SessionContext) -> Result<Vec<Value>, DataFusionError> {
    let query = format!("SELECT * FROM streams ORDER BY last_heard DESC LIMIT {MOST_STREAMS}");
    let batches: Vec<RecordBatch> = ctx.sql(&query).await?.execute_stream().await?.try_collect().await?;
    let mut streams = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            streams.push(Value::Object(stream(batch, row)?));
        }
    }
    Ok(streams)
}

/// One row of the table as it is.
fn stream(batch: &RecordBatch, row: usize) -> Result<Map<String, Value>, DataFusionError> {
    let mut object = Map::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let mut text = String::new();
        value::write(column.as_ref(), row, &mut text)?;
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        object.insert(field.name().clone(), value);
    }
    Ok(object)
}
