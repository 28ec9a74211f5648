//! The driver of one session: moves bytes between the connection, the core and the log; decides nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use sluice_wire::ids::{BatchId, StreamId};
use sluice_wire::session::frame::{Frame, FrameError, Lane, Preamble, RefusedCode, Verdict};
use sluice_wire::session::server::{Action, Server, Ticket};
use sluice_wire::session::{ServerOptions, frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::authority::Authority;
use super::batch::{self, AnnounceError, BatchError, Shared, Validated};
use super::identity::PeerIdentity;
use super::renewal::{self, Answer};
use super::status::{Counters, Level, add};
use super::trust::{Objection, Standing, Trust, Why};
use crate::log::LogError;
use crate::tenants::{Charge, Presence};

/// What every session is given.
pub(super) struct SessionContext {
    pub(super) options: ServerOptions,
    pub(super) shared: Shared,
    pub(super) counters: Arc<Counters>,
    /// In KiB: what larger transport windows are taken from.
    pub(super) windows: Arc<Semaphore>,
    pub(super) window_bytes: u32,
    pub(super) recheck_interval: Duration,
    pub(super) hello_timeout: Duration,
    pub(super) retry_after: Duration,
    /// Who is asked for certificates, and by how many sessions at once.
    pub(super) authority: Option<Arc<dyn Authority>>,
    pub(super) renewals: Arc<Semaphore>,
}

impl fmt::Debug for SessionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionContext")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Answers wait here while the peer does not read; beyond this no more batches are looked at.
const MAX_OUTBOX_BYTES: usize = 64 << 10;
/// How long a peer may take to read why it is refused.
const FAREWELL: Duration = Duration::from_secs(1);
/// A batch that an operator must look at is tried again after this.
const HOLD_MS: u32 = 60_000;

/// Lines about who was let in, cut off or given a certificate.
const AUDIT: &str = "sluice_ingest::audit";

type Announced = (RecvStream, Result<Preamble, AnnounceError>);
type Received = (Ticket, Level, Lane, Charge, Result<Validated, BatchError>);
type Appended = (Ticket, Level, u64, Charge, Result<(), BatchError>);

pub(super) struct Session {
    connection: Connection,
    peer: PeerIdentity,
    /// What the peer showed, and by which authorities it was verified.
    chain: Vec<CertificateDer<'static>>,
    verified_by: u64,
    standing: Result<Standing, Objection>,
    context: Arc<SessionContext>,
    trust: watch::Receiver<Trust>,
    core: Server,
    started: Instant,
    outbox: BytesMut,
    announcing: FuturesUnordered<BoxFuture<'static, Announced>>,
    receiving: FuturesUnordered<BoxFuture<'static, Received>>,
    appending: FuturesUnordered<BoxFuture<'static, Appended>>,
    renewing: Option<BoxFuture<'static, Answer>>,
    /// Requests for a certificate in this session.
    renewals_asked: u32,
    /// Share of the windows, taken when the session is welcomed.
    window: Option<OwnedSemaphorePermit>,
    farewell: Option<(RefusedCode, String)>,
    _presence: Presence,
}

impl Session {
    pub(super) fn new(
        connection: Connection,
        (peer, chain): (PeerIdentity, Vec<CertificateDer<'static>>),
        context: Arc<SessionContext>,
        mut trust: watch::Receiver<Trust>,
    ) -> Self {
        let (standing, verified_by) = {
            let trust = trust.borrow_and_update();
            (trust.standing(&peer), trust.authorities)
        };
        let mut core = Server::new(
            context.options.clone(),
            peer.tenant.clone(),
            peer.node.clone(),
            next_session_number(),
            0,
        );
        if standing == Ok(Standing::RenewalOnly) {
            core = core.for_renewal_only();
        }
        let presence = context.shared.memory.enter(&peer.tenant);
        Self {
            connection,
            peer,
            chain,
            verified_by,
            standing,
            context,
            trust,
            core,
            started: Instant::now(),
            outbox: BytesMut::new(),
            announcing: FuturesUnordered::new(),
            receiving: FuturesUnordered::new(),
            appending: FuturesUnordered::new(),
            renewing: None,
            renewals_asked: 0,
            window: None,
            farewell: None,
            _presence: presence,
        }
    }

    /// Until the peer leaves, is refused, or `shutdown` and everything taken is answered.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        if let Err(objection @ Objection { code, reason, .. }) = self.standing {
            match objection.why {
                Why::Tenant => add(&self.context.counters.refused_tenant, 1),
                Why::Certificate => self.count_refusal(code),
            }
            warn!(target: AUDIT, tenant = %self.peer.tenant, node = %self.peer.node, serial = %self.peer.serial, reason, "session refused");
            return self
                .connection
                .close(VarInt::from_u32(code.number()), reason.as_bytes());
        }
        let is_for_renewal = self.standing == Ok(Standing::RenewalOnly);
        let _level = is_for_renewal.then(|| Level::enter(&self.context.counters, |c| &c.sessions_renewal_only));
        let control = timeout(self.context.hello_timeout, self.connection.accept_bi()).await;
        let Ok(Ok((mut send, recv))) = control else {
            return self
                .connection
                .close(VarInt::from_u32(RefusedCode::Protocol.number()), b"no control stream");
        };
        let mut frames = frames(recv);
        let mut recheck = tokio::time::interval(self.context.recheck_interval);
        let mut draining = false;
        loop {
            self.perform_actions();
            if let Some((code, reason)) = self.farewell.take() {
                return self.leave(send, code, &reason).await;
            }
            if draining && self.outbox.is_empty() && self.is_idle() {
                return self.leave(send, RefusedCode::Other(0), "gateway is leaving").await;
            }
            let wake = self.core.next_wake().map(|ms| self.started + Duration::from_millis(ms));
            let may_take = self.outbox.len() < MAX_OUTBOX_BYTES
                && self.announcing.len() < self.context.options.max_in_flight as usize;
            tokio::select! {
                written = send.write(&self.outbox), if !self.outbox.is_empty() => match written {
                    Ok(n) => self.outbox.advance(n),
                    Err(_) => return self.gone(),
                },
                frame = frames.next() => match frame {
                    Some(Ok(frame)) => self.core.handle_frame(frame),
                    Some(Err(error)) => self.core.refuse(RefusedCode::Protocol, &error.to_string()),
                    None => return self.gone(),
                },
                stream = self.connection.accept_uni(), if may_take => match stream {
                    Ok(stream) => self.announce(stream),
                    Err(_) => return self.gone(),
                },
                Some((stream, announced)) = self.announcing.next() => self.handle_announced(stream, announced),
                Some(received) = self.receiving.next() => self.handle_received(received),
                Some(appended) = self.appending.next() => self.handle_appended(appended),
                () = sleep_until(wake) => self.core.handle_timeout(self.now_ms()),
                _ = recheck.tick() => self.object(),
                // The sender lives as long as the gateway.
                Ok(()) = self.trust.changed() => self.object(),
                answer = renewal::pending_or(&mut self.renewing) => self.handle_renewal(answer),
                () = shutdown.cancelled(), if !draining => {
                    draining = true;
                    self.core.handle_drain("gateway is leaving");
                }
            }
        }
    }

    fn perform_actions(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send(frame) => {
                    self.note(&frame);
                    self.outbox.extend_from_slice(&frame.encode());
                }
                Action::Close { code, reason } => {
                    self.count_refusal(code);
                    self.farewell = Some((code, reason));
                }
                Action::Renew(ask) => {
                    let context = &self.context;
                    let may = renewal::may_ask(self.renewals_asked, self.started.elapsed(), context.retry_after);
                    self.renewals_asked = self.renewals_asked.saturating_add(1);
                    let asked = match may {
                        true => renewal::ask(context.authority.clone(), &context.renewals, &self.chain, ask).boxed(),
                        false => futures::future::ready(renewal::too_often()).boxed(),
                    };
                    self.renewing = Some(asked);
                }
            }
        }
    }

    /// What is worth a line or a count in what we say.
    fn note(&mut self, frame: &Frame) {
        let counters = &self.context.counters;
        match frame {
            Frame::Welcome(welcome) => {
                let stream = self.core.stream().map(ToString::to_string).unwrap_or_default();
                info!(stream, session = format!("{:016x}", welcome.session), address = %self.connection.remote_address(), "session opened");
                self.widen();
            }
            Frame::Refused(refused) => {
                warn!(tenant = %self.peer.tenant, node = %self.peer.node, reason = refused.reason, "session refused");
            }
            Frame::Ack(_) => add(&counters.batches_acknowledged, 1),
            Frame::Nack(nack) => match nack.verdict {
                Verdict::Retry { .. } => add(&counters.retries_asked, 1),
                Verdict::Hold { .. } => {
                    add(&counters.holds_asked, 1);
                    warn!(tenant = %self.peer.tenant, node = %self.peer.node, seq = nack.seq, reason = nack.reason, "batch held back at its edge");
                }
                Verdict::Permanent => {
                    add(&counters.batches_invalid, 1);
                    error!(tenant = %self.peer.tenant, node = %self.peer.node, seq = nack.seq, reason = nack.reason, "batch can never be stored");
                }
            },
            _ => {}
        }
    }

    /// A session that was welcomed gets a larger window if there is one left.
    fn widen(&mut self) {
        for bytes in [self.context.window_bytes, self.context.window_bytes / 4] {
            if let Ok(share) = Arc::clone(&self.context.windows).try_acquire_many_owned(bytes.div_ceil(1024)) {
                self.connection.set_receive_window(VarInt::from_u32(bytes));
                self.window = Some(share);
                return;
            }
        }
    }

    fn announce(&mut self, mut stream: RecvStream) {
        let patience = self.context.shared.stall_timeout;
        let announced = async move {
            let preamble = batch::announce(&mut stream, patience).await;
            (stream, preamble)
        };
        self.announcing.push(announced.boxed());
    }

    fn handle_announced(&mut self, mut stream: RecvStream, announced: Result<Preamble, AnnounceError>) {
        let preamble = match announced {
            Ok(preamble) => preamble,
            Err(AnnounceError::Gone) => return,
            Err(error) => return self.core.refuse(RefusedCode::Protocol, &error.to_string()),
        };
        let rest = self.backlog_rest_ms(preamble.lane);
        let Some(ticket) = self.core.handle_preamble(&preamble, rest) else {
            // Answered already; the bytes are not wanted. An error means the stream is over, which is as good.
            let _ = stream.stop(VarInt::from_u32(0));
            return;
        };
        let charge = match self
            .context
            .shared
            .quotas
            .ask(&self.peer.tenant, preamble.length.into())
        {
            Ok(charge) => charge,
            Err(over) => {
                let _ = stream.stop(VarInt::from_u32(0));
                return self.fail(ticket, &over.into());
            }
        };
        let level = Level::enter(&self.context.counters, |c| &c.batches_in_flight);
        let id = self.core.stream().map(|stream| BatchId {
            stream: stream.clone(),
            epoch: preamble.epoch,
            seq: preamble.seq,
        });
        let (lane, tenant) = (preamble.lane, self.peer.tenant.clone());
        let received = batch::receive(self.context.shared.clone(), tenant, stream, lane, (id, preamble.length));
        self.receiving.push(
            received
                .map(move |result| (ticket, level, lane, charge, result))
                .boxed(),
        );
    }

    fn handle_received(&mut self, (ticket, level, lane, mut charge, result): Received) {
        let validated = match result {
            Ok(validated) => validated,
            Err(error) => {
                // What was decoded is paid for, whatever it was worth.
                if error.was_decoded() {
                    charge.refused(false);
                }
                return self.fail(ticket, &error);
            }
        };
        add(&self.context.counters.batches_received, 1);
        add(&self.context.counters.bytes_received, validated.bytes.len() as u64);
        if !self.core.handle_batch(ticket, &validated.head.id, validated.hash) {
            // A session that is over has answered nothing, and its edge sends again.
            if let Some(stream) = self.core.stream() {
                self.note_foreign(stream, &validated.head.id);
                charge.refused(false);
            }
            return;
        }
        let share = match self.context.shared.quota.admit(&validated.head.id, lane) {
            Ok(share) => share,
            Err(error) => {
                add(&self.context.counters.quota_holds, 1);
                charge.refused(false);
                return self.fail(ticket, &error.into());
            }
        };
        let rows = validated.rows;
        if let Err(over) = charge.events(rows) {
            charge.refused(true);
            return self.fail(ticket, &over.into());
        }
        let appended = batch::append(self.context.shared.clone(), validated, share);
        self.appending.push(
            appended
                .map(move |result| (ticket, level, rows, charge, result))
                .boxed(),
        );
    }

    /// A batch that says it is of another stream than its session's: of a tenant or node that this peer is not.
    fn note_foreign(&self, stream: &StreamId, id: &BatchId) {
        if *stream != id.stream {
            add(&self.context.counters.refused_foreign, 1);
            warn!(target: AUDIT, tenant = %self.peer.tenant, node = %self.peer.node, serial = %self.peer.serial, claimed = %id.stream, "batch of another stream refused");
        }
    }

    fn handle_appended(&mut self, (ticket, _level, rows, mut charge, result): Appended) {
        match result {
            Ok(()) => {
                charge.keep();
                add(&self.context.counters.rows_acknowledged, rows);
                self.core.handle_durable(ticket);
            }
            Err(error) => {
                add(&self.context.counters.append_failures, 1);
                error!(tenant = %self.peer.tenant, node = %self.peer.node, %error, "batch not appended");
                self.fail(ticket, &error);
            }
        }
    }

    fn fail(&mut self, ticket: Ticket, error: &BatchError) {
        let reason = batch::with_sources(error);
        let verdict = match error {
            BatchError::Abandoned => return self.core.handle_abandoned(ticket),
            BatchError::Longer(_) => return self.core.refuse(RefusedCode::Protocol, &reason),
            // These limits can be raised.
            BatchError::Quota(_) | BatchError::Append(LogError::TooLarge { .. }) => Verdict::Hold { after_ms: HOLD_MS },
            BatchError::Slow | BatchError::Memory(_) | BatchError::Append(_) => Verdict::Retry {
                after_ms: self.retry_after_ms(),
            },
            BatchError::Over(over) => Verdict::Retry {
                after_ms: self.spread(over.wait.max(self.context.retry_after)),
            },
            // Whoever looks after the quarantine makes room in it.
            BatchError::Generation(_) | BatchError::NotKept { .. } => Verdict::Hold { after_ms: HOLD_MS },
            _ if error.is_for_good() => Verdict::Permanent,
            // Another build or another setting would take it.
            BatchError::Invalid(_) | BatchError::Panicked => Verdict::Hold { after_ms: HOLD_MS },
        };
        self.core.handle_failed(ticket, verdict, &reason);
    }

    /// Why this peer may not go on, as of now.
    fn objection(&mut self) -> Option<Objection> {
        let trust = self.trust.borrow();
        if trust.authorities != self.verified_by {
            if !trust.verifies(&self.chain) {
                return Some(Objection::STRANGER);
            }
            self.verified_by = trust.authorities;
        }
        match trust.standing(&self.peer) {
            Err(objection) => Some(objection),
            Ok(Standing::RenewalOnly) if self.standing == Ok(Standing::Good) => Some(Objection::EXPIRED),
            Ok(_) => None,
        }
    }

    fn object(&mut self) {
        let Some(Objection { code, reason, why }) = self.objection() else {
            return;
        };
        if self.core.stream().is_some() {
            let counters = &self.context.counters;
            add(
                match (why, code) {
                    (Why::Tenant, _) => &counters.cut_tenant,
                    (_, RefusedCode::Revoked) => &counters.cut_revoked,
                    _ => &counters.cut_expired,
                },
                1,
            );
            warn!(target: AUDIT, tenant = %self.peer.tenant, node = %self.peer.node, serial = %self.peer.serial, reason, "session cut off");
        }
        self.core.refuse(code, reason);
    }

    fn handle_renewal(&mut self, answer: Answer) {
        self.renewing = None;
        let counters = &self.context.counters;
        let (tenant, node, serial) = (&self.peer.tenant, &self.peer.node, &self.peer.serial);
        match renewal::check(answer, &self.peer) {
            Ok((renewed, new_serial)) => {
                add(&counters.renewals, 1);
                info!(target: AUDIT, %tenant, %node, serial, new_serial, "certificate renewed");
                self.core.handle_renewed(renewed);
            }
            Err(error) => {
                add(&counters.renewal_failures, 1);
                warn!(target: AUDIT, %tenant, %node, serial, %error, "certificate not renewed");
                let after = renewal::rest(&error, self.context.retry_after);
                self.core.handle_not_renewed(self.spread(after), &error.to_string());
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.core.in_flight() == 0
            && self.renewing.is_none()
            && self.announcing.is_empty()
            && self.receiving.is_empty()
            && self.appending.is_empty()
    }

    async fn leave(mut self, mut send: SendStream, code: RefusedCode, reason: &str) {
        let farewell = async {
            send.write_all(&self.outbox).await.ok()?;
            send.finish().ok()?;
            send.stopped().await.ok()
        };
        // A peer that does not read is told by the close alone.
        let _ = timeout(FAREWELL, farewell).await;
        self.outbox.clear();
        self.connection
            .close(VarInt::from_u32(code.number()), frame::cut(reason).as_bytes());
    }

    fn gone(&self) {
        let reason = self
            .connection
            .close_reason()
            .map(|r| r.to_string())
            .unwrap_or_default();
        debug!(tenant = %self.peer.tenant, node = %self.peer.node, reason, "session ended");
        self.connection.close(VarInt::from_u32(0), b"");
    }

    fn count_refusal(&self, code: RefusedCode) {
        let counters = &self.context.counters;
        let counter = match code {
            RefusedCode::Revoked => &counters.refused_revoked,
            RefusedCode::Identity => &counters.refused_identity,
            RefusedCode::Overload => &counters.refused_overload,
            RefusedCode::Version | RefusedCode::Protocol | RefusedCode::Other(_) => &counters.refused_protocol,
        };
        add(counter, 1);
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// How long a batch of the backlog has to wait, if the log is behind: about as long as it is.
    fn backlog_rest_ms(&self, lane: Lane) -> Option<u32> {
        let rest = match lane {
            Lane::Live => None,
            Lane::Backlog => self.context.shared.admission.backlog_rests(),
        }?;
        add(&self.context.counters.backlog_rests, 1);
        Some(self.spread(rest.max(self.context.retry_after)))
    }

    fn retry_after_ms(&self) -> u32 {
        self.spread(self.context.retry_after)
    }

    /// Up to half as much again, so that edges that were told to wait together do not come back together.
    fn spread(&self, wait: Duration) -> u32 {
        let base = wait.as_millis() as u32;
        let spread = u64::from(self.started.elapsed().subsec_nanos()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        base.saturating_add(spread as u32 % (base / 2 + 1))
    }
}

/// The frames of the control stream until it ends or breaks; ends after the first error.
fn frames(recv: RecvStream) -> BoxStream<'static, Result<Frame, FrameError>> {
    let state = (recv, BytesMut::new(), false);
    futures::stream::unfold(state, |(mut recv, mut buffer, failed)| async move {
        if failed {
            return None;
        }
        loop {
            match Frame::decode(&mut buffer) {
                Ok(Some(frame)) => return Some((Ok(frame), (recv, buffer, false))),
                Ok(None) => {}
                Err(error) => return Some((Err(error), (recv, buffer, true))),
            }
            let chunk = recv.read_chunk(16 << 10, true).await.ok()??;
            buffer.extend_from_slice(&chunk.bytes);
        }
    })
    .boxed()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => futures::future::pending().await,
    }
}

/// Distinct within a process and almost surely between processes; only for people who compare logs.
fn next_session_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let start = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros() as u64;
    (start << 8) ^ NEXT.fetch_add(1, Ordering::Relaxed)
}
