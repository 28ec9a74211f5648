//! How much may be on its way: enough to fill the link, and no more than empties within a bounded time.
//!
//! A fresh batch waits behind everything that the network already holds, and no priority of streams helps it there. Controllers
//! that go by losses fill whatever buffer a thin link has, which are seconds, and take random loss for congestion, which halves
//! them for ever. This one goes by what it measures: the rate at which acknowledgements come back, and the round trip of an empty
//! link. It keeps `rate × (round trip + queue)` on its way, where the queue is bounded by configuration and shrinks when packets
//! are lost. Losses alone never bring it below what the link was seen to carry.
//!
//! The ideas are those of BBR (a model instead of losses) and of delay-based controllers (a standing queue of known length, which
//! also finds out when the link becomes faster).

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

/// A round is one round trip, and no shorter: acknowledgements come in bursts.
const MIN_ROUND: Duration = Duration::from_millis(20);
/// The highest rate of so many rounds counts.
const RATE_ROUNDS: u64 = 10;
/// A queue is at least this long: timers and delayed acknowledgements are not finer.
const MIN_QUEUE: Duration = Duration::from_millis(20);
/// And at least this part of a round trip, so that a rate that lossy rounds measured too low is found again.
const MIN_QUEUE_PART: u32 = 4;
/// A share of lost bytes above this means that the queue is too long for some buffer on the way.
const LOSS_TOLERATED: f64 = 0.02;
/// And above this that the start is over.
const LOSS_AT_START: f64 = 0.1;
/// While the rate grows by less than this over three rounds, the start is over.
const GROWTH: f64 = 1.25;
/// And once a round's packets all stood in a queue for half of the longest time. So many in a row hold the start until the round says so:
/// else several times as much would be on its way until then, and stand for seconds in a deep buffer.
const QUEUED_AT_START: u32 = 8;
/// So often the queue is emptied for a moment, to see the round trip of the empty link again.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// As RFC 9002 has it.
const INITIAL_PACKETS: u64 = 10;
const MIN_PACKETS: u64 = 4;
/// Far above what the windows of a gateway let out.
const MAX_WINDOW: u64 = 64 << 20;

/// Makes a controller for every connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct BoundedQueue {
    /// The longest that what is on its way may stand in queues.
    pub(super) queue: Duration,
}

impl ControllerFactory for BoundedQueue {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(LinkModel::new(self.queue, now, mtu))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// As long as more on its way brings more.
    Start,
    Cruise,
    /// Two rounds with little on its way: the second one sees an empty link.
    Look {
        rounds: u8,
    },
}

/// What is known of a link.
#[derive(Clone, Debug)]
pub(super) struct LinkModel {
    max_queue: Duration,
    queue: Duration,
    mtu: u64,
    window: u64,
    phase: Phase,
    /// Rate by number of the round, falling.
    rates: VecDeque<(u64, f64)>,
    rounds: u64,
    round: Round,
    min_rtt: Option<Duration>,
    min_rtt_seen: Instant,
    /// The best rate of the start, and for how many rounds it has not grown.
    plateau: (f64, u8),
    /// Packets in a row that stood in a queue for too long; once there are enough of them, no more is sent than is on its way until the
    /// round says whether that was a queue or a moment.
    queued: u32,
}

#[derive(Clone, Debug)]
struct Round {
    began: Instant,
    acked: u64,
    lost: u64,
    min_rtt: Option<Duration>,
    /// There was not enough to send: a rate is a lower bound.
    app_limited: bool,
}

impl Round {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            acked: 0,
            lost: 0,
            min_rtt: None,
            app_limited: false,
        }
    }

    fn loss(&self) -> f64 {
        self.lost as f64 / (self.acked + self.lost).max(1) as f64
    }
}

impl LinkModel {
    fn new(max_queue: Duration, now: Instant, mtu: u16) -> Self {
        Self {
            max_queue: max_queue.max(MIN_QUEUE),
            queue: max_queue.max(MIN_QUEUE),
            mtu: mtu.into(),
            window: INITIAL_PACKETS * u64::from(mtu),
            phase: Phase::Start,
            rates: VecDeque::new(),
            rounds: 0,
            round: Round::new(now),
            min_rtt: None,
            min_rtt_seen: now,
            plateau: (0.0, 0),
            queued: 0,
        }
    }

    /// Bytes per second that the link was seen to carry lately.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rates.front().map(|(_, rate)| *rate)
    }

    fn handle_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        let rtt = now.saturating_duration_since(sent);
        match self.min_rtt {
            Some(min) if rtt > min + min / 32 => {}
            min => {
                self.min_rtt = Some(min.map_or(rtt, |min| min.min(rtt)));
                self.min_rtt_seen = now;
            }
        }
        let round = &mut self.round;
        round.acked += bytes;
        round.app_limited |= app_limited;
        round.min_rtt = Some(round.min_rtt.map_or(rtt, |min| min.min(rtt)));
        if self.phase == Phase::Start {
            self.look_for_a_queue(rtt);
        }
        let limit = match self.phase {
            Phase::Start => MAX_WINDOW,
            Phase::Cruise | Phase::Look { .. } => self.target(),
        };
        if self.window > limit {
            self.window = limit;
        } else if !app_limited && self.queued < QUEUED_AT_START {
            self.window = (self.window + bytes).min(limit);
        }
        if sent >= self.round.began && now.saturating_duration_since(self.round.began) >= MIN_ROUND {
            self.end_round(now);
        }
    }

    /// Holds the start where a queue seems to have built up.
    fn look_for_a_queue(&mut self, rtt: Duration) {
        let is_queued = self.min_rtt.is_some_and(|least| rtt > least + self.max_queue / 2);
        self.queued = match is_queued {
            _ if self.queued >= QUEUED_AT_START => self.queued,
            true => self.queued + 1,
            false => 0,
        };
    }

    fn handle_loss(&mut self, now: Instant, bytes: u64, persistent: bool) {
        self.round.lost += bytes;
        if persistent {
            // Nothing came back for long: what was known is of another link.
            *self = Self {
                window: MIN_PACKETS * self.mtu,
                ..Self::new(self.max_queue, now, self.mtu as u16)
            };
        }
    }

    fn end_round(&mut self, now: Instant) {
        let round = std::mem::replace(&mut self.round, Round::new(now));
        let seconds = now.saturating_duration_since(round.began).as_secs_f64();
        let rate = round.acked as f64 / seconds.max(1e-6);
        let is_look = matches!(self.phase, Phase::Look { .. });
        let is_measure = !round.app_limited && !is_look;
        let standing = match (round.min_rtt, self.min_rtt) {
            (Some(now), Some(least)) => now.saturating_sub(least),
            _ => Duration::ZERO,
        };
        if is_measure && standing > self.max_queue * 3 / 2 {
            // The link has become slower, or longer: what it carried before does not count.
            self.rates.clear();
        }
        self.note_rate(rate, is_measure);
        match self.phase {
            Phase::Start => {
                if is_measure {
                    let (best, flat) = self.plateau;
                    self.plateau = if rate >= best * GROWTH {
                        (rate, 0)
                    } else {
                        (best, flat + 1)
                    };
                }
                if self.plateau.1 >= 3 || standing > self.max_queue / 2 || round.loss() > LOSS_AT_START {
                    self.phase = Phase::Cruise;
                }
                self.queued = 0;
            }
            Phase::Cruise => {
                if round.loss() > LOSS_TOLERATED {
                    self.queue /= 2;
                } else if is_measure {
                    // A few packets that come through say nothing of a buffer that bursts overflow.
                    self.queue += self.max_queue / 16;
                }
                self.queue = self.queue.clamp(MIN_QUEUE, self.max_queue);
                if is_measure && now.saturating_duration_since(self.min_rtt_seen) > LOOK_EVERY {
                    self.phase = Phase::Look { rounds: 0 };
                }
            }
            Phase::Look { rounds: 0 } => self.phase = Phase::Look { rounds: 1 },
            Phase::Look { .. } => {
                self.min_rtt = round.min_rtt.or(self.min_rtt);
                self.min_rtt_seen = now;
                self.phase = Phase::Cruise;
            }
        }
        let target = self.target();
        if self.phase != Phase::Start && self.window > target {
            self.window = target;
        }
    }

    /// Keeps the highest rates. A round that was not filled says only that the link carries at least so much.
    fn note_rate(&mut self, rate: f64, is_measure: bool) {
        if !is_measure && self.rate().is_some_and(|best| best >= rate) {
            return;
        }
        self.rounds += 1;
        while self.rates.back().is_some_and(|(_, other)| *other <= rate) {
            self.rates.pop_back();
        }
        self.rates.push_back((self.rounds, rate));
        while self
            .rates
            .front()
            .is_some_and(|(round, _)| round + RATE_ROUNDS < self.rounds)
        {
            self.rates.pop_front();
        }
    }

    fn target(&self) -> u64 {
        let least = MIN_PACKETS * self.mtu;
        let (Some(rate), Some(min_rtt)) = (self.rate(), self.min_rtt) else {
            return self.window.max(least);
        };
        let span = match self.phase {
            Phase::Look { .. } => min_rtt / 2,
            _ => min_rtt + self.queue.max(min_rtt / MIN_QUEUE_PART),
        };
        ((rate * span.as_secs_f64()) as u64).clamp(least, MAX_WINDOW)
    }
}

impl Controller for LinkModel {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, _: &RttEstimator) {
        self.handle_ack(now, sent, bytes, app_limited);
    }

    fn on_congestion_event(&mut self, now: Instant, _: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.handle_loss(now, lost_bytes, is_persistent_congestion);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.window = self.window.max(MIN_PACKETS * self.mtu);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.pacing_rate = self.rate().map(|rate| (rate * 8.0) as u64);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
