//! Settings and limits of the gateway, each with its unit and origin.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_tenants::Tenancy;
use sluice_wire::layout::IpcLimits;

use super::authority::Authority;
use super::clock::{SystemClock, WallClock};
use super::deny::DenyError;
use super::tls::TlsError;
use crate::quarantine::Quarantine;

/// An edge that starts every day for 89 years, in some 8 MiB.
pub(crate) const DEFAULT_EDGE_STATE: u64 = 65_536;
/// Below this even an honest edge would soon be held back.
pub(crate) const MIN_EDGE_STATE: u64 = 16;

/// A quarter of the freshness that is promised for what is live: reading on, planning and the way to the gateway need the rest.
pub(crate) const DEFAULT_MAX_LAG: Duration = Duration::from_millis(500);

/// A site may be without a link for a season and still come back by itself.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(90 * 86_400);

/// What a gateway needs to run.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    pub listen: SocketAddr,
    /// PEM chain and key that the gateway shows; read again when the files change.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// PEM of the authorities that edges' certificates must come from.
    pub client_ca: PathBuf,
    /// Serial numbers of revoked certificates, one in hex per line; read again when the file changes.
    pub deny_list: Option<PathBuf>,
    /// Who signs new certificates of edges; without it they are not renewed over the link.
    pub authority: Option<Arc<dyn Authority>>,
    /// Where what is refused for good is kept; without it only its edge's tombstone tells of it.
    pub quarantine: Option<Quarantine>,
    /// How long after its end a certificate may still be renewed; zero: not at all.
    pub grace: Duration,
    /// What certificates are judged by.
    pub clock: WallClock,
    /// Requests for certificates that are on their way to the authority at once.
    pub max_renewals: usize,
    /// Sessions at once; further connections are refused before a handshake.
    pub max_sessions: usize,
    /// Handshakes at once; above half of it, addresses must be proven first.
    pub max_handshakes: usize,
    pub max_in_flight: u32,
    pub max_in_flight_bytes: u64,
    /// The log's record limit, told to every edge.
    pub max_batch_bytes: u32,
    /// Bytes of batches in memory over all sessions, from their announcement to their answer.
    pub max_total_bytes: u64,
    /// What one edge's batches may cost in the state that recognises duplicates: pieces, one for each start of the edge and each run of
    /// its numbers. An honest edge needs two for each start.
    pub max_edge_state: u64,
    /// Backlog is taken while the oldest record that is not read yet is no older than this.
    pub max_lag: Duration,
    /// Bytes of batches that are on their way into the log at once; what waits for it waits by tenant. Enough for a log that needs
    /// 100 ms to take 160 MB each second.
    pub max_append_bytes: u64,
    /// Which tenants are served, and with which limits; without it all, without limits.
    pub tenants: Option<Arc<Tenancy>>,
    /// How many gateways share a tenant's limits.
    pub gateways: u32,
    /// Where the bytes of the day are kept over restarts.
    pub day_file: Option<PathBuf>,
    /// What the transport may buffer for one session that was welcomed.
    pub session_window_bytes: u32,
    /// What it may buffer for all of them; a session beyond it gets the smallest window.
    pub total_window_bytes: u64,
    /// Batches that are decoded at once; each may take `limits.max_expanded_bytes`.
    pub max_validations: usize,
    pub limits: IpcLimits,
    pub handshake_timeout: Duration,
    /// Silence after which a session is over; edges send something every few seconds.
    pub idle_timeout: Duration,
    /// A batch that makes no progress for so long is given back.
    pub stream_stall_timeout: Duration,
    /// And one that is not complete after so long, however it trickles.
    pub stream_timeout: Duration,
    /// How often certificates, the deny list and the dates of sessions are looked at: far below the promised minute.
    pub recheck_interval: Duration,
    /// How long an edge waits after overload or a failed append; half as much again at random.
    pub retry_after: Duration,
    /// How long batches that were taken may need when the gateway leaves.
    pub drain_timeout: Duration,
}

impl GatewayConfig {
    pub fn new(listen: SocketAddr, certificate: PathBuf, key: PathBuf, client_ca: PathBuf) -> Self {
        Self {
            listen,
            certificate,
            key,
            client_ca,
            deny_list: None,
            authority: None,
            quarantine: None,
            grace: DEFAULT_GRACE,
            clock: Arc::new(SystemClock),
            max_renewals: 16,
            max_sessions: 4096,
            max_handshakes: 256,
            max_in_flight: 32,
            max_in_flight_bytes: 16 << 20,
            max_batch_bytes: 8 << 20,
            max_total_bytes: 128 << 20,
            max_edge_state: DEFAULT_EDGE_STATE,
            max_lag: DEFAULT_MAX_LAG,
            max_append_bytes: 16 << 20,
            tenants: None,
            gateways: 1,
            day_file: None,
            session_window_bytes: 2 << 20,
            total_window_bytes: 128 << 20,
            max_validations: std::thread::available_parallelism().map_or(2, usize::from),
            limits: IpcLimits::default(),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20),
            stream_stall_timeout: Duration::from_secs(60),
            stream_timeout: Duration::from_secs(15 * 60),
            recheck_interval: Duration::from_secs(5),
            retry_after: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Why a gateway cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("gateway cannot listen on {address}")]
    Bind {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Deny(#[from] DenyError),
    #[error("gateway setting {name} cannot be {value}")]
    Setting { name: &'static str, value: u64 },
    #[error("the log has no partitions")]
    NoPartitions,
}
