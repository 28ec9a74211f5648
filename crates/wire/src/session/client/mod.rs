//! The edge's half of a session: what to send, what to send again, when to call again.
//!
//! Nothing leaves this half but by an acknowledgement whose hash matches: a lost connection, a refusal, silence and time
//! only ever lead to sending again. Batches of a lane are sent in the order of their keys; a batch that the gateway
//! holds back individually lets others pass. How the lanes share the link is decided by `lanes`.

mod parts;
mod send;

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::frame::{self, Ack, Frame, Hello, Lane, Nack, Renew, Verdict, Welcome};
use super::lanes::Turns;
use crate::ids::Epoch;

pub use parts::{Action, ClientOptions, ClientStats, LaneStats, Offer, Phase};

#[derive(Clone, Debug)]
enum State {
    Waiting { until: u64 },
    Connecting { since: u64, until: u64 },
    Greeting { until: u64 },
    Live,
    Leaving { until: u64, why: &'static str },
    Renewing,
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
    turns: Turns,
    /// What has a smaller key is backlog when it is sent from now on.
    live_from: u64,
    /// All of the backlog below it was offered.
    backlog_read: u64,
    actions: VecDeque<Action>,
    attempts: u32,
    refused_streak: u32,
    random: SplitMix,
    stats: ClientStats,
    /// A new certificate was asked for in this session and not answered.
    renewal_asked: bool,
}

/// The longest that a gateway may ask an edge to wait in one answer.
const MAX_ASKED_WAIT_MS: u64 = 10 * 60_000;
/// How long a batch larger than the log's limit, or a refused tombstone, rests before it is tried again.
const HOLD_MS: u64 = 60_000;

const GATEWAY_LEAVES: &str = "gateway is leaving";
const NEW_CERTIFICATE: &str = "another certificate is to be used";

impl Client {
    /// `seed` feeds the jitter; equal seeds and events give equal actions.
    pub fn new(options: ClientOptions, now_ms: u64, seed: u64) -> Self {
        Self {
            turns: Turns::new(options.policy),
            live_from: 0,
            backlog_read: 0,
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
            renewal_asked: false,
        }
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Waiting { .. } => Phase::Waiting,
            State::Connecting { .. } => Phase::Connecting,
            State::Greeting { .. } => Phase::Greeting,
            State::Live => Phase::Live,
            State::Leaving { .. } => Phase::Leaving,
            State::Renewing => Phase::Renewing,
        }
    }

    /// What the gateway said last.
    pub fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref()
    }

    /// Whether a batch was offered and is not acknowledged.
    pub fn knows(&self, key: u64) -> bool {
        self.batches.contains_key(&key)
    }

    /// Everything with a key below `live_from` is backlog from now on, but for what is on its way already; it never goes back.
    /// Of the backlog everything below `backlog_read` was offered or is acknowledged.
    pub fn handle_lanes(&mut self, live_from: u64, backlog_read: u64) {
        self.backlog_read = backlog_read;
        if live_from <= self.live_from {
            return;
        }
        self.live_from = live_from;
        let keys: Vec<u64> = self.batches.range(..live_from).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.settle_lane(key));
    }

    /// Another gateway is to be preferred to this one, which still answers what is on its way.
    pub fn handle_move(&mut self, now_ms: u64) {
        if matches!(self.state, State::Live) {
            self.leave(now_ms, "another gateway is preferred");
        }
    }

    /// Another certificate is to be used from now on: the session ends once what is on its way is answered, the next one begins at
    /// once, also where refusals of the old certificate made it wait.
    pub fn handle_certificate(&mut self, now_ms: u64) {
        match self.state {
            State::Live => self.leave(now_ms, NEW_CERTIFICATE),
            State::Renewing => self.reconnect(now_ms, NEW_CERTIFICATE),
            State::Waiting { until } if self.refused_streak > 0 => {
                self.refused_streak = 0;
                self.state = State::Waiting {
                    until: until.min(now_ms),
                };
            }
            State::Waiting { .. } | State::Connecting { .. } | State::Greeting { .. } | State::Leaving { .. } => {}
        }
    }

    /// Whether a new certificate may be asked for now.
    pub fn can_renew(&self) -> bool {
        let is_open = matches!(self.state, State::Live | State::Renewing);
        is_open && !self.renewal_asked && self.welcome.as_ref().is_some_and(|welcome| welcome.renews)
    }

    /// Asks for a new certificate, where that can be.
    pub fn renew(&mut self, ask: Renew) {
        if self.can_renew() {
            self.renewal_asked = true;
            self.actions.push_back(Action::SendRenew(ask));
        }
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
            self.settle_lane(key);
        }
    }

    /// What was read again of a batch that is about to be sent. It has another hash when the record was damaged since it was offered
    /// and a tombstone stands in for it: from now on that is what acknowledgements name.
    pub fn handle_reread(&mut self, key: u64, hash: [u8; 32], bytes: u32) {
        let Some(batch) = self.batches.get_mut(&key).filter(|batch| batch.offer.hash != hash) else {
            return;
        };
        batch.replaced = Some(batch.offer.hash);
        batch.offer.hash = hash;
        batch.offer.bytes = bytes;
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
            renews: self.options.renews,
        }));
    }

    /// The connection ended, or could not be made because nothing answered.
    pub fn handle_disconnected(&mut self, now_ms: u64) {
        let until = match self.state {
            State::Waiting { .. } => return,
            // A gateway that restarts sees its edges come back spread over the first second.
            State::Live | State::Leaving { .. } | State::Renewing => now_ms + self.random.below(1_000),
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
        let rounds = self.refused_streak / self.options.gateways.max(1);
        let range = least.saturating_mul(1 << rounds.min(20)).clamp(1, most.max(1));
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
                    again: false,
                });
                self.handle_refused(now_ms, &refused.reason);
            }
            (State::Live | State::Leaving { .. }, Frame::Ack(ack)) => self.handle_ack(now_ms, &ack),
            (State::Live | State::Leaving { .. }, Frame::Nack(nack)) => self.handle_nack(now_ms, nack),
            (State::Live, Frame::GoAway(_)) => {
                self.leave(now_ms, GATEWAY_LEAVES);
            }
            (State::Live | State::Leaving { .. } | State::Renewing, Frame::Renewed(renewed)) if self.renewal_asked => {
                self.renewal_asked = false;
                let certificates = renewed.certificates;
                self.actions.push_back(Action::Renewed { certificates });
            }
            (State::Live | State::Leaving { .. } | State::Renewing, Frame::NotRenewed(not)) if self.renewal_asked => {
                self.renewal_asked = false;
                let (after_ms, reason) = (not.after_ms, not.reason);
                self.actions.push_back(Action::NotRenewed { after_ms, reason });
            }
            (State::Greeting { .. } | State::Leaving { .. } | State::Renewing, Frame::GoAway(_)) => {
                self.close(now_ms, GATEWAY_LEAVES);
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
            | State::Leaving { until, .. } => at(until),
            State::Renewing => {}
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
        self.attempts = 0;
        self.refused_streak = 0;
        self.renewal_asked = false;
        if welcome.renewal_only {
            self.state = State::Renewing;
            self.welcome = Some(welcome);
            return;
        }
        self.state = State::Live;
        self.stats.sessions += 1;
        // What was held for a limit of the last gateway may pass at this one.
        let held = self.keys_of(|state| matches!(state, BatchState::Held { .. }));
        held.into_iter().for_each(|key| self.queue_again(key));
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
        self.actions.push_back(Action::Recall { key });
        let wait = |after_ms: u32| now_ms + u64::from(after_ms).clamp(1, MAX_ASKED_WAIT_MS);
        match nack.verdict {
            Verdict::Retry { after_ms } => {
                let pause = &mut self.paused[batch.offer.lane as usize];
                *pause = (*pause).max(wait(after_ms));
                self.stats.retries_asked += 1;
                self.queue_again(key);
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
            State::Leaving { until, why } => {
                let busy = self
                    .batches
                    .values()
                    .any(|b| matches!(b.state, BatchState::Sent { .. }));
                if now_ms < until && busy {
                    return;
                }
                match why {
                    NEW_CERTIFICATE => self.reconnect(now_ms, why),
                    _ => self.close(now_ms, why),
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

    fn leave(&mut self, now_ms: u64, why: &'static str) {
        self.state = State::Leaving {
            until: now_ms + self.options.ack_timeout_ms,
            why,
        };
    }

    /// To be sent again, in the lane that it is in by now.
    fn queue_again(&mut self, key: u64) {
        if let Some(batch) = self.batches.get_mut(&key) {
            batch.state = BatchState::Queued;
            self.settle_lane(key);
        }
    }

    /// A live batch that has become backlog takes its turn there: what is older goes first, and may not be offered yet.
    fn settle_lane(&mut self, key: u64) {
        let Some(batch) = self.batches.get_mut(&key) else {
            return;
        };
        let has_fallen_back = batch.offer.lane == Lane::Live && key < self.live_from;
        if !has_fallen_back || batch.state != BatchState::Queued {
            return;
        }
        // A tombstone is known here alone.
        if key < self.backlog_read || batch.replaced.is_some() {
            batch.offer.lane = Lane::Backlog;
            return;
        }
        let was_sent = batch.sends > 0;
        self.by_id.remove(&(batch.offer.epoch, batch.offer.seq));
        self.batches.remove(&key);
        self.actions.push_back(Action::Forget { key, was_sent });
    }

    fn close(&mut self, now_ms: u64, reason: &str) {
        self.actions.push_back(Action::Close {
            reason: reason.to_owned(),
            again: false,
        });
        self.handle_disconnected(now_ms);
    }

    /// Ends the connection and makes the next one, with nothing to be waited for.
    fn reconnect(&mut self, now_ms: u64, reason: &str) {
        self.actions.push_back(Action::Close {
            reason: reason.to_owned(),
            again: true,
        });
        self.fall_back(now_ms);
    }

    fn fall_back(&mut self, until: u64) {
        self.state = State::Waiting { until };
        // Sends that the caller did not take yet would go to a connection that is gone.
        self.actions.retain(|a| {
            !matches!(
                a,
                Action::SendBatch { .. }
                    | Action::Recall { .. }
                    | Action::SendHello(_)
                    | Action::SendRenew(_)
                    | Action::Connect
            )
        });
        let sent = self.keys_of(|state| matches!(state, BatchState::Sent { .. }));
        sent.into_iter().for_each(|key| self.queue_again(key));
    }

    fn keys_of(&self, wanted: impl Fn(BatchState) -> bool) -> Vec<u64> {
        let of = self.batches.iter().filter(|(_, batch)| wanted(batch.state));
        of.map(|(key, _)| *key).collect()
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
