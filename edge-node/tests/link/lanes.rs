//! P6: what is fresh goes first, also over a thin link that an outage has left much to carry; and the backlog gets the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_wire::session::LanePolicy;
use sluice_wire::session::frame::Lane;

use crate::gateway::{Cloud, Pki, start};
use crate::relay::{Relay, Weather};
use crate::{Link, PATIENCE, Spool, any_port};

/// With 500 kB a second each of them takes a tenth of one.
const BATCH_BYTES: usize = 50_000;

async fn written(cloud: &Cloud, count: usize) {
    let mut written = cloud.written.subscribe();
    let reached = written.wait_for(|n| *n >= count);
    tokio::time::timeout(PATIENCE, reached).await.unwrap().unwrap();
}

fn log_order(cloud: &Cloud) -> Vec<u64> {
    cloud.log.lock().unwrap().iter().map(|b| b.header.id.seq).collect()
}

/// Where each of `live` stands in the log, as the number of batches that came after it was sealed and before it.
fn overtaken_by(cloud: &Cloud, live: &[(u64, usize)]) -> Vec<usize> {
    let order = log_order(cloud);
    let place = |seq: u64| order.iter().position(|s| *s == seq).unwrap();
    live.iter().map(|(seq, before)| place(*seq) - before).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_fresh_batch_does_not_wait_for_the_backlog_of_a_thin_link() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[]);
    let gateway = start(&pki, any_port(), Arc::clone(&cloud));
    let relay = Relay::start(gateway.address(), Weather::THIN).await.unwrap();
    let spool = Spool::new();
    spool.append_of(80, |_| BATCH_BYTES);
    // However slow this machine is, what is sealed while the link is up stays live.
    let mut link = Link::with(&pki, &pki, relay.address, &spool, |config| {
        config.live_for = Duration::from_secs(600);
    });
    let mut live = Vec::new();
    for wait_for in [10, 25, 40] {
        written(&cloud, wait_for).await;
        live.push((spool.len(), *cloud.written.borrow()));
        spool.append_of(1, |_| 10_000);
    }
    spool.all_acked().await;
    // The network holds 400 ms of the link, which are four batches; some more may come while it is sealed and acknowledged. Behind
    // everything that the windows let out, it would be dozens.
    let overtaken = overtaken_by(&cloud, &live);
    assert!(overtaken.iter().all(|n| *n <= 12), "{overtaken:?}");
    let lanes = cloud.lanes.lock().unwrap().clone();
    let order = log_order(&cloud);
    for (seq, lane) in order.iter().zip(lanes) {
        assert_eq!(lane == Lane::Backlog, *seq < 80, "{seq}");
    }
    let backlog: Vec<u64> = order.into_iter().filter(|seq| *seq < 80).collect();
    assert!(backlog.is_sorted(), "order within a lane");
    let status = link.until(|s| s.acked == 83).await;
    let path = status.path.unwrap();
    assert!(path.bytes_per_second.is_some() && path.least_rtt_ms >= 150.0 && path.udp_sent_bytes > 4_000_000);
    let sent = (status.lanes.live.sent_bytes, status.lanes.backlog.sent_bytes);
    assert!(sent.0 > 30_000 && sent.0 < 40_000 && sent.1 > 4_000_000, "{sent:?}");
    assert_eq!((status.lanes.live.batches, status.lanes.backlog.batches), (0, 0));
    link.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_link_that_comes_back_carries_what_is_fresh_at_once() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[]);
    let gateway = start(&pki, any_port(), Arc::clone(&cloud));
    let weather = Weather {
        lost: 5,
        repeated: 2,
        late: 2,
        ..Weather::THIN
    };
    let relay = Relay::start(gateway.address(), weather).await.unwrap();
    let spool = Spool::new();
    spool.append_of(5, |_| BATCH_BYTES);
    let mut link = Link::with(&pki, &pki, relay.address, &spool, |config| {
        config.idle_timeout = Duration::from_secs(4);
        config.keep_alive = Duration::from_millis(300);
        config.live_for = Duration::from_secs(3);
        config.connect_timeout = Duration::from_secs(2);
    });
    spool.all_acked().await;
    relay.cut(true);
    spool.append_of(60, |_| BATCH_BYTES);
    link.until(|s| !s.connected).await;
    // Down for long enough to be an outage, however fast the silence was noticed.
    tokio::time::timeout(PATIENCE, async {
        while link.status.borrow().lanes.backlog.batches < 60 {
            link.status.changed().await.unwrap();
        }
    })
    .await
    .unwrap();
    relay.cut(false);
    link.until(|s| s.connected).await;
    let before = *cloud.written.borrow();
    spool.append_of(1, |_| 10_000);
    spool.all_acked().await;
    let overtaken = overtaken_by(&cloud, &[(65, before)]);
    assert!(overtaken[0] <= 12, "{overtaken:?}");
    let status = link.until(|s| s.acked == 66).await;
    assert!(status.sessions >= 2 && status.path.unwrap().lost_packets > 0);
    link.stop().await;
}

/// An edge that is killed while its backlog drains has what happened just before it in its spool: that does not wait for the rest again.
#[tokio::test]
async fn p9_what_was_sealed_just_before_a_stop_goes_first_at_the_start() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[]);
    // No backlog is taken for now.
    cloud.lags.store(true, Ordering::SeqCst);
    let gateway = start(&pki, any_port(), Arc::clone(&cloud));
    let spool = Spool::new();
    let second = 1_000_000_000;
    let old: Vec<u64> = (1..=90).map(|at| at * second).collect();
    spool.append_sealed(&old);
    spool.append_sealed(&[1_000 * second, 1_001 * second]);
    // Nobody knows when the last two were sealed: one is damaged.
    spool.append_sealed(&[1_001 * second, 0]);
    spool.damaged.lock().unwrap().insert(92);
    let mut link = Link::with(&pki, &pki, gateway.address(), &spool, |config| {
        config.live_for = Duration::from_secs(600);
    });
    link.until(|s| s.acked >= 4 && s.lanes.backlog.rests).await;
    assert_eq!(log_order(&cloud), [90, 91, 92, 93]);
    cloud.lags.store(false, Ordering::SeqCst);
    spool.all_acked().await;
    let mut backlog = log_order(&cloud).split_off(4);
    backlog.sort_unstable();
    assert_eq!(backlog, (0..90).collect::<Vec<u64>>());
    link.stop().await;
}

#[tokio::test]
async fn p6_backlog_rests_when_the_gateway_says_so_and_live_batches_go_on() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[]);
    cloud.lags.store(true, Ordering::SeqCst);
    let gateway = start(&pki, any_port(), Arc::clone(&cloud));
    let spool = Spool::new();
    spool.append(20);
    let mut link = Link::with(&pki, &pki, gateway.address(), &spool, |config| {
        config.live_for = Duration::from_secs(600);
    });
    link.until(|s| s.lanes.backlog.rests).await;
    for round in 1..=5 {
        spool.append(2);
        written(&cloud, 2 * round).await;
    }
    let status = link.until(|s| s.acked == 10 && s.retries_asked > 20).await;
    assert_eq!((status.lanes.backlog.batches, status.lanes.live.batches), (20, 0));
    assert_eq!(log_order(&cloud), (20..30).collect::<Vec<_>>());
    cloud.lags.store(false, Ordering::SeqCst);
    spool.all_acked().await;
    assert_eq!(cloud.log.lock().unwrap().len(), 30, "each once");
    link.stop().await;
}

#[tokio::test]
async fn p7_oldest_first_keeps_the_order_of_the_whole_spool() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[]);
    let gateway = start(&pki, any_port(), Arc::clone(&cloud));
    let relay = Relay::start(
        gateway.address(),
        Weather {
            rate: 5_000_000,
            ..Weather::THIN
        },
    )
    .await
    .unwrap();
    let spool = Spool::new();
    spool.append_of(40, |_| BATCH_BYTES);
    let link = Link::with(&pki, &pki, relay.address, &spool, |config| {
        config.policy = LanePolicy::OldestFirst;
    });
    written(&cloud, 5).await;
    spool.append_of(5, |_| 1_000);
    spool.all_acked().await;
    assert_eq!(log_order(&cloud), (0..45).collect::<Vec<_>>());
    link.stop().await;
}

#[tokio::test]
async fn p6_weighted_lanes_both_move() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[]);
    let gateway = start(&pki, any_port(), Arc::clone(&cloud));
    let relay = Relay::start(
        gateway.address(),
        Weather {
            rate: 5_000_000,
            ..Weather::THIN
        },
    )
    .await
    .unwrap();
    let spool = Spool::new();
    spool.append_of(60, |_| BATCH_BYTES);
    let link = Link::with(&pki, &pki, relay.address, &spool, |config| {
        config.policy = LanePolicy::Weighted { live_percent: 50 };
        config.live_for = Duration::from_secs(600);
    });
    written(&cloud, 5).await;
    spool.append_of(60, |_| BATCH_BYTES);
    spool.all_acked().await;
    let lanes = cloud.lanes.lock().unwrap().clone();
    // From the first live batch to the last one of the shorter lane, neither lane runs alone for long.
    let first = lanes.iter().position(|l| *l == Lane::Live).unwrap();
    let busy: Vec<bool> = lanes[first..first + 80].iter().map(|l| *l == Lane::Live).collect();
    let live = busy.iter().filter(|is_live| **is_live).count();
    assert!((25..=55).contains(&live), "{live} of 80");
    assert!(
        busy.chunks(20)
            .all(|part| part.contains(&true) && part.contains(&false)),
        "{busy:?}"
    );
    link.stop().await;
}
