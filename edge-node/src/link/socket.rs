//! The socket of the link. It hears nobody but gateways, counts what goes and comes, for the budget and for whoever tries to reach a
//! gateway and wants to know whether anything answers, and remembers where gateways were.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, TokioRuntime, UdpPoller};
use socket2::{Domain, Protocol, Socket as Unbound, Type};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::config::LinkError;

/// IP and UDP headers of a datagram; IPv6 has 20 more.
const HEADER_BYTES: u64 = 28;
/// Of a knock. What is answered to it is shorter, and has at least 22.
const KNOCK_BYTES: usize = 41;
/// Addresses that may be heard. Names of gateways move; who was asked first is forgotten first.
const MAX_EXPECTED: usize = 256;
/// The first bit of what belongs to a handshake.
const LONG_HEADER: u8 = 0x80;

/// All connections of a link share it.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub(super) endpoint: Endpoint,
    counted: Arc<Counted>,
    /// By what is configured; only of gateways that are.
    known: Arc<Mutex<HashMap<String, Known>>>,
}

/// What is remembered of a gateway.
#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// When a handshake was begun with it last, after long silence.
    tried: Option<Instant>,
    /// The same, as it had answered a knock.
    followed: Option<Instant>,
}

/// Whether it is so long ago; it is now then.
fn begin(last: &mut Option<Instant>, every: Duration) -> bool {
    let may = last.is_none_or(|last| last.elapsed() >= every);
    if may {
        *last = Some(Instant::now());
    }
    may
}

impl Socket {
    /// Both families where the machine has them.
    pub(super) fn bind() -> Result<Self, LinkError> {
        let socket = bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
            .or_else(|_| bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
            .map_err(LinkError::Bind)?;
        let runtime = Arc::new(TokioRuntime);
        let counted = Arc::new(Counted::new(socket, &runtime).map_err(LinkError::Bind)?);
        let socket = Arc::clone(&counted) as Arc<dyn AsyncUdpSocket>;
        let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, runtime);
        Ok(Self {
            endpoint: endpoint.map_err(LinkError::Bind)?,
            counted,
            known: Arc::default(),
        })
    }

    /// What a gateway's name meant when it was last looked up.
    pub(super) fn known(&self, gateway: &str) -> Vec<SocketAddr> {
        self.of(gateway, |known| known.addresses.clone())
    }

    pub(super) fn remember(&self, gateway: &str, addresses: &[SocketAddr]) {
        if !addresses.is_empty() {
            self.of(gateway, |known| known.addresses = addresses.to_vec());
        }
    }

    /// Whether a handshake may be begun with the gateway, unasked; it is begun then.
    pub(super) fn may_try(&self, gateway: &str, every: Duration) -> bool {
        self.of(gateway, |known| begin(&mut known.tried, every))
    }

    /// The same, as the gateway has answered a knock.
    pub(super) fn may_follow(&self, gateway: &str, every: Duration) -> bool {
        self.of(gateway, |known| {
            let may = begin(&mut known.followed, every);
            if may {
                known.tried = known.followed;
            }
            may
        })
    }

    fn of<T>(&self, gateway: &str, what: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        what(known.entry(gateway.to_owned()).or_default())
    }

    /// From now on what comes from here is heard.
    pub(super) fn expect(&self, address: SocketAddr) {
        let who = who(address);
        let known = self.counted.expected.read();
        if known.unwrap_or_else(PoisonError::into_inner).contains(&who) {
            return;
        }
        let mut expected = self.counted.expected.write().unwrap_or_else(PoisonError::into_inner);
        if expected.len() >= MAX_EXPECTED {
            expected.remove(0);
        }
        expected.push(who);
    }

    /// Packets of handshakes that gateways sent so far.
    pub(super) fn heard(&self) -> u64 {
        self.counted.heard.load(Ordering::Relaxed)
    }

    /// All others: without a connection, answers to knocks.
    pub(super) fn answers(&self) -> u64 {
        self.counted.answers.load(Ordering::Relaxed)
    }

    /// A connection begins or ends.
    pub(super) fn handle_connection(&self, begins: bool) {
        self.counted.is_connected.store(begins, Ordering::Relaxed);
        self.counted.alive();
    }

    /// How long there has been no connection, and no gateway that wanted one.
    pub(super) fn silence(&self) -> Duration {
        if self.counted.is_connected.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.counted.last_ms.load(Ordering::Relaxed));
        self.counted.begun.elapsed().saturating_sub(last)
    }

    /// Until something comes in, from now on.
    pub(super) fn sound(&self) -> Notified<'_> {
        self.counted.sound.notified()
    }

    /// Bytes on the wire so far, both ways, with the headers of their datagrams.
    pub(super) fn wire_bytes(&self) -> u64 {
        self.counted.wire_bytes.load(Ordering::Relaxed)
    }

    /// Asks whether a gateway is there: what looks like a packet of a connection that it does not know it answers with the few bytes
    /// of a stateless reset (RFC 9000, 10.3). Of a handshake the first packets alone have thirty times as many.
    pub(super) fn knock(&self, address: SocketAddr) {
        if !self.reaches(address) {
            return;
        }
        self.expect(address);
        let mut packet: [u8; KNOCK_BYTES] = rand::random();
        // A short header; the rest of it, the connection's number included, is random in any.
        packet[0] = packet[0] & 0x3f | 0x40;
        let mapped = |address: SocketAddr| match address {
            SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
            v6 => v6,
        };
        let knock = Transmit {
            destination: if self.is_v6() { mapped(address) } else { address },
            ecn: None,
            contents: &packet,
            segment_size: None,
            src_ip: None,
        };
        if let Err(error) = self.counted.try_send(&knock) {
            tracing::trace!(%address, %error, "no knock");
        }
    }

    /// Whether anything can be sent there at all.
    pub(super) fn reaches(&self, address: SocketAddr) -> bool {
        address.port() != 0 && !address.ip().is_unspecified() && (address.is_ipv4() || self.is_v6())
    }

    fn is_v6(&self) -> bool {
        self.counted.local_addr().is_ok_and(|local| local.is_ipv6())
    }
}

/// The same for a packet that comes as for one that goes, on a socket of both families.
fn who(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
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

struct Counted {
    inner: Arc<dyn AsyncUdpSocket>,
    /// The same socket once more. What `inner` could not send it says was sent.
    out: UdpSocket,
    out_state: UdpSocketState,
    expected: RwLock<Vec<(IpAddr, u16)>>,
    begun: Instant,
    /// When there was a connection last, or someone who wanted one, since it was begun.
    last_ms: AtomicU64,
    is_connected: AtomicBool,
    heard: AtomicU64,
    answers: AtomicU64,
    wire_bytes: AtomicU64,
    sound: Notify,
}

impl Counted {
    fn new(socket: UdpSocket, runtime: &TokioRuntime) -> io::Result<Self> {
        let out = socket.try_clone()?;
        Ok(Self {
            out_state: UdpSocketState::new((&out).into())?,
            out,
            inner: runtime.wrap_udp_socket(socket)?,
            expected: RwLock::default(),
            begun: Instant::now(),
            last_ms: AtomicU64::new(0),
            is_connected: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            wire_bytes: AtomicU64::new(0),
            sound: Notify::new(),
        })
    }

    fn alive(&self) {
        self.last_ms
            .store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Nobody else can use up a budget or keep a node awake. Whether anything came from a gateway.
    fn hear(&self, buffers: &[IoSliceMut<'_>], meta: &mut [RecvMeta]) -> bool {
        let expected = self.expected.read().unwrap_or_else(PoisonError::into_inner);
        let mut any = false;
        for (meta, buffer) in meta.iter_mut().zip(buffers) {
            if !expected.contains(&who(meta.addr)) {
                // What is empty nobody answers.
                meta.len = 0;
                continue;
            }
            any = true;
            self.count(meta.len, meta.stride);
            let is_handshake = meta.len > 0 && buffer.first().is_some_and(|first| first & LONG_HEADER != 0);
            if is_handshake {
                self.alive();
                self.heard.fetch_add(1, Ordering::Relaxed);
            } else {
                self.answers.fetch_add(1, Ordering::Relaxed);
            }
        }
        any
    }

    /// Bytes that may be several datagrams, all but the last as long as this.
    fn count(&self, bytes: usize, each: usize) {
        let datagrams = bytes.div_ceil(each.max(1)).max(1);
        let bytes = bytes as u64 + HEADER_BYTES * datagrams as u64;
        self.wire_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counted").field(&self.inner).finish()
    }
}

impl AsyncUdpSocket for Counted {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.out_state.try_send((&self.out).into(), transmit) {
            Ok(()) => {}
            // It knows how to wait until there is room again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.inner.try_send(transmit)?,
            Err(error) => {
                // As if it were lost on the way, which it may be anywhere.
                tracing::trace!(to = %transmit.destination, %error, "not sent");
                return Ok(());
            }
        }
        let bytes = transmit.contents.len();
        self.count(bytes, transmit.segment_size.unwrap_or(bytes));
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(cx, buffers, meta));
        if let Ok(count) = received
            && self.hear(buffers, &mut meta[..count])
        {
            self.sound.notify_waiters();
        }
        Poll::Ready(received)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.out_state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
