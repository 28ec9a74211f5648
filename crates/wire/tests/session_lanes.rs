//! The two lanes of a client against a gateway that answers late, in any order, with every verdict, and goes away. Whatever
//! happens: each batch is sent until it is acknowledged, a lane keeps its order, the window holds, and each policy keeps its word.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use sluice_wire::ids::{Epoch, StreamId};
use sluice_wire::session::client::{Action, Client, ClientOptions, Offer};
use sluice_wire::session::frame::{Ack, Frame, Lane, Nack, Verdict, Welcome};
use sluice_wire::session::lanes::LanePolicy;

const GRANTED_BYTES: u64 = 12_000;

#[derive(Clone, Debug)]
enum Step {
    /// A batch is sealed, of so many bytes.
    Seal(u32),
    /// What is spooled now is backlog from now on.
    Age,
    /// The gateway answers one of the batches on their way.
    Answer(u8, Answer),
    Disconnect,
    Wait(u16),
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Ack,
    Retry,
    Hold,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let answer = prop_oneof![6 => Just(Answer::Ack), 1 => Just(Answer::Retry), 1 => Just(Answer::Hold)];
    let step = prop_oneof![
        8 => (1u32..4_000).prop_map(Step::Seal),
        1 => Just(Step::Age),
        8 => (any::<u8>(), answer).prop_map(|(which, answer)| Step::Answer(which, answer)),
        1 => Just(Step::Disconnect),
        2 => (1u16..3_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..300)
}

fn policies() -> impl Strategy<Value = LanePolicy> {
    prop_oneof![
        Just(LanePolicy::FreshFirst),
        Just(LanePolicy::OldestFirst),
        (1u8..100).prop_map(|live_percent| LanePolicy::Weighted { live_percent }),
    ]
}

/// An edge with its spool, of which everything that is not acknowledged can be offered.
struct Edge {
    now: u64,
    policy: LanePolicy,
    client: Client,
    sizes: Vec<u32>,
    live_from: u64,
    acked: BTreeSet<u64>,
    acked_below: u64,
    /// In which lane each batch on its way was sent.
    on_the_way: BTreeMap<u64, Lane>,
    /// Every batch that was sent.
    order: VecDeque<u64>,
    /// Given back since the connection began; those may come out of order.
    given_back: bool,
    last_sent: [Option<u64>; 2],
    rests_until: [u64; 2],
    held: BTreeSet<u64>,
}

impl Edge {
    fn new(policy: LanePolicy) -> Self {
        let mut options = ClientOptions::new(stream(), EPOCH);
        (options.max_in_flight, options.max_in_flight_bytes, options.policy) = (8, 9_000, policy);
        let mut edge = Self {
            now: 0,
            policy,
            client: Client::new(options, 0, 7),
            sizes: Vec::new(),
            live_from: 0,
            acked: BTreeSet::new(),
            acked_below: 0,
            on_the_way: BTreeMap::new(),
            order: VecDeque::new(),
            given_back: false,
            last_sent: [None; 2],
            rests_until: [0; 2],
            held: BTreeSet::new(),
        };
        edge.settle();
        edge
    }

    fn lane_of(&self, key: u64) -> Lane {
        if key < self.live_from {
            Lane::Backlog
        } else {
            Lane::Live
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Seal(bytes) => self.sizes.push(bytes),
            Step::Age => {
                self.live_from = self.sizes.len() as u64;
                self.tell_lanes();
            }
            Step::Answer(which, answer) => {
                let count = self.on_the_way.len().max(1);
                if let Some((&key, &lane)) = self.on_the_way.iter().nth(usize::from(which) % count) {
                    self.answer(key, lane, answer);
                }
            }
            Step::Disconnect => {
                self.client.handle_disconnected(self.now);
                self.forget_connection();
            }
            Step::Wait(ms) => self.now += u64::from(ms),
        }
        self.settle();
    }

    fn answer(&mut self, key: u64, lane: Lane, answer: Answer) {
        self.on_the_way.remove(&key);
        let nack = |verdict| {
            Frame::Nack(Nack {
                epoch: EPOCH,
                seq: key,
                verdict,
                reason: String::new(),
            })
        };
        self.given_back |= !matches!(answer, Answer::Ack);
        let frame = match answer {
            Answer::Ack => Frame::Ack(Ack {
                epoch: EPOCH,
                seq: key,
                hash: [1; 32],
            }),
            Answer::Retry => {
                let until = &mut self.rests_until[lane as usize];
                *until = (*until).max(self.now + 500);
                nack(Verdict::Retry { after_ms: 500 })
            }
            Answer::Hold => {
                self.held.insert(key);
                nack(Verdict::Hold { after_ms: 900 })
            }
        };
        self.client.handle_frame(self.now, frame);
    }

    fn forget_connection(&mut self) {
        self.on_the_way.clear();
        self.held.clear();
        (self.given_back, self.last_sent, self.rests_until) = (false, [None; 2], [0; 2]);
    }

    /// Offers what is wanted and takes what is to be done, until nothing more comes.
    fn settle(&mut self) {
        loop {
            let mut is_done = true;
            self.tell_lanes();
            while let Some(action) = self.client.poll_action(self.now) {
                is_done = false;
                self.perform(action);
            }
            for lane in [Lane::Backlog, Lane::Live] {
                while self.client.wants(self.now, lane) && self.offer_next(lane) {
                    is_done = false;
                }
            }
            if is_done {
                return self.check_idle();
            }
        }
    }

    fn tell_lanes(&mut self) {
        let is_read = |key: &u64| self.acked.contains(key) || self.client.knows(*key);
        let read = (self.acked_below..self.live_from).take_while(is_read).count() as u64;
        self.client.handle_lanes(self.live_from, self.acked_below + read);
    }

    fn offer_next(&mut self, lane: Lane) -> bool {
        let waits = |key: &u64| !self.acked.contains(key) && !self.client.knows(*key) && self.lane_of(*key) == lane;
        let Some(key) = (self.acked_below..self.sizes.len() as u64).find(waits) else {
            return false;
        };
        self.client.offer(Offer {
            key,
            epoch: EPOCH,
            seq: key,
            hash: [1; 32],
            bytes: self.sizes[key as usize],
            lane,
        });
        true
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect => {
                self.client.handle_connected(self.now);
            }
            Action::SendHello(_) => self.client.handle_frame(
                self.now,
                Frame::Welcome(Welcome {
                    version: 1,
                    session: 1,
                    max_batch_bytes: 1 << 20,
                    generation: 1,
                    max_in_flight: 8,
                    max_in_flight_bytes: GRANTED_BYTES,
                    renews: false,
                    renewal_only: false,
                }),
            ),
            Action::SendBatch { key } => self.handle_sent(key),
            Action::Acked { key } => {
                assert!(self.acked.insert(key), "{key} acknowledged twice");
                while self.acked.contains(&self.acked_below) {
                    self.acked_below += 1;
                }
            }
            Action::Close { .. } => self.forget_connection(),
            Action::Forget { key, .. } => {
                assert!(key < self.live_from && !self.client.knows(key));
                self.on_the_way.remove(&key);
                self.held.remove(&key);
            }
            Action::Recall { .. } | Action::Held { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn handle_sent(&mut self, key: u64) {
        let lane = self.lane_of(key);
        self.held.remove(&key);
        self.order.push_back(key);
        assert!(!self.acked.contains(&key) && self.on_the_way.insert(key, lane).is_none());
        assert!(
            self.rests_until[lane as usize] <= self.now,
            "{lane:?} was sent while it rested"
        );
        if !self.given_back {
            let last = self.last_sent[lane as usize].replace(key);
            assert!(
                last.is_none_or(|last| last < key),
                "{lane:?} out of order: {key} after {last:?}"
            );
        }
        let bytes: u64 = self.on_the_way.keys().map(|k| u64::from(self.sizes[*k as usize])).sum();
        assert!(
            self.on_the_way.len() <= 8 && bytes <= GRANTED_BYTES,
            "{bytes} bytes on their way"
        );
    }

    fn sendable(&self, lane: Lane) -> Vec<u64> {
        let waits = |key: &u64| {
            let is_open = !self.acked.contains(key) && !self.on_the_way.contains_key(key) && !self.held.contains(key);
            is_open && self.lane_of(*key) == lane
        };
        (self.acked_below..self.sizes.len() as u64)
            .filter(waits)
            .take(1)
            .collect()
    }

    /// What must be true when the client wants to do nothing more.
    fn check_idle(&self) {
        let rests = |lane: Lane| self.rests_until[lane as usize] > self.now;
        let connected =
            self.client.welcome().is_some() && self.client.phase() == sluice_wire::session::client::Phase::Live;
        if !connected {
            return;
        }
        let of = |lane: Lane| self.on_the_way.values().filter(|l| **l == lane).count();
        let bytes: u64 = self.on_the_way.keys().map(|k| u64::from(self.sizes[*k as usize])).sum();
        for lane in Lane::ALL {
            let waiting = self.sendable(lane);
            let gives_way = match self.policy {
                LanePolicy::FreshFirst => lane == Lane::Backlog,
                // What was held may be due again and wait for its place.
                LanePolicy::OldestFirst => {
                    let has_older = |held: &BTreeSet<u64>| held.iter().any(|key| *key < self.live_from);
                    lane == Lane::Live && (has_older(&self.held) || !self.sendable(Lane::Backlog).is_empty())
                }
                LanePolicy::Weighted { .. } => false,
            };
            // A lane that has nothing on its way is only kept waiting by the window that the gateway grants, by its rest, or
            // by the other lane where the policy says so.
            let size = waiting.first().map_or(0, |key| u64::from(self.sizes[*key as usize]));
            let must_go = !waiting.is_empty()
                && !rests(lane)
                && !gives_way
                && of(lane) == 0
                && self.on_the_way.len() < 8
                && bytes + size <= GRANTED_BYTES;
            assert!(
                !must_go,
                "{lane:?} starves: {waiting:?} wait, {:?} on the way",
                self.on_the_way
            );
            assert!(of(Lane::Live) + of(Lane::Backlog) > 0 || waiting.is_empty() || rests(lane) || gives_way);
        }
    }
}

const EPOCH: Epoch = Epoch { number: 1, random: 2 };

fn stream() -> StreamId {
    StreamId {
        tenant: "acme".parse().unwrap(),
        node: "site-1".parse().unwrap(),
        spool: [1; 16],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn p2_p6_p7_every_batch_is_sent_until_acknowledged_in_order_and_no_lane_starves(policy in policies(), steps in steps()) {
        let mut edge = Edge::new(policy);
        for step in &steps {
            edge.apply(step);
        }
        // A gateway that answers everything ends it, whatever was before.
        for _ in 0..20_000 {
            if edge.acked.len() == edge.sizes.len() {
                break;
            }
            match edge.on_the_way.keys().next().copied() {
                Some(key) => {
                    let lane = edge.on_the_way[&key];
                    edge.answer(key, lane, Answer::Ack);
                }
                None => edge.now = edge.client.next_wake(edge.now).unwrap().max(edge.now + 1),
            }
            edge.settle();
        }
        prop_assert_eq!(edge.acked.len(), edge.sizes.len());
        let stats = edge.client.stats(edge.now);
        prop_assert_eq!((stats.in_flight, stats.held, stats.lanes[0].queued, stats.lanes[1].queued), (0, 0, 0, 0));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// While both lanes are full and the gateway answers one batch at a time, the lanes get what the policy says.
    #[test]
    fn p6_a_busy_link_is_shared_as_the_policy_says(live_percent in 10u8..90, seed: u64) {
        let mut edge = Edge::new(LanePolicy::Weighted { live_percent });
        let mut dice = seed | 1;
        let mut size = || {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            (dice % 900 + 100) as u32
        };
        (0..500).for_each(|_| edge.sizes.push(size()));
        edge.apply(&Step::Age);
        (0..500).for_each(|_| edge.sizes.push(size()));
        let mut bytes = [0u64; 2];
        for _ in 0..400 {
            // Answers come in the order in which batches were sent.
            let key = edge.order.pop_front().unwrap();
            let lane = edge.on_the_way[&key];
            bytes[lane as usize] += u64::from(edge.sizes[key as usize]);
            edge.answer(key, lane, Answer::Ack);
            edge.settle();
        }
        let share = bytes[0] as f64 * 100.0 / (bytes[0] + bytes[1]) as f64;
        prop_assert!((share - f64::from(live_percent)).abs() < 8.0, "{share} of {live_percent}");
    }
}

/// Under `fresh-first` a live batch goes at once, however full the backlog has made its part of the window.
#[test]
fn p6_a_fresh_batch_never_waits_for_a_place() {
    let mut edge = Edge::new(LanePolicy::FreshFirst);
    edge.sizes = vec![800; 100];
    edge.apply(&Step::Age);
    assert_eq!(edge.on_the_way.len(), 6, "a quarter of eight places stays free");
    edge.apply(&Step::Seal(900));
    assert_eq!(edge.on_the_way.get(&100), Some(&Lane::Live));
    // Its lane alone rests when the gateway asks so.
    let (&oldest, _) = edge.on_the_way.iter().next().unwrap();
    edge.answer(oldest, Lane::Backlog, Answer::Retry);
    edge.settle();
    edge.apply(&Step::Seal(900));
    assert_eq!(edge.on_the_way.get(&101), Some(&Lane::Live));
    assert!(!edge.on_the_way.contains_key(&oldest));
    let stats = edge.client.stats(edge.now);
    assert_eq!(
        (stats.lanes[0].rests_until, stats.lanes[1].rests_until),
        (None, Some(500))
    );
}
