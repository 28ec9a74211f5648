//! The endpoint: who gets a handshake, who gets a session, what is read again while it runs.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, EndpointConfig, TokioRuntime, VarInt};
use quinn_proto::RandomConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use sluice_wire::session::ServerOptions;
use sluice_wire::session::frame::RefusedCode;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::admission::{Admission, ReadPosition};
use super::batch::Shared;
use super::config::{GatewayConfig, GatewayError, MIN_EDGE_STATE};
use super::identity::{IdentityError, PeerIdentity, identity_of};
use super::reload::Reload;
use super::session::{Session, SessionContext};
use super::status::{Counters, Level, StatusHandle, add};
use super::trust::Trust;
use crate::log::Log;
use crate::quota::Quota;
use crate::tenants::{Gate, Quotas, Shares};

/// What the system may keep of packets while the gateway is busy: a batch that an edge sends at once over a fast link.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Ten thousand edges may ask at once whether it is back; an answer is a hash.
const BETWEEN_RESETS: Duration = Duration::from_micros(100);

/// A bound gateway that does nothing until it is run.
#[derive(Debug)]
pub struct Gateway {
    endpoint: Endpoint,
    address: SocketAddr,
    reload: Reload,
    look_again: Arc<Notify>,
    context: Arc<SessionContext>,
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
        let counters = Arc::new(Counters::default());
        let (reload, server) = Reload::open(&config, Arc::clone(&counters))?;
        let bind = |source| GatewayError::Bind {
            address: config.listen,
            source,
        };
        let socket = UdpSocket::bind(config.listen).map_err(bind)?;
        // The system gives as much of it as its own limit allows.
        if let Err(error) = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
            debug!(%error, "receive buffer stays as the system made it");
        }
        let endpoint = Endpoint::new(endpoint_config(), Some(server), socket, Arc::new(TokioRuntime)).map_err(bind)?;
        let address = endpoint.local_addr().map_err(bind)?;
        let ends = partitions.iter().map(|p| (*p, log.end(*p)));
        let admission = Arc::new(Admission::new(ends, reader, config.max_lag));
        let kib = |bytes: u64| (bytes / 1024).clamp(1, Semaphore::MAX_PERMITS as u64) as usize;
        let quotas = Arc::new(Quotas::new(
            config.tenants.clone(),
            config.gateways,
            Arc::clone(&config.clock),
            config.day_file.clone(),
        ));
        let backlog_kib = kib(backlog_bytes(&config));
        let context = SessionContext {
            options: ServerOptions {
                generation,
                max_batch_bytes: config.max_batch_bytes,
                max_in_flight: config.max_in_flight,
                max_in_flight_bytes: config.max_in_flight_bytes,
                hello_timeout_ms: config.handshake_timeout.as_millis() as u64,
                busy_ms: config.retry_after.as_millis() as u32,
                renews: config.authority.is_some(),
            },
            authority: config.authority,
            renewals: Arc::new(Semaphore::new(config.max_renewals)),
            shared: Shared {
                log,
                limits: Arc::new(config.limits),
                quota: Arc::new(Quota::new(config.max_edge_state)),
                quarantine: config.quarantine,
                quotas,
                memory: Arc::new(Shares::new(
                    kib(config.max_total_bytes) as u64,
                    config.tenants.is_some(),
                )),
                backlog_memory: Arc::new(Semaphore::new(backlog_kib)),
                admission,
                validations: Gate::new(config.max_validations as u64),
                appends: Gate::new(kib(config.max_append_bytes) as u64),
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
            reload,
            look_again: Arc::default(),
            context: Arc::new(context),
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
        StatusHandle {
            counters: Arc::clone(&self.context.counters),
            quotas: Some(Arc::clone(&self.context.shared.quotas)),
        }
    }

    /// Makes the gateway look at its files at once.
    pub fn look_again(&self) -> Arc<Notify> {
        Arc::clone(&self.look_again)
    }

    /// Serves until `shutdown`, then answers what was taken and leaves.
    pub async fn run(mut self, shutdown: CancellationToken) {
        info!(address = %self.address, "gateway listens");
        let handshakes = Arc::new(Semaphore::new(self.max_handshakes));
        let mut sessions = JoinSet::new();
        let mut recheck = tokio::time::interval(self.recheck_interval);
        let look_again = self.look_again();
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
                _ = recheck.tick() => {
                    self.recheck();
                    self.save_day().await;
                }
                () = look_again.notified() => self.recheck(),
                () = shutdown.cancelled() => break,
            }
        }
        self.endpoint.set_server_config(None);
        let drained = async { while sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_timeout, drained).await.is_err() {
            warn!("gateway leaves with batches unanswered, their edges will send them again");
        }
        sessions.abort_all();
        self.save_day().await;
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
        let (context, trust, shutdown) = (Arc::clone(&self.context), self.reload.trust(), shutdown.clone());
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
                Ok((peer, chain)) => serve(connection, (peer, chain), context, trust, shutdown).await,
                Err(error) => {
                    add(&context.counters.refused_identity, 1);
                    warn!(%address, %error, "certificate refused");
                    let code = VarInt::from_u32(RefusedCode::Identity.number());
                    connection.close(code, error.to_string().as_bytes());
                }
            }
        });
    }

    /// A small file, in the cache of the system: soon done.
    async fn save_day(&self) {
        let quotas = Arc::clone(&self.context.shared.quotas);
        // It says for itself what went wrong.
        drop(tokio::task::spawn_blocking(move || quotas.save()).await);
    }

    fn recheck(&mut self) {
        if let Some(server) = self.reload.look() {
            self.endpoint.set_server_config(Some(server));
        }
    }
}

/// Edges that heard nothing for long ask by a packet of no connection whether a gateway is there, and are told by a stateless reset: also
/// for numbers that this gateway never gave out, and to many at once. The key of such answers must stay one of this process: with the same
/// in two, one could be made to say what ends a connection of the other.
fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config
        .cid_generator(|| Box::<RandomConnectionIdGenerator>::default())
        .min_reset_interval(BETWEEN_RESETS);
    config
}

/// A quarter of the memory is for live batches alone, as long as the largest batch still fits into the rest.
fn backlog_bytes(config: &GatewayConfig) -> u64 {
    let part = config.max_total_bytes - config.max_total_bytes / 4;
    part.max(config.max_batch_bytes.into())
}

async fn serve(
    connection: quinn::Connection,
    peer: (PeerIdentity, Vec<CertificateDer<'static>>),
    context: Arc<SessionContext>,
    trust: watch::Receiver<Trust>,
    shutdown: CancellationToken,
) {
    let _level = Level::enter(&context.counters, |c| &c.sessions);
    add(&context.counters.sessions_opened, 1);
    // Boxed: the state of a session is large and lives in a task of its own.
    Box::pin(Session::new(connection, peer, context, trust).run(shutdown)).await;
}

fn peer_of(connection: &quinn::Connection) -> Result<(PeerIdentity, Vec<CertificateDer<'static>>), IdentityError> {
    let shown = connection.peer_identity().ok_or(IdentityError::Missing)?;
    let chain = shown
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| IdentityError::Missing)?;
    let identity = identity_of(chain.first().ok_or(IdentityError::Missing)?)?;
    Ok((identity, *chain))
}

fn check(config: &GatewayConfig) -> Result<(), GatewayError> {
    let settings = [
        ("max_sessions", config.max_sessions as u64, 1, 1 << 20),
        ("max_handshakes", config.max_handshakes as u64, 1, 1 << 16),
        ("max_in_flight", u64::from(config.max_in_flight), 1, 4096),
        ("max_edge_state", config.max_edge_state, MIN_EDGE_STATE, u64::MAX),
        ("max_validations", config.max_validations as u64, 1, 1024),
        ("gateways", u64::from(config.gateways), 1, 1 << 16),
        ("max_renewals", config.max_renewals as u64, 1, 1024),
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
