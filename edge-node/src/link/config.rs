//! Settings and limits of the uplink, each with its unit and origin.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_wire::session::LanePolicy;

use super::budget::Budget;
use super::clock::{SystemClock, WallClock};
use super::driver::LOOK_EVERY;
use super::tls::TlsError;

/// What an uplink needs to run.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// `host:port` of every gateway; any of them serves.
    pub gateways: Vec<String>,
    /// The first is home for every node, the others stand by. Otherwise each node has one of them as its home.
    pub first_is_home: bool,
    /// Where another one serves, home is tried again after this.
    pub return_after: Duration,
    /// The name in the gateway's certificate, where it differs from the host.
    pub server_name: Option<String>,
    /// PEM chain and key of this node; looked at every `look_every`.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// PEM of the authorities that a gateway's certificate must come from; the same.
    pub ca: PathBuf,
    /// Where a certificate that came over the link is kept; without it none is asked for.
    pub renewed: Option<PathBuf>,
    pub look_every: Duration,
    /// What certificates are judged by.
    pub clock: WallClock,
    /// Batches on their way at once, and their bytes. This is also the most memory that the uplink holds.
    pub max_in_flight: usize,
    pub max_in_flight_bytes: u64,
    /// What goes first when the link is too thin for both lanes.
    pub policy: LanePolicy,
    /// What is in the spool for longer is backlog.
    pub live_for: Duration,
    /// How long what is on its way may stand in the queues of the network.
    pub max_queue: Duration,
    /// Silence after which the link is down.
    pub idle_timeout: Duration,
    /// How often something is said on a quiet link; well below what a NAT or the gateway forgets.
    pub keep_alive: Duration,
    /// Between attempts while nothing answers, drawn between the two.
    pub retry: (Duration, Duration),
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// Silence after which tries take few bytes: a gateway is asked whether it is there before a handshake is begun with it.
    pub spare_after: Duration,
    /// From the delivery of a batch to its acknowledgement.
    pub ack_timeout: Duration,
    /// What the link may cost.
    pub budget: Budget,
    /// Remembers what of the day's budget is used; without it a restart begins the day anew.
    pub budget_file: Option<PathBuf>,
}

impl LinkConfig {
    pub fn new(gateway: impl Into<String>, certificate: PathBuf, key: PathBuf, ca: PathBuf) -> Self {
        Self {
            gateways: vec![gateway.into()],
            server_name: None,
            certificate,
            key,
            ca,
            renewed: None,
            look_every: LOOK_EVERY,
            clock: Arc::new(SystemClock),
            max_in_flight: 32,
            max_in_flight_bytes: 8 << 20,
            first_is_home: false,
            return_after: Duration::from_secs(300),
            policy: LanePolicy::FreshFirst,
            live_for: Duration::from_secs(2),
            max_queue: Duration::from_millis(250),
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            retry: (Duration::from_secs(1), Duration::from_secs(2)),
            connect_timeout: Duration::from_secs(3),
            spare_after: Duration::from_secs(900),
            ack_timeout: Duration::from_secs(30),
            budget: Budget::default(),
            budget_file: None,
        }
    }
}

/// Why an uplink cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("no gateway is configured")]
    NoGateway,
    #[error("gateway {0:?} is not host:port")]
    Gateway(String),
    #[error("no socket for the link")]
    Bind(#[source] std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}
