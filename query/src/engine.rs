//! Runs one query: a place, a point of the log, a plan, a stream of rows, all inside limits. A query ends with its client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use serde_json::Value;
use sluice_store::{Pinned, Scope, Tables};
use tokio::sync::{mpsc, oneshot};

use crate::catalog::{self, Catalog};
use crate::completeness::{Statement, StreamsCache};
use crate::config::LimitsConfig;
use crate::depth;
use crate::error::{Kind, QueryError};
use crate::executor::{AbortOnDrop, Executor};
use crate::limits::{Admission, Place};
use crate::tokens::Identity;
use crate::{guard, params, position};

/// Batches between the threads that compute and the connection that writes.
const BATCHES_AHEAD: usize = 2;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) sql: String,
    pub(crate) params: Vec<Value>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_rows: Option<u64>,
}

/// An answer whose rows are still being made.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) schema: SchemaRef,
    pub(crate) completeness: Statement,
    pub(crate) rows: Rows,
}

/// The rows of an answer. Dropping it ends the query.
#[derive(Debug)]
pub(crate) struct Rows {
    parts: mpsc::Receiver<Part>,
    deadline: Deadline,
    allowed: Allowed,
    given: u64,
    truncated: bool,
    ended: bool,
    _task: AbortOnDrop,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: tokio::time::Instant,
    timeout: Duration,
}

/// How many rows are given, and whose wish that is: the client's own cuts, ours refuses.
#[derive(Clone, Copy, Debug)]
enum Allowed {
    Client(u64),
    Server(u64),
}

#[derive(Debug)]
enum Part {
    Rows(RecordBatch),
    Failed(QueryError),
    /// Without it the rows stopped, but did not end.
    End,
}

struct Head {
    schema: SchemaRef,
    completeness: Statement,
}

#[derive(Debug)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    executor: Executor,
    admission: Admission,
    limits: LimitsConfig,
    pub(crate) counters: Counters,
}

/// What the work on the other threads needs.
struct Shared {
    tables: Tables,
    catalog: Catalog,
    streams: StreamsCache,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

/// Totals since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) asked: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) rows: AtomicU64,
}

impl Engine {
    pub(crate) fn start(tables: Tables, limits: LimitsConfig) -> std::io::Result<Engine> {
        Ok(Engine {
            shared: Arc::new(Shared {
                tables,
                catalog: Catalog::new(&limits),
                streams: StreamsCache::default(),
            }),
            executor: Executor::start(limits.threads)?,
            admission: Admission::new(&limits),
            limits,
            counters: Counters::default(),
        })
    }

    pub(crate) fn limits(&self) -> &LimitsConfig {
        &self.limits
    }

    pub(crate) fn running(&self) -> usize {
        self.admission.running()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.admission.waiting()
    }

    /// Plans a query and starts it. What this refuses was never run.
    pub(crate) async fn ask(&self, who: &Identity, question: Question) -> Result<Answer, QueryError> {
        self.counters.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.start_query(who, question).await;
        if answer.is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// The stores answer.
    pub(crate) async fn can_read(&self) -> bool {
        self.shared.tables.pin().await.is_ok()
    }

    /// What the stores hold for this identity, without a query.
    pub(crate) async fn completeness(&self, who: &Identity) -> Result<Statement, QueryError> {
        let question = Question {
            sql: "SELECT 1".into(),
            params: Vec::new(),
            timeout: None,
            max_rows: None,
        };
        Ok(self.ask(who, question).await?.completeness)
    }

    async fn start_query(&self, who: &Identity, question: Question) -> Result<Answer, QueryError> {
        let timeout = self.timeout(question.timeout)?;
        let allowed = match question.max_rows {
            Some(rows) if rows <= self.limits.max_rows => Allowed::Client(rows),
            _ => Allowed::Server(self.limits.max_rows),
        };
        let place = self.admission.admit(who.tenant()).await?;
        let deadline = Deadline {
            at: tokio::time::Instant::now() + timeout,
            timeout,
        };
        let (head_tx, head) = oneshot::channel();
        let (parts_tx, parts) = mpsc::channel(BATCHES_AHEAD);
        let shared = Arc::clone(&self.shared);
        let scope = catalog::scope(who);
        let task = self
            .executor
            .spawn(work(shared, place, scope, question, head_tx, parts_tx));
        let head = tokio::time::timeout_at(deadline.at, head)
            .await
            .map_err(|_| deadline.over())?
            .map_err(|_| stopped())??;
        Ok(Answer {
            schema: head.schema,
            completeness: head.completeness,
            rows: Rows {
                parts,
                deadline,
                allowed,
                given: 0,
                truncated: false,
                ended: false,
                _task: task,
            },
        })
    }

    fn timeout(&self, asked: Option<Duration>) -> Result<Duration, QueryError> {
        match asked {
            None => Ok(self.limits.timeout),
            Some(t) if t.is_zero() || t > self.limits.max_timeout => Err(QueryError::new(
                Kind::BadRequest,
                format!("`timeout_ms` is from 1 to {}", self.limits.max_timeout.as_millis()),
            )),
            Some(t) => Ok(t),
        }
    }
}

impl Rows {
    /// The next rows; `None` after the last ones.
    pub(crate) async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        if self.ended {
            return None;
        }
        let next = match tokio::time::timeout_at(self.deadline.at, self.parts.recv()).await {
            Err(_) => Some(Err(self.deadline.over())),
            Ok(None) => Some(Err(stopped())),
            Ok(Some(Part::Failed(error))) => Some(Err(error)),
            Ok(Some(Part::End)) => None,
            Ok(Some(Part::Rows(batch))) => self.within(batch),
        };
        if !matches!(next, Some(Ok(_))) {
            self.ended = true;
            self.parts.close();
        }
        next
    }

    pub(crate) fn given(&self) -> u64 {
        self.given
    }

    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }

    fn within(&mut self, batch: RecordBatch) -> Option<Result<RecordBatch, QueryError>> {
        let (most, ours) = match self.allowed {
            Allowed::Client(rows) => (rows, false),
            Allowed::Server(rows) => (rows, true),
        };
        let left = most - self.given;
        if batch.num_rows() as u64 <= left {
            self.given += batch.num_rows() as u64;
            return Some(Ok(batch));
        }
        if ours {
            return Some(Err(QueryError::new(
                Kind::TooManyRows,
                format!("the answer has more rows than `limits.max_rows` allows, which is {most}"),
            )
            .hint("add a LIMIT or an aggregate, or ask for one time range after another")));
        }
        self.truncated = true;
        self.given = most;
        // left is below the number of rows of one batch
        (left > 0).then(|| Ok(batch.slice(0, left as usize)))
    }
}

impl Deadline {
    fn over(self) -> QueryError {
        QueryError::new(
            Kind::Timeout,
            format!("no complete answer within {} ms", self.timeout.as_millis()),
        )
        .hint("narrow the time range, or give a longer `timeout_ms`")
    }
}

fn stopped() -> QueryError {
    QueryError::new(Kind::Internal, "the query stopped without an end")
}

/// Everything of a query that costs more than a moment.
async fn work(
    shared: Arc<Shared>,
    place: Place,
    scope: Scope,
    question: Question,
    head: oneshot::Sender<Result<Head, QueryError>>,
    parts: mpsc::Sender<Part>,
) {
    let began = Instant::now();
    let mut stream = match open(&shared, scope, &question).await {
        Err(error) => {
            // nobody waits any more if this fails
            let _ = head.send(Err(error));
            return;
        }
        Ok((ready, stream)) => {
            if head.send(Ok(ready)).is_err() {
                return;
            }
            stream
        }
    };
    loop {
        let part = match stream.next().await {
            None => Part::End,
            Some(Ok(batch)) if batch.num_rows() == 0 => continue,
            Some(Ok(batch)) => Part::Rows(batch),
            Some(Err(error)) => Part::Failed(QueryError::of_execution(error)),
        };
        let last = !matches!(part, Part::Rows(_));
        if parts.send(part).await.is_err() || last {
            break;
        }
    }
    tracing::debug!(elapsed_ms = began.elapsed().as_millis() as u64, "query ended");
    drop(place);
}

async fn open(
    shared: &Shared,
    scope: Scope,
    question: &Question,
) -> Result<(Head, SendableRecordBatchStream), QueryError> {
    let params = params::scalars(&question.params)?;
    let now_ms = now_ms();
    let pinned: Pinned = shared
        .tables
        .pin()
        .await
        .map_err(|e| QueryError::new(Kind::Unavailable, "the stores cannot be read now").because(e))?;
    let ctx = shared
        .catalog
        .session(&pinned, scope.clone())
        .await
        .map_err(|e| QueryError::new(Kind::Unavailable, "the tables cannot be opened now").because(e))?;
    let frame = plan(&ctx, &question.sql, params).await?;
    let stream = match frame.execute_stream().await {
        Ok(stream) => stream,
        Err(error) => {
            return Err(position::explain(&question.sql, error, &catalog::known(&ctx).await));
        }
    };
    let streams = shared.streams.get(&ctx, &scope).await;
    let head = Head {
        schema: stream.schema(),
        completeness: Statement::new(pinned.completeness(), streams, now_ms),
    };
    Ok((head, stream))
}

/// Text to a plan that only reads.
async fn plan(
    ctx: &SessionContext,
    sql: &str,
    params: Vec<datafusion::common::ScalarValue>,
) -> Result<DataFrame, QueryError> {
    let state = ctx.state();
    let statement = guard::parse(sql, &state.config_options().sql_parser)?;
    let planned = match state.statement_to_plan(statement).await {
        Ok(plan) if depth::is_too_large(&plan) => {
            return Err(
                QueryError::new(Kind::Invalid, "written out, the query has too many steps").hint(
                    "a part that is named several times is computed each time: name it once, or ask in several queries",
                ),
            );
        }
        Ok(plan) => catalog::options().verify_plan(&plan).map(|()| plan),
        Err(error) => Err(error),
    };
    let framed = planned
        .map(|plan| DataFrame::new(state, plan))
        .and_then(|frame| match params.is_empty() {
            true => Ok(frame),
            false => frame.with_param_values(params),
        });
    match framed {
        Ok(frame) => Ok(frame),
        Err(error) => Err(position::explain(sql, error, &catalog::known(ctx).await)),
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
