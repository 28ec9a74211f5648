//! Both halves of a session against each other: virtual time, a seeded channel that loses, repeats, delays and reorders,
//! gateways that die with and without having written, refusals of every kind. After the faults end everything must be
//! in the log and acknowledged, and nothing may have been acknowledged that was not in the log.
#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use bytes::BytesMut;
use proptest::prelude::*;
use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};
use sluice_wire::session::client::{self, Client, ClientOptions, Offer, Phase};
use sluice_wire::session::frame::{Ack, Frame, Lane, Preamble, RefusedCode, Renew, Renewed, Verdict};
use sluice_wire::session::server::{self, Server, ServerOptions, Ticket};

const BATCHES: u64 = 60;
const HEAL_AT_MS: u64 = 120_000;
const GIVE_UP_MS: u64 = 2_000_000;

#[derive(Clone, Debug)]
enum Event {
    Connected,
    Broken,
    FrameToServer(Frame),
    FrameToClient(Frame),
    BatchToServer(u64, [u8; 32], u32),
    Delivered(u64),
    LogAnswered(Ticket, u64, [u8; 32]),
    GatewayLeaves,
    AuthorityAnswered { has_certificate: bool },
}

/// One item of the pool that the edge has spooled.
#[derive(Clone, Debug)]
struct Spooled {
    key: u64,
    lane: Lane,
    bytes: u32,
    poison: bool,
    hash: [u8; 32],
    is_tombstone: bool,
}

struct World {
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, (u64, Event)>,
    random: u64,
    fault_percent: u64,
    client: Client,
    /// Counts connections; events of an older one are void.
    connection: u64,
    server: Option<Server>,
    spool: BTreeMap<u64, Spooled>,
    offered_to: [u64; 2],
    log: Vec<(u64, [u8; 32])>,
    acked: BTreeSet<u64>,
    first_sent: [Option<u64>; 2],
    sent_here: [Option<u64>; 2],
    nacked_here: bool,
    duplicates_in_log: u64,
    /// The edge's certificate is expired: gateways let it renew and do nothing else.
    is_expired: bool,
    certificates: u64,
    trace: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Outcome {
    resent: u64,
    sessions: u64,
    duplicates_in_log: u64,
    tombstones: u64,
    certificates: u64,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64, fault_percent: u64) -> Self {
        let mut options = ClientOptions::new(stream(), epoch());
        options.max_in_flight = 5;
        options.max_in_flight_bytes = 900;
        options.renews = true;
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            random: seed | 1,
            fault_percent,
            client: Client::new(options, 0, seed),
            connection: 0,
            server: None,
            spool: BTreeMap::new(),
            offered_to: [0; 2],
            log: Vec::new(),
            acked: BTreeSet::new(),
            first_sent: [None; 2],
            sent_here: [None; 2],
            nacked_here: false,
            duplicates_in_log: 0,
            is_expired: false,
            certificates: 0,
            trace: Vec::new(),
        };
        for key in 0..BATCHES {
            let lane = Lane::ALL[(world.draw() % 2) as usize];
            let (bytes, poison) = (world.draw() % 400 + 1, world.draw() % 100 < 5);
            let spooled = Spooled {
                key,
                lane,
                bytes: bytes as u32,
                poison,
                hash: [key as u8; 32],
                is_tombstone: false,
            };
            world.spool.insert(key, spooled);
        }
        world
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.draw().is_multiple_of(n)
    }

    fn faulty(&mut self) -> bool {
        let hit = self.draw() % 100 < self.fault_percent;
        hit && self.now < HEAL_AT_MS
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((self.now + delay, self.order)));
        self.events.insert(self.order, (self.connection, event));
    }

    fn delay(&mut self) -> u64 {
        5 + self.draw() % 300
    }

    fn run(mut self) -> Outcome {
        loop {
            self.drive_client();
            if self.acked.len() == BATCHES as usize {
                return self.finish();
            }
            let wake = self.client.next_wake(self.now).unwrap_or(u64::MAX).max(self.now);
            let server_wake = self.server.as_ref().and_then(Server::next_wake).unwrap_or(u64::MAX);
            let event_at = self.queue.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            let next = wake.min(server_wake).min(event_at);
            assert!(
                next < GIVE_UP_MS,
                "stuck at {} with {} acked, {:?}",
                self.now,
                self.acked.len(),
                self.client
            );
            self.now = self.now.max(next);
            if event_at == next {
                let Reverse((_, order)) = self.queue.pop().unwrap();
                let (connection, event) = self.events.remove(&order).unwrap();
                if connection == self.connection {
                    self.handle(event);
                }
            } else if let Some(server) = &mut self.server {
                server.handle_timeout(self.now);
            }
            self.drive_server();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connected => {
                let session = self.connection;
                let options = ServerOptions {
                    max_batch_bytes: 500,
                    max_in_flight: 4,
                    max_in_flight_bytes: 1_000,
                    renews: true,
                    ..ServerOptions::default()
                };
                let server = Server::new(options, tenant(), node(), session, self.now);
                self.is_expired |= self.faulty();
                self.server = Some(match self.is_expired {
                    true => server.for_renewal_only(),
                    false => server,
                });
                self.sent_here = [None; 2];
                self.nacked_here = false;
                self.client.handle_connected(self.now);
                if self.faulty() {
                    let delay = self.delay() * 5;
                    self.after(delay, Event::GatewayLeaves);
                }
            }
            Event::Broken => {
                self.server = None;
                self.connection += 1;
                if self.one_in(4) {
                    self.client.handle_refused(self.now, "certificate not accepted");
                } else {
                    self.client.handle_disconnected(self.now);
                }
            }
            Event::FrameToServer(frame) => {
                if let Some(server) = &mut self.server {
                    server.handle_frame(through_bytes(&frame));
                }
            }
            Event::FrameToClient(frame) => {
                self.nacked_here |= matches!(frame, Frame::Nack(_));
                self.client.handle_frame(self.now, through_bytes(&frame));
            }
            Event::BatchToServer(key, hash, bytes) => self.receive_batch(key, hash, bytes),
            Event::Delivered(key) => self.client.handle_delivered(self.now, key),
            Event::LogAnswered(ticket, key, hash) => {
                let dies = self.faulty() && self.one_in(3);
                self.append(key, hash);
                if dies {
                    // After the write, before the answer.
                    self.handle(Event::Broken);
                } else if let Some(server) = &mut self.server {
                    server.handle_durable(ticket);
                }
            }
            Event::AuthorityAnswered { has_certificate } => {
                let certificates = vec![bytes::Bytes::from_static(b"DER")];
                match &mut self.server {
                    Some(server) if has_certificate => server.handle_renewed(Renewed { certificates }),
                    Some(server) => server.handle_not_renewed(1_000, "the authority is away"),
                    None => {}
                }
            }
            Event::GatewayLeaves => {
                if let Some(server) = &mut self.server {
                    server.handle_drain("restart");
                }
            }
        }
    }

    fn receive_batch(&mut self, key: u64, hash: [u8; 32], bytes: u32) {
        let (fails, holds, lags, delay) = (self.faulty(), self.faulty(), self.faulty(), self.delay());
        let spooled = self.spool[&key].clone();
        let Some(server) = &mut self.server else {
            return;
        };
        assert!(!self.is_expired, "a batch was sent with an expired certificate");
        let preamble = Preamble {
            lane: spooled.lane,
            epoch: epoch(),
            seq: key,
            length: bytes,
        };
        let preamble = Preamble::decode(&preamble.encode()).unwrap();
        let rest = lags.then_some(900);
        let Some(ticket) = server.handle_preamble(&preamble, rest) else {
            return;
        };
        assert!(!lags || spooled.lane == Lane::Live, "a lagging log takes no backlog");
        let id = BatchId {
            stream: stream(),
            epoch: epoch(),
            seq: key,
        };
        assert!(server.handle_batch(ticket, &id, hash));
        let tombstone = hash != spooled_hash(key);
        if spooled.poison && !tombstone {
            server.handle_failed(ticket, Verdict::Permanent, "rows are not valid");
        } else if fails {
            server.handle_failed(ticket, Verdict::Retry { after_ms: 700 }, "log is busy");
        } else if holds {
            server.handle_failed(ticket, Verdict::Hold { after_ms: 4_000 }, "moved tenant");
        } else {
            self.after(delay, Event::LogAnswered(ticket, key, hash));
        }
    }

    fn append(&mut self, key: u64, hash: [u8; 32]) {
        self.duplicates_in_log += u64::from(self.log.iter().any(|(k, _)| *k == key));
        self.log.push((key, hash));
    }

    fn drive_client(&mut self) {
        loop {
            for lane in Lane::ALL {
                while self.client.wants(self.now, lane) {
                    let from = self.offered_to[lane as usize];
                    let Some(next) = self.spool.range(from..).map(|(_, s)| s).find(|s| s.lane == lane) else {
                        break;
                    };
                    self.offered_to[lane as usize] = next.key + 1;
                    let offer = Offer {
                        key: next.key,
                        epoch: epoch(),
                        seq: next.key,
                        hash: next.hash,
                        bytes: next.bytes,
                        lane,
                    };
                    self.client.offer(offer);
                }
            }
            if self.client.can_renew() && (self.is_expired || self.one_in(60)) {
                let scheme = u32::from(self.is_expired);
                self.client.renew(Renew {
                    request: bytes::Bytes::from_static(b"request"),
                    scheme,
                    proof: bytes::Bytes::from_static(b"proof"),
                });
            }
            let Some(action) = self.client.poll_action(self.now) else {
                break;
            };
            self.trace.push(format!("{} {action:?}", self.now));
            self.perform(action);
        }
    }

    fn perform(&mut self, action: client::Action) {
        match action {
            client::Action::Connect => {
                self.connection += 1;
                if !self.faulty() {
                    let delay = self.delay();
                    self.after(delay, Event::Connected);
                } else if self.one_in(2) {
                    self.after(50, Event::Broken);
                }
            }
            client::Action::SendHello(hello) => self.pass_to_server(Event::FrameToServer(Frame::Hello(hello))),
            client::Action::SendBatch { key } => {
                let spooled = self.spool[&key].clone();
                self.check_order(&spooled);
                self.pass_to_server(Event::BatchToServer(key, spooled.hash, spooled.bytes));
                let delay = self.delay();
                self.after(delay, Event::Delivered(key));
            }
            client::Action::Acked { key } => {
                assert!(
                    self.log.iter().any(|(k, _)| *k == key),
                    "P4: {key} was acknowledged and is not in the log"
                );
                assert!(self.acked.insert(key), "{key} was acknowledged twice");
            }
            client::Action::Tombstone { key, .. } => {
                let spooled = self.spool.get_mut(&key).unwrap();
                assert!(spooled.poison && !spooled.is_tombstone);
                (spooled.is_tombstone, spooled.hash, spooled.bytes) = (true, tombstone_hash(key), 7);
                self.client.replace(key, tombstone_hash(key), 7);
            }
            client::Action::SendRenew(ask) => self.pass_to_server(Event::FrameToServer(Frame::Renew(ask))),
            client::Action::Renewed { certificates } => {
                assert_eq!(certificates.len(), 1);
                self.is_expired = false;
                self.certificates += 1;
                self.client.handle_certificate(self.now);
            }
            client::Action::NotRenewed { after_ms, .. } => assert_eq!(after_ms, 1_000),
            client::Action::Close { .. } => {
                self.connection += 1;
                self.server = None;
            }
            client::Action::Held { .. } | client::Action::Refused { .. } | client::Action::Recall { .. } => {}
            client::Action::Forget { key, .. } => panic!("{key} has not become backlog"),
        }
    }

    /// P7: a lane keeps order. The first sends of a lane are in order over the whole run; those of one connection are
    /// too, unless the gateway gave something back.
    fn check_order(&mut self, spooled: &Spooled) {
        let lane = spooled.lane as usize;
        if self.first_sent[lane].is_none_or(|last| spooled.key > last) {
            let skipped = self.first_sent[lane].map_or(0, |last| last + 1)..spooled.key;
            assert!(
                !skipped.clone().any(|k| self.spool[&k].lane == spooled.lane),
                "{skipped:?} were passed over"
            );
            self.first_sent[lane] = Some(spooled.key);
        }
        if !self.nacked_here {
            assert!(
                self.sent_here[lane].is_none_or(|last| spooled.key > last),
                "sent out of order"
            );
            self.sent_here[lane] = Some(spooled.key);
        }
    }

    fn pass_to_server(&mut self, event: Event) {
        let delay = self.delay();
        if self.faulty() {
            // A transport that loses something for good is a connection that breaks.
            return self.after(delay * 3, Event::Broken);
        }
        if self.faulty() && matches!(event, Event::BatchToServer(..)) {
            let again = self.delay();
            self.after(again, event.clone());
        }
        self.after(delay, event);
    }

    fn drive_server(&mut self) {
        while let Some(action) = self.server.as_mut().and_then(Server::poll_action) {
            match action {
                server::Action::Send(frame) => {
                    let is_answer = matches!(frame, Frame::Ack(_) | Frame::Nack(_));
                    let delay = if is_answer { self.delay() } else { 5 };
                    if is_answer && self.faulty() {
                        // An answer that never comes, with the connection alive.
                        continue;
                    }
                    if is_answer && self.faulty() {
                        let again = self.delay();
                        self.after(again, Event::FrameToClient(frame.clone()));
                    }
                    self.after(delay, Event::FrameToClient(frame));
                }
                server::Action::Close { .. } => self.after(10, Event::Broken),
                server::Action::Renew(_) => {
                    let (has_certificate, delay) = (!self.faulty(), self.delay());
                    self.after(delay, Event::AuthorityAnswered { has_certificate });
                }
            }
        }
    }

    fn finish(self) -> Outcome {
        let stats = self.client.stats(self.now);
        assert_eq!(stats.acked, BATCHES);
        assert_eq!((stats.in_flight, stats.in_flight_bytes, stats.held), (0, 0, 0));
        for spooled in self.spool.values() {
            let first = self.log.iter().find(|(k, _)| *k == spooled.key).unwrap();
            let expected = if spooled.poison {
                tombstone_hash(spooled.key)
            } else {
                spooled_hash(spooled.key)
            };
            assert_eq!(first.1, expected);
        }
        Outcome {
            resent: stats.resent,
            sessions: stats.sessions,
            duplicates_in_log: self.duplicates_in_log,
            tombstones: self.spool.values().filter(|s| s.is_tombstone).count() as u64,
            certificates: self.certificates,
            trace: self.trace,
        }
    }
}

fn through_bytes(frame: &Frame) -> Frame {
    let mut bytes = BytesMut::from(&frame.encode()[..]);
    let read = Frame::decode(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    assert_eq!(&read, frame);
    read
}

fn spooled_hash(key: u64) -> [u8; 32] {
    [key as u8; 32]
}

fn tombstone_hash(key: u64) -> [u8; 32] {
    let mut hash = [0xff; 32];
    hash[0] = key as u8;
    hash
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn node() -> NodeId {
    NodeId::new("site-1").unwrap()
}

fn stream() -> StreamId {
    StreamId {
        tenant: tenant(),
        node: node(),
        spool: [7; 16],
    }
}

fn epoch() -> Epoch {
    Epoch {
        number: 3,
        random: 0xabcd,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn p2_p4_p7_every_batch_is_acknowledged_when_durable_and_never_before(seed: u64, fault_percent in 0u64..45) {
        World::new(seed, fault_percent).run();
    }
}

#[test]
fn the_faults_really_happen() {
    let outcomes: Vec<_> = (1..40).map(|seed| World::new(seed * 7919, 20).run()).collect();
    let sum = |f: fn(&Outcome) -> u64| outcomes.iter().map(f).sum::<u64>();
    assert!(sum(|o| o.resent) > 500, "too few resends");
    assert!(sum(|o| o.sessions) > 100, "too few sessions");
    assert!(sum(|o| o.duplicates_in_log) > 100, "too few duplicates");
    assert!(sum(|o| o.tombstones) > 20, "too few tombstones");
    assert!(sum(|o| o.certificates) > 100, "too few new certificates");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 99, 12345] {
        assert_eq!(World::new(seed, 30).run(), World::new(seed, 30).run());
    }
}

fn live_client() -> Client {
    let mut client = Client::new(ClientOptions::new(stream(), epoch()), 0, 1);
    let mut server = Server::new(ServerOptions::default(), tenant(), node(), 1, 0);
    assert_eq!(client.poll_action(0), Some(client::Action::Connect));
    client.handle_connected(0);
    let Some(client::Action::SendHello(hello)) = client.poll_action(0) else {
        panic!("no HELLO")
    };
    server.handle_frame(Frame::Hello(hello));
    let Some(server::Action::Send(welcome)) = server.poll_action() else {
        panic!("no WELCOME")
    };
    client.handle_frame(0, welcome);
    client.offer(Offer {
        key: 4,
        epoch: epoch(),
        seq: 9,
        hash: [1; 32],
        bytes: 10,
        lane: Lane::Live,
    });
    assert_eq!(client.poll_action(0), Some(client::Action::SendBatch { key: 4 }));
    client
}

#[test]
fn p5_an_acknowledgement_of_other_bytes_or_an_unknown_batch_frees_nothing() {
    let mut client = live_client();
    client.handle_frame(
        1,
        Frame::Ack(Ack {
            epoch: epoch(),
            seq: 8,
            hash: [1; 32],
        }),
    );
    assert_eq!(client.poll_action(1), None);
    assert_eq!(client.stats(1).unknown_acks, 1);
    client.handle_frame(
        1,
        Frame::Ack(Ack {
            epoch: epoch(),
            seq: 9,
            hash: [2; 32],
        }),
    );
    assert!(matches!(client.poll_action(1), Some(client::Action::Close { .. })));
    assert_eq!(client.stats(1).acked, 0);
    assert_eq!(client.phase(), Phase::Waiting);
}

#[test]
fn silence_is_answered_by_a_new_connection_every_one_to_two_seconds_or_patience() {
    let mut client = Client::new(ClientOptions::new(stream(), epoch()), 0, 42);
    let (mut now, mut last) = (0, None);
    for _ in 0..200 {
        match client.poll_action(now) {
            Some(client::Action::Connect) => {
                if let Some(last) = last {
                    let gap = now - last;
                    assert!((1_000..=9_000).contains(&gap), "{gap}");
                }
                last = Some(now);
                // Nothing listens: the driver learns it at once, or by the core's own patience.
                if now % 2 == 0 {
                    client.handle_disconnected(now + 1);
                }
            }
            Some(_) => {}
            None => now = client.next_wake(now).unwrap().max(now + 1),
        }
    }
    assert!(last.unwrap() > 20_000);
}

#[test]
fn refusals_back_off_up_to_a_minute_and_a_welcome_forgets_them() {
    let mut client = Client::new(ClientOptions::new(stream(), epoch()), 0, 42);
    let (mut now, mut longest) = (0, 0);
    for _ in 0..60 {
        while client.poll_action(now) != Some(client::Action::Connect) {
            now = client.next_wake(now).unwrap().max(now + 1);
        }
        client.handle_refused(now, "not you");
        let wait = client.next_wake(now).unwrap() - now;
        assert!(wait <= 60_000);
        longest = longest.max(wait);
    }
    assert!(longest > 20_000);
}

#[test]
fn p13_a_stream_of_another_tenant_or_node_is_refused() {
    let other_tenant = StreamId {
        tenant: TenantId::new("other").unwrap(),
        ..stream()
    };
    let other_node = StreamId {
        node: NodeId::new("site-2").unwrap(),
        ..stream()
    };
    for wrong in [other_tenant, other_node] {
        let mut client = Client::new(ClientOptions::new(wrong, epoch()), 0, 1);
        client.poll_action(0);
        client.handle_connected(0);
        let Some(client::Action::SendHello(hello)) = client.poll_action(0) else {
            panic!("no HELLO")
        };
        let mut server = Server::new(ServerOptions::default(), tenant(), node(), 1, 0);
        server.handle_frame(Frame::Hello(hello));
        let Some(server::Action::Send(Frame::Refused(refused))) = server.poll_action() else {
            panic!("taken")
        };
        assert_eq!(refused.code, RefusedCode::Identity);
        assert!(server.stream().is_none());
        client.handle_frame(0, Frame::Refused(refused));
        assert!(matches!(client.poll_action(0), Some(client::Action::Close { .. })));
        assert!(matches!(client.poll_action(0), Some(client::Action::Refused { .. })));
    }
}

#[test]
fn a_batch_of_another_stream_or_id_is_given_back() {
    let mut server = Server::new(ServerOptions::default(), tenant(), node(), 1, 0);
    let preamble = Preamble {
        lane: Lane::Live,
        epoch: epoch(),
        seq: 1,
        length: 10,
    };
    assert!(
        server.handle_preamble(&preamble, None).is_none(),
        "nothing is taken before HELLO"
    );
    let mut server = Server::new(ServerOptions::default(), tenant(), node(), 1, 0);
    let hello = client_hello();
    server.handle_frame(Frame::Hello(hello));
    server.poll_action();
    let mut other = BatchId {
        stream: stream(),
        epoch: epoch(),
        seq: 2,
    };
    for spool in [[7; 16], [8; 16]] {
        other.stream.spool = spool;
        let ticket = server.handle_preamble(&preamble, None).unwrap();
        assert!(!server.handle_batch(ticket, &other, [0; 32]));
        let Some(server::Action::Send(Frame::Nack(nack))) = server.poll_action() else {
            panic!("no NACK")
        };
        assert!(matches!(nack.verdict, Verdict::Hold { .. }));
        server.handle_durable(ticket);
        assert_eq!(server.poll_action(), None);
    }
    let too_large = Preamble {
        length: (8 << 20) + 1,
        ..preamble
    };
    assert!(server.handle_preamble(&too_large, None).is_none());
    assert_eq!(server.in_flight(), 0);
}

fn client_hello() -> sluice_wire::session::frame::Hello {
    let mut client = Client::new(ClientOptions::new(stream(), epoch()), 0, 1);
    client.poll_action(0);
    client.handle_connected(0);
    match client.poll_action(0) {
        Some(client::Action::SendHello(hello)) => hello,
        other => panic!("{other:?}"),
    }
}
