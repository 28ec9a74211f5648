//! T6 and renewal: certificates change under a running uplink, by their files and over the link, and no batch is lost or doubled; what
//! cannot be used changes nothing and is told.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::CertificateSigningRequestParams;
use rustls::SignatureScheme;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;
use sluice_edge::link::{CertificateStatus, LinkConfig, LinkStatus};
use sluice_wire::session::frame::renewal_message;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::gateway::{Cloud, Pki, Validity, start};
use crate::{Link, PATIENCE, Spool, any_port};

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

/// What the gateways of these tests judge by.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Of a certificate that is due: its two thirds were over a day ago.
fn due() -> Validity {
    (now() - 10 * DAY, now() + 2 * DAY)
}

fn fresh() -> Validity {
    (now() - DAY, now() + 14 * DAY)
}

/// A node with its certificate files, its clock and a place for what is renewed.
struct Site {
    pki: Pki,
    cloud: Arc<Cloud>,
    spool: Arc<Spool>,
    clock: Arc<TestClock>,
    gateway: crate::gateway::Gateway,
}

impl Site {
    fn new(validity: Validity) -> Self {
        let pki = Pki::new();
        pki.write_edge(&pki.edge_pair(validity));
        let cloud = Cloud::new(&[], &[], &[]);
        let gateway = start(&pki, any_port(), Arc::clone(&cloud));
        Self {
            pki,
            cloud,
            spool: Spool::new(),
            clock: Arc::new(TestClock(AtomicU64::new(now()))),
            gateway,
        }
    }

    fn renewed(&self) -> PathBuf {
        self.pki.file("renewed.pem")
    }

    fn link(&self) -> Link {
        self.link_with(|_| {})
    }

    fn link_with(&self, change: impl FnOnce(&mut LinkConfig)) -> Link {
        Link::with(&self.pki, &self.pki, self.gateway.address(), &self.spool, |config| {
            config.renewed = Some(self.renewed());
            config.look_every = Duration::from_millis(20);
            config.clock = Arc::clone(&self.clock) as _;
            // Nothing becomes backlog for the short time of a new connection.
            config.live_for = Duration::from_secs(600);
            change(config);
        })
    }

    /// Everything is acknowledged, and stands in the log once.
    async fn all_is_there_once(&self) {
        self.spool.all_acked().await;
        let mut seqs: Vec<u64> = self.cloud.log.lock().unwrap().iter().map(|b| b.header.id.seq).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, (0..self.spool.len()).collect::<Vec<_>>());
    }
}

fn certificate(status: &LinkStatus) -> CertificateStatus {
    status.certificate.clone().unwrap_or_default()
}

fn serial_of(pem: &str) -> String {
    let der = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    hex::encode(X509Certificate::from_der(&der).unwrap().1.raw_serial())
}

/// Appends batches until told to stop.
async fn load(spool: Arc<Spool>, mut stop: tokio::sync::oneshot::Receiver<()>) {
    while stop.try_recv().is_err() {
        spool.append(1);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn t6_files_change_under_load_and_half_a_pair_changes_nothing() {
    let site = Site::new(fresh());
    let mut link = site.link();
    let first = link.until(|s| s.connected).await;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let loading = tokio::spawn(load(Arc::clone(&site.spool), stopped));
    for round in 1..=3u64 {
        let next = site.pki.edge_pair((now() - DAY + round, now() + 14 * DAY + round));
        // The certificate is there, its key is not yet, and half of the certificate before that.
        let half = &next.0[..next.0.len() / 2];
        let before = certificate(&link.status.borrow()).serial;
        for part in [half, &next.0] {
            std::fs::write(site.pki.file("edge.pem"), part).unwrap();
            let told = link.until(|s| certificate(s).files_problem.is_some()).await;
            assert_eq!((certificate(&told).serial, told.sessions), (before.clone(), round));
            let acked = told.acked;
            link.until(|s| s.acked > acked).await;
            std::fs::write(site.pki.file("edge.pem"), "").unwrap();
        }
        site.pki.write_edge(&next);
        let status = link
            .until(|s| s.connected && s.sessions == round + 1 && certificate(s).files_problem.is_none())
            .await;
        assert_eq!(certificate(&status).serial, serial_of(&next.0));
        assert!(!certificate(&status).from_the_link);
    }
    // A pair of another node is none of ours, whoever put it there.
    let other = Pki::new();
    let foreign = other.file("gateway.pem");
    std::fs::copy(foreign, site.pki.file("edge.pem")).unwrap();
    let status = link.until(|s| certificate(s).files_problem.is_some()).await;
    assert!(status.connected && status.sessions == 4);
    stop.send(()).unwrap();
    loading.await.unwrap();
    site.all_is_there_once().await;
    let status = link.until(|s| s.acked == site.spool.len()).await;
    assert_eq!((status.retransmits, status.refusals), (0, 0), "{status:?}");
    assert_eq!(first.sessions, 1);
    link.stop().await;
}

#[tokio::test]
async fn p14_a_certificate_is_renewed_when_two_thirds_of_its_life_are_over() {
    let site = Site::new(due());
    *site.cloud.authority.lock().unwrap() = Some(site.pki.authority("site-1", fresh()));
    // A week ago it was not due.
    site.clock.0.store(now() - 4 * DAY, Ordering::SeqCst);
    let mut link = site.link();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let loading = tokio::spawn(load(Arc::clone(&site.spool), stopped));
    let status = link.until(|s| s.acked > 5).await;
    let old = certificate(&status);
    assert!(site.cloud.asked.lock().unwrap().is_empty() && old.problem.is_none());
    let (begin, end) = (old.not_before_unix_s, old.not_after_unix_s);
    let renews_at = old.renews_at_unix_s.unwrap();
    assert!((begin + 8 * DAY..=begin + 9 * DAY).contains(&renews_at) && end == begin + 12 * DAY);

    site.clock.0.store(now(), Ordering::SeqCst);
    let status = link.until(|s| s.connected && s.sessions == 2).await;
    let new = certificate(&status);
    assert!(new.from_the_link && new.serial != old.serial && new.problem.is_none());
    assert_eq!((new.renewals, new.renewal_failures), (1, 0));
    stop.send(()).unwrap();
    loading.await.unwrap();
    site.all_is_there_once().await;
    let status = link.until(|s| s.acked == site.spool.len()).await;
    assert_eq!((status.retransmits, status.refusals), (0, 0), "{status:?}");
    link.stop().await;

    // What was asked: a new key, and a proof by the old one.
    let asked = site.cloud.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    let ask = &asked[0];
    CertificateSigningRequestParams::from_der(&ask.request.as_ref().into()).unwrap();
    let old_pem = std::fs::read(site.pki.file("edge.pem")).unwrap();
    let old_der = rustls::pki_types::CertificateDer::from_pem_slice(&old_pem).unwrap();
    let old_key = X509Certificate::from_der(&old_der)
        .unwrap()
        .1
        .public_key()
        .subject_public_key
        .data
        .to_vec();
    assert_eq!(ask.scheme, u32::from(u16::from(SignatureScheme::ECDSA_NISTP256_SHA256)));
    let known = rustls::crypto::ring::default_provider()
        .signature_verification_algorithms
        .all;
    let message = renewal_message(&ask.request);
    assert!(
        known
            .iter()
            .any(|a| a.verify_signature(&old_key, &message, &ask.proof).is_ok())
    );

    // It is on disk with its key, for the owner alone, and the next start uses it.
    let mode = std::fs::metadata(site.renewed()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut again = site.link();
    let status = again.until(|s| s.connected).await;
    assert_eq!(certificate(&status).serial, new.serial);
    // Until an operator puts something newer in its place.
    let newer = site.pki.edge_pair((now() - 60, now() + 14 * DAY));
    site.pki.write_edge(&newer);
    let status = again.until(|s| s.connected && s.sessions == 2).await;
    assert_eq!(certificate(&status).serial, serial_of(&newer.0));
    again.stop().await;
}

#[tokio::test]
async fn p14_while_the_authority_is_away_the_old_one_stays_and_it_is_asked_again() {
    // Short of its end, so that the back-off is, too: a life of 40 s, of which 10 are left.
    let site = Site::new((now() - 30, now() + 10));
    site.clock.0.store(now(), Ordering::SeqCst);
    let away = |_: &_| Err((1, "the authority cannot be asked: it is away".to_owned()));
    *site.cloud.authority.lock().unwrap() = Some(Box::new(away));
    let mut link = site.link();
    let status = link.until(|s| certificate(s).renewal_failures >= 2).await;
    assert!(status.connected && status.sessions == 1);
    let status = link.until(|s| certificate(s).problem.is_some()).await;
    let told = certificate(&status);
    assert!(told.degraded && told.problem.unwrap().contains("it is away"));
    site.spool.append(5);
    site.spool.all_acked().await;
    assert!(!site.renewed().exists());
    *site.cloud.authority.lock().unwrap() = Some(site.pki.authority("site-1", fresh()));
    let status = link
        .until(|s| s.connected && certificate(s).renewals == 1 && s.sessions == 2)
        .await;
    assert!(certificate(&status).problem.is_none() && !certificate(&status).degraded);
    link.stop().await;
}

#[tokio::test]
async fn p13_an_answer_that_is_not_ours_is_not_kept() {
    let site = Site::new((now() - 30, now() + 10));
    let stolen = Pki::new().edge_pair(fresh()).0;
    let stolen = rustls::pki_types::CertificateDer::from_pem_slice(stolen.as_bytes()).unwrap();
    let stolen = bytes::Bytes::copy_from_slice(&stolen);
    let answers: [crate::gateway::Authority; 3] = [
        site.pki.authority("site-2", fresh()),
        // Of somebody else's key.
        Box::new(move |_| Ok(vec![stolen.clone()])),
        Box::new(|_| Ok(vec![bytes::Bytes::from_static(b"no certificate")])),
    ];
    let mut failures = 0;
    let mut link = None;
    for answer in answers {
        *site.cloud.authority.lock().unwrap() = Some(answer);
        let link = link.get_or_insert_with(|| site.link());
        let status = link.until(|s| certificate(s).renewal_failures > failures).await;
        failures = certificate(&status).renewal_failures;
        assert!(!site.renewed().exists() && status.sessions == 1, "{status:?}");
    }
    link.unwrap().stop().await;
}

#[tokio::test]
async fn an_older_gateway_is_not_asked_and_someone_is_told_in_time() {
    let site = Site::new(due());
    let mut link = site.link();
    site.spool.append(20);
    site.spool.all_acked().await;
    let status = link.until(|s| certificate(s).problem.is_some()).await;
    let told = certificate(&status);
    assert!(told.problem.unwrap().contains("no authority") && !told.degraded && status.connected);
    // With less than a day left it counts as degraded.
    site.clock.0.store(now() + DAY + 60, Ordering::SeqCst);
    link.until(|s| certificate(s).degraded).await;
    assert!(site.cloud.asked.lock().unwrap().is_empty());
    link.stop().await;
    // And where the configuration switches it off.
    *site.cloud.authority.lock().unwrap() = Some(site.pki.authority("site-1", fresh()));
    let mut link = site.link_with(|config| config.renewed = None);
    let status = link.until(|s| s.connected && certificate(s).problem.is_some()).await;
    assert!(certificate(&status).renews_at_unix_s.is_none());
    assert!(site.cloud.asked.lock().unwrap().is_empty());
    link.stop().await;
}

#[tokio::test]
async fn p14_an_expired_certificate_sends_nothing_before_it_is_renewed() {
    // Short-lived, so that it asks again soon; by the clock of the node it is over.
    let site = Site::new((now() - 30, now() + 30));
    site.cloud.expired.store(true, Ordering::SeqCst);
    let away = |_: &_| Err((1, "the authority cannot be asked: it is away".to_owned()));
    *site.cloud.authority.lock().unwrap() = Some(Box::new(away));
    site.clock.0.store(now() + 60, Ordering::SeqCst);
    site.spool.append(50);
    let mut link = site.link();
    let status = link
        .until(|s| s.phase == "renewing" && certificate(s).renewal_failures > 0)
        .await;
    assert!(!status.connected && status.alarm.is_some_and(|alarm| alarm.contains("expired")));
    assert_eq!((status.sent, status.sessions), (0, 0));
    assert!(site.cloud.log.lock().unwrap().is_empty() && site.spool.acked.borrow().is_empty());
    *site.cloud.authority.lock().unwrap() = Some(site.pki.authority("site-1", fresh()));
    tokio::time::timeout(PATIENCE, site.all_is_there_once()).await.unwrap();
    let status = link.until(|s| s.acked == 50).await;
    assert_eq!((status.sessions, status.retransmits), (1, 0));
    assert!(status.alarm.is_none() && certificate(&status).from_the_link);
    link.stop().await;
}

#[tokio::test]
async fn p14_a_new_certificate_ends_the_waiting_after_refusals() {
    let (site, stranger) = (Site::new(fresh()), Pki::new());
    // Its certificate comes from an authority that the gateway does not know.
    site.pki.write_edge(&stranger.edge_pair(fresh()));
    site.spool.append(3);
    let mut link = site.link();
    link.until(|s| s.refusals >= 6).await;
    site.pki.write_edge(&site.pki.edge_pair((now() - 60, now() + DAY)));
    site.all_is_there_once().await;
    link.stop().await;
}

#[tokio::test]
async fn files_are_looked_at_when_somebody_says_so() {
    let site = Site::new(fresh());
    let mut link = site.link_with(|config| config.look_every = Duration::from_secs(86_400));
    link.until(|s| s.connected).await;
    let next = site.pki.edge_pair((now() - 60, now() + DAY));
    site.pki.write_edge(&next);
    link.look_again.notify_one();
    let status = link.until(|s| s.connected && s.sessions == 2).await;
    assert_eq!(certificate(&status).serial, serial_of(&next.0));
    link.stop().await;
}
