//! One connection: how it is made, what of its end is a refusal, what its control stream says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, IdleTimeout, TransportConfig, VarInt};
use sluice_wire::session::frame::{Frame, Hello, RefusedCode};
use tokio::sync::mpsc;

use super::config::LinkConfig;
use super::congestion::BoundedQueue;
use super::credentials::Credentials;
use super::socket::Socket;

/// Of the addresses of a name, so many are tried in one attempt.
const MAX_ADDRESSES: usize = 4;
/// Between the starts of two of them, as RFC 8305 has it: one family that leads nowhere costs no more.
const STAGGER: Duration = Duration::from_millis(250);
/// How often they are tried in one attempt while nothing answers; far beyond what a time to connect leaves room for.
const MAX_ROUNDS: usize = 16;
/// After long silence a handshake is begun so often also with a gateway that answers no knock: what stands before it may let none pass.
const UNASKED_EVERY: Duration = Duration::from_secs(60);
/// An answered knock is followed by a handshake no more often than this, as there are ways that only small packets pass.
const FOLLOWED_EVERY: Duration = Duration::from_secs(30);

/// Why there is no connection, or no more.
#[derive(Debug)]
pub(super) struct Down {
    /// Someone answered and does not want us, or we do not want them.
    pub(super) refused: bool,
    pub(super) reason: String,
}

impl Down {
    fn unreachable(reason: impl ToString) -> Self {
        Self {
            refused: false,
            reason: reason.to_string(),
        }
    }
}

/// `host` and `port` of `host:port`; the host without the brackets of an IPv6 address.
pub(super) fn split(gateway: &str) -> Option<(&str, u16)> {
    let (host, port) = gateway.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return None;
    }
    Some((host, port.parse().ok()?))
}

/// Makes one connection to a gateway. Where the name has several addresses they are tried side by side, beginning with another one
/// after each failure. Those that the name had last are tried at once, as the way to who knows names may be the one that is down.
///
/// While nothing at all comes back, each is tried anew every `retry.1` beside the tries before: the first packets of a handshake are
/// sent again at ever longer intervals, which may sleep through the end of an outage for as long again as an attempt took so far.
/// Once anything of a handshake is heard it is that which takes long, and more of them would only be in its way.
///
/// After `spare_after` of silence it is time to spare bytes: such an attempt knocks as often as it would try, and tries when a knock is
/// answered. It goes on until it is dropped.
pub(super) async fn connect(
    socket: Socket,
    config: Arc<LinkConfig>,
    credentials: Arc<Credentials>,
    gateway: usize,
    failures: usize,
) -> Result<(Connection, Arc<Credentials>), Down> {
    let gateway = config.gateways.get(gateway).map_or("", String::as_str);
    let spares = socket.silence() >= config.spare_after;
    let (host, port) = split(gateway).ok_or_else(|| Down::unreachable("gateway is not host:port"))?;
    let name = config.server_name.as_deref().unwrap_or(host);
    let round = |client: &ClientConfig, addresses: &[SocketAddr]| -> Vec<_> {
        let places = (0..).zip(addresses);
        let attempts = places.map(|(place, address)| attempt(&socket, client.clone(), *address, name, STAGGER * place));
        attempts.collect()
    };
    let try_or_knock = |addresses: &[SocketAddr], client: &ClientConfig| match addresses {
        [] => Vec::new(),
        _ if !spares => round(client, addresses),
        // Only what answers is worth sending anything twice.
        _ if socket.may_try(gateway, UNASKED_EVERY) => round(&credentials.client_again, addresses),
        _ => {
            addresses.iter().for_each(|address| socket.knock(*address));
            Vec::new()
        }
    };
    let (heard, mut answers) = (socket.heard(), socket.answers());
    let lookup = tokio::net::lookup_host((host, port));
    tokio::pin!(lookup);
    let mut is_looked_up = false;
    let mut addresses = socket.known(gateway);
    let mut attempts: FuturesUnordered<_> = try_or_knock(&addresses, &credentials.client).into_iter().collect();
    let mut last = Down::unreachable(format!("{host} cannot be reached"));
    let mut again = tokio::time::interval(between_rounds(&config));
    again.reset();
    let mut rounds = 1;
    loop {
        let sound = socket.sound();
        let is_heard = socket.heard() != heard;
        let asks = spares && !is_heard && addresses.iter().any(|address| socket.reaches(*address));
        if asks && socket.answers() != answers {
            answers = socket.answers();
            if socket.may_follow(gateway, FOLLOWED_EVERY) {
                attempts.extend(round(&credentials.client, &addresses));
            }
        }
        if is_looked_up && attempts.is_empty() && !asks {
            return Err(last);
        }
        tokio::select! {
            found = &mut lookup, if !is_looked_up => {
                is_looked_up = true;
                match found {
                    Ok(found) => {
                        let found = in_turn(found.collect(), failures);
                        let new: Vec<_> = found.iter().copied().filter(|address| !addresses.contains(address)).collect();
                        attempts.extend(try_or_knock(&new, &credentials.client));
                        socket.remember(gateway, &found);
                        addresses = found;
                    }
                    Err(error) if !last.refused => last = Down::unreachable(error),
                    Err(_) => {}
                }
                if addresses.is_empty() && !last.refused {
                    last = Down::unreachable(format!("{host} has no address: {}", last.reason));
                }
            }
            Some(result) = attempts.next() => match result {
                Ok(connection) => return Ok((connection, credentials.clone())),
                // What someone said of us is worth more than silence.
                Err(down) if down.refused || !last.refused => last = down,
                Err(_) => {}
            },
            () = sound, if asks => {}
            _ = again.tick(), if !is_heard && (spares || rounds < MAX_ROUNDS) => if socket.heard() == heard {
                rounds += 1;
                attempts.extend(try_or_knock(&addresses, &credentials.client_again));
            },
        }
    }
}

/// So many that are tried, beginning with another one after each failure.
fn in_turn(mut addresses: Vec<SocketAddr>, failures: usize) -> Vec<SocketAddr> {
    let turn = failures.checked_rem(addresses.len()).unwrap_or(0);
    addresses.rotate_left(turn);
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

fn between_rounds(config: &LinkConfig) -> Duration {
    config.retry.1.max(STAGGER / 10)
}

async fn attempt(
    socket: &Socket,
    client: ClientConfig,
    address: SocketAddr,
    name: &str,
    after: Duration,
) -> Result<Connection, Down> {
    tokio::time::sleep(after).await;
    socket.expect(address);
    let connecting = socket
        .endpoint
        .connect_with(client, address, name)
        .map_err(Down::unreachable)?;
    connecting.await.map_err(|error| down(&error))
}

/// Sorts the end of a connection: a refusal backs off, silence does not.
pub(super) fn down(error: &ConnectionError) -> Down {
    // RFC 9001: TLS alerts are the errors 0x100 to 0x1ff. CONNECTION_REFUSED is none of them on purpose: a gateway that is
    // leaving says it too, before it has proven who it is, and an outage must end when the next one listens.
    let is_refusal = |code: u64| (0x100..0x200).contains(&code);
    let refused = match error {
        ConnectionError::VersionMismatch => true,
        ConnectionError::TransportError(e) => is_refusal(u64::from(e.code)),
        ConnectionError::ConnectionClosed(close) => is_refusal(u64::from(close.error_code)),
        ConnectionError::ApplicationClosed(close) => {
            let code = u32::try_from(close.error_code.into_inner()).map(RefusedCode::from_number);
            code != Ok(RefusedCode::Other(0))
        }
        _ => false,
    };
    Down {
        refused,
        reason: error.to_string(),
    }
}

/// Opens the control stream with our HELLO, says what else comes from us, and yields what the gateway says until it ends.
pub(super) fn control(
    connection: Connection,
    hello: Hello,
    ours: mpsc::Receiver<Frame>,
) -> BoxStream<'static, Result<Frame, Down>> {
    let opened = async move {
        let (mut send, recv) = connection.open_bi().await.map_err(|e| down(&e))?;
        send.write_all(&Frame::Hello(hello).encode())
            .await
            .map_err(Down::unreachable)?;
        // The sending half lives as long as the stream of frames: its end would mean goodbye.
        Ok::<_, Down>((send, recv, BytesMut::new(), ours))
    };
    let frames = stream::once(opened).flat_map(|opened| match opened {
        Err(error) => stream::once(async { Err(error) }).boxed(),
        Ok(state) => stream::try_unfold(state, |(mut send, mut recv, mut buffer, mut ours)| async move {
            loop {
                if let Some(frame) = Frame::decode(&mut buffer).map_err(Down::unreachable)? {
                    return Ok(Some((frame, (send, recv, buffer, ours))));
                }
                tokio::select! {
                    chunk = recv.read_chunk(16 << 10, true) => match chunk.map_err(Down::unreachable)? {
                        Some(chunk) => buffer.extend_from_slice(&chunk.bytes),
                        None => return Ok(None),
                    },
                    Some(frame) = ours.recv() => {
                        send.write_all(&frame.encode()).await.map_err(Down::unreachable)?;
                    }
                }
            }
        })
        .boxed(),
    });
    frames.boxed()
}

/// What an attempt begins with, and what tries beside it have: these send nothing twice, as the next of them does.
pub(super) fn client_configs(config: &LinkConfig, crypto: Arc<QuicClientConfig>) -> [ClientConfig; 2] {
    let first = transport(config);
    let mut again = transport(config);
    // It waits three times as long before it sends anything again.
    again.initial_rtt(config.connect_timeout.max(between_rounds(config)));
    [first, again].map(|transport| {
        let mut client = ClientConfig::new(Arc::clone(&crypto) as _);
        client.transport_config(Arc::new(transport));
        client
    })
}

fn transport(config: &LinkConfig) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = u32::try_from(config.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .keep_alive_interval(Some(config.keep_alive))
        // The gateway opens no streams; only frames come back.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(128 << 10))
        .receive_window(VarInt::from_u32(256 << 10))
        .send_window(config.max_in_flight_bytes)
        .congestion_controller_factory(Arc::new(BoundedQueue {
            queue: config.max_queue,
        }))
        .datagram_receive_buffer_size(None)
        // One batch after the other: the first is durable sooner, the last not later.
        .send_fairness(false)
        .initial_mtu(1200);
    transport
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn gateways_are_host_and_port() {
        assert_eq!(split("gw.example:7443"), Some(("gw.example", 7443)));
        assert_eq!(split("[::1]:7443"), Some(("::1", 7443)));
        for bad in ["gw.example", ":7443", "gw:port", "gw:70000", ""] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
