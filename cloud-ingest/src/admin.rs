//! What a monitor asks: health, readiness, metrics, status. One request for each connection, few connections at once.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::status::{IngestStatus, StatusHandle};

/// Monitors are few.
const MAX_CONNECTIONS: usize = 32;
/// From the connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How old a status may be: taking one asks the lake.
const MAX_AGE: Duration = Duration::from_secs(1);
/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound door that is not served yet.
#[derive(Debug)]
pub(crate) struct AdminDoor {
    listener: TcpListener,
    address: SocketAddr,
}

struct Asked {
    handle: StatusHandle,
    latest: Mutex<Option<(Instant, Arc<IngestStatus>)>>,
}

impl AdminDoor {
    /// Needs a running tokio runtime.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped.
    pub(crate) async fn serve(self, handle: StatusHandle) {
        let asked = Arc::new(Asked {
            handle,
            latest: Mutex::default(),
        });
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // What there is no room for waits in the kernel.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let asked = Arc::clone(&asked);
                    connections.spawn(async move {
                        let _slot = slot;
                        // Whoever is slower has lost its answer.
                        drop(tokio::time::timeout(PATIENCE, connection(stream, asked)).await);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of a monitor");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, asked: Arc<Asked>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let asked = Arc::clone(&asked);
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &asked).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection of a monitor ended");
    }
}

async fn answer(method: &Method, path: &str, asked: &Asked) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if method != Method::GET && method != Method::HEAD {
        return page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
    }
    match path {
        "/healthz" => page(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => match asked.status().await.log_trouble.clone() {
            None => page(StatusCode::OK, TEXT, "ready\n".to_owned()),
            Some(trouble) => page(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                format!("the log cannot be used: {trouble}\n"),
            ),
        },
        "/metrics" => page(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            asked.status().await.metrics(),
        ),
        "/v1/status" => match serde_json::to_string(&*asked.status().await) {
            Ok(text) => page(StatusCode::OK, "application/json", text),
            Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
        },
        _ => page(StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()),
    }
}

impl Asked {
    async fn status(&self) -> Arc<IngestStatus> {
        let mut latest = self.latest.lock().await;
        if let Some((at, status)) = &*latest
            && at.elapsed() < MAX_AGE
        {
            return Arc::clone(status);
        }
        let status = Arc::new(self.handle.snapshot().await);
        *latest = Some((Instant::now(), Arc::clone(&status)));
        status
    }
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
