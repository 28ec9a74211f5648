//! What is sent next: the lanes' turns, within what may be on its way at once.

use std::collections::VecDeque;

use super::{Action, BatchState, Client, ClientStats, HOLD_MS, State};
use crate::session::frame::Lane;
use crate::session::lanes::{Load, Waiting};

impl Client {
    pub fn stats(&self, now_ms: u64) -> ClientStats {
        let mut stats = self.stats;
        for (key, batch) in &self.batches {
            let lane = &mut stats.lanes[batch.offer.lane as usize];
            lane.oldest = lane.oldest.or(Some(*key));
            let bytes = u64::from(batch.offer.bytes);
            match batch.state {
                BatchState::Sent { .. } => {
                    lane.in_flight += 1;
                    lane.in_flight_bytes += bytes;
                    stats.in_flight += 1;
                    stats.in_flight_bytes += bytes;
                }
                BatchState::Held { .. } | BatchState::Doomed => stats.held += 1,
                BatchState::Queued => {
                    lane.queued += 1;
                    lane.queued_bytes += bytes;
                }
            }
        }
        for (lane, until) in stats.lanes.iter_mut().zip(self.paused) {
            lane.rests_until = (until > now_ms).then_some(until);
        }
        stats
    }

    /// Whether another offer of this lane is of use now.
    pub fn wants(&self, now_ms: u64, lane: Lane) -> bool {
        if !matches!(self.state, State::Live) || self.paused[lane as usize] > now_ms {
            return false;
        }
        let (mut open, mut queued, mut held) = ([Load::default(); 2], 0, 0);
        for batch in self.batches.values() {
            match batch.state {
                BatchState::Queued | BatchState::Sent { .. } => {
                    open[batch.offer.lane as usize].add(u64::from(batch.offer.bytes));
                    queued += usize::from(batch.state == BatchState::Queued && batch.offer.lane == lane);
                }
                BatchState::Held { .. } | BatchState::Doomed => held += 1,
            }
        }
        // A lane that got more than its part, as after a reconnect, takes nothing from the other.
        let (window, own) = (self.window(), open[lane as usize]);
        let part = self.turns.part(lane, window);
        let (mut batches, mut bytes) = (0, 0);
        for (of, open) in Lane::ALL.into_iter().zip(open) {
            let part = self.turns.part(of, window);
            batches += open.batches.min(part.batches);
            bytes += open.bytes.min(part.bytes);
        }
        let has_room =
            own.batches < part.batches && own.bytes < part.bytes && batches < window.batches && bytes < window.bytes;
        // One that waits is always of use: whose turn it is can only be told when it is known who has something to send.
        held < self.options.max_held && (has_room || queued == 0)
    }

    /// What may be on its way over both lanes.
    fn window(&self) -> Load {
        let gateway = self.welcome.as_ref();
        let batches = gateway.map_or(usize::MAX, |w| w.max_in_flight as usize);
        let bytes = gateway.map_or(u64::MAX, |w| w.max_in_flight_bytes);
        Load {
            batches: self.options.max_in_flight.min(batches).max(1),
            bytes: self.options.max_in_flight_bytes.min(bytes).max(1),
        }
    }

    pub(super) fn send(&mut self, now_ms: u64) {
        let max_batch = self.welcome.as_ref().map_or(u32::MAX, |w| w.max_batch_bytes);
        let rested = self.keys_of(|state| matches!(state, BatchState::Held { until } if now_ms >= until));
        rested.into_iter().for_each(|key| self.queue_again(key));
        let (mut queued, mut load) = ([VecDeque::new(), VecDeque::new()], [Load::default(); 2]);
        for (&key, batch) in &mut self.batches {
            let (lane, size) = (batch.offer.lane as usize, u64::from(batch.offer.bytes));
            match batch.state {
                BatchState::Sent { .. } => load[lane].add(size),
                BatchState::Queued if batch.offer.bytes > max_batch => {
                    let reason = format!("batch of {size} bytes, the log takes up to {max_batch}");
                    batch.state = BatchState::Held {
                        until: now_ms + HOLD_MS,
                    };
                    self.actions.push_back(Action::Held { key, reason });
                }
                BatchState::Queued => queued[lane].push_back((key, size)),
                BatchState::Held { .. } | BatchState::Doomed => {}
            }
        }
        loop {
            let waiting = Lane::ALL.map(|lane| match queued[lane as usize].front() {
                None => Waiting::Nothing,
                Some(_) if self.paused[lane as usize] > now_ms => Waiting::Blocked,
                Some((_, size)) if !self.fits(lane, *size, load) => Waiting::Blocked,
                Some(_) => Waiting::Ready,
            });
            let Some(lane) = self.turns.next(waiting) else {
                return;
            };
            let Some((key, size)) = queued[lane as usize].pop_front() else {
                return;
            };
            load[lane as usize].add(size);
            self.turns.sent(lane, size);
            if let Some(batch) = self.batches.get_mut(&key) {
                self.stats.sent += 1;
                self.stats.resent += u64::from(batch.sends > 0);
                batch.sends = batch.sends.saturating_add(1);
                batch.state = BatchState::Sent { delivered: None };
                self.actions.push_back(Action::SendBatch { key });
            }
        }
    }

    /// Whether a batch may go beside what is on its way. The only one of a lane may be larger than the edge's own window, not
    /// larger than what the gateway grants.
    fn fits(&self, lane: Lane, size: u64, load: [Load; 2]) -> bool {
        let window = self.window();
        let (own, part) = (load[lane as usize], self.turns.part(lane, window));
        let (batches, bytes) = (load[0].batches + load[1].batches, load[0].bytes + load[1].bytes);
        let granted = self.welcome.as_ref().map_or(u64::MAX, |w| w.max_in_flight_bytes);
        let is_within = bytes + size <= window.bytes && own.bytes + size <= part.bytes;
        let is_first = own.batches == 0 && bytes + size <= granted;
        batches == 0 || batches < window.batches && own.batches < part.batches && (is_within || is_first)
    }
}
