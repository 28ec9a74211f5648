//! The certificate of the link while it runs: the files looked at, a new one asked for and kept, sessions brought over to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use rcgen::KeyPair;
use sluice_wire::ids::StreamId;
use sluice_wire::session::client::Phase;
use sluice_wire::session::frame::Frame;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Driver, pending_or};
use crate::link::clock::unix_s;
use crate::link::config::LinkConfig;
use crate::link::credentials::{self, Credentials, Files, Fingerprint, Loaded, with_source};
use crate::link::renewal::{Renewer, Schedule};
use crate::link::status::CertificateStatus;
use crate::link::tls::TlsError;
use crate::link::uplink::Uplink;

/// The certificate in use, and what is done about the next one.
pub(super) struct Certificates {
    config: Arc<LinkConfig>,
    stream: StreamId,
    pub(super) current: Arc<Credentials>,
    /// The serial number that the connection was made with.
    shown: Option<String>,
    seen: Fingerprint,
    /// Files that could not be used at the last look: perhaps half of them was written.
    suspect: Option<Fingerprint>,
    /// Files that are not used, and why.
    problem: Option<String>,
    schedule: Schedule,
    /// The key of the request that waits for its answer.
    asked: Option<KeyPair>,
    work: Option<BoxFuture<'static, Done>>,
    next_look: Instant,
    look_again: Arc<Notify>,
    /// Frames of ours on the control stream of this connection.
    outgoing: Option<mpsc::Sender<Frame>>,
    renewer: Renewer,
    renewals: u64,
    failures: u64,
}

pub(super) enum Event {
    Look,
    Done(Done),
}

/// What was done on the disk.
pub(super) enum Done {
    /// `None`: nothing changed.
    Looked(Option<(Fingerprint, Result<Box<Loaded>, TlsError>)>),
    Stored(Result<(), String>),
}

impl Certificates {
    pub(super) fn new(uplink: &Uplink, seed: u64) -> Self {
        let (config, stream) = (Arc::clone(&uplink.config), uplink.options.stream.clone());
        let (seen, loaded) = &uplink.loaded;
        // Random, and of this node for good.
        let share = stream.spool.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let renewer = if config.renewed.is_some() {
            Renewer::Unknown
        } else {
            Renewer::SwitchedOff
        };
        Self {
            stream,
            current: Arc::new(loaded.credentials.clone()),
            shown: None,
            seen: *seen,
            suspect: None,
            problem: loaded.problem.clone(),
            schedule: Schedule::new(share, seed),
            asked: None,
            work: None,
            next_look: Instant::now() + config.look_every,
            look_again: Arc::clone(&uplink.look_again),
            outgoing: None,
            renewer,
            renewals: 0,
            failures: 0,
            config,
        }
    }

    /// The next thing that happens to files. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Event {
        tokio::select! {
            done = pending_or(&mut self.work) => {
                self.work = None;
                Event::Done(done)
            }
            () = self.look_again.notified() => Event::Look,
            () = tokio::time::sleep_until(self.next_look) => Event::Look,
        }
    }

    fn look(&mut self) {
        self.next_look = Instant::now() + self.config.look_every;
        // What is being done ends with a look of its own, or is one.
        if self.work.is_some() {
            return;
        }
        let (config, seen, stream) = (Arc::clone(&self.config), self.seen, self.stream.clone());
        let look = move || {
            let files = Files::read(&config);
            let fingerprint = files.fingerprint();
            let loaded = || files.load(&config, &stream.tenant, &stream.node).map(Box::new);
            (fingerprint != seen).then(|| (fingerprint, loaded()))
        };
        let looked = tokio::task::spawn_blocking(look);
        self.work = Some(async move { Done::Looked(looked.await.unwrap_or(None)) }.boxed());
    }

    fn store(&mut self, text: String) {
        let Some(path) = self.config.renewed.clone() else {
            return;
        };
        let stored = tokio::task::spawn_blocking(move || {
            credentials::store(&path, &text).map_err(|error| format!("{}: {error}", path.display()))
        });
        // A look that goes on is of before.
        self.work = Some(async move { Done::Stored(stored.await.unwrap_or_else(|e| Err(e.to_string()))) }.boxed());
    }

    fn unix_s(&self) -> i64 {
        unix_s(&self.config.clock)
    }

    pub(super) fn handle_connected(&mut self, shown: &Credentials) -> mpsc::Receiver<Frame> {
        self.shown = Some(shown.facts.serial.clone());
        // There is never more than one request.
        let (sender, receiver) = mpsc::channel(1);
        self.outgoing = Some(sender);
        receiver
    }

    pub(super) fn handle_down(&mut self, now_ms: u64) {
        (self.outgoing, self.asked, self.shown) = (None, None, None);
        let unix_s = self.unix_s();
        self.schedule.handle_lost(now_ms, unix_s, &self.current.facts);
    }

    pub(super) fn send(&mut self, frame: Frame) {
        if let Some(outgoing) = &self.outgoing
            && outgoing.try_send(frame).is_err()
        {
            warn!("request for a certificate is not sent, the control stream does not move");
        }
    }

    fn handle_failed(&mut self, now_ms: u64, after_ms: u64, reason: String) {
        self.asked = None;
        self.failures += 1;
        warn!(reason, "certificate of the link is not renewed");
        let unix_s = self.unix_s();
        self.schedule
            .handle_failed(now_ms, unix_s, &self.current.facts, after_ms, reason);
    }

    pub(super) fn status(&self) -> CertificateStatus {
        let facts = &self.current.facts;
        let health = self.schedule.health(self.unix_s(), facts, self.renewer);
        let at = |unix_s: i64| u64::try_from(unix_s).unwrap_or(0);
        CertificateStatus {
            serial: facts.serial.clone(),
            not_before_unix_s: at(facts.not_before),
            not_after_unix_s: at(facts.not_after),
            renews_at_unix_s: (self.renewer != Renewer::SwitchedOff).then(|| at(self.schedule.renews_at(facts))),
            from_the_link: self.current.renewed,
            renewals: self.renewals,
            renewal_failures: self.failures,
            problem: health.problem,
            degraded: health.degraded,
            files_problem: self.problem.clone(),
        }
    }
}

impl Driver {
    pub(super) fn handle_certificates(&mut self, event: Event) {
        match event {
            Event::Look => {
                self.certificates.look();
                let now = self.now_ms();
                let unix_s = self.certificates.unix_s();
                let certificates = &mut self.certificates;
                if certificates
                    .schedule
                    .handle_time(now, unix_s, &certificates.current.facts)
                {
                    certificates.failures += 1;
                    certificates.asked = None;
                }
                self.view.certificate = Some(self.certificates.status());
            }
            Event::Done(Done::Looked(None)) => {}
            Event::Done(Done::Looked(Some((seen, Ok(loaded))))) => self.take_over(seen, *loaded),
            Event::Done(Done::Looked(Some((seen, Err(_))))) if self.certificates.suspect != Some(seen) => {
                self.certificates.suspect = Some(seen);
            }
            Event::Done(Done::Looked(Some((seen, Err(error))))) => {
                let text = with_source(&error);
                error!(
                    error = text,
                    "changed certificate files are not used, the last good ones stay"
                );
                self.certificates.seen = seen;
                self.certificates.problem =
                    Some(format!("changed files are not used, the last good ones stay: {text}"));
                self.view.certificate = Some(self.certificates.status());
            }
            Event::Done(Done::Stored(Ok(()))) => {
                self.certificates.renewals += 1;
                self.certificates.look();
            }
            Event::Done(Done::Stored(Err(error))) => {
                let now = self.now_ms();
                self.certificates
                    .handle_failed(now, 0, format!("it cannot be kept: {error}"));
            }
        }
    }

    fn take_over(&mut self, seen: Fingerprint, loaded: Loaded) {
        let certificates = &mut self.certificates;
        if let Some(problem) = &loaded.problem {
            warn!(problem, "some certificate files are not used");
        }
        (certificates.seen, certificates.problem) = (seen, loaded.problem);
        let is_other = certificates.current.facts != loaded.credentials.facts;
        certificates.current = Arc::new(loaded.credentials);
        if is_other {
            let facts = &certificates.current.facts;
            info!(
                serial = facts.serial,
                not_after_unix_s = facts.not_after,
                "another certificate of the link is in use"
            );
            certificates.schedule.handle_certificate();
            certificates.asked = None;
        }
        self.go_over();
        self.view.certificate = Some(self.certificates.status());
    }

    /// A session that shows another certificate than the one in use ends soon.
    pub(super) fn go_over(&mut self) {
        let shown = &self.certificates.shown;
        let is_waiting = self.core.phase() == Phase::Waiting;
        if is_waiting
            || shown
                .as_ref()
                .is_some_and(|shown| *shown != self.certificates.current.facts.serial)
        {
            self.core.handle_certificate(self.now_ms());
        }
    }

    pub(super) fn handle_welcome(&mut self, renews: bool) {
        let certificates = &mut self.certificates;
        if certificates.renewer != Renewer::SwitchedOff {
            certificates.renewer = if renews { Renewer::There } else { Renewer::NotThere };
        }
        self.view.certificate = Some(certificates.status());
    }

    /// Asks for a new certificate when it is time to.
    pub(super) fn start_renewing(&mut self, now_ms: u64) {
        let certificates = &mut self.certificates;
        let unix_s = certificates.unix_s();
        let is_free = certificates.work.is_none() && self.core.can_renew();
        if !is_free
            || !certificates
                .schedule
                .is_due(now_ms, unix_s, &certificates.current.facts)
        {
            return;
        }
        match certificates.current.request() {
            Ok((key, ask)) => {
                certificates.asked = Some(key);
                certificates.schedule.handle_asked(now_ms);
                self.core.renew(ask);
            }
            Err(error) => certificates.handle_failed(now_ms, 0, error),
        }
    }

    /// When it may be time to.
    pub(super) fn renewal_wake(&self, now_ms: u64) -> Option<u64> {
        let certificates = &self.certificates;
        let facts = &certificates.current.facts;
        let is_free = certificates.work.is_none() && self.core.can_renew();
        is_free.then(|| certificates.schedule.next_wake(now_ms, certificates.unix_s(), facts))
    }

    pub(super) fn handle_renewed(&mut self, chain: &[Bytes]) {
        let now = self.now_ms();
        let certificates = &mut self.certificates;
        let Some(key) = certificates.asked.take() else {
            return;
        };
        match certificates.current.accept(&key, chain) {
            Ok(text) => {
                let serial = credentials::serial_of(chain);
                info!(serial, "certificate of the link is renewed");
                certificates.store(text);
            }
            Err(error) => {
                let reason = format!("the answer is not used: {}", with_source(&error));
                certificates.handle_failed(now, 0, reason);
            }
        }
    }

    pub(super) fn handle_not_renewed(&mut self, after_ms: u32, reason: String) {
        let now = self.now_ms();
        self.certificates.handle_failed(now, after_ms.into(), reason);
        self.view.certificate = Some(self.certificates.status());
    }
}

/// How often a node looks at its files when nobody says otherwise.
pub(in crate::link) const LOOK_EVERY: Duration = Duration::from_secs(5);
