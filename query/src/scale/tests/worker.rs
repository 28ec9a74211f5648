//! A worker that answers by the real protocol, and runs a step of a test's making, whatever part comes.

use std::fmt;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use datafusion_distributed::{
    DistributedExt, Worker, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse, WorkerQueryContext,
    WorkerSessionBuilder,
};
use futures::stream::BoxStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::super::Workers;
use super::super::at_work::{AtWorkExec, Places};
use super::schema;
use crate::config::ScaleConfig;
use crate::listener;
use crate::metered::METERED;

pub(super) type Rows = BoxStream<'static, Result<RecordBatch>>;
type Script = Arc<dyn Fn() -> Rows + Send + Sync>;

/// The only step of a part.
struct Scripted {
    script: Script,
    reads: usize,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

/// A worker that runs it, whatever part comes.
#[derive(Clone)]
pub(super) struct Breaks {
    script: Script,
    /// Without the head that says whether rows came to their end.
    headless: bool,
    reads: usize,
    places: Arc<Places>,
}

pub(super) struct Process {
    address: SocketAddr,
    breaks: Breaks,
    wire: Wire,
    runtime: Option<Runtime>,
}

/// What lies between a node and the worker. A process that is killed says nothing more; a runtime that ends drops one task after the other,
/// and those that are left might still say something.
#[derive(Clone, Default)]
struct Wire {
    cut: CancellationToken,
    carrying: TaskTracker,
}

impl Wire {
    async fn carry(self, from: TcpListener, to: SocketAddr) {
        while let Some(Ok((mut near, _))) = self.cut.run_until_cancelled(from.accept()).await {
            let cut = self.cut.clone();
            self.carrying.spawn(cut.run_until_cancelled_owned(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                // Who hangs up has said so by that.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }));
        }
    }

    async fn cut(&self) {
        self.cut.cancel();
        self.carrying.close();
        self.carrying.wait().await;
    }
}

fn bound() -> (StdListener, SocketAddr) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Breaks {
    pub(super) fn when(script: impl Fn() -> Rows + Send + Sync + 'static) -> Breaks {
        Breaks {
            script: Arc::new(script),
            headless: false,
            reads: 0,
            places: Arc::new(Places::new(64)),
        }
    }

    pub(super) fn headless(mut self) -> Breaks {
        self.headless = true;
        self
    }

    pub(super) fn reads(mut self, bytes: usize) -> Breaks {
        self.reads = bytes;
        self
    }

    pub(super) fn serve(self) -> Process {
        let ((near, address), (far, to)) = (bound(), bound());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = Worker::from_session_builder(self.clone()).into_worker_server();
        let app = Routes::new(server).into_axum_router();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(far).unwrap();
            listener::serve(listener, None, app, 64, Duration::ZERO, CancellationToken::new()).await;
        });
        let wire = Wire::default();
        let carried = wire.clone();
        let carry = async move { carried.carry(TcpListener::from_std(near).unwrap(), to).await };
        wire.carrying.spawn_on(carry, runtime.handle());
        Process {
            address,
            breaks: self,
            wire,
            runtime: Some(runtime),
        }
    }
}

#[async_trait]
impl WorkerSessionBuilder for Breaks {
    async fn build_session_state(&self, context: WorkerQueryContext) -> Result<SessionState> {
        let WorkerQueryContext { mut builder, .. } = context;
        let config = builder.config().take().unwrap_or_default();
        let breaks = self.clone();
        let config = config.with_distributed_worker_plan_rewrite_handler(
            move |_: WorkerPlanRewriteEvent<'_>| -> Result<WorkerPlanRewriteEventResponse> {
                let step: Arc<dyn ExecutionPlan> = Arc::new(Scripted::new(&breaks));
                let plan = match breaks.headless {
                    true => step,
                    false => Arc::new(AtWorkExec::new(step, Arc::clone(&breaks.places))),
                };
                Ok(WorkerPlanRewriteEventResponse::new(plan))
            },
        );
        Ok(builder.with_config(config).build())
    }
}

impl Process {
    pub(super) async fn kill(mut self) {
        self.wire.cut().await;
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub(super) fn workers(&self) -> Arc<Workers> {
        let folder = tempfile::tempdir().unwrap();
        let secret_file = folder.path().join("secret");
        std::fs::write(&secret_file, "0123456789abcdef0123456789abcdef").unwrap();
        let config = ScaleConfig {
            workers: vec![format!("http://{}", self.address)],
            secret_file,
            ..ScaleConfig::default()
        };
        Arc::new(Workers::open(&config, false, 1).unwrap().unwrap())
    }

    pub(super) fn taken(&self) -> u64 {
        self.breaks.places.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Scripted {
    fn new(breaks: &Breaks) -> Scripted {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Scripted {
            script: Arc::clone(&breaks.script),
            reads: breaks.reads,
            metrics: ExecutionPlanMetricsSet::new(),
            properties: Arc::new(properties),
        }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl DisplayAs for Scripted {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl ExecutionPlan for Scripted {
    fn name(&self) -> &str {
        "Scripted"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        MetricBuilder::new(&self.metrics)
            .counter(METERED, partition)
            .add(self.reads);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema(), (self.script)())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
