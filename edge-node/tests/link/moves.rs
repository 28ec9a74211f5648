//! P9: several gateways. An edge goes to another one when its own fails or leaves, loses nothing, and comes back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::gateway::{Cloud, Gateway, Pki, start};
use crate::{Link, PATIENCE, Spool, any_port};

fn name(address: SocketAddr) -> String {
    format!("localhost:{}", address.port())
}

fn linked(pki: &Pki, gateways: &[SocketAddr], spool: &Arc<Spool>) -> Link {
    Link::with(pki, pki, gateways[0], spool, |config| {
        config.gateways = gateways.iter().copied().map(name).collect();
        config.first_is_home = true;
        config.return_after = Duration::from_millis(200);
        config.live_for = Duration::from_secs(600);
    })
}

/// Ends a gateway and returns when its port is free.
async fn end(gateway: Gateway) {
    let address = gateway.address();
    gateway.endpoint.close(0u32.into(), b"gone");
    gateway.endpoint.wait_idle().await;
    drop(gateway);
    let free = async {
        while std::net::UdpSocket::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
}

#[tokio::test]
async fn p9_an_edge_moves_when_its_gateway_leaves_and_comes_home_when_it_is_back() {
    let pki = Pki::new();
    // Both write into one log; some batches are answered late, so that some are on their way when the gateway leaves.
    let cloud = Cloud::new(&[], &[4, 9, 12], &[]);
    let home = start(&pki, any_port(), Arc::clone(&cloud));
    let other = start(&pki, any_port(), Arc::clone(&cloud));
    let (home_address, other_address) = (home.address(), other.address());
    let spool = Spool::new();
    let mut link = linked(&pki, &[home_address, other_address], &spool);
    spool.append(15);
    link.until(|s| s.connected && s.gateway == name(home_address)).await;
    home.leaves.cancel();
    spool.append(15);
    link.until(|s| s.connected && s.gateway == name(other_address)).await;
    spool.append(15);
    assert_eq!(spool.all_acked().await.len(), 45);
    // Nothing listens there for a while: the one that works stays in use.
    end(home).await;
    spool.append(15);
    spool.all_acked().await;
    assert_eq!(link.status.borrow().gateway, name(other_address));
    let _home = start(&pki, home_address, Arc::clone(&cloud));
    link.until(|s| s.connected && s.gateway == name(home_address)).await;
    spool.append(15);
    assert_eq!(spool.all_acked().await.len(), 75);
    let status = link.until(|s| s.acked == 75).await;
    assert!(status.sessions >= 3, "{status:?}");
    let mut log: Vec<u64> = cloud.log.lock().unwrap().iter().map(|b| b.header.id.seq).collect();
    log.sort_unstable();
    log.dedup();
    assert_eq!(log, (0..75).collect::<Vec<_>>());
    link.stop().await;
}

#[tokio::test]
async fn p9_a_gateway_that_is_gone_or_refuses_is_passed_over() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let cloud = Cloud::new(&[], &[], &[]);
    // A port where nobody is, a gateway that does not know us, and a good one.
    let nobody = std::net::UdpSocket::bind(any_port()).unwrap();
    let refusing = start(&stranger, any_port(), Cloud::new(&[], &[], &[]));
    let good = start(&pki, any_port(), Arc::clone(&cloud));
    let spool = Spool::new();
    spool.append(5);
    let gateways = [nobody.local_addr().unwrap(), refusing.address(), good.address()];
    let mut link = Link::with(&pki, &pki, gateways[0], &spool, |config| {
        config.gateways = gateways.iter().copied().map(name).collect();
        config.first_is_home = true;
        config.return_after = Duration::from_secs(600);
    });
    spool.all_acked().await;
    let status = link.until(|s| s.acked == 5).await;
    assert_eq!(status.gateway, name(good.address()));
    assert!(status.refusals > 0 && status.sessions == 1, "{status:?}");
    link.stop().await;
}

/// A packet that asks whether a gateway is there, or says that it is; those of a handshake are many times as long.
fn is_small(packet: &[u8]) -> bool {
    packet.len() < 64
}

/// Carries packets between an edge and a gateway: unless it is open, small ones alone until one of them came back, so who only ever begins
/// handshakes does not come through.
async fn carried(front: tokio::net::UdpSocket, gateway: SocketAddr, mut is_open: bool) {
    let back = tokio::net::UdpSocket::bind(any_port()).await.unwrap();
    back.connect(gateway).await.unwrap();
    let (mut from_edge, mut from_gateway) = ([0; 2048], [0; 2048]);
    let mut edge = None;
    loop {
        tokio::select! {
            received = front.recv_from(&mut from_edge) => {
                let (bytes, from) = received.unwrap();
                edge = Some(from);
                if is_open || is_small(&from_edge[..bytes]) {
                    // While nobody is there the system says so here.
                    let _ = back.send(&from_edge[..bytes]).await;
                }
            }
            received = back.recv(&mut from_gateway) => if let (Ok(bytes), Some(edge)) = (received, edge) {
                is_open |= is_small(&from_gateway[..bytes]);
                front.send_to(&from_gateway[..bytes], edge).await.unwrap();
            },
        }
    }
}

/// A handshake's first packets are thirty times as long as what asks whether anyone is there, and someone pays for them.
#[tokio::test]
async fn p9_after_long_silence_an_edge_asks_with_few_bytes_and_comes_when_it_is_answered() {
    let pki = Pki::new();
    let silent = tokio::net::UdpSocket::bind(any_port()).await.unwrap();
    let address = silent.local_addr().unwrap();
    let spool = Spool::new();
    spool.append(5);
    let mut link = Link::with(&pki, &pki, address, &spool, |config| {
        config.spare_after = Duration::ZERO;
        config.budget.per_day = Some(1 << 30);
    });
    // Over several attempts, of half a second each.
    let (mut small, mut large) = (0, 0);
    let mut packet = [0; 2048];
    while small < 25 {
        let received = tokio::time::timeout(PATIENCE, silent.recv(&mut packet)).await;
        match is_small(&packet[..received.unwrap().unwrap()]) {
            true => small += 1,
            false => large += 1,
        }
    }
    // One handshake a minute, of a packet or two at each address of the name, which are told when it is given up.
    assert!(large <= 8, "{large} large ones beside {small}");
    let sent = small * (41 + 28) + large * (1_200 + 28);
    let status = link
        .until(|s| s.spares_bytes && s.budget.is_some_and(|budget| budget.used_today >= sent))
        .await;
    assert!(status.down_since_unix_ms.is_some(), "{status:?}");
    assert!(!status.connected && status.sessions == 0, "{status:?}");

    let cloud = Cloud::new(&[], &[], &[]);
    let gateway = start(&pki, any_port(), Arc::clone(&cloud));
    let carrying = tokio::spawn(carried(silent, gateway.address(), false));
    // The next handshake unasked would be later.
    let acked = tokio::time::timeout(PATIENCE / 2, spool.all_acked()).await;
    assert_eq!(acked.expect("it did not come when it was answered").len(), 5);
    assert_eq!(cloud.log.lock().unwrap().len(), 5);
    link.until(|s| s.connected && !s.spares_bytes && s.down_since_unix_ms.is_none())
        .await;
    link.stop().await;
    carrying.abort();
}

#[tokio::test]
async fn p9_what_tries_took_does_not_hold_up_what_is_fresh() {
    let pki = Pki::new();
    let silent = tokio::net::UdpSocket::bind(any_port()).await.unwrap();
    let address = silent.local_addr().unwrap();
    let spool = Spool::new();
    let mut link = Link::with(&pki, &pki, address, &spool, |config| {
        (config.budget.per_second, config.budget.per_day) = (Some(1_000), Some(1 << 30));
    });
    // Two minutes and more at that rate, and twice what a second's budget has room for.
    link.until(|s| s.budget.is_some_and(|budget| budget.used_today >= 150_000))
        .await;
    drop(silent);
    let cloud = Cloud::new(&[], &[], &[]);
    let _gateway = start(&pki, address, Arc::clone(&cloud));
    spool.append(2);
    assert_eq!(spool.all_acked().await.len(), 2);
    link.stop().await;
}

/// Else anyone beside it could use up its budget, and keep it awake.
#[tokio::test]
async fn p15_a_link_hears_nobody_but_gateways() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[]);
    let gateway = start(&pki, any_port(), Arc::clone(&cloud));
    let front = tokio::net::UdpSocket::bind(any_port()).await.unwrap();
    let spool = Spool::new();
    let mut link = Link::with(&pki, &pki, front.local_addr().unwrap(), &spool, |config| {
        config.budget.per_day = Some(1 << 20);
    });
    let mut packet = [0; 2048];
    let (_, edge) = front.recv_from(&mut packet).await.unwrap();
    let stranger = std::net::UdpSocket::bind(any_port()).unwrap();
    for _ in 0..150 {
        for _ in 0..20 {
            stranger.send_to(&[0xc0; 1_200], edge).unwrap();
        }
        // The system keeps no more of them than these, so they have to be read.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let carrying = tokio::spawn(carried(front, gateway.address(), true));
    spool.append(5);
    assert_eq!(spool.all_acked().await.len(), 5);
    let status = link.until(|s| s.acked == 5).await;
    let used = status.budget.unwrap().used_today;
    assert!((1_000..1 << 20).contains(&used), "{used}");
    link.stop().await;
    carrying.abort();
}

/// The numbers that begin handshakes: each try has one of its own, and says it again as long as nobody answers.
async fn next_try(silent: &tokio::net::UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut packet = [0; 2048];
    let (bytes, from) = tokio::time::timeout(PATIENCE, silent.recv_from(&mut packet))
        .await
        .expect("nobody tries any more")
        .unwrap();
    // A long header: a byte, four of the version, the length of the number, and the number.
    let number = packet[6..bytes].get(..usize::from(packet[5])).unwrap();
    (number.to_vec(), from)
}

/// Else an outage that ends while an attempt waits would last as long again as that attempt did so far: what it sends by itself it sends
/// again after 1, 2, 4, 8 seconds.
#[tokio::test]
async fn p9_while_nothing_answers_an_edge_tries_again_beside_the_try_that_waits() {
    let pki = Pki::new();
    let silent = tokio::net::UdpSocket::bind(any_port()).await.unwrap();
    let spool = Spool::new();
    let link = Link::with(&pki, &pki, silent.local_addr().unwrap(), &spool, |config| {
        (config.connect_timeout, config.idle_timeout) = (PATIENCE * 2, PATIENCE * 2);
    });
    let mut tries = BTreeSet::new();
    let several = async {
        while tries.len() < 5 {
            tries.insert(next_try(&silent).await.0);
        }
    };
    tokio::time::timeout(PATIENCE, several)
        .await
        .expect("one attempt has two minutes, and tries once");
    link.stop().await;

    // Who answers, however slowly, is not asked twice.
    let slow = tokio::net::UdpSocket::bind(any_port()).await.unwrap();
    let link = Link::with(&pki, &pki, slow.local_addr().unwrap(), &spool, |config| {
        (config.connect_timeout, config.idle_timeout) = (PATIENCE * 2, PATIENCE * 2);
        config.retry = (Duration::from_secs(2), Duration::from_secs(2));
    });
    let (first, from) = next_try(&slow).await;
    // As a packet of a handshake begins.
    slow.send_to(&[0xc0; 30], from).await.unwrap();
    // It sends two packets again after 1 s, and two after 3 s; another try would come in between.
    for _ in 0..4 {
        assert_eq!(
            next_try(&slow).await.0,
            first,
            "another try, although something came back"
        );
    }
    link.stop().await;
}
