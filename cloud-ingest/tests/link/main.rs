//! The gateway against peers of every kind: good edges, wrong certificates, other tenants' streams, revoked nodes,
//! hostile bytes. Rows T1 to T5 and R1 to R3 of the failure matrix.
#![allow(clippy::unwrap_used)]

mod certificates;
mod failing_log;
mod hostile;
mod lag;
mod memory_log;
mod peer;
mod pki;
mod quarantine;
mod quota;
mod tenants;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use memory_log::MemoryLog;
use peer::{PATIENCE, Peer, Session, batch, header, preamble, rows, stream};
use pki::{Files, Pki, Spec, dns, uri};
use rcgen::ExtendedKeyUsagePurpose;
use sluice_ingest::gateway::{Gateway, GatewayConfig, ReadPosition, StatusHandle};
use sluice_wire::envelope::{self, Compression, Envelope};
use sluice_wire::session::frame::{Frame, Nack, RefusedCode, Verdict};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct World {
    pki: Pki,
    log: Arc<MemoryLog>,
    gateway: SocketAddr,
    status: StatusHandle,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    good: Files,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::read_by(None, change)
    }

    fn read_by(reader: Option<Arc<dyn ReadPosition>>, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let pki = Pki::new();
        let server = pki.gateway();
        let deny = pki.dir().join("deny");
        std::fs::write(&deny, "# nobody\n").unwrap();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = GatewayConfig::new(listen, server.certificate, server.key, pki.ca.clone());
        config.deny_list = Some(deny);
        config.recheck_interval = Duration::from_secs(1);
        config.retry_after = Duration::from_millis(50);
        change(&mut config);
        let log = Arc::new(MemoryLog::new());
        let gateway = Gateway::build(config, Arc::clone(&log) as _, reader).unwrap();
        let (address, status, shutdown) = (gateway.local_addr(), gateway.status(), CancellationToken::new());
        let running = tokio::spawn(gateway.run(shutdown.clone()));
        let good = pki.issue("good", &Spec::default());
        Self {
            pki,
            log,
            gateway: address,
            status,
            shutdown,
            running,
            good,
        }
    }

    fn peer(&self, files: &Files) -> Peer {
        Peer::new(&self.pki.ca, Some(files))
    }

    async fn good_session(&self) -> (Peer, Session) {
        let peer = self.peer(&self.good);
        let session = peer.open(self.gateway, site_1()).await.unwrap();
        (peer, session)
    }

    fn revoke(&self, serials: &str) {
        std::fs::write(self.pki.dir().join("deny"), serials).unwrap();
    }
}

fn site_1() -> sluice_wire::ids::StreamId {
    stream("acme", "site-1")
}

async fn nack(session: &mut Session) -> Nack {
    match session.frame().await.unwrap() {
        Frame::Nack(nack) => nack,
        other => panic!("{other:?}"),
    }
}

/// Returns once the condition holds; only a failure waits long.
async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.unwrap();
}

#[tokio::test]
async fn p4_batches_are_acknowledged_and_stand_in_the_log_byte_for_byte() {
    let world = World::new();
    let (_peer, mut session) = world.good_session().await;
    let batches: Vec<_> = (0..40).map(|seq| batch(site_1(), seq)).collect();
    for (n, sent) in batches.iter().enumerate() {
        session.send(sent).await;
        // Some in flight together, some alone.
        if n % 4 == 3 {
            for _ in 0..4 {
                let Frame::Ack(ack) = session.frame().await.unwrap() else {
                    panic!("no ACK")
                };
                assert_eq!(
                    ack.hash,
                    Envelope::parse(batches[ack.seq as usize].clone()).unwrap().hash
                );
                let records = world.log.records();
                assert!(records.iter().any(|r| r.envelope == batches[ack.seq as usize]));
            }
        }
    }
    let records = world.log.records();
    assert_eq!(records.len(), 40);
    let partition = records[0].partition;
    assert_eq!(
        (partition.generation, partition.index),
        (3, site_1().partition_index(4))
    );
    assert!(records.iter().all(|r| r.partition == partition && r.ingested_at_us > 0));
    assert_eq!(world.status.snapshot().rows_acknowledged, 120);
}

#[tokio::test]
async fn p4_nothing_is_acknowledged_before_the_log_has_it() {
    let world = World::new();
    let (_peer, mut session) = world.good_session().await;
    world.log.open.send_replace(false);
    session.send(&batch(site_1(), 1)).await;
    world.log.begun.subscribe().wait_for(|n| *n == 1).await.unwrap();
    assert!(session.frame().now_or_never().is_none());
    // A batch that the log refuses is given back, not acknowledged, while the first still waits.
    world.log.fail_next(1);
    session.send(&batch(site_1(), 2)).await;
    let refused = nack(&mut session).await;
    assert_eq!(refused.seq, 2);
    assert!(
        matches!(refused.verdict, Verdict::Retry { after_ms: 50..=100 }),
        "{refused:?}"
    );
    assert!(world.log.records().is_empty());
    world.log.open.send_replace(true);
    let Frame::Ack(ack) = session.frame().await.unwrap() else {
        panic!("no ACK")
    };
    assert_eq!((ack.seq, world.log.records().len()), (1, 1));
}

/// Certificates that no gateway lets in, and what is wrong with each. The other authority has to live as long as they are used.
fn wrong_certificates(pki: &Pki, other: &Pki) -> Vec<(&'static str, Files)> {
    let spec = |names: Vec<rcgen::SanType>| Spec {
        names,
        ..Spec::default()
    };
    let (own, foreign) = (uri("sluice://acme/site-1"), uri("sluice://rival/site-1"));
    vec![
        ("self-signed", pki.self_signed("self", &Spec::default())),
        ("other authority", other.issue("other", &Spec::default())),
        (
            "expired",
            pki.issue(
                "expired",
                &Spec {
                    years: (2000, 2001),
                    ..Spec::default()
                },
            ),
        ),
        (
            "not yet valid",
            pki.issue(
                "early",
                &Spec {
                    years: (2090, 2100),
                    ..Spec::default()
                },
            ),
        ),
        ("no name", pki.issue("nameless", &spec(vec![]))),
        ("two names", pki.issue("two", &spec(vec![own.clone(), foreign]))),
        ("a name and a host", pki.issue("host", &spec(vec![own, dns("site-1")]))),
        ("host only", pki.issue("host-only", &spec(vec![dns("site-1")]))),
        (
            "other scheme",
            pki.issue("scheme", &spec(vec![uri("https://acme/site-1")])),
        ),
        ("no node", pki.issue("no-node", &spec(vec![uri("sluice://acme")]))),
        (
            "bad tenant",
            pki.issue("tenant", &spec(vec![uri("sluice://ACME/site-1")])),
        ),
        (
            "path in node",
            pki.issue("path", &spec(vec![uri("sluice://acme/site-1/..")])),
        ),
        ("gateway's usage", {
            let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            pki.issue(
                "usage",
                &Spec {
                    usages,
                    ..Spec::default()
                },
            )
        }),
        (
            "no usage",
            pki.issue(
                "no-usage",
                &Spec {
                    usages: vec![],
                    ..Spec::default()
                },
            ),
        ),
        (
            "common name only",
            pki.issue(
                "common-name",
                &Spec {
                    names: vec![],
                    common_name: Some("sluice://acme/site-1".to_owned()),
                    ..Spec::default()
                },
            ),
        ),
    ]
}

#[tokio::test]
async fn p13_t1_wrong_certificates_are_refused() {
    let world = World::new();
    let other = Pki::new();
    let cases = wrong_certificates(&world.pki, &other);
    for (what, files) in &cases {
        let refused = world.peer(files).open(world.gateway, site_1()).await;
        assert!(refused.is_err(), "{what} was let in");
    }
    let without = Peer::new(&world.pki.ca, None);
    assert!(
        without.open(world.gateway, site_1()).await.is_err(),
        "no certificate was let in"
    );
    let (_peer, mut session) = world.good_session().await;
    session.send(&batch(site_1(), 1)).await;
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(_)));
    let status = world.status.snapshot();
    // All but the good one: stopped by TLS or by what the certificate names.
    assert_eq!(
        status.handshakes_failed + status.refused_identity,
        cases.len() as u64 + 1
    );
    assert_eq!(status.sessions_opened, 1);
}

#[tokio::test]
async fn p13_t2_a_stream_of_another_tenant_or_node_is_refused() {
    let world = World::new();
    for (tenant, node) in [("rival", "site-1"), ("acme", "site-2")] {
        let refused = world.peer(&world.good).open(world.gateway, stream(tenant, node)).await;
        assert!(refused.unwrap_err().contains("Identity"));
    }
    assert_eq!(world.status.snapshot().refused_identity, 2);
    // Nor does a batch of another tenant pass inside an honest session.
    let (_peer, mut session) = world.good_session().await;
    session.send(&batch(stream("rival", "site-1"), 5)).await;
    let held = nack(&mut session).await;
    assert!(held.seq == 5 && matches!(held.verdict, Verdict::Hold { .. }));
    assert!(world.log.records().is_empty());
}

#[tokio::test]
async fn p14_t3_a_revoked_certificate_is_cut_off_and_stays_out() {
    let world = World::new();
    let (_peer, session) = world.good_session().await;
    let other = world.pki.issue(
        "other",
        &Spec {
            names: vec![uri("sluice://acme/site-2")],
            serial: 7,
            ..Spec::default()
        },
    );
    let other = world
        .peer(&other)
        .open(world.gateway, stream("acme", "site-2"))
        .await
        .unwrap();
    world.revoke("00:10:01 # site-1 was stolen\n");
    let (code, reason) = session.closed().await;
    assert_eq!(world.status.snapshot().cut_revoked, 1);
    assert_eq!(
        (code, reason.as_str()),
        (u64::from(RefusedCode::Revoked.number()), "certificate is revoked")
    );
    assert!(world.peer(&world.good).open(world.gateway, site_1()).await.is_err());
    // A broken list changes nothing.
    world.revoke("no serial\n");
    until(|| world.status.snapshot().reload_failures > 0).await;
    assert!(world.peer(&world.good).open(world.gateway, site_1()).await.is_err());
    world.revoke("7\n1001\n");
    assert_eq!(other.closed().await.0, u64::from(RefusedCode::Revoked.number()));
    assert!(world.peer(&world.good).open(world.gateway, site_1()).await.is_err());
}

#[tokio::test]
async fn p14_a_certificate_that_expires_during_its_session_is_cut_off() {
    let world = World::new();
    let short = world.pki.issue(
        "short",
        &Spec {
            lives: Some(Duration::from_secs(10)),
            ..Spec::default()
        },
    );
    let session = world.peer(&short).open(world.gateway, site_1()).await.unwrap();
    let (code, reason) = session.closed().await;
    assert_eq!(
        (code, reason.as_str()),
        (u64::from(RefusedCode::Identity.number()), "certificate is expired")
    );
}

#[tokio::test]
async fn p14_t4_t5_no_session_is_resumed_and_early_data_is_impossible() {
    let world = World::new();
    let eager = Peer::with(&world.pki.ca, Some(&world.good), |tls| {
        tls.enable_early_data = true;
        tls.resumption = rustls::client::Resumption::in_memory_sessions(8);
    });
    for _ in 0..3 {
        let mut session = eager.open(world.gateway, site_1()).await.unwrap();
        session.send(&batch(site_1(), 1)).await;
        assert!(matches!(session.frame().await.unwrap(), Frame::Ack(_)));
        session.connection.close(0u32.into(), b"");
        let again = eager
            .endpoint
            .connect_with(eager.config.clone(), world.gateway, "localhost")
            .unwrap();
        assert!(
            again.into_0rtt().is_err(),
            "the gateway handed out what early data needs"
        );
    }
}

#[tokio::test]
async fn invalid_content_is_refused_for_good_and_its_tombstone_is_taken() {
    let world = World::new();
    let (_peer, mut session) = world.good_session().await;
    let invalid = envelope::seal(
        &header(site_1(), 7, 3),
        Some(&rows(3, "no such column")),
        Compression::default(),
    )
    .unwrap();
    let mut flipped = batch(site_1(), 8).to_vec();
    flipped[40] ^= 1;
    session.send(&invalid).await;
    session.send_raw(&preamble(8, flipped.len()), &flipped).await;
    let mut refused = [nack(&mut session).await, nack(&mut session).await];
    refused.sort_by_key(|n| n.seq);
    assert!(refused.iter().all(|n| n.verdict == Verdict::Permanent), "{refused:?}");
    assert!(refused[1].reason.contains("hash"));
    let tombstone = header(site_1(), 7, 3).tombstone(&refused[0].reason);
    session
        .send(&envelope::seal(&tombstone, None, Compression::default()).unwrap())
        .await;
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(ack) if ack.seq == 7));
    assert_eq!(world.log.records().len(), 1);
}

#[tokio::test]
async fn what_another_build_or_setting_would_take_is_held_not_refused() {
    let world = World::with(|config| config.max_batch_bytes = 64 << 10);
    let (_peer, mut session) = world.good_session().await;
    let mut newer = batch(site_1(), 1).to_vec();
    newer[4] = 2;
    session.send_raw(&preamble(1, newer.len()), &newer).await;
    let held = nack(&mut session).await;
    assert!(
        matches!(held.verdict, Verdict::Hold { .. }) && held.reason.contains("upgrade"),
        "{held:?}"
    );
    session.send_raw(&preamble(2, 65 << 10), &[0; 65 << 10]).await;
    assert!(matches!(nack(&mut session).await.verdict, Verdict::Hold { .. }));
    let other_generation = sluice_wire::envelope::Header {
        generation: 99,
        ..header(site_1(), 3, 3)
    };
    session
        .send(&envelope::seal(&other_generation, Some(&rows(3, "time")), Compression::default()).unwrap())
        .await;
    assert!(matches!(nack(&mut session).await.verdict, Verdict::Hold { .. }));
    assert!(world.log.records().is_empty());
}

#[tokio::test]
async fn p15_r2_streams_that_break_the_rules_cost_nothing_and_disturb_nobody() {
    let world = World::with(|config| {
        config.stream_stall_timeout = Duration::from_millis(300);
        config.max_total_bytes = 8 << 20;
    });
    let (_good_peer, mut good) = world.good_session().await;
    // Goes on after its end.
    let (_p1, mut longer) = world.good_session().await;
    longer.send_raw(&preamble(1, 100), &[1; 5000]).await;
    assert!(matches!(longer.frame().await, Ok(Frame::Refused(_)) | Err(_)));
    // No batch at all.
    let (_p2, mut garbage) = world.good_session().await;
    let mut stream = garbage.connection.open_uni().await.unwrap();
    stream.write_all(&[0xaa; 64]).await.unwrap();
    assert!(matches!(garbage.frame().await, Ok(Frame::Refused(_)) | Err(_)));
    // Stops in the middle: the batch is given back after a while.
    let (_p3, mut stalled) = world.good_session().await;
    let mut stream = stalled.connection.open_uni().await.unwrap();
    stream.write_all(&preamble(3, 1 << 20).encode()).await.unwrap();
    stream.write_all(&[0; 10]).await.unwrap();
    // Announces more than there is memory for, while that one holds its share.
    let full: Vec<_> = (10..18).map(|seq| preamble(seq, 1 << 20)).collect();
    for p in &full {
        let mut stream = good.connection.open_uni().await.unwrap();
        stream.write_all(&p.encode()).await.unwrap();
        stream.finish().unwrap();
    }
    assert!(matches!(nack(&mut stalled).await.verdict, Verdict::Retry { .. }));
    // Frames out of place and frames that are none.
    let (_p4, mut babbler) = world.good_session().await;
    babbler
        .say(&Frame::GoAway(sluice_wire::session::frame::GoAway {
            reason: "no".into(),
        }))
        .await
        .unwrap();
    assert!(matches!(babbler.frame().await, Ok(Frame::Refused(_)) | Err(_)));
    // And the good session still works.
    loop {
        good.send(&batch(site_1(), 50)).await;
        match good.frame().await.unwrap() {
            Frame::Ack(ack) => break assert_eq!(ack.seq, 50),
            Frame::Nack(nack) => assert!(matches!(nack.verdict, Verdict::Retry { .. })),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        world
            .log
            .records()
            .iter()
            .all(|r| Envelope::parse(r.envelope.clone()).unwrap().header.id.seq == 50)
    );
}

#[tokio::test]
async fn r1_half_open_handshakes_do_not_keep_a_good_client_out() {
    let world = World::with(|config| {
        config.max_handshakes = 4;
        config.handshake_timeout = Duration::from_secs(30);
    });
    let mut half_open = Vec::new();
    for _ in 0..24 {
        // Passes packets on to the gateway and none back, as a spoofed source would.
        let relay = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, gateway) = (relay.local_addr().unwrap(), world.gateway);
        let peer = world.peer(&world.good);
        let connecting = peer
            .endpoint
            .connect_with(peer.config.clone(), address, "localhost")
            .unwrap();
        let mut packet = [0; 2048];
        let (length, _) = relay.recv_from(&mut packet).await.unwrap();
        let out = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        out.send_to(&packet[..length], gateway).unwrap();
        half_open.push((peer, connecting, out, relay));
    }
    let (_peer, mut session) = world.good_session().await;
    session.send(&batch(site_1(), 1)).await;
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(_)));
    assert_eq!(
        world.status.snapshot().refused_overload,
        0,
        "a Retry answers them, nobody is turned away"
    );
}

/// Edges that heard nothing for long ask with a packet of no connection whether a gateway is there, and no answer is longer than the question.
#[tokio::test]
async fn p9_a_gateway_says_that_it_is_there_to_whoever_asks_shortly() {
    let world = World::new();
    let mut questions = 0;
    for asked in 1..=50u8 {
        let edge = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut question = [asked; 41];
        question[0] = 0x40 | asked;
        let mut answer = [0; 2048];
        let answered = async {
            loop {
                edge.send_to(&question, world.gateway).await.unwrap();
                questions += 1;
                let waited = tokio::time::timeout(Duration::from_secs(1), edge.recv(&mut answer)).await;
                if let Ok(length) = waited {
                    break length.unwrap();
                }
            }
        };
        let length = tokio::time::timeout(PATIENCE, answered).await.unwrap();
        assert!(length < question.len(), "{length} bytes for {}", question.len());
    }
    // It may leave one out where many ask at once.
    assert!(questions < 60, "asked {questions} times for 50 answers");
    let (_peer, mut session) = world.good_session().await;
    session.send(&batch(site_1(), 1)).await;
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(_)));
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_refused() {
    let world = World::with(|config| config.max_sessions = 2);
    let first = world.good_session().await;
    let _second = world.good_session().await;
    assert!(world.peer(&world.good).open(world.gateway, site_1()).await.is_err());
    first.1.connection.close(0u32.into(), b"");
    // A place becomes free once the gateway has noticed.
    while world.peer(&world.good).open(world.gateway, site_1()).await.is_err() {}
}

#[tokio::test]
async fn a_gateway_that_leaves_answers_what_it_took() {
    let world = World::new();
    let (_peer, mut session) = world.good_session().await;
    world.log.open.send_replace(false);
    session.send(&batch(site_1(), 1)).await;
    world.log.begun.subscribe().wait_for(|n| *n == 1).await.unwrap();
    world.shutdown.cancel();
    assert!(matches!(session.frame().await.unwrap(), Frame::GoAway(_)));
    session.send(&batch(site_1(), 2)).await;
    assert!(matches!(
        nack(&mut session).await,
        Nack {
            seq: 2,
            verdict: Verdict::Retry { .. },
            ..
        }
    ));
    world.log.open.send_replace(true);
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(ack) if ack.seq == 1));
    assert_eq!(session.closed().await.0, 0);
    tokio::time::timeout(PATIENCE, world.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn t6_a_new_certificate_is_shown_after_its_files_changed_and_a_broken_pair_is_not() {
    let world = World::new();
    let shown = |session: &Session| {
        let chain = session.connection.peer_identity().unwrap();
        chain
            .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
            .unwrap()[0]
            .to_vec()
    };
    let (_peer, session) = world.good_session().await;
    let old = shown(&session);
    let certificate = world.pki.dir().join("gateway.pem");
    let old_pem = std::fs::read(&certificate).unwrap();
    let next = Pki::new();
    // Half written: a certificate that the key does not fit.
    std::fs::copy(next.gateway().certificate, &certificate).unwrap();
    until(|| world.status.snapshot().reload_failures > 0).await;
    let (_peer, session) = world.good_session().await;
    assert_eq!(shown(&session), old);
    std::fs::write(&certificate, old_pem).unwrap();
    world.pki.gateway();
    tokio::time::timeout(PATIENCE, async {
        loop {
            let (_peer, session) = world.good_session().await;
            if shown(&session) != old {
                break;
            }
        }
    })
    .await
    .unwrap();
}
