//! What the uplink says of itself.

use serde::Serialize;
use sluice_wire::session::client::Phase;
use sluice_wire::session::frame::Lane;

use super::budget::BudgetStatus;

/// The state of the link, kept current in a watch channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LinkStatus {
    pub connected: bool,
    /// `waiting`, `connecting`, `greeting`, `live`, `leaving`, `renewing`
    pub phase: &'static str,
    /// Since when it is not connected, while it is not.
    pub down_since_unix_ms: Option<u64>,
    /// There was no answer for so long that gateways are asked with few bytes whether they are there.
    pub spares_bytes: bool,
    /// The one in use, or tried last.
    pub gateway: String,
    pub session: Option<String>,
    pub rtt_ms: Option<f64>,
    /// What the transport knows of the way to the gateway, while there is one.
    pub path: Option<PathStatus>,
    pub certificate: Option<CertificateStatus>,
    /// Where the link has a budget.
    pub budget: Option<BudgetStatus>,
    pub in_flight: usize,
    pub in_flight_bytes: u64,
    pub lanes: LanesStatus,
    pub held: usize,
    pub sent: u64,
    pub sent_bytes: u64,
    pub acked: u64,
    /// Batches that were sent again.
    pub retransmits: u64,
    /// Times that a gateway asked to wait.
    pub retries_asked: u64,
    pub sessions: u64,
    pub refusals: u64,
    pub tombstones: u64,
    pub last_error: Option<String>,
    /// Milliseconds since 1970.
    pub last_ack_unix_ms: Option<u64>,
    /// Someone should look: the gateway refuses us or asked to hold batches, and why.
    pub alarm: Option<String>,
}

/// The certificate that the link shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CertificateStatus {
    pub serial: String,
    pub not_before_unix_s: u64,
    pub not_after_unix_s: u64,
    /// When a new one is asked for; absent where that is switched off.
    pub renews_at_unix_s: Option<u64>,
    /// It came over the link, not from the configured files.
    pub from_the_link: bool,
    pub renewals: u64,
    pub renewal_failures: u64,
    /// It is past its time to be renewed and is not, and why.
    pub problem: Option<String>,
    /// And less than a day is left.
    pub degraded: bool,
    /// Files that are not used, and why.
    pub files_problem: Option<String>,
}

/// What is fresh, and what an outage left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LanesStatus {
    pub live: LaneStatus,
    pub backlog: LaneStatus,
}

impl LanesStatus {
    pub(super) fn of(&mut self, lane: Lane) -> &mut LaneStatus {
        match lane {
            Lane::Live => &mut self.live,
            Lane::Backlog => &mut self.backlog,
        }
    }
}

/// One lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// Batches that are not acknowledged, and about how many bytes they are on disk.
    pub batches: u64,
    pub bytes: u64,
    pub in_flight: usize,
    pub in_flight_bytes: u64,
    /// When the oldest one was sealed, as far as it was read already.
    pub oldest_sealed_unix_ms: Option<u64>,
    /// The gateway asked this lane to wait.
    pub rests: bool,
    /// Bytes of this lane that were given to the transport.
    pub sent_bytes: u64,
}

/// The way to the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PathStatus {
    /// The round trip of the empty link.
    pub least_rtt_ms: f64,
    /// What the link was seen to carry lately.
    pub bytes_per_second: Option<u64>,
    /// What may be on its way.
    pub window_bytes: u64,
    pub sent_packets: u64,
    pub lost_packets: u64,
    /// Datagrams of this connection, everything included.
    pub udp_sent_bytes: u64,
    pub udp_received_bytes: u64,
    pub mtu: u16,
}

pub(super) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Connecting => "connecting",
        Phase::Greeting => "greeting",
        Phase::Live => "live",
        Phase::Leaving => "leaving",
        Phase::Renewing => "renewing",
    }
}
