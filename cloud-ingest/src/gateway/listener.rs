//! The endpoint: who gets a handshake, who gets a session, what is read again while it runs.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn::{Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use sluice_wire::session::ServerOptions;
use sluice_wire::session::frame::RefusedCode;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::admission::{Admission, ReadPosition};
use super::batch::Shared;
use super::config::{GatewayConfig, GatewayError, MIN_EDGE_STATE};
use super::deny::DenyList;
use super::identity::{IdentityError, PeerIdentity, identity_of};
use super::session::{Session, SessionContext};
use super::status::{Counters, Level, StatusHandle, add};
use super::tls::{self, TlsError, Watched};
use crate::log::Log;
use crate::quota::Quota;

/// What the transport may buffer of a peer that was not welcomed yet, or for which no larger window is left.
const SMALL_WINDOW_BYTES: u32 = 128 << 10;

/// What the system may keep of packets while the gateway is busy: a batch that an edge sends at once over a fast link.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// A bound gateway that does nothing until it is run.
#[derive(Debug)]
pub struct Gateway {
    endpoint: Endpoint,
    address: SocketAddr,
    files: Files,
    context: Arc<SessionContext>,
    deny: watch::Sender<DenyList>,
    max_sessions: usize,
    max_handshakes: usize,
    recheck_interval: Duration,
    handshake_timeout: Duration,
    drain_timeout: Duration,
}

impl Gateway {
    /// Binds the socket and reads the certificates and the deny list. Needs a running tokio runtime. With a `reader` of the log
    /// the backlog of edges is taken only while that reader is not behind.
    pub fn build(
        config: GatewayConfig,
        log: Arc<dyn Log>,
        reader: Option<Arc<dyn ReadPosition>>,
    ) -> Result<Gateway, GatewayError> {
        check(&config)?;
        let partitions = log.partitions();
        let generation = partitions
            .iter()
            .map(|p| p.generation)
            .max()
            .ok_or(GatewayError::NoPartitions)?;
        let deny_list = match &config.deny_list {
            Some(path) => DenyList::load(path)?,
            None => DenyList::default(),
        };
        let files = Files::new(&config);
        let server = files.server_config()?;
        let bind = |source| GatewayError::Bind {
            address: config.listen,
            source,
        };
        let socket = UdpSocket::bind(config.listen).map_err(bind)?;
        // The system gives as much of it as its own limit allows.
        if let Err(error) = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
            debug!(%error, "receive buffer stays as the system made it");
        }
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(server), socket, Arc::new(TokioRuntime)).map_err(bind)?;
        let address = endpoint.local_addr().map_err(bind)?;
        let counters = Arc::new(Counters::default());
        counters
            .revoked_serials
            .store(deny_list.len() as u64, Ordering::Relaxed);
        let (deny, _) = watch::channel(deny_list);
        let ends = partitions.iter().map(|p| (*p, log.end(*p)));
        let admission = Arc::new(Admission::new(ends, reader, config.max_lag));
        let kib = |bytes: u64| (bytes / 1024).clamp(1, Semaphore::MAX_PERMITS as u64) as usize;
        let backlog_kib = kib(backlog_bytes(&config));
        let context = SessionContext {
            options: ServerOptions {
                generation,
                max_batch_bytes: config.max_batch_bytes,
                max_in_flight: config.max_in_flight,
                max_in_flight_bytes: config.max_in_flight_bytes,
                hello_timeout_ms: config.handshake_timeout.as_millis() as u64,
                busy_ms: config.retry_after.as_millis() as u32,
            },
            shared: Shared {
                log,
                limits: Arc::new(config.limits),
                quota: Arc::new(Quota::new(config.max_edge_state)),
                memory: Arc::new(Semaphore::new(kib(config.max_total_bytes))),
                backlog_memory: Arc::new(Semaphore::new(backlog_kib)),
                admission,
                validations: Arc::new(Semaphore::new(config.max_validations)),
                stall_timeout: config.stream_stall_timeout,
                total_timeout: config.stream_timeout,
            },
            counters,
            windows: Arc::new(Semaphore::new(kib(config.total_window_bytes))),
            window_bytes: config.session_window_bytes,
            recheck_interval: config.recheck_interval,
            hello_timeout: config.handshake_timeout,
            retry_after: config.retry_after,
        };
        Ok(Gateway {
            endpoint,
            address,
            files,
            context: Arc::new(context),
            deny,
            max_sessions: config.max_sessions,
            max_handshakes: config.max_handshakes,
            recheck_interval: config.recheck_interval,
            handshake_timeout: config.handshake_timeout,
            drain_timeout: config.drain_timeout,
        })
    }

    /// The bound address, also when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where the writers say what each edge's batches cost them.
    pub(crate) fn quota(&self) -> Arc<Quota> {
        Arc::clone(&self.context.shared.quota)
    }

    pub fn status(&self) -> StatusHandle {
        StatusHandle(Arc::clone(&self.context.counters))
    }

    /// Serves until `shutdown`, then answers what was taken and leaves.
    pub async fn run(mut self, shutdown: CancellationToken) {
        info!(address = %self.address, "gateway listens");
        let handshakes = Arc::new(Semaphore::new(self.max_handshakes));
        let mut sessions = JoinSet::new();
        let mut recheck = tokio::time::interval(self.recheck_interval);
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(incoming, &handshakes, &mut sessions, &shutdown),
                    None => break,
                },
                Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                    if let Err(error) = ended {
                        error!(%error, "session failed");
                    }
                }
                _ = recheck.tick() => self.recheck(),
                () = shutdown.cancelled() => break,
            }
        }
        self.endpoint.set_server_config(None);
        let drained = async { while sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_timeout, drained).await.is_err() {
            warn!("gateway leaves with batches unanswered, their edges will send them again");
        }
        sessions.abort_all();
        self.endpoint.close(VarInt::from_u32(0), b"gateway is leaving");
        // The close is announced once; edges that miss it notice the silence.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }

    fn admit(
        &self,
        incoming: quinn::Incoming,
        handshakes: &Arc<Semaphore>,
        sessions: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) {
        let counters = &self.context.counters;
        let address = incoming.remote_address();
        if sessions.len() >= self.max_sessions {
            add(&counters.refused_overload, 1);
            return incoming.refuse();
        }
        // A spoofed source never answers a Retry, so it costs one packet and no state.
        let crowded = handshakes.available_permits() <= self.max_handshakes / 2;
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                debug!(%address, %error, "retry not sent");
            }
            return;
        }
        let Ok(permit) = Arc::clone(handshakes).try_acquire_owned() else {
            add(&counters.refused_overload, 1);
            return incoming.ignore();
        };
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => return debug!(%address, %error, "connection not accepted"),
        };
        let (context, deny, shutdown) = (Arc::clone(&self.context), self.deny.subscribe(), shutdown.clone());
        let patience = self.handshake_timeout;
        sessions.spawn(async move {
            let connection = match tokio::time::timeout(patience, connecting).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => {
                    add(&context.counters.handshakes_failed, 1);
                    return info!(%address, %error, "handshake refused");
                }
                Err(_) => return add(&context.counters.handshakes_failed, 1),
            };
            drop(permit);
            match peer_of(&connection) {
                Ok(peer) => serve(connection, peer, context, deny, shutdown).await,
                Err(error) => {
                    add(&context.counters.refused_identity, 1);
                    warn!(%address, %error, "certificate refused");
                    let code = VarInt::from_u32(RefusedCode::Identity.number());
                    connection.close(code, error.to_string().as_bytes());
                }
            }
        });
    }

    /// Takes changed files into use; whatever is wrong with them, the last good ones stay.
    fn recheck(&mut self) {
        if self.files.tls.changed() {
            match self.files.server_config() {
                Ok(server) => {
                    info!("certificates read again");
                    self.endpoint.set_server_config(Some(server));
                }
                Err(error) => {
                    add(&self.context.counters.reload_failures, 1);
                    warn!(%error, "changed certificates are not used");
                }
            }
        }
        let Some(path) = &self.files.config.deny_list else {
            return;
        };
        match DenyList::load(path) {
            Ok(list) => {
                self.context
                    .counters
                    .revoked_serials
                    .store(list.len() as u64, Ordering::Relaxed);
                self.deny.send_if_modified(|known| {
                    let changed = *known != list;
                    *known = list;
                    changed
                });
            }
            Err(error) => {
                add(&self.context.counters.reload_failures, 1);
                warn!(%error, "changed deny list is not used");
            }
        }
    }
}

/// A quarter of the memory is for live batches alone, as long as the largest batch still fits into the rest.
fn backlog_bytes(config: &GatewayConfig) -> u64 {
    let part = config.max_total_bytes - config.max_total_bytes / 4;
    part.max(config.max_batch_bytes.into())
}

async fn serve(
    connection: quinn::Connection,
    peer: PeerIdentity,
    context: Arc<SessionContext>,
    deny: watch::Receiver<DenyList>,
    shutdown: CancellationToken,
) {
    let _level = Level::enter(&context.counters, |c| &c.sessions);
    add(&context.counters.sessions_opened, 1);
    // Boxed: the state of a session is large and lives in a task of its own.
    Box::pin(Session::new(connection, peer, context, deny).run(shutdown)).await;
}

fn peer_of(connection: &quinn::Connection) -> Result<PeerIdentity, IdentityError> {
    let shown = connection.peer_identity().ok_or(IdentityError::Missing)?;
    let chain = shown
        .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
        .map_err(|_| IdentityError::Missing)?;
    identity_of(chain.first().ok_or(IdentityError::Missing)?)
}

#[derive(Debug)]
struct Files {
    config: GatewayConfig,
    tls: Watched,
}

impl Files {
    fn new(config: &GatewayConfig) -> Self {
        let files = vec![config.certificate.clone(), config.key.clone(), config.client_ca.clone()];
        Self {
            config: config.clone(),
            tls: Watched::new(files),
        }
    }

    fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let c = &self.config;
        let crypto = tls::server_crypto(&c.certificate, &c.key, &c.client_ca)?;
        let mut server = ServerConfig::with_crypto(crypto);
        server.transport_config(Arc::new(transport(c)));
        // Packets of connections that were not looked at yet: 1024 first flights are 16 MiB at most.
        server
            .max_incoming(1024)
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total(16 << 20);
        Ok(server)
    }
}

fn transport(config: &GatewayConfig) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = u32::try_from(config.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(config.max_in_flight))
        .receive_window(VarInt::from_u32(SMALL_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(config.session_window_bytes.max(SMALL_WINDOW_BYTES)))
        // Only frames go this way.
        .send_window(256 << 10)
        .datagram_receive_buffer_size(None)
        .initial_mtu(1200);
    transport
}

fn check(config: &GatewayConfig) -> Result<(), GatewayError> {
    let settings = [
        ("max_sessions", config.max_sessions as u64, 1, 1 << 20),
        ("max_handshakes", config.max_handshakes as u64, 1, 1 << 16),
        ("max_in_flight", u64::from(config.max_in_flight), 1, 4096),
        ("max_edge_state", config.max_edge_state, MIN_EDGE_STATE, u64::MAX),
        ("max_validations", config.max_validations as u64, 1, 1024),
        (
            "max_batch_bytes",
            u64::from(config.max_batch_bytes),
            64 << 10,
            sluice_wire::envelope::MAX_ENVELOPE_BYTES as u64,
        ),
        (
            "max_total_bytes",
            config.max_total_bytes,
            u64::from(config.max_batch_bytes),
            u64::MAX,
        ),
        (
            "recheck_interval",
            config.recheck_interval.as_secs_f64().ceil() as u64,
            1,
            30,
        ),
    ];
    for (name, value, least, most) in settings {
        if !(least..=most).contains(&value) {
            return Err(GatewayError::Setting { name, value });
        }
    }
    Ok(())
}
