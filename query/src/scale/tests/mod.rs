//! Workers that break, each in its own way: what a node takes for a part is whole, and no other query suffers. The protocol is the real
//! one; the step that the worker runs is of this test's making.
#![allow(clippy::unwrap_used)]

mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{BinaryArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::common::Result;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, collect, common};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_distributed::{DistributedConfig, DistributedExt};
use futures::StreamExt;
use futures::stream;
use tokio::sync::Notify;

use self::worker::Breaks;
use super::peers::PLACES;
use super::spread::Part;
use super::{ColdOnWorkers, MAX_PART_BYTES, Workers};
use crate::error::{Kind, QueryError, WorkerLost};
use crate::metered::Meter;

/// A test that hangs has failed.
const HANGS: Duration = Duration::from_secs(120);

/// What became of a part.
#[derive(Debug, PartialEq)]
enum Came {
    There,
    Here,
    Lost,
    Failed(Kind),
}

fn batch(byte: u8) -> RecordBatch {
    let column = BinaryArray::from_iter_values([[byte]; 3]);
    RecordBatch::try_from_iter([("b", Arc::new(column) as _)]).unwrap()
}

fn schema() -> SchemaRef {
    batch(0).schema()
}

const THEIRS: u8 = 1;
const OURS: u8 = 2;

fn part(workers: &Arc<Workers>) -> ColdOnWorkers {
    part_of(workers, Arc::new(EmptyExec::new(schema())))
}

fn part_of(workers: &Arc<Workers>, there: Arc<dyn ExecutionPlan>) -> ColdOnWorkers {
    let here: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[vec![batch(OURS)]], schema(), None).unwrap();
    let part = Part {
        peer: 0,
        files: 1,
        there,
        here: Arc::clone(&here),
    };
    ColdOnWorkers::new(Arc::clone(workers), vec![part], here.as_ref())
}

fn context() -> Arc<TaskContext> {
    let mut distributed = DistributedConfig::default();
    distributed.worker_connection_buffer_budget_bytes = 1 << 20;
    let config = SessionConfig::new().with_distributed_option_extension(distributed);
    SessionContext::new_with_config(config).task_ctx()
}

async fn came(step: ColdOnWorkers) -> Came {
    let rows = tokio::time::timeout(HANGS, collect(Arc::new(step), context()));
    match rows.await.expect("it hangs") {
        Ok(rows) if rows == [batch(OURS)] => Came::Here,
        Ok(rows) => {
            let all: usize = rows.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(all, 2 * batch(0).num_rows(), "a part of the part: {rows:?}");
            assert!(rows.iter().all(|rows| *rows == batch(THEIRS)), "{rows:?}");
            Came::There
        }
        Err(error) => failed(error),
    }
}

fn failed(error: DataFusionError) -> Came {
    match error.find_root() {
        DataFusionError::External(cause) if cause.is::<WorkerLost>() => Came::Lost,
        _ => Came::Failed(QueryError::of_execution(error).kind),
    }
}

/// Two batches, and what comes instead of the first or the second.
fn instead_of(at: usize, what: impl Fn() -> Result<RecordBatch> + Clone + Send + Sync + 'static) -> Breaks {
    Breaks::when(move || {
        let what = what.clone();
        stream::iter(0..=at)
            .map(move |turn| if turn == at { what() } else { Ok(batch(THEIRS)) })
            .boxed()
    })
}

fn panics() -> Result<RecordBatch> {
    panic!("a step of a worker panics, as this test wants it");
}

fn divides_by_zero() -> Result<RecordBatch> {
    Err(DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None))
}

fn has_no_room() -> Result<RecordBatch> {
    let said = "all queries together need more memory than `limits.total_memory` allows, which is 7 bytes";
    Err(DataFusionError::ResourcesExhausted(said.into()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_breaks_is_computed_here_or_an_error_and_never_short() {
    let ends = || Breaks::when(|| stream::iter([Ok(batch(THEIRS)), Ok(batch(THEIRS))]).boxed());
    let none = || Breaks::when(|| stream::empty().boxed());
    let cases = [
        ("gives all", ends(), Came::There),
        ("panics before the first row", instead_of(0, panics), Came::Here),
        ("panics after it", instead_of(1, panics), Came::Failed(Kind::Internal)),
        // As the library serves it: the rows stop.
        ("panics unseen before it", instead_of(0, panics).headless(), Came::Here),
        ("panics unseen after it", instead_of(1, panics).headless(), Came::Lost),
        ("says nothing of its end", ends().headless(), Came::Lost),
        ("says nothing at all", none().headless(), Came::Here),
        ("divides by zero at once", instead_of(0, divides_by_zero), Came::Here),
        (
            "divides later",
            instead_of(1, divides_by_zero),
            Came::Failed(Kind::Execution),
        ),
        ("has no room", instead_of(0, has_no_room), Came::Here),
        (
            "has no more room",
            instead_of(1, has_no_room),
            Came::Failed(Kind::MemoryLimit),
        ),
    ];
    for (name, breaks, expected) in cases {
        let process = breaks.serve();
        let workers = process.workers();
        assert_eq!(came(part(&workers)).await, expected, "{name}");
        assert_eq!(workers.present().len(), 1, "{name}: others still have it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_before_its_first_row_is_done_without_and_later_it_is_an_error() {
    for after in [0, 1] {
        let begun = Arc::new(Notify::new());
        let script = {
            let begun = Arc::clone(&begun);
            move || {
                begun.notify_one();
                stream::iter(0..after)
                    .map(|_| Ok(batch(THEIRS)))
                    .chain(stream::pending())
                    .boxed()
            }
        };
        let process = Breaks::when(script).serve();
        let workers = process.workers();
        let mut rows = part(&workers).execute(0, context()).unwrap();
        begun.notified().await;
        for _ in 0..after {
            assert_eq!(rows.next().await.unwrap().unwrap(), batch(THEIRS));
        }
        process.kill().await;
        let rest = tokio::time::timeout(HANGS, common::collect(rows))
            .await
            .expect("it hangs");
        match after {
            0 => assert_eq!(rest.unwrap(), [batch(OURS)]),
            _ => assert_eq!(failed(rest.unwrap_err()), Came::Lost),
        }
        assert!(workers.present().is_empty(), "nobody is sent to it now");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_read_counts_also_when_it_failed_and_only_this_nodes_limit_is_final() {
    for (read, expected) in [(50, Came::Here), (200, Came::Failed(Kind::ScanLimit))] {
        let process = instead_of(0, || {
            let said = "the query reads more than `limits.max_scan` allows, which is 40 bytes";
            Err(DataFusionError::ResourcesExhausted(said.into()))
        });
        let process = process.reads(read).serve();
        let workers = process.workers();
        let step = part(&workers).metered(Arc::new(Meter::new(100)));
        assert_eq!(came(step).await, expected, "{read} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_too_large_to_send_is_not_sent() {
    let process = Breaks::when(|| stream::empty().boxed()).serve();
    let workers = process.workers();
    let text = lit("x".repeat(MAX_PART_BYTES + 1));
    let large = ProjectionExec::try_new([(text, "b".to_owned())], Arc::new(EmptyExec::new(schema()))).unwrap();
    assert_eq!(came(part_of(&workers, Arc::new(large))).await, Came::Here);
    assert_eq!(process.taken(), 0);
    assert_eq!(workers.present().len(), 1, "others still have it");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_nobody_reads_leave_room_for_one_that_somebody_does() {
    const MIB: usize = 1 << 20;
    // What does not compress.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let bytes: Vec<u8> = (0..MIB / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    let column = BinaryArray::from_iter_values([bytes]);
    let large = RecordBatch::try_from_iter([("b", Arc::new(column) as _)]).unwrap();
    let (begun, made) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let process = {
        let (begun, made) = (Arc::clone(&begun), Arc::clone(&made));
        Breaks::when(move || {
            begun.fetch_add(1, Ordering::Relaxed);
            let (large, made) = (large.clone(), Arc::clone(&made));
            stream::repeat_with(move || {
                made.fetch_add(1, Ordering::Relaxed);
                Ok(large.clone())
            })
            .boxed()
        })
    };
    let process = process.serve();
    let workers = process.workers();
    let work = async {
        let unread: Vec<_> = (1..PLACES)
            .map(|_| part(&workers).execute(0, context()).unwrap())
            .collect();
        // Each of them fills what is between it and its reader: at least two batches there, three here and one on the way.
        while made.load(Ordering::Relaxed) < 6 * unread.len() as u64 {
            tokio::task::yield_now().await;
        }
        let mut read = part(&workers).execute(0, context()).unwrap();
        for _ in 0..40 {
            assert!(read.next().await.unwrap().is_ok());
        }
        assert_eq!(begun.load(Ordering::Relaxed), PLACES, "all of them are there");
        drop(unread);
    };
    tokio::time::timeout(HANGS, work).await.expect("it hangs");
}
