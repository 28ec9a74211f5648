//! Accepts connections up to a limit and drains them at the end; and what one connection of the HTTP door does.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::tls::Tls;

/// A client that has not sent its headers, or finished its handshake, by then is let go.
const HEADERS_WITHIN: Duration = Duration::from_secs(15);
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 32;
/// One HTTP/1 head at most.
const HEAD_BYTES: usize = 64 << 10;
/// After a failed accept (out of file descriptors, mostly) there is nothing to do but wait.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves HTTP until told to stop, then until the last answer is out or `drain` is over.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    app: Router,
    connections: usize,
    drain: Duration,
    shutdown: CancellationToken,
) {
    let stop = shutdown.clone();
    accept(listener, connections, drain, shutdown, move |stream| {
        connection(stream, tls.clone(), app.clone(), stop.clone())
    })
    .await;
}

/// Gives each connection to `handle` until told to stop, then waits until the last has ended or `drain` is over.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    connections: usize,
    drain: Duration,
    shutdown: CancellationToken,
    handle: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(connections));
    let tasks = TaskTracker::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => match next {
                Some(next) => next,
                None => break,
            },
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = handle(stream);
                tasks.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "connections still open at the end");
    }
}

async fn connection(stream: TcpStream, tls: Option<Tls>, app: Router, shutdown: CancellationToken) {
    // without it an answer's last bytes wait for the client's delayed acknowledgement
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return http(stream, app, shutdown).await;
    };
    match tokio::time::timeout(HEADERS_WITHIN, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => http(stream, app, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, "handshake failed"),
        Err(_) => tracing::debug!("handshake took too long"),
    }
}

async fn http<S>(stream: S, app: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Duration::from_secs(30));
    let heard = CancellationToken::new();
    let asked = heard.clone();
    let app = app.map_request(move |request| {
        asked.cancel();
        request
    });
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = is_silent(&heard) => {
            tracing::debug!("a connection without a request is closed");
            return;
        }
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Ends when nothing was asked for long enough: until a version of HTTP is known, no other clock counts.
async fn is_silent(heard: &CancellationToken) {
    if tokio::time::timeout(HEADERS_WITHIN, heard.cancelled()).await.is_ok() {
        std::future::pending().await
    }
}
