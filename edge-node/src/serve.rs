//! One listening socket with limits: connections, streams, header sizes, windows, silence. Shared by all doors, also by those of a process
//! that runs nodes behind doors of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What one connection may leave unread in our memory. Senders are near; this is several round trips of a fast network.
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const MAX_HEADER_BYTES: u32 = 16 << 10;
const MAX_HEADERS: usize = 100;
/// A peer that is silent for the sum of the two is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that is closed for its silence may finish what it began for so long.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound door that is not served yet.
#[derive(Debug)]
pub struct Door {
    pub(crate) name: &'static str,
    listener: TcpListener,
    address: SocketAddr,
}

/// How much one door takes at once.
#[derive(Clone, Copy, Debug)]
pub struct DoorLimits {
    pub connections: usize,
    pub streams: u32,
    /// From the connection to the whole head of its first request.
    pub first_request: Duration,
    /// Without a request, after the first.
    pub idle: Duration,
}

/// The certificate of a door as it is now; `None`: it speaks plain text.
pub type DoorTls = Option<watch::Receiver<Arc<ServerConfig>>>;

impl Door {
    pub async fn bind(name: &'static str, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            name,
            listener,
            address,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `shutdown`, then lets requests at work finish.
    pub async fn serve(self, router: Router, limits: DoorLimits, shutdown: CancellationToken) {
        self.serve_tls(router, limits, None, shutdown).await;
    }

    /// The same with a certificate, which may be exchanged while it serves.
    pub async fn serve_tls(self, router: Router, limits: DoorLimits, tls: DoorTls, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(limits.connections));
        let builder = Arc::new(builder(limits));
        let connections = TaskTracker::new();
        loop {
            // A slot first: what we have no room for waits in the kernel.
            let slot = tokio::select! {
                slot = slots.clone().acquire_owned() => slot,
                () = shutdown.cancelled() => break,
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (builder, router, shutdown) = (builder.clone(), router.clone(), shutdown.clone());
                    let tls = tls.as_ref().map(|tls| TlsAcceptor::from(tls.borrow().clone()));
                    let _ = stream.set_nodelay(true);
                    connections.spawn(async move {
                        let _slot = slot;
                        let Some(tls) = tls else {
                            return connection(&builder, stream, router, limits, shutdown).await;
                        };
                        match tokio::time::timeout(limits.first_request, tls.accept(stream)).await {
                            Ok(Ok(stream)) => connection(&builder, stream, router, limits, shutdown).await,
                            Ok(Err(error)) => tracing::debug!(%error, "handshake failed"),
                            Err(_) => tracing::debug!("handshake took too long"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(door = self.name, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }
}

fn builder(limits: DoorLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(MAX_HEADERS)
        .max_buf_size(64 << 10)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}

async fn connection(
    builder: &auto::Builder<TokioExecutor>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    limits: DoorLimits,
    shutdown: CancellationToken,
) {
    let activity = Arc::new(watch::Sender::new(Activity::default()));
    let service = Watched {
        inner: TowerToHyperService::new(router),
        activity: activity.clone(),
    };
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = silence(activity.subscribe(), limits) => {
            tracing::debug!("connection is closed, it sends no request");
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(CLOSE_GRACE, connection).await {
                Ok(result) => result,
                Err(_) => Ok(()),
            }
        }
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

/// What a connection does.
#[derive(Clone, Copy, Debug, Default)]
struct Activity {
    /// Requests that are worked on.
    at_work: usize,
    /// Whether there was ever one.
    seen: bool,
}

/// Returns when a connection has sent no request for as long as it may. Whether it answers pings does not count.
async fn silence(mut activity: watch::Receiver<Activity>, limits: DoorLimits) {
    loop {
        let now = *activity.borrow_and_update();
        let patience = match now {
            Activity {
                at_work: 0,
                seen: false,
            } => limits.first_request,
            Activity { at_work: 0, .. } => limits.idle,
            _ => Duration::MAX,
        };
        if tokio::time::timeout(patience, activity.changed()).await.is_err() {
            return;
        }
    }
}

/// Counts the requests of one connection.
#[derive(Clone)]
struct Watched {
    inner: TowerToHyperService<Router>,
    activity: Arc<watch::Sender<Activity>>,
}

impl Service<Request<Incoming>> for Watched {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let at_work = AtWork::new(self.activity.clone());
        let answer = self.inner.call(request);
        async move {
            let _at_work = at_work;
            answer.await
        }
        .boxed()
    }
}

/// One request at work.
struct AtWork(Arc<watch::Sender<Activity>>);

impl AtWork {
    fn new(activity: Arc<watch::Sender<Activity>>) -> Self {
        activity.send_modify(|now| {
            now.at_work += 1;
            now.seen = true;
        });
        Self(activity)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.send_modify(|now| now.at_work -= 1);
    }
}
