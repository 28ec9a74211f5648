//! The socket of the link. It counts what comes in, so that whoever knocks at a gateway knows whether anything answers, and remembers
//! where gateways were.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, TokioRuntime, UdpPoller};
use socket2::{Domain, Protocol, Socket as Unbound, Type};

use super::config::LinkError;

/// All connections of a link share it.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub(super) endpoint: Endpoint,
    heard: Arc<AtomicU64>,
    /// Addresses by what is configured; only of gateways that are.
    known: Arc<Mutex<HashMap<String, Vec<SocketAddr>>>>,
}

impl Socket {
    /// Both families where the machine has them.
    pub(super) fn bind() -> Result<Self, LinkError> {
        let socket = bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
            .or_else(|_| bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
            .map_err(LinkError::Bind)?;
        let runtime = Arc::new(TokioRuntime);
        let inner = runtime.wrap_udp_socket(socket).map_err(LinkError::Bind)?;
        let heard = Arc::default();
        let listening = Arc::new(Listening {
            inner,
            heard: Arc::clone(&heard),
        });
        let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, listening, runtime);
        Ok(Self {
            endpoint: endpoint.map_err(LinkError::Bind)?,
            heard,
            known: Arc::default(),
        })
    }

    /// What a gateway's name meant when it was last looked up.
    pub(super) fn known(&self, gateway: &str) -> Vec<SocketAddr> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(gateway).cloned().unwrap_or_default()
    }

    pub(super) fn remember(&self, gateway: &str, addresses: &[SocketAddr]) {
        if !addresses.is_empty() {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(gateway.to_owned(), addresses.to_vec());
        }
    }

    /// Datagrams that came in so far, whatever they were: at least so much comes through.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Unbound::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%error, "no gateway is reached over IPv4");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

struct Listening {
    inner: Arc<dyn AsyncUdpSocket>,
    heard: Arc<AtomicU64>,
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listening").field(&self.inner).finish()
    }
}

impl AsyncUdpSocket for Listening {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(cx, buffers, meta));
        if let Ok(count) = received {
            self.heard.fetch_add(count as u64, Ordering::Relaxed);
        }
        Poll::Ready(received)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
