//! What the uplink says of itself.

use serde::Serialize;
use sluice_wire::session::client::Phase;

/// The state of the link, kept current in a watch channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LinkStatus {
    pub connected: bool,
    /// `waiting`, `connecting`, `greeting`, `live`, `leaving`
    pub phase: &'static str,
    pub gateway: String,
    pub session: Option<String>,
    pub rtt_ms: Option<f64>,
    pub in_flight: usize,
    pub in_flight_bytes: u64,
    pub held: usize,
    pub sent: u64,
    pub sent_bytes: u64,
    pub acked: u64,
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

pub(super) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Connecting => "connecting",
        Phase::Greeting => "greeting",
        Phase::Live => "live",
        Phase::Leaving => "leaving",
    }
}
