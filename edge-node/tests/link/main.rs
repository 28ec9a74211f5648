//! The uplink over a real connection: everything spooled is acknowledged once it is in the log, whatever the gateway
//! does meanwhile; nothing leaves for a gateway that cannot prove itself.
#![allow(clippy::unwrap_used)]

mod budget;
mod certificates;
mod gateway;
mod lanes;
mod moves;
// The one relay there is; a crate that depends on it would bring the stores along.
#[path = "../../../bench/src/relay.rs"]
#[allow(dead_code, unreachable_pub)]
mod relay;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gateway::{Cloud, Pki};
use relay::{Relay, Weather};
use sluice_edge::link::{
    AckSink, BatchSource, LinkConfig, LinkStatus, SourceError, Uplink, Waiting, certificate_identity,
};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{self, Compression, Header, Kind};
use sluice_wire::ids::{BatchId, Epoch, StreamId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far beyond what anything here takes; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A spool in memory, and what the uplink said of it.
struct Spool {
    batches: Mutex<Vec<Bytes>>,
    /// Read once more, these are damaged: what comes instead is their tombstone.
    damaged: Mutex<BTreeSet<u64>>,
    grown: watch::Sender<u64>,
    acked: watch::Sender<Vec<u64>>,
    tombstoned: Mutex<Vec<u64>>,
    welcomed: Mutex<Vec<(u32, u32)>>,
}

impl Spool {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            batches: Mutex::default(),
            damaged: Mutex::default(),
            grown: watch::channel(0).0,
            acked: watch::channel(Vec::new()).0,
            tombstoned: Mutex::default(),
            welcomed: Mutex::default(),
        })
    }

    fn append(&self, count: u64) {
        // Some batches are several packets long.
        self.append_of(count, |seq| (seq as usize % 7) * 3000);
    }

    /// With so many bytes in each.
    fn append_of(&self, count: u64, bytes: impl Fn(u64) -> usize) {
        let mut batches = self.batches.lock().unwrap();
        for _ in 0..count {
            let seq = batches.len() as u64;
            batches.push(batch(seq, bytes(seq), 0));
        }
        self.grown.send_replace(batches.len() as u64);
    }

    /// Sealed at these times, which batches of other tests do not know.
    fn append_sealed(&self, at_ns: &[u64]) {
        let mut batches = self.batches.lock().unwrap();
        for at_ns in at_ns {
            let seq = batches.len() as u64;
            batches.push(batch(seq, 100, *at_ns));
        }
        self.grown.send_replace(batches.len() as u64);
    }

    fn len(&self) -> u64 {
        self.batches.lock().unwrap().len() as u64
    }

    async fn all_acked(&self) -> Vec<u64> {
        let wanted = self.batches.lock().unwrap().len();
        let mut acked = self.acked.subscribe();
        let list = tokio::time::timeout(PATIENCE, acked.wait_for(|list| list.len() >= wanted)).await;
        list.unwrap().unwrap().clone()
    }
}

impl BatchSource for Spool {
    fn next_from(&self, index: u64) -> Result<Option<(u64, Bytes)>, SourceError> {
        let acked = self.acked.borrow().clone();
        let batches = self.batches.lock().unwrap();
        let next = (index..batches.len() as u64).find(|i| !acked.contains(i));
        Ok(next.map(|i| (i, batches[i as usize].clone())))
    }

    fn read(&self, index: u64) -> Result<Bytes, SourceError> {
        let batches = self.batches.lock().unwrap();
        let missing = || SourceError {
            index,
            what: "no such record".to_owned(),
        };
        let bytes = batches.get(index as usize).cloned().ok_or_else(missing)?;
        if !self.damaged.lock().unwrap().contains(&index) {
            return Ok(bytes);
        }
        let header = envelope::Envelope::parse(bytes).unwrap().header;
        let tombstone = Header {
            sealed_at_ns: 0,
            ..header.tombstone("damaged")
        };
        Ok(envelope::seal(&tombstone, None, Compression::default()).unwrap())
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    fn waiting(&self, range: Range<u64>) -> Waiting {
        let acked = self.acked.borrow();
        let batches = range.filter(|index| !acked.contains(index)).count() as u64;
        Waiting { batches, bytes: 0 }
    }
}

impl AckSink for Spool {
    fn acked(&self, index: u64) {
        self.acked.send_modify(|list| list.push(index));
    }

    fn tombstoned(&self, index: u64, _reason: &str) {
        self.tombstoned.lock().unwrap().push(index);
    }

    fn welcomed(&self, generation: u32, max_batch_bytes: u32) {
        self.welcomed.lock().unwrap().push((generation, max_batch_bytes));
    }
}

fn stream() -> StreamId {
    StreamId {
        tenant: "acme".parse().unwrap(),
        node: "site-1".parse().unwrap(),
        spool: [1; 16],
    }
}

fn batch(seq: u64, bytes: usize, sealed_at_ns: u64) -> Bytes {
    let header = Header {
        id: BatchId {
            stream: stream(),
            epoch: Epoch { number: 1, random: 2 },
            seq,
        },
        generation: 0,
        kind: Kind::Data,
        rows: 0,
        counts: Counts::default(),
        journal_upto: seq,
        time_min_ns: 0,
        time_max_ns: 0,
        sealed_at_ns,
        detail: "x".repeat(bytes),
    };
    envelope::seal(&header, None, Compression::default()).unwrap()
}

struct Link {
    look_again: Arc<tokio::sync::Notify>,
    status: watch::Receiver<LinkStatus>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Link {
    fn start(pki: &Pki, ca: &Pki, gateway: SocketAddr, spool: &Arc<Spool>) -> Self {
        Self::with(pki, ca, gateway, spool, |_| {})
    }

    fn with(
        pki: &Pki,
        ca: &Pki,
        gateway: SocketAddr,
        spool: &Arc<Spool>,
        change: impl FnOnce(&mut LinkConfig),
    ) -> Self {
        let mut config = LinkConfig::new(
            format!("localhost:{}", gateway.port()),
            pki.file("edge.pem"),
            pki.file("edge.key"),
            ca.file("ca.pem"),
        );
        config.retry = (Duration::from_millis(50), Duration::from_millis(100));
        config.connect_timeout = Duration::from_millis(500);
        change(&mut config);
        let epoch = Epoch { number: 1, random: 2 };
        let uplink = Uplink::build(
            config,
            stream(),
            epoch,
            0,
            Arc::clone(spool) as _,
            Arc::clone(spool) as _,
        )
        .unwrap();
        let (status, shutdown) = (uplink.status(), CancellationToken::new());
        Self {
            look_again: uplink.look_again(),
            status,
            running: tokio::spawn(uplink.run(shutdown.clone())),
            shutdown,
        }
    }

    async fn until(&mut self, condition: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
        let reached = self.status.wait_for(|s| condition(s));
        tokio::time::timeout(PATIENCE, reached).await.unwrap().unwrap().clone()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap();
        assert!(!self.status.borrow().connected);
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

#[tokio::test]
async fn p2_p5_p7_everything_is_acknowledged_once_through_retries_deaths_and_refusals() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[7, 31], &[3, 20], &[11, 25, 40]);
    let gateway = gateway::start(&pki, any_port(), Arc::clone(&cloud));
    let spool = Spool::new();
    spool.append(30);
    let mut link = Link::start(&pki, &pki, gateway.address(), &spool);
    tokio::time::timeout(PATIENCE, cloud.written.subscribe().wait_for(|n| *n > 5))
        .await
        .unwrap()
        .unwrap();
    spool.append(30);
    let mut acked = spool.all_acked().await;
    acked.sort_unstable();
    assert_eq!(acked, (0..60).collect::<Vec<_>>(), "each once");
    let status = link.until(|s| s.acked == 60).await;
    // Batches that were on their way together may die of two deaths at once.
    assert!(
        status.sessions >= 2 && status.retransmits > 0 && status.tombstones == 2,
        "{status:?}"
    );
    assert!(status.rtt_ms.is_some() && status.last_ack_unix_ms.is_some());
    assert_eq!((status.in_flight, status.in_flight_bytes, status.held), (0, 0, 0));
    let log = cloud.log.lock().unwrap().clone();
    for seq in 0..60u64 {
        let first = log.iter().find(|b| b.header.id.seq == seq).unwrap();
        assert_eq!(first.header.kind == Kind::Tombstone, cloud.poison.contains(&seq));
        if !cloud.poison.contains(&seq) {
            assert_eq!(first.bytes(), &spool.read(seq).unwrap());
        }
    }
    // What the gateway never gave back is in the log in the order of the spool, lane by lane: what was there at the start, and
    // what came later.
    for lane in [0..30, 30..60] {
        let untroubled = |seq: &u64| lane.contains(seq) && ![3, 7, 20, 31].contains(seq);
        let mut seen: Vec<u64> = Vec::new();
        for seq in log.iter().map(|b| b.header.id.seq).filter(untroubled) {
            if !seen.contains(&seq) {
                seen.push(seq);
            }
        }
        assert!(seen.is_sorted(), "{seen:?}");
    }
    let mut tombstoned = spool.tombstoned.lock().unwrap().clone();
    tombstoned.sort_unstable();
    tombstoned.dedup();
    assert_eq!(tombstoned, [7, 31]);
    assert!(spool.welcomed.lock().unwrap().contains(&(5, 8 << 20)));
    link.stop().await;
}

/// The connection dies with batches under way, and when they are read again for the next one, some have been damaged meanwhile.
#[tokio::test]
async fn p2_p6_what_is_damaged_after_it_was_sent_is_settled_by_its_tombstone() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[4, 6], &[8]);
    let gateway = gateway::start(&pki, any_port(), Arc::clone(&cloud));
    let spool = Spool::new();
    spool.damaged.lock().unwrap().extend([4, 8]);
    spool.append(12);
    let mut link = Link::start(&pki, &pki, gateway.address(), &spool);
    let mut acked = spool.all_acked().await;
    acked.sort_unstable();
    assert_eq!(acked, (0..12).collect::<Vec<_>>(), "each once");
    let status = link.until(|s| s.acked == 12).await;
    assert!(status.sessions >= 2, "{status:?}");
    let log = cloud.log.lock().unwrap().clone();
    let kinds = |seq| -> Vec<Kind> {
        let of = log.iter().filter(|b| b.header.id.seq == seq);
        of.map(|b| b.header.kind).collect()
    };
    // The log had one of the two before the answer was lost; it took the other only as a tombstone, however often.
    assert!(kinds(4).iter().all(|kind| *kind == Kind::Tombstone), "{:?}", kinds(4));
    let (first, later) = (kinds(8)[0], kinds(8)[1..].to_vec());
    assert_eq!(first, Kind::Data);
    assert!(
        !later.is_empty() && later.iter().all(|kind| *kind == Kind::Tombstone),
        "{later:?}"
    );
    link.stop().await;
}

#[tokio::test]
async fn p2_a_batch_larger_than_the_log_takes_is_held_in_sight_until_a_gateway_takes_it() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[14]);
    cloud.max_batch_bytes.store(10_000, Ordering::SeqCst);
    let gateway = gateway::start(&pki, any_port(), Arc::clone(&cloud));
    let spool = Spool::new();
    // Every seventh has 12,000 bytes, the next 15,000, the next 18,000.
    spool.append(14);
    let mut link = Link::start(&pki, &pki, gateway.address(), &spool);
    let status = link.until(|s| s.held == 6 && s.acked == 8).await;
    assert!(status.alarm.is_some_and(|alarm| alarm.contains("10000")));
    assert_eq!((status.tombstones, cloud.log.lock().unwrap().len()), (0, 8));
    // The log is told to take more, and the next session says so.
    cloud.max_batch_bytes.store(8 << 20, Ordering::SeqCst);
    spool.append(1);
    assert_eq!(spool.all_acked().await.len(), 15);
    let status = link.until(|s| s.acked == 15).await;
    assert_eq!((status.held, status.alarm), (0, None));
    assert!(cloud.log.lock().unwrap().iter().all(|b| b.header.kind == Kind::Data));
    link.stop().await;
}

#[tokio::test]
async fn p9_an_outage_ends_when_the_network_does() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[]);
    let reserved = std::net::UdpSocket::bind(any_port()).unwrap();
    let address = reserved.local_addr().unwrap();
    let spool = Spool::new();
    spool.append(10);
    let mut link = Link::start(&pki, &pki, address, &spool);
    // Packets go out, nothing answers.
    link.until(|s| s.last_error.is_some()).await;
    assert!(spool.acked.borrow().is_empty());
    drop(reserved);
    let gateway = gateway::start(&pki, address, Arc::clone(&cloud));
    spool.all_acked().await;
    // The gateway goes away and comes back.
    gateway.endpoint.close(0u32.into(), b"restart");
    gateway.endpoint.wait_idle().await;
    drop(gateway);
    link.until(|s| !s.connected).await;
    spool.append(10);
    let reopened = async {
        loop {
            match std::net::UdpSocket::bind(address) {
                Ok(socket) => break drop(socket),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, reopened).await.unwrap();
    let _gateway = gateway::start(&pki, address, Arc::clone(&cloud));
    assert_eq!(spool.all_acked().await.len(), 20);
    link.stop().await;
}

#[tokio::test]
async fn f8_f24_a_new_port_loss_and_repeats_neither_end_the_session_nor_lose_a_batch() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[]);
    let gateway = gateway::start(&pki, any_port(), Arc::clone(&cloud));
    let weather = Weather {
        lost: 10,
        repeated: 10,
        ..Weather::CLEAR
    };
    let relay = Relay::start(gateway.address(), weather).await.unwrap();
    let spool = Spool::new();
    let mut link = Link::start(&pki, &pki, relay.address, &spool);
    for round in 1..=4 {
        spool.append(25);
        spool.all_acked().await;
        relay.rebind().await.unwrap();
        assert_eq!(spool.acked.borrow().len(), round * 25);
    }
    spool.append(25);
    spool.all_acked().await;
    let status = link.until(|s| s.acked == 125).await;
    assert_eq!(
        (status.sessions, status.retransmits),
        (1, 0),
        "the connection moved, nothing was sent again"
    );
    assert_eq!(cloud.log.lock().unwrap().len(), 125);
    link.stop().await;
}

#[tokio::test]
async fn p13_nothing_is_sent_to_a_gateway_of_another_authority() {
    let (pki, other) = (Pki::new(), Pki::new());
    let cloud = Cloud::new(&[], &[], &[]);
    let gateway = gateway::start(&other, any_port(), Arc::clone(&cloud));
    let spool = Spool::new();
    spool.append(3);
    let mut link = Link::start(&pki, &pki, gateway.address(), &spool);
    let status = link.until(|s| s.refusals > 0).await;
    assert!(status.alarm.is_some() && status.sessions == 0);
    link.stop().await;
    assert!(cloud.log.lock().unwrap().is_empty() && spool.acked.borrow().is_empty());
}

#[tokio::test]
async fn p5_a_refused_certificate_keeps_every_batch_and_raises_an_alarm() {
    let (pki, other) = (Pki::new(), Pki::new());
    let cloud = Cloud::new(&[], &[], &[]);
    let gateway = gateway::start(&other, any_port(), Arc::clone(&cloud));
    let spool = Spool::new();
    spool.append(3);
    // It trusts the gateway, the gateway does not trust it.
    let mut link = Link::start(&pki, &other, gateway.address(), &spool);
    link.until(|s| s.refusals > 1 && s.alarm.is_some()).await;
    link.stop().await;
    assert!(cloud.log.lock().unwrap().is_empty() && spool.acked.borrow().is_empty());
}

#[test]
fn a_certificate_names_its_tenant_and_node() {
    let pki = Pki::new();
    let (tenant, node) = certificate_identity(&pki.file("edge.pem")).unwrap();
    assert_eq!((tenant.as_str(), node.as_str()), ("acme", "site-1"));
    assert!(certificate_identity(&pki.file("gateway.pem")).is_err());
    assert!(certificate_identity(&pki.file("none.pem")).is_err());
}
