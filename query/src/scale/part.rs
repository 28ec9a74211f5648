//! One part of a query: computed by its worker, and by this node when that gave no row of it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow_flight::error::FlightError;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion_distributed::{
    CoordinatorToWorkerMsg, ExecuteTaskRequest, MaybeEncoded, ProducerHead, SetPlanRequest, TaskKey, TaskMetrics,
    WorkerChannel, WorkerToCoordinatorMsg,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, future};
use http::{HeaderMap, HeaderValue};
use tokio::sync::oneshot;
use tonic::{Code, Status};
use uuid::Uuid;

use super::at_work::ENDED;
use super::out::{Out, Unwanted};
use super::peers::{Outcome, Peer};
use super::spread::Part;
use super::{BUILD, MAX_PART_BYTES, MAX_SCAN, THIS_BUILD, Workers};
use crate::error::WorkerLost;
use crate::metered::{METERED, Meter};

/// A worker that has not taken a part by then is lost.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// And one that has not said by then what it did.
const REPORTED_WITHIN: Duration = Duration::from_secs(10);

/// One part that runs.
pub(super) struct Running {
    part: Part,
    peer: Arc<Peer>,
    headers: HeaderMap,
    meter: Option<Arc<Meter>>,
    schema: SchemaRef,
    context: Arc<TaskContext>,
    counted: Counted,
    /// Where the worker's client counts what it does.
    wire: ExecutionPlanMetricsSet,
}

/// What EXPLAIN ANALYZE says of it.
struct Counted {
    there: Count,
    here: Count,
    rows: Count,
    read: Count,
}

/// Why the worker's part did not become whole.
enum Failed {
    /// Nobody wants the rows any more.
    Unwanted,
    /// The query read more than it may, wherever it runs.
    Limit(DataFusionError),
    /// It was not asked.
    NotSent(String),
    /// The worker cannot be talked to.
    Gone(String),
    /// It can, and is of another build, lake or secret.
    Unfit(String),
    /// It is one of ours, and did not do it.
    Refused(String),
    /// It began, and came to this.
    Ended(DataFusionError),
}

impl Running {
    pub(super) fn new(
        part: Part,
        workers: &Workers,
        meter: Option<Arc<Meter>>,
        metrics: &ExecutionPlanMetricsSet,
        partition: usize,
        (schema, context): (SchemaRef, Arc<TaskContext>),
    ) -> Running {
        let mut headers = HeaderMap::new();
        workers.secret.show(&mut headers);
        headers.insert(MAX_SCAN, HeaderValue::from(workers.max_scan));
        headers.insert(BUILD, HeaderValue::from_static(THIS_BUILD));
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        Running {
            peer: Arc::clone(workers.peer(part.peer)),
            part,
            headers,
            meter,
            schema,
            context,
            counted: Counted {
                there: count("on_workers"),
                here: count("here_instead"),
                rows: MetricBuilder::new(metrics).output_rows(partition),
                read: count("bytes_read_by_workers"),
            },
            wire: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Gives all rows of the part to `out`.
    pub(super) async fn run(self, mut out: Out) -> Result<()> {
        let mut given = 0;
        // Whoever waited for a place could hold what others wait for.
        let Some(place) = self.peer.place() else {
            return self.here(&mut out, "it has enough of this node's work", "").await;
        };
        let done = self.there(&mut out, &mut given).await;
        match &done {
            Err(Failed::Unwanted | Failed::NotSent(_)) => {}
            Err(Failed::Gone(_)) => self.peer.is_gone(),
            Err(Failed::Unfit(why)) => {
                if self.peer.is_unfit() {
                    tracing::warn!(worker = self.peer.name, why, "a worker is none of this node's");
                }
            }
            Ok(()) | Err(Failed::Limit(_) | Failed::Refused(_) | Failed::Ended(_)) => self.peer.answered(),
        }
        drop(place);
        let (kind, why) = match done {
            Ok(()) => {
                self.peer.count(Outcome::There);
                self.counted.there.add(1);
                return Ok(());
            }
            Err(Failed::Unwanted) => return Ok(()),
            Err(Failed::Limit(error)) => return Err(error),
            Err(Failed::Ended(error)) if given > 0 => return Err(error),
            Err(Failed::Ended(error)) => ("it could not compute it", error.to_string()),
            Err(Failed::NotSent(why)) => ("it cannot be sent", why),
            Err(Failed::Gone(why)) => ("it cannot be reached", why),
            Err(Failed::Unfit(why)) => ("it is none of this node's", why),
            Err(Failed::Refused(why)) => ("it did not do it", why),
        };
        if given == 0 {
            return self.here(&mut out, kind, &why).await;
        }
        self.peer.count(Outcome::Lost);
        tracing::warn!(worker = self.peer.name, kind, "a worker was lost while it answered");
        tracing::debug!(worker = self.peer.name, why);
        Err(DataFusionError::External(Box::new(WorkerLost)))
    }

    /// `why` may name values of rows, which the log of a node should not.
    async fn here(&self, out: &mut Out, kind: &str, why: &str) -> Result<()> {
        tracing::info!(worker = self.peer.name, kind, "a part of a query runs here instead");
        tracing::debug!(worker = self.peer.name, why);
        self.peer.count(Outcome::Here);
        self.counted.here.add(1);
        let mut rows = self.part.here.execute(0, Arc::clone(&self.context))?;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            self.counted.rows.add(batch.num_rows());
            if out.give(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// `given`: rows that were passed on.
    async fn there(&self, out: &mut Out, given: &mut usize) -> Result<(), Failed> {
        let task_key = TaskKey {
            query_id: Uuid::new_v4(),
            stage_id: 0,
            task_number: 0,
        };
        let plan = MaybeEncoded::Decoded(Arc::clone(&self.part.there)).encode(&self.context);
        let plan = plan.map_err(|error| Failed::NotSent(error.to_string()))?;
        if plan.len() > MAX_PART_BYTES {
            return Err(Failed::NotSent(format!(
                "its plan takes {} bytes, and workers take {MAX_PART_BYTES}",
                plan.len()
            )));
        }
        let request = SetPlanRequest {
            task_key,
            task_count: 1,
            plan: MaybeEncoded::Encoded(plan),
            work_unit_feed_declarations: Vec::new(),
            target_worker_url: self.peer.url.clone(),
            query_start_time_ns: 0,
        };
        let mut client = self.peer.client();
        // The worker keeps the task until this is dropped, here or with the query.
        let (whole, until) = oneshot::channel::<()>();
        let taken = client.coordinator_channel(
            self.headers.clone(),
            request,
            nothing_until(until),
            self.wire.clone(),
            &self.context,
        );
        let told = tokio::time::timeout(TAKEN_WITHIN, taken).await;
        let told = told.map_err(|_| Failed::Gone("it did not take the part in time".into()))??;
        let passed = self.pass_on(client, task_key, out, given).await;
        if let Err(Failed::Unwanted | Failed::Gone(_) | Failed::Unfit(_)) = passed {
            return passed;
        }
        drop(whole);
        let report = tokio::time::timeout(REPORTED_WITHIN, report(told)).await;
        let report = report.unwrap_or_else(|_| Err(Failed::Gone("it did not say in time what it did".into())));
        // What was read counts, whatever came of it.
        if let Ok(report) = &report {
            self.count_read(report)?;
        }
        passed?;
        whole_of(&report?, *given).map_err(Failed::Refused)
    }

    /// The rows, as long as they come.
    async fn pass_on(
        &self,
        mut client: Box<dyn WorkerChannel>,
        task_key: TaskKey,
        out: &mut Out,
        given: &mut usize,
    ) -> Result<(), Failed> {
        let request = ExecuteTaskRequest {
            task_key,
            target_partition_start: 0,
            target_partition_end: 1,
            producer_head: ProducerHead::None,
        };
        let streams = client.execute_task(self.headers.clone(), request, self.wire.clone(), &self.context);
        let mut rows = stream::iter(streams.await?).flatten();
        while let Some(batch) = rows.next().await {
            let batch = self.as_planned(batch?)?;
            *given += batch.num_rows();
            self.counted.rows.add(batch.num_rows());
            out.give(batch).await.map_err(|Unwanted| Failed::Unwanted)?;
        }
        Ok(())
    }

    /// The rows as this plan has them, and nothing else.
    fn as_planned(&self, batch: RecordBatch) -> Result<RecordBatch, Failed> {
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), batch.columns().to_vec(), &rows)
            .map_err(|error| Failed::Refused(format!("its rows are of other columns: {error}")))
    }

    /// What the worker read is of this query. Fails when that is too much.
    fn count_read(&self, report: &TaskMetrics) -> Result<(), Failed> {
        let steps = &report.pre_order_plan_metrics;
        let read = steps.iter().filter_map(|step| step.sum_by_name(METERED));
        let read: u64 = read.map(|bytes| bytes.as_usize() as u64).sum();
        self.peer.has_read(read);
        self.counted.read.add(usize::try_from(read).unwrap_or(usize::MAX));
        match &self.meter {
            Some(meter) => meter.add(read).map_err(Failed::Limit),
            None => Ok(()),
        }
    }
}

/// Whether the rows came to their end, and all of them here. What a report does not say is not so.
fn whole_of(report: &TaskMetrics, given: usize) -> Result<(), String> {
    let head = report.pre_order_plan_metrics.first();
    let ended = head.and_then(|head| head.sum_by_name(ENDED));
    if ended.map(|times| times.as_usize()) != Some(1) {
        return Err("its rows stopped, and did not end".into());
    }
    match head.and_then(MetricsSet::output_rows) {
        Some(made) if made == given => Ok(()),
        Some(made) => Err(format!("it made {made} rows, and {given} came")),
        None => Err("it did not say how many rows it made".into()),
    }
}

impl From<DataFusionError> for Failed {
    fn from(error: DataFusionError) -> Failed {
        match error.find_root() {
            DataFusionError::External(cause) => match cause.downcast_ref::<Status>() {
                Some(status) => status.into(),
                None if cause.is::<FlightError>() => Failed::Refused(error.to_string()),
                None => Failed::Ended(error),
            },
            // What a worker says of builds and tables, and nothing that a query could bring about.
            DataFusionError::Configuration(_) => Failed::Unfit(error.to_string()),
            _ => Failed::Ended(error),
        }
    }
}

impl From<&Status> for Failed {
    /// A query that breaks its part must not take the worker from others.
    fn from(status: &Status) -> Failed {
        let why = status.to_string();
        // What happened to the connection has a cause; what the worker says has none here.
        let is_broken = std::error::Error::source(status).is_some();
        match status.code() {
            Code::Unauthenticated => Failed::Unfit(why),
            Code::Unavailable | Code::DeadlineExceeded => Failed::Gone(why),
            Code::Cancelled => Failed::Refused(why),
            _ if is_broken => Failed::Gone(why),
            _ => Failed::Refused(why),
        }
    }
}

/// What tells the worker that the part goes on.
fn nothing_until(end: oneshot::Receiver<()>) -> BoxStream<'static, CoordinatorToWorkerMsg> {
    stream::once(end).filter_map(|_| future::ready(None)).boxed()
}

/// What the worker says at the end. Without it, the rows stopped but did not end.
async fn report(mut told: BoxStream<'static, Result<WorkerToCoordinatorMsg>>) -> Result<TaskMetrics, Failed> {
    while let Some(message) = told.next().await {
        if let WorkerToCoordinatorMsg::TaskMetrics(report) = message? {
            return Ok(report);
        }
    }
    Err(Failed::Gone("it went without saying what it did".into()))
}
