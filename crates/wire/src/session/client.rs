//! The edge's half of a session: what to send, what to send again, when to call again.
//!
//! Nothing leaves this half but by an acknowledgement whose hash matches: a lost connection, a refusal, silence and time
//! only ever lead to sending again. Batches of a lane are sent in the order of their keys; a batch that the gateway
//! holds back individually lets others pass.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::frame::{self, Ack, Frame, Hello, Lane, Nack, Verdict, Welcome};
use crate::ids::{Epoch, StreamId};

/// What an edge says of itself, and its limits. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    pub stream: StreamId,
    pub epoch: Epoch,
    pub generation: u32,
    pub agent: String,
    /// Batches on their way or waiting to be sent; the gateway's number counts if it is smaller.
    pub max_in_flight: usize,
    /// Their bytes; one batch alone may be larger.
    pub max_in_flight_bytes: u64,
    /// Batches that a gateway asked to hold one by one; more of them stop the flow.
    pub max_held: usize,
    /// From the start of one attempt to the next while nothing answers, drawn between the two.
    pub retry_ms: (u64, u64),
    /// Smallest and largest range of the full-jitter back-off when refused.
    pub backoff_ms: (u64, u64),
    /// How long one attempt to connect may take; every third one may take three times as long, for very slow links.
    pub connect_timeout_ms: u64,
    pub hello_timeout_ms: u64,
    /// From the delivery of a batch by the transport to its acknowledgement.
    pub ack_timeout_ms: u64,
}

impl ClientOptions {
    pub fn new(stream: StreamId, epoch: Epoch) -> Self {
        Self {
            stream,
            epoch,
            generation: 0,
            agent: String::new(),
            max_in_flight: 32,
            max_in_flight_bytes: 8 << 20,
            max_held: 256,
            retry_ms: (1_000, 2_000),
            backoff_ms: (500, 60_000),
            connect_timeout_ms: 3_000,
            hello_timeout_ms: 10_000,
            ack_timeout_ms: 30_000,
        }
    }
}

/// A durable batch that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where the caller finds its bytes; grows within a lane.
    pub key: u64,
    pub epoch: Epoch,
    pub seq: u64,
    pub hash: [u8; 32],
    pub bytes: u32,
    pub lane: Lane,
}

/// What the caller shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection; then `handle_connected`, `handle_disconnected` or `handle_refused`.
    Connect,
    SendHello(Hello),
    /// Send the batch on a stream of its own, begun in the order of these actions.
    SendBatch {
        key: u64,
    },
    /// The batch is durable in the log and may be forgotten.
    Acked {
        key: u64,
    },
    /// The batch can never be stored: `replace` it by its tombstone.
    Tombstone {
        key: u64,
        reason: String,
    },
    /// The batch is kept back and tried again later: someone should look.
    Held {
        key: u64,
        reason: String,
    },
    /// The session was refused: someone should look.
    Refused {
        reason: String,
    },
    /// Close the connection; nothing needs to be reported for it any more.
    Close {
        reason: String,
    },
}

/// What the caller can show of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between two attempts.
    Waiting,
    Connecting,
    /// HELLO sent, no answer yet.
    Greeting,
    Live,
    /// The gateway leaves; what is on its way may still be acknowledged.
    Leaving,
}

/// Running totals and levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    pub in_flight: usize,
    pub in_flight_bytes: u64,
    pub held: usize,
    pub sent: u64,
    pub resent: u64,
    pub acked: u64,
    pub retries_asked: u64,
    pub unknown_acks: u64,
    pub sessions: u64,
    pub refusals: u64,
}

#[derive(Clone, Debug)]
enum State {
    Waiting { until: u64 },
    Connecting { since: u64, until: u64 },
    Greeting { until: u64 },
    Live,
    Leaving { until: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BatchState {
    Queued,
    /// Given to the transport; the time is that of its full delivery.
    Sent {
        delivered: Option<u64>,
    },
    Held {
        until: u64,
    },
    /// Refused for good; waits for its tombstone.
    Doomed,
}

#[derive(Clone, Debug)]
struct Batch {
    offer: Offer,
    state: BatchState,
    sends: u32,
    /// Hash of the batch that this tombstone replaces.
    replaced: Option<[u8; 32]>,
}

/// The edge's half of one stream's session, over any number of connections.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    state: State,
    welcome: Option<Welcome>,
    batches: BTreeMap<u64, Batch>,
    by_id: HashMap<(Epoch, u64), u64>,
    /// Until when a lane rests, as the gateway asked.
    paused: [u64; Lane::ALL.len()],
    actions: VecDeque<Action>,
    attempts: u32,
    refused_streak: u32,
    random: SplitMix,
    stats: ClientStats,
}

/// The longest that a gateway may ask an edge to wait in one answer.
const MAX_ASKED_WAIT_MS: u64 = 10 * 60_000;
/// How long a batch larger than the log's limit, or a refused tombstone, rests before it is tried again.
const HOLD_MS: u64 = 60_000;

impl Client {
    /// `seed` feeds the jitter; equal seeds and events give equal actions.
    pub fn new(options: ClientOptions, now_ms: u64, seed: u64) -> Self {
        Self {
            options,
            state: State::Waiting { until: now_ms },
            welcome: None,
            batches: BTreeMap::new(),
            by_id: HashMap::new(),
            paused: [0; 2],
            actions: VecDeque::new(),
            attempts: 0,
            refused_streak: 0,
            random: SplitMix(seed),
            stats: ClientStats::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Waiting { .. } => Phase::Waiting,
            State::Connecting { .. } => Phase::Connecting,
            State::Greeting { .. } => Phase::Greeting,
            State::Live => Phase::Live,
            State::Leaving { .. } => Phase::Leaving,
        }
    }

    /// What the gateway said last.
    pub fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref()
    }

    pub fn stats(&self) -> ClientStats {
        let mut stats = self.stats;
        for batch in self.batches.values() {
            match batch.state {
                BatchState::Sent { .. } => {
                    stats.in_flight += 1;
                    stats.in_flight_bytes += u64::from(batch.offer.bytes);
                }
                BatchState::Held { .. } | BatchState::Doomed => stats.held += 1,
                BatchState::Queued => {}
            }
        }
        stats
    }

    /// Whether another offer of this lane is of use now.
    pub fn wants(&self, now_ms: u64, lane: Lane) -> bool {
        if !matches!(self.state, State::Live) || self.paused[lane as usize] > now_ms {
            return false;
        }
        let (mut open, mut bytes, mut held) = (0, 0, 0);
        for batch in self.batches.values() {
            match batch.state {
                BatchState::Queued | BatchState::Sent { .. } => {
                    open += 1;
                    bytes += u64::from(batch.offer.bytes);
                }
                BatchState::Held { .. } | BatchState::Doomed => held += 1,
            }
        }
        let (max_count, max_bytes) = self.window();
        open < max_count && bytes < max_bytes && held < self.options.max_held
    }

    /// Takes a batch to be sent. One that is already known is left as it is.
    pub fn offer(&mut self, offer: Offer) {
        if self.batches.contains_key(&offer.key) {
            return;
        }
        self.by_id.insert((offer.epoch, offer.seq), offer.key);
        self.batches.insert(
            offer.key,
            Batch {
                offer,
                state: BatchState::Queued,
                sends: 0,
                replaced: None,
            },
        );
    }

    /// Gives the tombstone that [`Action::Tombstone`] asked for.
    pub fn replace(&mut self, key: u64, hash: [u8; 32], bytes: u32) {
        let Some(batch) = self.batches.get_mut(&key) else {
            return;
        };
        if batch.state == BatchState::Doomed {
            batch.replaced = Some(batch.offer.hash);
            batch.offer.hash = hash;
            batch.offer.bytes = bytes;
            batch.state = BatchState::Queued;
        }
    }

    /// The batch cannot be read or made right now; it is tried again later.
    pub fn hold(&mut self, now_ms: u64, key: u64) {
        if let Some(batch) = self.batches.get_mut(&key) {
            batch.state = BatchState::Held {
                until: now_ms + HOLD_MS,
            };
        }
    }

    pub fn handle_connected(&mut self, now_ms: u64) {
        if !matches!(self.state, State::Connecting { .. }) {
            return;
        }
        self.state = State::Greeting {
            until: now_ms + self.options.hello_timeout_ms,
        };
        self.actions.push_back(Action::SendHello(Hello {
            stream: self.options.stream.clone(),
            epoch: self.options.epoch,
            versions: frame::VERSIONS.to_vec(),
            generation: self.options.generation,
            agent: self.options.agent.clone(),
        }));
    }

    /// The connection ended, or could not be made because nothing answered.
    pub fn handle_disconnected(&mut self, now_ms: u64) {
        let until = match self.state {
            State::Waiting { .. } => return,
            // A gateway that restarts sees its edges come back spread over the first second.
            State::Live | State::Leaving { .. } => now_ms + self.random.below(1_000),
            State::Connecting { since, .. } => self.next_attempt(since).max(now_ms),
            State::Greeting { .. } => self.next_attempt(now_ms),
        };
        self.fall_back(until);
    }

    /// The peer answered and does not want us: its certificate check, ours, or a REFUSED.
    pub fn handle_refused(&mut self, now_ms: u64, reason: &str) {
        if matches!(self.state, State::Waiting { .. }) {
            return;
        }
        self.stats.refusals += 1;
        let (least, most) = self.options.backoff_ms;
        let range = least
            .saturating_mul(1 << self.refused_streak.min(20))
            .clamp(1, most.max(1));
        self.refused_streak = self.refused_streak.saturating_add(1);
        let until = now_ms + self.random.below(range + 1);
        self.actions.push_back(Action::Refused {
            reason: frame::cut(reason).to_owned(),
        });
        self.fall_back(until);
    }

    pub fn handle_frame(&mut self, now_ms: u64, frame: Frame) {
        match (&self.state, frame) {
            (State::Waiting { .. } | State::Connecting { .. }, _) => {}
            (State::Greeting { .. }, Frame::Welcome(welcome)) => self.handle_welcome(now_ms, welcome),
            (_, Frame::Refused(refused)) => {
                self.actions.push_back(Action::Close {
                    reason: "refused".to_owned(),
                });
                self.handle_refused(now_ms, &refused.reason);
            }
            (State::Live | State::Leaving { .. }, Frame::Ack(ack)) => self.handle_ack(now_ms, &ack),
            (State::Live | State::Leaving { .. }, Frame::Nack(nack)) => self.handle_nack(now_ms, nack),
            (State::Live, Frame::GoAway(_)) => {
                self.state = State::Leaving {
                    until: now_ms + self.options.ack_timeout_ms,
                };
            }
            (State::Greeting { .. } | State::Leaving { .. }, Frame::GoAway(_)) => {
                self.close(now_ms, "gateway is leaving");
            }
            _ => self.close(now_ms, "frame out of place"),
        }
    }

    /// The transport of the peer has all bytes of the batch. That means nothing for its safety; it starts the clock.
    pub fn handle_delivered(&mut self, now_ms: u64, key: u64) {
        if let Some(batch) = self.batches.get_mut(&key)
            && batch.state == (BatchState::Sent { delivered: None })
        {
            batch.state = BatchState::Sent {
                delivered: Some(now_ms),
            };
        }
    }

    /// What to do next; call until `None`, then wait for an event or for [`Client::next_wake`].
    pub fn poll_action(&mut self, now_ms: u64) -> Option<Action> {
        if self.actions.is_empty() {
            self.advance(now_ms);
        }
        self.actions.pop_front()
    }

    /// When `poll_action` may have something to do although nothing happened.
    pub fn next_wake(&self, now_ms: u64) -> Option<u64> {
        let mut wake: Option<u64> = None;
        let mut at = |t: u64| wake = Some(wake.map_or(t, |w| w.min(t)));
        match self.state {
            State::Waiting { until }
            | State::Connecting { until, .. }
            | State::Greeting { until }
            | State::Leaving { until } => at(until),
            State::Live => {
                for pause in self.paused.into_iter().filter(|p| *p > now_ms) {
                    at(pause);
                }
                for batch in self.batches.values() {
                    match batch.state {
                        BatchState::Held { until } => at(until),
                        BatchState::Sent { delivered: Some(t) } => at(t + self.options.ack_timeout_ms),
                        _ => {}
                    }
                }
            }
        }
        wake
    }

    fn handle_welcome(&mut self, now_ms: u64, welcome: Welcome) {
        if !frame::VERSIONS.contains(&welcome.version) {
            return self.close(now_ms, "gateway chose a version that was not offered");
        }
        self.state = State::Live;
        self.attempts = 0;
        self.refused_streak = 0;
        self.stats.sessions += 1;
        // What was held for a limit of the last gateway may pass at this one.
        for batch in self.batches.values_mut() {
            if matches!(batch.state, BatchState::Held { .. }) {
                batch.state = BatchState::Queued;
            }
        }
        self.paused = [0; 2];
        self.welcome = Some(welcome);
    }

    fn handle_ack(&mut self, now_ms: u64, ack: &Ack) {
        let Some(&key) = self.by_id.get(&(ack.epoch, ack.seq)) else {
            self.stats.unknown_acks += 1;
            return;
        };
        let Some(batch) = self.batches.get(&key) else {
            return;
        };
        // The log keeps whichever of a batch and its tombstone came first, so either settles it.
        if batch.offer.hash != ack.hash && batch.replaced != Some(ack.hash) {
            return self.close(now_ms, "acknowledgement names another hash");
        }
        self.batches.remove(&key);
        self.by_id.remove(&(ack.epoch, ack.seq));
        self.stats.acked += 1;
        self.actions.push_back(Action::Acked { key });
    }

    fn handle_nack(&mut self, now_ms: u64, nack: Nack) {
        let Some(&key) = self.by_id.get(&(nack.epoch, nack.seq)) else {
            return;
        };
        let Some(batch) = self.batches.get_mut(&key) else {
            return;
        };
        if !matches!(batch.state, BatchState::Sent { .. }) {
            return;
        }
        let wait = |after_ms: u32| now_ms + u64::from(after_ms).clamp(1, MAX_ASKED_WAIT_MS);
        match nack.verdict {
            Verdict::Retry { after_ms } => {
                batch.state = BatchState::Queued;
                self.stats.retries_asked += 1;
                let pause = &mut self.paused[batch.offer.lane as usize];
                *pause = (*pause).max(wait(after_ms));
            }
            Verdict::Hold { after_ms } => {
                batch.state = BatchState::Held { until: wait(after_ms) };
                self.actions.push_back(Action::Held {
                    key,
                    reason: nack.reason,
                });
            }
            // A tombstone that is refused too is kept: only an acknowledgement ends a batch.
            Verdict::Permanent if batch.replaced.is_some() => {
                batch.state = BatchState::Held {
                    until: now_ms + HOLD_MS,
                };
                self.actions.push_back(Action::Held {
                    key,
                    reason: nack.reason,
                });
            }
            Verdict::Permanent => {
                batch.state = BatchState::Doomed;
                self.actions.push_back(Action::Tombstone {
                    key,
                    reason: nack.reason,
                });
            }
        }
    }

    /// Timers, then sends.
    fn advance(&mut self, now_ms: u64) {
        match self.state {
            State::Waiting { until } if now_ms >= until => {
                self.attempts = self.attempts.saturating_add(1);
                let patience = if self.attempts.is_multiple_of(3) { 3 } else { 1 };
                let until = now_ms + self.options.connect_timeout_ms * patience;
                self.state = State::Connecting { since: now_ms, until };
                self.actions.push_back(Action::Connect);
            }
            State::Connecting { until, .. } if now_ms >= until => self.close(now_ms, "nothing answered"),
            State::Greeting { until } if now_ms >= until => self.close(now_ms, "HELLO was not answered"),
            State::Leaving { until } => {
                let busy = self
                    .batches
                    .values()
                    .any(|b| matches!(b.state, BatchState::Sent { .. }));
                if now_ms >= until || !busy {
                    self.close(now_ms, "gateway is leaving");
                }
            }
            State::Live if self.is_ack_overdue(now_ms) => self.close(now_ms, "batches are not acknowledged"),
            State::Live => self.send(now_ms),
            _ => {}
        }
    }

    fn is_ack_overdue(&self, now_ms: u64) -> bool {
        let patience = self.options.ack_timeout_ms;
        let overdue = |b: &Batch| matches!(b.state, BatchState::Sent { delivered: Some(t) } if now_ms >= t + patience);
        self.batches.values().any(overdue)
    }

    fn window(&self) -> (usize, u64) {
        let gateway = self.welcome.as_ref();
        let count = gateway.map_or(usize::MAX, |w| w.max_in_flight as usize);
        let bytes = gateway.map_or(u64::MAX, |w| w.max_in_flight_bytes);
        (
            self.options.max_in_flight.min(count).max(1),
            self.options.max_in_flight_bytes.min(bytes).max(1),
        )
    }

    fn send(&mut self, now_ms: u64) {
        for batch in self.batches.values_mut() {
            if matches!(batch.state, BatchState::Held { until } if now_ms >= until) {
                batch.state = BatchState::Queued;
            }
        }
        let (max_count, max_bytes) = self.window();
        let max_batch = self.welcome.as_ref().map_or(u32::MAX, |w| w.max_batch_bytes);
        let in_flight = self
            .batches
            .values()
            .filter(|b| matches!(b.state, BatchState::Sent { .. }));
        let (mut count, mut bytes) = in_flight.fold((0, 0), |(n, sum), b| (n + 1, sum + u64::from(b.offer.bytes)));
        for lane in Lane::ALL {
            if self.paused[lane as usize] > now_ms {
                continue;
            }
            for batch in self.batches.values_mut() {
                if batch.offer.lane != lane || batch.state != BatchState::Queued {
                    continue;
                }
                let size = u64::from(batch.offer.bytes);
                let key = batch.offer.key;
                if batch.offer.bytes > max_batch {
                    let reason = format!("batch of {size} bytes, the log takes up to {max_batch}");
                    batch.state = BatchState::Held {
                        until: now_ms + HOLD_MS,
                    };
                    self.actions.push_back(Action::Held { key, reason });
                    continue;
                }
                if count >= max_count || (count > 0 && bytes + size > max_bytes) {
                    break;
                }
                count += 1;
                bytes += size;
                self.stats.sent += 1;
                self.stats.resent += u64::from(batch.sends > 0);
                batch.sends = batch.sends.saturating_add(1);
                batch.state = BatchState::Sent { delivered: None };
                self.actions.push_back(Action::SendBatch { key });
            }
        }
    }

    fn close(&mut self, now_ms: u64, reason: &str) {
        self.actions.push_back(Action::Close {
            reason: reason.to_owned(),
        });
        self.handle_disconnected(now_ms);
    }

    fn fall_back(&mut self, until: u64) {
        self.state = State::Waiting { until };
        // Sends that the caller did not take yet would go to a connection that is gone.
        self.actions
            .retain(|a| !matches!(a, Action::SendBatch { .. } | Action::SendHello(_) | Action::Connect));
        for batch in self.batches.values_mut() {
            if matches!(batch.state, BatchState::Sent { .. }) {
                batch.state = BatchState::Queued;
            }
        }
    }

    fn next_attempt(&mut self, from: u64) -> u64 {
        let (least, most) = self.options.retry_ms;
        from + least + self.random.below(most.saturating_sub(least) + 1)
    }
}

/// Enough randomness for jitter, from a seed that the caller draws.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}
