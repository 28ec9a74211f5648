//! The driver of the uplink: moves bytes between the spool, the connection and the core; decides nothing.

mod certificates;
mod reads;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use quinn::{Connection, ConnectionError, VarInt};
use sluice_wire::ids::Epoch;
use sluice_wire::session::LanePolicy;
use sluice_wire::session::client::{Action, Client, Phase};
use sluice_wire::session::frame::{Frame, Lane};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::budget::{Clocks, Purse};
use super::connect::{self, Down};
use super::credentials::Credentials;
use super::frontier::Frontier;
use super::gateways::Gateways;
use super::ledger::Ledger;
use super::pipe::{Parcel, Pipe, Progress};
use super::reading::Read;
use super::status::LinkStatus;
use super::uplink::Uplink;
use certificates::Certificates;

pub(super) use certificates::LOOK_EVERY;

/// A batch that the core knows.
#[derive(Clone, Copy)]
struct Announcement {
    epoch: Epoch,
    seq: u64,
    sealed_at_ns: u64,
}

/// What is read of the spool.
#[derive(Clone, Copy)]
struct Reading {
    lane: Lane,
    from: u64,
}

type Doomed = (u64, String, Result<(Bytes, [u8; 32]), String>);
type Connected = Result<(Connection, Arc<Credentials>), Down>;

pub(super) struct Driver {
    uplink: Uplink,
    core: Client,
    frontier: Frontier,
    gateways: Gateways,
    purse: Purse,
    ledger: Ledger,
    started: Instant,
    /// The gateway of this connection, or of this attempt.
    gateway: usize,
    certificates: Certificates,
    connecting: Option<BoxFuture<'static, Connected>>,
    closed: Option<BoxFuture<'static, ConnectionError>>,
    frames: Option<BoxStream<'static, Result<Frame, Down>>>,
    /// What is said on the control stream after HELLO, until there is one.
    ours: Option<mpsc::Receiver<Frame>>,
    pipe: Option<Pipe>,
    /// Asks whether the home gateway answers, while another one serves.
    asking: Option<BoxFuture<'static, Connected>>,
    reading: Option<BoxFuture<'static, (Reading, Read)>>,
    dooming: FuturesUnordered<BoxFuture<'static, Doomed>>,
    changed: watch::Receiver<u64>,
    announcements: HashMap<u64, Announcement>,
    /// Bytes of batches that were read and not yet given to the pipe.
    ready: HashMap<u64, Bytes>,
    /// Bytes of tombstones that took the place of batches.
    tombstones: HashMap<u64, Bytes>,
    view: LinkStatus,
    published: Option<Instant>,
}

impl Driver {
    pub(super) fn new(uplink: Uplink) -> Self {
        let seed = rand::random();
        let changed = uplink.changed.clone();
        let certificates = Certificates::new(&uplink, seed);
        let mut view = uplink.status.borrow().clone();
        view.certificate = Some(certificates.status());
        let config = &uplink.config;
        let oldest_first = config.policy == LanePolicy::OldestFirst;
        // Random and of this node for good.
        let spool = uplink.options.stream.spool;
        let now = Clocks {
            monotonic_ms: 0,
            unix_s: unix_ms() / 1_000,
        };
        let ledger = Ledger::open(config.budget_file.clone());
        let home = if config.first_is_home { 0 } else { u64::from(spool[0]) };
        Self {
            core: Client::new(uplink.options.clone(), 0, seed),
            frontier: Frontier::new(
                uplink.fresh.clone(),
                (millis(config.live_for), millis(config.retry.1)),
                oldest_first,
                0,
            ),
            purse: Purse::new(config.budget.clone(), ledger.spent(), now),
            ledger,
            gateways: Gateways::new(config.gateways.len(), home, millis(config.return_after)),
            view,
            started: Instant::now(),
            gateway: 0,
            uplink,
            certificates,
            connecting: None,
            closed: None,
            frames: None,
            ours: None,
            pipe: None,
            asking: None,
            reading: None,
            dooming: FuturesUnordered::new(),
            changed,
            announcements: HashMap::new(),
            ready: HashMap::new(),
            tombstones: HashMap::new(),
            published: None,
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut source_gone = false;
        // The spool may have grown since the node was built.
        self.changed.mark_changed();
        loop {
            let now = self.now_ms();
            self.tell_lanes(now);
            self.start_renewing(now);
            while let Some(action) = self.core.poll_action(now) {
                self.perform(action);
            }
            self.start_reading(now);
            self.start_asking(now);
            let publish_at = self.publish(false);
            let timers = [
                self.core.next_wake(now),
                self.frontier.next_wake(),
                self.home_wake(),
                self.renewal_wake(now),
                self.purse.next_wake(self.clocks()),
            ];
            let wake = timers.into_iter().flatten().min();
            let wake = wake.map(|ms| self.started + Duration::from_millis(ms));
            let wake = [wake, publish_at].into_iter().flatten().min();
            let clocks = self.clocks();
            let allowed = Lane::ALL.map(|lane| self.purse.allowed(clocks, lane));
            tokio::select! {
                connected = pending_or(&mut self.connecting) => self.handle_connected(connected),
                error = pending_or(&mut self.closed) => {
                    self.drop_connection();
                    self.handle_down(&connect::down(&error));
                }
                frame = next_or_pending(&mut self.frames) => self.handle_frame(frame),
                progress = progress(&mut self.pipe, allowed) => self.handle_progress(progress),
                (asked, read) = pending_or(&mut self.reading) => self.handle_read(asked, read),
                Some(doomed) = self.dooming.next() => self.handle_doomed(doomed),
                answer = pending_or(&mut self.asking) => self.handle_answer(answer),
                event = self.certificates.next() => self.handle_certificates(event),
                alive = self.changed.changed(), if !source_gone => {
                    source_gone = alive.is_err();
                    let end = *self.changed.borrow_and_update();
                    let now = self.now_ms();
                    self.frontier.handle_end(now, end);
                    self.frontier.handle_past(now, self.uplink.source.past());
                }
                () = sleep_until(wake) => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.drop_connection();
        self.view.phase = "stopped";
        self.publish(true);
        if self.purse.is_limited() {
            self.ledger.close(self.purse.spent()).await;
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect => self.connect(),
            Action::SendHello(hello) => {
                let pipe = self.pipe.as_ref().zip(self.ours.take());
                self.frames = pipe.map(|(pipe, ours)| connect::control(pipe.connection().clone(), hello, ours));
            }
            Action::SendRenew(ask) => self.certificates.send(Frame::Renew(ask)),
            Action::Renewed { certificates } => self.handle_renewed(&certificates),
            Action::NotRenewed { after_ms, reason } => self.handle_not_renewed(after_ms, reason),
            Action::SendBatch { key } => self.send(key),
            Action::Recall { key } => {
                if let Some(pipe) = &mut self.pipe {
                    pipe.recall(key);
                }
            }
            Action::Forget { key, was_sent } => {
                if !was_sent {
                    self.uplink.source.given_back(key);
                }
                self.announcements.remove(&key);
                self.ready.remove(&key);
                self.frontier.handle_forgotten(key);
            }
            Action::Acked { key } => {
                self.announcements.remove(&key);
                self.ready.remove(&key);
                self.tombstones.remove(&key);
                self.view.last_ack_unix_ms = Some(unix_ms());
                self.uplink.sink.acked(key);
            }
            Action::Tombstone { key, reason } => {
                error!(
                    index = key,
                    reason, "gateway can never store a batch, a tombstone takes its place"
                );
                self.doom(key, reason);
            }
            Action::Held { key, reason } => {
                // Held for long, perhaps, and many of them: the spool has its bytes.
                self.ready.remove(&key);
                warn!(index = key, reason, "batch is held");
                self.view.alarm = Some(format!("batch {key} is held: {reason}"));
            }
            Action::Refused { reason } => {
                warn!(gateway = self.view.gateway, reason, "gateway refuses this node");
                self.view.alarm = Some(format!("refused: {reason}"));
                self.view.last_error = Some(reason);
            }
            Action::Close { reason, again: true } => {
                debug!(gateway = self.view.gateway, reason, "connection is made again");
                self.drop_connection();
                self.frontier.handle_down(self.now_ms());
            }
            Action::Close { reason, again: false } => {
                debug!(gateway = self.view.gateway, reason, "connection closed");
                self.view.last_error = Some(reason);
                self.drop_connection();
                self.note_down();
            }
        }
    }

    fn connect(&mut self) {
        let (socket, config) = (self.uplink.socket.clone(), Arc::clone(&self.uplink.config));
        self.gateway = self.gateways.choose(self.now_ms());
        self.view.gateway = config.gateways.get(self.gateway).cloned().unwrap_or_default();
        let (current, failures) = (self.certificates.current.clone(), self.gateways.failures(self.gateway));
        self.connecting = Some(connect::connect(socket, config, current, self.gateway, failures).boxed());
    }

    fn handle_connected(&mut self, connected: Connected) {
        self.connecting = None;
        match connected {
            Ok((connection, shown)) => {
                self.ours = Some(self.certificates.handle_connected(&shown));
                let watched = connection.clone();
                self.closed = Some(async move { watched.closed().await }.boxed());
                self.settle(true);
                let (source, config) = (Arc::clone(&self.uplink.source), &self.uplink.config);
                self.pipe = Some(Pipe::new(connection, source, config.policy, config.max_in_flight_bytes));
                self.core.handle_connected(self.now_ms());
            }
            Err(failure) => self.handle_down(&failure),
        }
    }

    fn handle_down(&mut self, down: &Down) {
        let now = self.now_ms();
        debug!(
            gateway = self.view.gateway,
            reason = down.reason,
            refused = down.refused,
            "link is down"
        );
        self.view.last_error = Some(down.reason.clone());
        self.note_down();
        if down.refused {
            self.core.handle_refused(now, &down.reason);
        } else {
            self.core.handle_disconnected(now);
        }
    }

    fn note_down(&mut self) {
        let now = self.now_ms();
        self.gateways.handle_failed(now, self.gateway);
        self.frontier.handle_down(now);
    }

    fn handle_frame(&mut self, frame: Option<Result<Frame, Down>>) {
        let frame = match frame {
            Some(Ok(frame)) => frame,
            ended => {
                // Where the connection ended too, its reason says more than that of the stream.
                let reason = self.pipe.as_ref().and_then(|pipe| pipe.connection().close_reason());
                let down = match (reason, ended) {
                    (Some(reason), _) => connect::down(&reason),
                    (None, Some(Err(down))) => down,
                    (None, _) => Down {
                        refused: false,
                        reason: "gateway ended the control stream".to_owned(),
                    },
                };
                self.drop_connection();
                return self.handle_down(&down);
            }
        };
        if let Frame::Welcome(welcome) = &frame {
            info!(
                gateway = self.view.gateway,
                session = format!("{:016x}", welcome.session),
                "link is up"
            );
            self.view.session = Some(format!("{:016x}", welcome.session));
            self.view.alarm = None;
            let now = self.now_ms();
            self.gateways.handle_worked(now, self.gateway);
            self.handle_welcome(welcome.renews);
            if welcome.renewal_only {
                self.view.alarm = Some("the certificate is expired: nothing is sent until it is renewed".to_owned());
            } else {
                self.uplink.sink.welcomed(welcome.generation, welcome.max_batch_bytes);
                self.frontier.handle_up(now);
                self.tell_lanes(now);
            }
        }
        let is_welcome = matches!(frame, Frame::Welcome(_));
        self.core.handle_frame(self.now_ms(), frame);
        if is_welcome {
            // The certificate may have changed since the handshake.
            self.go_over();
        }
    }

    fn tell_lanes(&mut self, now: u64) {
        let live_from = self.frontier.live_from(now);
        self.core.handle_lanes(live_from, self.frontier.backlog_read());
    }

    fn send(&mut self, key: u64) {
        let (Some(pipe), Some(announcement)) = (&mut self.pipe, self.announcements.get(&key)) else {
            return;
        };
        let bytes = self.tombstones.get(&key).cloned().or_else(|| self.ready.remove(&key));
        pipe.push(Parcel {
            key,
            lane: self.frontier.lane_of(key),
            epoch: announcement.epoch,
            seq: announcement.seq,
            bytes,
        });
    }

    fn handle_progress(&mut self, progress: Progress) {
        match progress {
            Progress::Wrote(lane, bytes) => {
                self.view.sent_bytes += bytes as u64;
                self.view.lanes.of(lane).sent_bytes += bytes as u64;
                self.purse.spend(self.clocks(), bytes as u64);
                self.ledger.handle_written(bytes as u64);
            }
            Progress::Delivered(key) => self.core.handle_delivered(self.now_ms(), key),
            Progress::Reread(key, hash, bytes) => self.core.handle_reread(key, hash, bytes),
            Progress::Unreadable(key, error) => {
                error!(%error, "batch not read again");
                self.view.alarm = Some(error.to_string());
                self.core.hold(self.now_ms(), key);
            }
        }
    }

    /// Asks whether home works again, by a connection that carries nothing.
    fn start_asking(&mut self, now_ms: u64) {
        if self.asking.is_some() || self.core.phase() != Phase::Live {
            return;
        }
        let Some(home) = self.gateways.way_home(now_ms) else {
            return;
        };
        let (socket, config) = (self.uplink.socket.clone(), Arc::clone(&self.uplink.config));
        let (current, failures) = (self.certificates.current.clone(), self.gateways.failures(home));
        let (patience, gateway) = (config.connect_timeout, config.gateways.get(home).cloned());
        debug!(gateway, "asking whether the home gateway answers");
        let asked = async move {
            let connected = connect::connect(socket, config, current, home, failures);
            let silent = |_| Down {
                refused: false,
                reason: "nothing answered".to_owned(),
            };
            tokio::time::timeout(patience, connected).await.map_err(silent)?
        };
        self.asking = Some(asked.boxed());
    }

    fn home_wake(&self) -> Option<u64> {
        let is_free = self.asking.is_none() && self.core.phase() == Phase::Live;
        self.gateways.home_due().filter(|_| is_free)
    }

    fn handle_answer(&mut self, answer: Connected) {
        self.asking = None;
        let now = self.now_ms();
        match answer {
            Ok((connection, _)) => {
                connection.close(VarInt::from_u32(0), b"");
                info!("home gateway answers, going back to it");
                self.gateways.handle_home_answers();
                self.core.handle_move(now);
            }
            Err(down) => {
                debug!(reason = down.reason, "home gateway does not answer");
                self.gateways.handle_home_failed(now);
            }
        }
    }

    fn drop_connection(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            pipe.connection().close(VarInt::from_u32(0), b"");
            self.settle(false);
        }
        (self.connecting, self.closed, self.frames, self.ours) = (None, None, None, None);
        self.certificates.handle_down(self.now_ms());
        // Until the link is back they would only take memory.
        self.ready.clear();
        self.view.session = None;
    }

    /// What the wire took beside what was written is paid like that. Tries to reach a gateway are no debt of those that reach it.
    fn spend_overhead(&mut self) {
        let (clocks, overhead) = (self.clocks(), self.ledger.overhead(self.uplink.socket.wire_bytes()));
        match self.pipe {
            Some(_) => self.purse.spend(clocks, overhead),
            None => self.purse.spend_of_day(clocks, overhead),
        }
    }

    /// A connection begins or ends.
    fn settle(&mut self, begins: bool) {
        self.uplink.socket.handle_connection(begins);
        self.spend_overhead();
        self.ledger.handle_connection(self.uplink.socket.wire_bytes());
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            monotonic_ms: self.now_ms(),
            unix_s: unix_ms() / 1_000,
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

async fn progress(pipe: &mut Option<Pipe>, allowed: [u64; 2]) -> Progress {
    match pipe {
        Some(pipe) => pipe.progress(|lane| allowed[lane as usize]).await,
        None => futures::future::pending().await,
    }
}

async fn pending_or<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => futures::future::pending().await,
    }
}

async fn next_or_pending<T>(stream: &mut Option<BoxStream<'static, T>>) -> Option<T> {
    match stream {
        Some(stream) => stream.next().await,
        None => futures::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => futures::future::pending().await,
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
