//! Runs one query: a place, a point of the log, a plan, a stream of rows, all inside limits. A query ends with its client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as Parsed;
use futures::StreamExt;
use sluice_store::{Pinned, Reads, Scope, Tables};
use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::cache::{Answers, Asked};
use crate::catalog::{self, Catalog, Table};
use crate::completeness::{Statement, StreamsCache, function};
use crate::config::{CacheConfig, LimitsConfig};
use crate::depth;
use crate::error::{Kind, QueryError};
use crate::executor::{AbortOnDrop, Executor};
use crate::functions::Plugins;
use crate::limits::{Admission, Place};
use crate::pg_catalog::PgCatalog;
use crate::scale::Workers;
use crate::shape::{self, Shape};
use crate::tokens::Identity;
use crate::{functions, guard, position};

/// Batches between the threads that compute and the connection that writes.
const BATCHES_AHEAD: usize = 2;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) sql: String,
    pub(crate) params: Vec<ScalarValue>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_rows: Option<u64>,
    pub(crate) dialect: Dialect,
}

/// What a query may be written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// This product's own SQL.
    Ours,
    /// The same, and what clients of Postgres ask of its catalogue.
    Postgres,
}

/// An answer whose rows are still being made.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) schema: SchemaRef,
    pub(crate) completeness: Statement,
    /// It read a table of the stores, so that how complete these are matters.
    pub(crate) from_stores: bool,
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
    from_stores: bool,
}

#[derive(Debug)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    executor: Executor,
    admission: Admission,
    limits: LimitsConfig,
    workers: Option<Arc<Workers>>,
    pub(crate) counters: Counters,
}

/// What the work on the other threads needs.
struct Shared {
    tables: Tables,
    catalog: Catalog,
    answers: Arc<Answers>,
    streams: StreamsCache,
    /// Made when it is first asked for.
    postgres: OnceCell<PgCatalog>,
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
    /// `workers` compute the cold parts of its queries, if there are any.
    pub(crate) fn start(
        tables: Tables,
        limits: LimitsConfig,
        cache: &CacheConfig,
        workers: Option<Arc<Workers>>,
    ) -> std::io::Result<Engine> {
        Ok(Engine {
            shared: Arc::new(Shared {
                catalog: Catalog::with_workers(&limits, workers.as_ref().map(|workers| (workers, tables.codec()))),
                tables,
                answers: Answers::new(cache),
                streams: StreamsCache::default(),
                postgres: OnceCell::new(),
            }),
            executor: Executor::start(limits.threads)?,
            admission: Admission::new(&limits),
            limits,
            workers,
            counters: Counters::default(),
        })
    }

    /// Lets queries run plugins over rows; before the first query.
    pub(crate) fn set_plugins(&mut self, plugins: Arc<dyn Plugins>) {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.catalog.set_plugins(plugins);
        }
    }

    pub(crate) fn limits(&self) -> &LimitsConfig {
        &self.limits
    }

    /// Answers that were given again, those that had to be made, and the bytes of what is kept.
    pub(crate) fn answers(&self) -> (u64, u64, u64) {
        let answers = &self.shared.answers;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&answers.hits), of(&answers.misses), answers.bytes())
    }

    /// Ranges of time whose groups were given again, and those whose groups had to be computed.
    pub(crate) fn ranges(&self) -> (u64, u64) {
        let answers = &self.shared.answers;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&answers.ranges_again), of(&answers.ranges_made))
    }

    /// What was read of cold files.
    pub(crate) fn reads(&self) -> Reads {
        self.shared.tables.reads()
    }

    /// What `/metrics` says of the workers, if there are any.
    pub(crate) fn worker_metrics(&self, text: &mut String) {
        if let Some(workers) = &self.workers {
            workers.metrics(text);
        }
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
            dialect: Dialect::Ours,
        };
        Ok(self.ask(who, question).await?.completeness)
    }

    /// Plans a query without running it. `declared` are the types that the client named for its parameters.
    pub(crate) async fn shape(
        &self,
        who: &Identity,
        sql: &str,
        dialect: Dialect,
        declared: Vec<Option<DataType>>,
    ) -> Result<Shape, QueryError> {
        let place = self.admission.admit(who.tenant()).await?;
        let deadline = Deadline::after(self.limits.timeout);
        let (shape_tx, shape) = oneshot::channel();
        let (shared, scope, sql) = (Arc::clone(&self.shared), catalog::scope(who), sql.to_owned());
        let _task = self.executor.spawn(async move {
            let planned = async {
                let pinned = pin(&shared).await?;
                let (ctx, plan) = plan(&shared, &pinned, scope, deadline.timeout, &sql, dialect).await?;
                match shape::of(&plan, &declared) {
                    Ok(shape) => Ok(shape),
                    Err(error) => Err(position::explain(&sql, error, &catalog::known(&ctx).await)),
                }
            };
            let planned = planned.await;
            drop(place);
            // nobody waits any more if this fails
            let _ = shape_tx.send(planned);
        });
        tokio::time::timeout_at(deadline.at, shape)
            .await
            .map_err(|_| deadline.over())?
            .map_err(|_| stopped())?
    }

    /// The tables that this identity can ask.
    pub(crate) async fn tables(&self, who: &Identity) -> Result<Vec<Table>, QueryError> {
        let _place = self.admission.admit(who.tenant()).await?;
        let pinned = pin(&self.shared).await?;
        let opened = |e| QueryError::new(Kind::Unavailable, "the tables cannot be opened now").because(e);
        let session = self
            .shared
            .catalog
            .session(&pinned, catalog::scope(who), self.limits.timeout)
            .await;
        catalog::tables(&session.map_err(opened)?).await.map_err(opened)
    }

    async fn start_query(&self, who: &Identity, question: Question) -> Result<Answer, QueryError> {
        let timeout = self.timeout(question.timeout)?;
        let allowed = match question.max_rows {
            Some(rows) if rows <= self.limits.max_rows => Allowed::Client(rows),
            _ => Allowed::Server(self.limits.max_rows),
        };
        let place = self.admission.admit(who.tenant()).await?;
        let deadline = Deadline::after(timeout);
        let (head_tx, head) = oneshot::channel();
        let (parts_tx, parts) = mpsc::channel(BATCHES_AHEAD);
        let shared = Arc::clone(&self.shared);
        let scope = catalog::scope(who);
        let task = self
            .executor
            .spawn(work(shared, place, deadline, scope, question, head_tx, parts_tx));
        let head = tokio::time::timeout_at(deadline.at, head)
            .await
            .map_err(|_| deadline.over())?
            .map_err(|_| stopped())??;
        Ok(Answer {
            schema: head.schema,
            completeness: head.completeness,
            from_stores: head.from_stores,
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
            Ok(None) if self.deadline.at <= tokio::time::Instant::now() => Some(Err(self.deadline.over())),
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
    fn after(timeout: Duration) -> Deadline {
        Deadline {
            at: tokio::time::Instant::now() + timeout,
            timeout,
        }
    }

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
    deadline: Deadline,
    scope: Scope,
    question: Question,
    head: oneshot::Sender<Result<Head, QueryError>>,
    parts: mpsc::Sender<Part>,
) {
    let began = Instant::now();
    let mut stream = match open(&shared, scope, deadline.timeout, &question).await {
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
        // A client that takes no more rows must not keep its place for ever.
        let sent = tokio::time::timeout_at(deadline.at, parts.send(part)).await;
        if last || !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    tracing::debug!(elapsed_ms = began.elapsed().as_millis() as u64, "query ended");
    drop(place);
}

async fn open(
    shared: &Shared,
    scope: Scope,
    time: Duration,
    question: &Question,
) -> Result<(Head, SendableRecordBatchStream), QueryError> {
    let now_ms = now_ms();
    let pinned = pin(shared).await?;
    let (ctx, plan) = plan(shared, &pinned, scope.clone(), time, &question.sql, question.dialect).await?;
    let from_stores = shape::reads_stores(&plan);
    let asked = Asked::of(&scope, question, &plan);
    let frame = DataFrame::new(ctx.state(), plan);
    let frame = match question.params.is_empty() {
        true => Ok(frame),
        false => frame.with_param_values(question.params.clone()),
    };
    let started = match frame {
        Ok(frame) => {
            let now_ns = now_ms.saturating_mul(NANOS_PER_MILLI);
            shared.answers.answer(&scope, asked, frame, now_ns).await
        }
        Err(error) => Err(error),
    };
    let stream = match started {
        Ok(stream) => stream,
        Err(error) => return Err(position::explain(&question.sql, error, &catalog::known(&ctx).await)),
    };
    let streams = shared.streams.get(&ctx, &scope).await;
    let head = Head {
        schema: stream.schema(),
        completeness: Statement::new(pinned.completeness(), streams, now_ms),
        from_stores,
    };
    Ok((head, stream))
}

async fn pin(shared: &Shared) -> Result<Pinned, QueryError> {
    let pinned = shared.tables.pin().await;
    pinned.map_err(|e| QueryError::new(Kind::Unavailable, "the stores cannot be read now").because(e))
}

/// Text to a plan that only reads, and the session that it was planned in.
async fn plan(
    shared: &Shared,
    pinned: &Pinned,
    scope: Scope,
    time: Duration,
    sql: &str,
    dialect: Dialect,
) -> Result<(SessionContext, LogicalPlan), QueryError> {
    let opened = |e| QueryError::new(Kind::Unavailable, "the tables cannot be opened now").because(e);
    let ctx = shared.catalog.session(pinned, scope, time).await.map_err(opened)?;
    function::register(&ctx, sql).await.map_err(opened)?;
    let (ctx, statement) = match dialect {
        Dialect::Ours => {
            let statement = guard::parse(sql, &ctx.state().config_options().sql_parser)?;
            (ctx, statement)
        }
        Dialect::Postgres => {
            let postgres = shared.postgres.get_or_try_init(|| PgCatalog::new(&ctx)).await;
            let postgres = postgres.map_err(opened)?;
            match postgres.parse(sql, &ctx)? {
                (statement, true) => (postgres.extend(&ctx).map_err(opened)?, statement),
                (statement, false) => (ctx, statement),
            }
        }
    };
    match checked(&ctx, statement).await? {
        Ok(plan) => Ok((ctx, plan)),
        Err(error) => Err(position::explain(sql, error, &catalog::known(&ctx).await)),
    }
}

/// The outer error is ours, the inner one the planner's.
async fn checked(
    ctx: &SessionContext,
    mut statement: Parsed,
) -> Result<Result<LogicalPlan, datafusion::error::DataFusionError>, QueryError> {
    functions::complete(&mut statement)?;
    match ctx.state().statement_to_plan(statement).await {
        Ok(plan) if depth::is_too_large(&plan) => Err(QueryError::new(
            Kind::Invalid,
            "written out, the query has too many steps",
        )
        .hint("a part that is named several times is computed each time: name it once, or ask in several queries")),
        Ok(plan) => Ok(catalog::options().verify_plan(&plan).map(|()| plan)),
        Err(error) => Ok(Err(error)),
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
