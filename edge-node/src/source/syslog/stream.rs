//! Syslog over TCP and TLS. A connection that brings more than is accepted is not read any further, until it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frame::Frames;
use super::queue::{Inlet, Sender};
use super::tls::Tls;
use crate::source::stats::SourceStats;

const READ_BYTES: usize = 16 << 10;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Senders may be silent for hours; a machine that is gone is noticed by the kernel.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// After `accept` failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pub(super) max_bytes: usize,
    pub(super) slots: Arc<Semaphore>,
    pub(super) open: Arc<AtomicU64>,
    pub(super) inlet: Inlet,
    pub(super) stats: Arc<SourceStats>,
}

/// Accepts until it is told to stop, and returns when the last connection has ended.
pub(super) async fn run(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    connections: Connections,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    loop {
        // A slot first: what we have no room for waits in the kernel.
        let slot = tokio::select! {
            slot = connections.slots.clone().acquire_owned() => slot,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let (connections, tls, stop) = (connections.clone(), tls.clone(), stop.clone());
                tasks.spawn(async move {
                    let _slot = slot;
                    let open = connections.open.fetch_add(1, Ordering::Relaxed) + 1;
                    connections.stats.gauge("connections", open);
                    connection(stream, from, tls, &connections, &stop).await;
                    let open = connections.open.fetch_sub(1, Ordering::Relaxed) - 1;
                    connections.stats.gauge("connections", open);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of syslog");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<Arc<Tls>>,
    connections: &Connections,
    stop: &CancellationToken,
) {
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 4);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keep_alive);
    let address = from.ip().to_canonical();
    let sender = Sender {
        transport: "tcp",
        is_tls: tls.is_some(),
        address,
    };
    let ended = match tls {
        None => read(stream, sender, connections, stop).await,
        Some(tls) => {
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream, &connections.stats)) => shaken,
                () = stop.cancelled() => return,
            };
            match shaken {
                Ok(Ok(stream)) => read(stream, sender, connections, stop).await,
                Ok(Err(error)) => {
                    connections.stats.refused("handshake", 1);
                    Err(error)
                }
                Err(_) => {
                    connections.stats.refused("handshake", 1);
                    Err(io::ErrorKind::TimedOut.into())
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%from, %error, "connection of syslog ended");
    }
}

async fn read(
    mut stream: impl AsyncRead + Unpin,
    sender: Sender,
    connections: &Connections,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut frames = Frames::new(connections.max_bytes);
    let mut bytes = BytesMut::new();
    loop {
        bytes.reserve(READ_BYTES);
        let read = tokio::select! {
            read = stream.read_buf(&mut bytes) => read,
            // What has come in is taken as if the sender had closed.
            () = stop.cancelled() => Ok(0),
        };
        let ended = !matches!(&read, Ok(1..));
        loop {
            match frames.next(&mut bytes, ended) {
                Ok(Some(frame)) => {
                    connections.stats.add("cut_messages", frame.is_cut.into());
                    if !connections.inlet.put(frame.message, frame.is_cut, sender).await {
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    connections.stats.refused("bad_frame", 1);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no frames of syslog"));
                }
            }
        }
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
}
