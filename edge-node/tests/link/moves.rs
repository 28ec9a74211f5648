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
    slow.send_to(&[0x40; 30], from).await.unwrap();
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
