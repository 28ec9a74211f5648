//! Certificates at the gateway's door: expired ones that may renew and nothing else, clocks that differ, authorities that change, and who is
//! asked for what. P13, P14; T1 and T3 of the failure matrix.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use sluice_ingest::gateway::{Authority, AuthorityError, GatewayConfig, RenewalRequest};
use sluice_wire::session::frame::{Frame, RefusedCode, Renew, Verdict};

use crate::peer::{Peer, Session, batch, hello};
use crate::pki::{Files, Pki, Spec, params, uri};
use crate::{World, nack, site_1, until, wrong_certificates};

/// 2030-01-01, when the certificates of these tests end.
const END: u64 = 1_893_456_000;
const DAY: u64 = 86_400;

#[derive(Debug)]
struct TestClock(AtomicU64);

impl rustls::time_provider::TimeProvider for TestClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(
            self.0.load(Ordering::SeqCst),
        )))
    }
}

/// Certifies whatever it is asked for, under the name that it is told; or is away.
struct TestAuthority {
    issuer: Arc<Issuer<'static, KeyPair>>,
    name: Mutex<Option<&'static str>>,
    asked: Mutex<Vec<RenewalRequest>>,
}

impl std::fmt::Debug for TestAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestAuthority")
    }
}

#[async_trait]
impl Authority for TestAuthority {
    async fn renew(&self, request: RenewalRequest) -> Result<Vec<Bytes>, AuthorityError> {
        let name = *self.name.lock().unwrap();
        let name = name.ok_or_else(|| AuthorityError::Away("it is being restarted".to_owned()))?;
        let asked = CertificateSigningRequestParams::from_der(&request.request.as_ref().into()).unwrap();
        self.asked.lock().unwrap().push(request);
        let spec = Spec {
            names: vec![uri(name)],
            serial: 0x2002,
            years: (2020, 2050),
            ..Spec::default()
        };
        let made = params(&spec).signed_by(&asked.public_key, &*self.issuer).unwrap();
        Ok(vec![Bytes::copy_from_slice(made.der())])
    }
}

/// A gateway with an authority, a clock, and an edge whose certificate ends in 2030.
struct Renewing {
    world: World,
    clock: Arc<TestClock>,
    authority: Arc<TestAuthority>,
    ends_2030: Files,
}

impl Renewing {
    fn new(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        // The authority is made of the world's, which is made with the gateway: its issuer comes a moment later.
        let late = Arc::new(LateAuthority::default());
        let clock = Arc::new(TestClock(AtomicU64::new(END - 30 * DAY)));
        let world = World::with(|config| {
            config.authority = Some(Arc::clone(&late) as _);
            config.clock = Arc::clone(&clock) as _;
            change(config);
        });
        let authority = Arc::new(TestAuthority {
            issuer: Arc::clone(&world.pki.issuer),
            name: Mutex::new(Some("sluice://acme/site-1")),
            asked: Mutex::default(),
        });
        *late.0.lock().unwrap() = Some(Arc::clone(&authority));
        let ends_2030 = world.pki.issue("ends-2030", &ending_2030());
        Self {
            world,
            clock,
            authority,
            ends_2030,
        }
    }

    fn at(&self, unix_s: u64) {
        self.clock.0.store(unix_s, Ordering::SeqCst);
    }

    async fn greet(&self, files: &Files) -> Result<(Peer, Session, bool), String> {
        let peer = self.world.peer(files);
        let (session, welcome) = peer.greet(self.world.gateway, hello(site_1())).await?;
        assert!(welcome.renews);
        Ok((peer, session, welcome.renewal_only))
    }
}

#[derive(Debug, Default)]
struct LateAuthority(Mutex<Option<Arc<TestAuthority>>>);

#[async_trait]
impl Authority for LateAuthority {
    async fn renew(&self, request: RenewalRequest) -> Result<Vec<Bytes>, AuthorityError> {
        let authority = self.0.lock().unwrap().clone();
        authority.unwrap().renew(request).await
    }
}

fn ending_2030() -> Spec {
    Spec {
        years: (2020, 2030),
        serial: 0x1030,
        ..Spec::default()
    }
}

fn ask(key: &KeyPair) -> Frame {
    let params = CertificateParams::new(vec!["some.other.name".to_owned()]).unwrap();
    Frame::Renew(Renew {
        request: Bytes::copy_from_slice(params.serialize_request(key).unwrap().der()),
        scheme: 0x0403,
        proof: Bytes::from_static(b"judged by the authority"),
    })
}

#[tokio::test]
async fn p14_an_expired_certificate_renews_within_the_grace_and_does_nothing_else() {
    let gateway = Renewing::new(|config| config.grace = Duration::from_secs(90 * DAY));
    gateway.at(END + 89 * DAY);
    let (_peer, mut session, renewal_only) = gateway.greet(&gateway.ends_2030).await.unwrap();
    assert!(renewal_only);
    until(|| gateway.world.status.snapshot().sessions_renewal_only == 1).await;
    session.send(&batch(site_1(), 1)).await;
    let refused = nack(&mut session).await;
    assert!(matches!(refused.verdict, Verdict::Retry { .. }) && refused.reason.contains("expired"));
    // It is asked with what the handshake verified, and gives a certificate of the new key.
    let key = KeyPair::generate().unwrap();
    session.say(&ask(&key)).await.unwrap();
    let Frame::Renewed(renewed) = session.frame().await.unwrap() else {
        panic!("not renewed")
    };
    let asked = gateway.authority.asked.lock().unwrap().clone();
    let shown = CertificateDer::from_pem_file(&gateway.ends_2030.certificate).unwrap();
    assert_eq!(asked[0].certificates, [Bytes::copy_from_slice(&shown)]);
    assert_eq!((asked.len(), asked[0].scheme), (1, 0x0403));
    assert!(gateway.world.log.records().is_empty());
    let files = gateway.world.pki.write_der("renewed", &renewed.certificates[0], &key);
    let (_peer, mut session, renewal_only) = gateway.greet(&files).await.unwrap();
    assert!(!renewal_only);
    session.send(&batch(site_1(), 1)).await;
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(_)));
    assert_eq!(gateway.world.status.snapshot().renewals, 1);

    // A build from before renewal is refused as it always was; beyond the grace everybody is.
    let peer = gateway.world.peer(&gateway.ends_2030);
    let older = sluice_wire::session::frame::Hello {
        renews: false,
        ..hello(site_1())
    };
    let refused = peer.greet(gateway.world.gateway, older).await.unwrap_err();
    assert!(refused.contains("Identity") && refused.contains("expired"), "{refused}");
    gateway.at(END + 90 * DAY + 60);
    assert!(gateway.greet(&gateway.ends_2030).await.is_err());
    // And so is a revoked one within it.
    gateway.at(END + DAY);
    gateway.world.revoke("1030\n");
    until(|| gateway.world.status.snapshot().revoked_serials == 1).await;
    assert!(gateway.greet(&gateway.ends_2030).await.is_err());
    assert_eq!(gateway.authority.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn p14_t1_no_grace_helps_a_wrong_certificate_and_there_is_none_without_an_authority() {
    let gateway = Renewing::new(|config| config.grace = Duration::from_secs(40 * 365 * DAY));
    let other = Pki::new();
    for (what, files) in &wrong_certificates(&gateway.world.pki, &other) {
        let let_in = gateway.greet(files).await;
        match *what {
            // With so much grace it may renew.
            "expired" => assert!(let_in.is_ok_and(|(_, _, renewal_only)| renewal_only), "{what}"),
            _ => assert!(let_in.is_err(), "{what} was let in"),
        }
    }
    let none = Renewing::new(|config| config.authority = None);
    none.at(END + 60);
    assert!(none.greet(&none.ends_2030).await.is_err());
    let off = Renewing::new(|config| config.grace = Duration::ZERO);
    off.at(END + 60);
    assert!(off.greet(&off.ends_2030).await.is_err());
}

#[tokio::test]
async fn p14_a_live_session_is_cut_off_when_its_certificate_expires_and_comes_back_to_renew() {
    let gateway = Renewing::new(|_| {});
    gateway.at(END - 60);
    let (_peer, mut session, renewal_only) = gateway.greet(&gateway.ends_2030).await.unwrap();
    assert!(!renewal_only);
    session.send(&batch(site_1(), 1)).await;
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(_)));
    gateway.at(END + 60);
    let (code, reason) = session.closed().await;
    assert_eq!(
        (code, reason.as_str()),
        (u64::from(RefusedCode::Identity.number()), "certificate is expired")
    );
    assert_eq!(gateway.world.status.snapshot().cut_expired, 1);
    let (_peer, session, renewal_only) = gateway.greet(&gateway.ends_2030).await.unwrap();
    assert!(renewal_only);
    // A session that only renews is cut off, too.
    gateway.world.revoke("1030\n");
    assert_eq!(session.closed().await.0, u64::from(RefusedCode::Revoked.number()));
}

#[tokio::test]
async fn f23_clocks_may_differ_by_five_minutes() {
    let gateway = Renewing::new(|_| {});
    // 2020-01-01, when it begins.
    let begin = 1_577_836_800;
    gateway.at(begin - 301);
    assert!(gateway.greet(&gateway.ends_2030).await.is_err());
    gateway.at(begin - 299);
    let (_peer, _session, renewal_only) = gateway.greet(&gateway.ends_2030).await.unwrap();
    assert!(!renewal_only);
}

#[tokio::test]
async fn p13_an_edge_is_told_when_there_is_no_certificate_and_gets_none_of_another() {
    let gateway = Renewing::new(|_| {});
    let (_peer, mut session, _) = gateway.greet(&gateway.ends_2030).await.unwrap();
    let key = KeyPair::generate().unwrap();
    // Away: soon again, with the retry time of this gateway of 50 ms. Of another node: not soon.
    for (name, after, says) in [
        (None, 750..=1_125, "restarted"),
        (Some("sluice://acme/site-2"), 180_000..=270_000, "acme/site-2"),
        (Some("sluice://rival/site-1"), 180_000..=270_000, "rival/site-1"),
    ] {
        *gateway.authority.name.lock().unwrap() = name;
        session.say(&ask(&key)).await.unwrap();
        let Frame::NotRenewed(not) = session.frame().await.unwrap() else {
            panic!("renewed")
        };
        assert!(after.contains(&not.after_ms) && not.reason.contains(says), "{not:?}");
    }
    // The session goes on meanwhile, and a certificate comes when there is one.
    session.send(&batch(site_1(), 1)).await;
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(_)));
    *gateway.authority.name.lock().unwrap() = Some("sluice://acme/site-1");
    session.say(&ask(&key)).await.unwrap();
    assert!(matches!(session.frame().await.unwrap(), Frame::Renewed(_)));
    let status = gateway.world.status.snapshot();
    assert_eq!((status.renewals, status.renewal_failures), (1, 3));
}

#[tokio::test]
async fn t6_authorities_take_over_from_each_other_and_one_that_is_gone_takes_its_edges_with_it() {
    let world = World::new();
    let next = Pki::new();
    let old_peer = world.good_session().await;
    let new_files = next.issue("good", &Spec::default());
    let peer = world.peer(&new_files);
    assert!(peer.open(world.gateway, site_1()).await.is_err());
    // Both for a while.
    let (old, new) = (
        std::fs::read_to_string(&world.pki.ca).unwrap(),
        std::fs::read_to_string(&next.ca).unwrap(),
    );
    std::fs::write(&world.pki.ca, format!("{old}{new}")).unwrap();
    let opened = async {
        loop {
            if let Ok(session) = peer.open(world.gateway, site_1()).await {
                break session;
            }
        }
    };
    let mut new_session = tokio::time::timeout(crate::PATIENCE, opened).await.unwrap();
    let (_old_peer, mut old_session) = old_peer;
    old_session.send(&batch(site_1(), 1)).await;
    assert!(matches!(old_session.frame().await.unwrap(), Frame::Ack(_)));
    // Then the old one goes.
    std::fs::write(&world.pki.ca, new).unwrap();
    let (code, reason) = old_session.closed().await;
    assert_eq!(code, u64::from(RefusedCode::Identity.number()), "{reason}");
    assert!(reason.contains("trusted no more"));
    new_session.send(&batch(site_1(), 2)).await;
    assert!(matches!(new_session.frame().await.unwrap(), Frame::Ack(_)));
}

#[tokio::test]
async fn p15_a_session_that_asks_without_end_does_not_reach_the_authority_without_end() {
    let gateway = Renewing::new(|config| config.retry_after = Duration::from_secs(60));
    let (_peer, mut session, _) = gateway.greet(&gateway.ends_2030).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let mut told = 0;
    for _ in 0..50 {
        session.say(&ask(&key)).await.unwrap();
        match session.frame().await.unwrap() {
            Frame::Renewed(_) => {}
            Frame::NotRenewed(not) => {
                assert!(not.reason.contains("too often"), "{not:?}");
                told += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let asked = gateway.authority.asked.lock().unwrap().len();
    assert!(told >= 40 && asked <= 10 && told + asked == 50, "{told} {asked}");
}
