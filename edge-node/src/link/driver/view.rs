//! What the driver shows of itself.

use std::time::Duration;

use quinn::Connection;
use sluice_wire::session::client::Phase;
use sluice_wire::session::frame::Lane;
use tokio::time::Instant;

use super::{Driver, unix_ms};
use crate::link::congestion::LinkModel;
use crate::link::pipe::Pipe;
use crate::link::status::{PathStatus, phase_name};

/// The status is published at most this often while batches flow.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

impl Driver {
    /// Returns when it wants to be called again because something changed too soon after the last time.
    pub(super) fn publish(&mut self, now: bool) -> Option<Instant> {
        let phase = self.core.phase();
        let known_phase = self.uplink.status.borrow().phase;
        let due = self.published.map(|at| at + STATUS_INTERVAL);
        // A change of phase is news at once; everything else waits its turn.
        if let Some(due) = due.filter(|due| *due > Instant::now())
            && known_phase == phase_name(phase)
            && !now
        {
            return Some(due);
        }
        if !now {
            self.view.phase = phase_name(phase);
        }
        self.look();
        self.view.connected = !now && matches!(phase, Phase::Live | Phase::Leaving);
        self.view.down_since_unix_ms = match self.view.connected {
            true => None,
            false => self.view.down_since_unix_ms.or_else(|| Some(unix_ms())),
        };
        let is_silent = self.uplink.socket.silence() >= self.uplink.config.spare_after;
        self.view.spares_bytes = !self.view.connected && is_silent;
        let sender = &self.uplink.status;
        if *sender.borrow() != self.view {
            sender.send_replace(self.view.clone());
            self.published = Some(Instant::now());
        }
        None
    }

    /// Brings the view up to date.
    fn look(&mut self) {
        let stats = self.core.stats(self.now_ms());
        let clocks = self.clocks();
        self.spend_overhead();
        let connection = self.pipe.as_ref().map(Pipe::connection);
        if self.purse.is_limited() {
            self.ledger.save_in_time(self.purse.spent());
        }
        let view = &mut self.view;
        view.budget = self.purse.is_limited().then(|| self.purse.status(clocks));
        view.rtt_ms = connection.map(|c| c.rtt().as_secs_f64() * 1000.0);
        view.path = connection.map(path);
        (view.in_flight, view.in_flight_bytes, view.held) = (stats.in_flight, stats.in_flight_bytes, stats.held);
        (view.sent, view.retransmits, view.acked) = (stats.sent, stats.resent, stats.acked);
        (view.retries_asked, view.sessions, view.refusals) = (stats.retries_asked, stats.sessions, stats.refusals);
        for lane in Lane::ALL {
            let (of, waiting) = (
                stats.lanes[lane as usize],
                self.uplink.source.waiting(self.frontier.range(lane)),
            );
            let oldest = of.oldest.and_then(|key| self.announcements.get(&key));
            let shown = view.lanes.of(lane);
            (shown.batches, shown.bytes) = (waiting.batches, waiting.bytes);
            (shown.in_flight, shown.in_flight_bytes) = (of.in_flight, of.in_flight_bytes);
            shown.oldest_sealed_unix_ms = oldest.map(|batch| batch.sealed_at_ns / 1_000_000);
            shown.rests = of.rests_until.is_some();
        }
    }
}

fn path(connection: &Connection) -> PathStatus {
    let stats = connection.stats();
    let model = connection.congestion_state().into_any().downcast::<LinkModel>();
    PathStatus {
        least_rtt_ms: stats.path.min_rtt.as_secs_f64() * 1000.0,
        bytes_per_second: model.ok().and_then(|model| model.rate()).map(|rate| rate as u64),
        window_bytes: stats.path.cwnd,
        sent_packets: stats.path.sent_packets,
        lost_packets: stats.path.lost_packets,
        udp_sent_bytes: stats.udp_tx.bytes,
        udp_received_bytes: stats.udp_rx.bytes,
        mtu: stats.path.current_mtu,
    }
}
