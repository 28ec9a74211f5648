//! A worker: one listener, behind the secret, and the threads that compute.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use datafusion_distributed::Worker;
use http::StatusCode;
use sluice_store::Tables;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;

use super::at_work::Places;
use super::secret::Secret;
use super::session::Sessions;
use super::{MAX_PART_BYTES, THIS_BUILD};
use crate::config::QueryConfig;
use crate::executor::Executor;
use crate::listener;
use crate::memory::Room;
use crate::metrics;
use crate::service::{BuildError, RunError, bind};
use crate::tls::Tls;

/// How long parts that have begun may go on after the end was announced.
const DRAIN: Duration = Duration::from_secs(20);
/// Of a message with a part, beside the part.
const MESSAGE_BYTES: usize = 64 << 10;

/// A worker, bound and not yet serving.
#[derive(Debug)]
pub struct WorkerService {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    app: Router,
    connections: usize,
}

/// What its addresses share.
#[derive(Debug)]
struct Door {
    secret: Secret,
    places: Arc<Places>,
    executor: Executor,
    tables: Tables,
    open_metrics: bool,
    /// Requests without the secret.
    strangers: AtomicU64,
}

impl WorkerService {
    /// Binds, reads secret and certificate. `tables` say which lake is read; what hot they have does not matter.
    pub async fn build(config: QueryConfig, tables: Tables) -> Result<WorkerService, BuildError> {
        config.check("")?;
        let address = config.worker.listen;
        if !address.ip().is_loopback() && config.tls.is_none() && !config.insecure {
            return Err(BuildError::Insecure { address });
        }
        let secret = Secret::open(&config.scale.secret_file).map_err(super::PeerError::from)?;
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        let (listener, address) = bind("the door for query nodes", address).await?;
        Room::clear(&config.limits).map_err(|source| BuildError::Spill {
            path: config.limits.spill_dir.clone(),
            source,
        })?;
        let executor = Executor::start(config.limits.threads).map_err(BuildError::Threads)?;
        let threads = executor.threads();
        let places = Arc::new(Places::new(config.worker.parts));
        let sessions = Sessions::new(tables.codec(), &config.limits, Arc::clone(&places), threads);
        let door = Arc::new(Door {
            secret,
            places,
            executor,
            tables,
            open_metrics: address.ip().is_loopback(),
            strangers: AtomicU64::new(0),
        });
        Ok(WorkerService {
            listener,
            address,
            tls,
            app: app(door, sessions),
            connections: config.limits.connections,
        })
    }

    /// Every address that is bound, by name.
    pub fn listen(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![("worker", self.address)]
    }

    /// Serves until `shutdown`, then ends what has begun. SIGHUP reads the certificate again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let mut hangups = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
        let serving = listener::serve(
            self.listener,
            self.tls.clone(),
            self.app,
            self.connections,
            DRAIN,
            shutdown,
        );
        tokio::pin!(serving);
        loop {
            tokio::select! {
                () = &mut serving => return Ok(()),
                Some(()) = hangups.recv() => if let Some(Err(error)) = self.tls.as_ref().map(Tls::reload) {
                    tracing::error!(%error, "certificate stays as it was");
                },
            }
        }
    }
}

fn app(door: Arc<Door>, sessions: Sessions) -> Router {
    let worker = Worker::from_session_builder(sessions).with_version(THIS_BUILD);
    let server = worker
        .into_worker_server()
        .max_decoding_message_size(MAX_PART_BYTES + MESSAGE_BYTES);
    Routes::new(server)
        .into_axum_router()
        .layer(middleware::from_fn_with_state(Arc::clone(&door), compute))
        .layer(middleware::from_fn_with_state(Arc::clone(&door), only_with_secret))
        .merge(
            Router::new()
                .route("/healthz", get(|| async { "ok\n" }))
                .route("/metrics", get(metrics))
                .with_state(door),
        )
}

/// Nothing is even looked at without it.
async fn only_with_secret(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    match door.secret.is_shown(request.headers()) {
        true => next.run(request).await,
        false => {
            // Counted and not told: whoever reaches the port could fill the log.
            door.strangers.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("someone without the secret asked for work");
            Status::unauthenticated("a worker answers only those who show its secret").into_http()
        }
    }
}

/// Parts are computed on threads of their own, and what they make is only sent by those that serve.
async fn compute(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let (answer, answered) = oneshot::channel();
    let _task = door.executor.spawn(async move {
        // nobody waits any more if this fails
        let _ = answer.send(next.run(request).await);
    });
    let stopped = || Status::internal("the part stopped without an end").into_http();
    answered.await.unwrap_or_else(|_| stopped())
}

async fn metrics(State(door): State<Arc<Door>>, request: Request) -> Response {
    if !door.open_metrics && !door.secret.is_shown(request.headers()) {
        return (StatusCode::UNAUTHORIZED, "the secret is needed\n").into_response();
    }
    let places = &door.places;
    let totals = [
        (
            "sluice_query_worker_taken_total",
            "counter",
            "Parts of queries that this worker took.",
            places.taken.load(Ordering::Relaxed),
        ),
        (
            "sluice_query_worker_refused_total",
            "counter",
            "Parts of queries that it refused.",
            places.refused.load(Ordering::Relaxed),
        ),
        (
            "sluice_query_worker_strangers_total",
            "counter",
            "Requests that did not show the secret.",
            door.strangers.load(Ordering::Relaxed),
        ),
        (
            "sluice_query_worker_running",
            "gauge",
            "Parts of queries that it computes.",
            places.running() as u64,
        ),
    ];
    let mut text = String::new();
    metrics::write(&mut text, totals);
    metrics::write(&mut text, metrics::of_reads(&door.tables.reads()));
    metrics::page(text)
}
