//! The driver of the uplink: moves bytes between the spool, the connection and the core; decides nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, SendStream, VarInt};
use sluice_wire::envelope::{self, Compression, Envelope};
use sluice_wire::ids::{Epoch, StreamId};
use sluice_wire::session::ClientOptions;
use sluice_wire::session::client::{Action, Client, Offer, Phase};
use sluice_wire::session::frame::{Frame, Lane, Preamble};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::config::{LinkConfig, LinkError};
use super::connect::{self, Down};
use super::status::{LinkStatus, phase_name};
use super::{AckSink, BatchSource, SourceError};

/// The status is published at most this often while batches flow.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);
/// After a spool that could not be read.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// A bound uplink that does nothing until it is run.
pub struct Uplink {
    config: Arc<LinkConfig>,
    options: ClientOptions,
    source: Arc<dyn BatchSource>,
    sink: Arc<dyn AckSink>,
    endpoint: Endpoint,
    status: watch::Sender<LinkStatus>,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Uplink {
    /// Binds a socket and checks the certificates. Needs a running tokio runtime. `generation` is the log's generation
    /// that the epoch began in, 0 if no gateway has named one yet.
    pub fn build(
        config: LinkConfig,
        stream: StreamId,
        epoch: Epoch,
        generation: u32,
        source: Arc<dyn BatchSource>,
        sink: Arc<dyn AckSink>,
    ) -> Result<Uplink, LinkError> {
        if config.gateways.is_empty() {
            return Err(LinkError::NoGateway);
        }
        if let Some(bad) = config.gateways.iter().find(|g| connect::split(g).is_none()) {
            return Err(LinkError::Gateway(bad.clone()));
        }
        connect::client_config(&config)?;
        let millis = |d: Duration| d.as_millis() as u64;
        let options = ClientOptions {
            generation,
            agent: concat!("sluice-edge/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_in_flight: config.max_in_flight,
            max_in_flight_bytes: config.max_in_flight_bytes,
            retry_ms: (millis(config.retry.0), millis(config.retry.1)),
            connect_timeout_ms: millis(config.connect_timeout),
            ack_timeout_ms: millis(config.ack_timeout),
            ..ClientOptions::new(stream, epoch)
        };
        let status = LinkStatus {
            phase: phase_name(Phase::Waiting),
            ..LinkStatus::default()
        };
        let (status, _) = watch::channel(status);
        Ok(Uplink {
            config: Arc::new(config),
            options,
            source,
            sink,
            endpoint: connect::endpoint()?,
            status,
        })
    }

    /// Follows the link; keeps its last value after the uplink ended.
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.subscribe()
    }

    /// Carries batches until `shutdown`. What is not acknowledged then stays in the spool.
    pub async fn run(self, shutdown: CancellationToken) {
        let endpoint = self.endpoint.clone();
        Box::pin(Driver::new(self).run(shutdown)).await;
        endpoint.close(VarInt::from_u32(0), b"edge is leaving");
        // The close is announced once; a gateway that misses it notices the silence.
        let _ = tokio::time::timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
    }
}

/// What a batch is announced with.
#[derive(Clone, Copy)]
struct Announcement {
    lane: Lane,
    epoch: Epoch,
    seq: u64,
}

struct ReadBatch {
    offer: Offer,
    bytes: Bytes,
}

enum Read {
    Batch(ReadBatch),
    Nothing,
    /// The record at this index is no envelope; it stays where it is.
    Strange(u64, String),
    Failed(SourceError),
}

enum Opened {
    Stream(u64, SendStream, Bytes),
    Unreadable(u64, SourceError),
    /// The connection is gone; its own event tells why.
    Gone,
}

type Doomed = (u64, String, Result<(Bytes, [u8; 32]), String>);
type Connected = Result<(Connection, ClientConfig), Down>;

struct Driver {
    uplink: Uplink,
    core: Client,
    started: Instant,
    attempts: usize,
    last_good: Option<ClientConfig>,
    connecting: Option<BoxFuture<'static, Connected>>,
    connection: Option<Connection>,
    closed: Option<BoxFuture<'static, ConnectionError>>,
    frames: Option<BoxStream<'static, Result<Frame, Down>>>,
    to_open: VecDeque<u64>,
    opening: Option<BoxFuture<'static, Opened>>,
    sending: FuturesUnordered<BoxFuture<'static, u64>>,
    reading: Option<BoxFuture<'static, Read>>,
    dooming: FuturesUnordered<BoxFuture<'static, Doomed>>,
    /// Where the next read begins.
    next_index: u64,
    exhausted: bool,
    changed: watch::Receiver<u64>,
    announcements: HashMap<u64, Announcement>,
    /// Bytes of batches that were read and not yet given to a stream.
    ready: HashMap<u64, Bytes>,
    /// Bytes of tombstones that took the place of batches.
    tombstones: HashMap<u64, Bytes>,
    view: LinkStatus,
    published: Option<Instant>,
}

impl Driver {
    fn new(uplink: Uplink) -> Self {
        let seed = rand::random();
        let changed = uplink.source.changed();
        let view = uplink.status.borrow().clone();
        Self {
            core: Client::new(uplink.options.clone(), 0, seed),
            view,
            started: Instant::now(),
            // Edges that share a list of gateways begin at different ones.
            attempts: (seed % uplink.config.gateways.len().max(1) as u64) as usize,
            uplink,
            last_good: None,
            connecting: None,
            connection: None,
            closed: None,
            frames: None,
            to_open: VecDeque::new(),
            opening: None,
            sending: FuturesUnordered::new(),
            reading: None,
            dooming: FuturesUnordered::new(),
            next_index: 0,
            exhausted: false,
            changed,
            announcements: HashMap::new(),
            ready: HashMap::new(),
            tombstones: HashMap::new(),
            published: None,
        }
    }

    async fn run(mut self, shutdown: CancellationToken) {
        let mut source_gone = false;
        loop {
            let now = self.now_ms();
            while let Some(action) = self.core.poll_action(now) {
                self.perform(action);
            }
            self.start_reading(now);
            self.start_opening();
            let publish_at = self.publish(false);
            let wake = self
                .core
                .next_wake(now)
                .map(|ms| self.started + Duration::from_millis(ms));
            let wake = [wake, publish_at].into_iter().flatten().min();
            tokio::select! {
                connected = pending_or(&mut self.connecting) => self.handle_connected(connected),
                error = pending_or(&mut self.closed) => {
                    self.drop_connection();
                    self.handle_down(&connect::down(&error));
                }
                frame = next_or_pending(&mut self.frames) => self.handle_frame(frame),
                opened = pending_or(&mut self.opening) => self.handle_opened(opened),
                Some(key) = self.sending.next() => self.core.handle_delivered(self.now_ms(), key),
                read = pending_or(&mut self.reading) => self.handle_read(read),
                Some(doomed) = self.dooming.next() => self.handle_doomed(doomed),
                alive = self.changed.changed(), if self.exhausted && !source_gone => {
                    self.exhausted = false;
                    source_gone = alive.is_err();
                }
                () = sleep_until(wake) => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.drop_connection();
        self.view.phase = "stopped";
        self.publish(true);
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect => {
                self.attempts = self.attempts.wrapping_add(1);
                let (endpoint, config) = (self.uplink.endpoint.clone(), Arc::clone(&self.uplink.config));
                self.view.gateway = config.gateways[self.attempts % config.gateways.len()].clone();
                self.connecting =
                    Some(connect::connect(endpoint, config, self.last_good.clone(), self.attempts).boxed());
            }
            Action::SendHello(hello) => {
                self.frames = self
                    .connection
                    .clone()
                    .map(|connection| connect::control(connection, hello));
            }
            Action::SendBatch { key } => self.to_open.push_back(key),
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
            Action::Close { reason } => {
                debug!(gateway = self.view.gateway, reason, "connection closed");
                self.view.last_error = Some(reason);
                self.drop_connection();
            }
        }
    }

    fn handle_connected(&mut self, connected: Connected) {
        self.connecting = None;
        match connected {
            Ok((connection, client)) => {
                self.last_good = Some(client);
                let watched = connection.clone();
                self.closed = Some(async move { watched.closed().await }.boxed());
                self.connection = Some(connection);
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
        if down.refused {
            self.core.handle_refused(now, &down.reason);
        } else {
            self.core.handle_disconnected(now);
        }
    }

    fn handle_frame(&mut self, frame: Option<Result<Frame, Down>>) {
        let frame = match frame {
            Some(Ok(frame)) => frame,
            ended => {
                // Where the connection ended too, its reason says more than that of the stream.
                let reason = self.connection.as_ref().and_then(Connection::close_reason);
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
            self.uplink.sink.welcomed(welcome.generation, welcome.max_batch_bytes);
        }
        self.core.handle_frame(self.now_ms(), frame);
    }

    /// Reads ahead while the core has use for more.
    fn start_reading(&mut self, now_ms: u64) {
        if self.reading.is_some() || self.exhausted || !self.core.wants(now_ms, Lane::Live) {
            return;
        }
        self.changed.mark_unchanged();
        let (source, from) = (Arc::clone(&self.uplink.source), self.next_index);
        self.reading = Some(
            async move {
                match tokio::task::spawn_blocking(move || read_next(source.as_ref(), from)).await {
                    Ok(Read::Failed(error)) => {
                        tokio::time::sleep(READ_PAUSE).await;
                        Read::Failed(error)
                    }
                    Ok(read) => read,
                    Err(_) => Read::Failed(SourceError {
                        index: from,
                        what: "reading panicked".to_owned(),
                    }),
                }
            }
            .boxed(),
        );
    }

    fn handle_read(&mut self, read: Read) {
        self.reading = None;
        match read {
            Read::Batch(ReadBatch { offer, bytes }) => {
                self.next_index = offer.key + 1;
                let announcement = Announcement {
                    lane: offer.lane,
                    epoch: offer.epoch,
                    seq: offer.seq,
                };
                self.announcements.insert(offer.key, announcement);
                self.ready.insert(offer.key, bytes);
                self.core.offer(offer);
            }
            Read::Nothing => self.exhausted = true,
            Read::Strange(index, what) => {
                error!(index, what, "spool record is not a batch, it is kept and not sent");
                self.view.alarm = Some(format!("spool record {index} is not a batch: {what}"));
                self.next_index = index + 1;
            }
            Read::Failed(error) => {
                error!(%error, "spool not read");
                self.view.alarm = Some(error.to_string());
            }
        }
    }

    /// Streams are opened one after the other, so that they begin in the order that the core gave.
    fn start_opening(&mut self) {
        if self.opening.is_some() {
            return;
        }
        let Some(connection) = self.connection.clone() else {
            return;
        };
        let Some(key) = self.to_open.pop_front() else {
            return;
        };
        let Some(announcement) = self.announcements.get(&key).copied() else {
            return;
        };
        let bytes = self.tombstones.get(&key).cloned().or_else(|| self.ready.remove(&key));
        let source = Arc::clone(&self.uplink.source);
        self.opening = Some(
            async move {
                let bytes = match bytes {
                    Some(bytes) => bytes,
                    None => match tokio::task::spawn_blocking(move || source.read(key)).await {
                        Ok(Ok(bytes)) => bytes,
                        Ok(Err(error)) => return Opened::Unreadable(key, error),
                        Err(_) => return Opened::Gone,
                    },
                };
                open(&connection, key, announcement, bytes)
                    .await
                    .unwrap_or(Opened::Gone)
            }
            .boxed(),
        );
    }

    fn handle_opened(&mut self, opened: Opened) {
        self.opening = None;
        match opened {
            Opened::Stream(key, stream, bytes) => {
                self.view.sent_bytes += bytes.len() as u64;
                self.sending.push(deliver(key, stream, bytes).boxed());
            }
            Opened::Unreadable(key, error) => {
                error!(%error, "batch not read again");
                self.view.alarm = Some(error.to_string());
                self.core.hold(self.now_ms(), key);
            }
            Opened::Gone => {}
        }
    }

    fn doom(&mut self, key: u64, reason: String) {
        let source = Arc::clone(&self.uplink.source);
        let task = async move {
            let (sent, why) = (reason.clone(), reason);
            let made = tokio::task::spawn_blocking(move || make_tombstone(source.as_ref(), key, &why)).await;
            (key, sent, made.unwrap_or_else(|e| Err(e.to_string())))
        };
        self.dooming.push(task.boxed());
    }

    fn handle_doomed(&mut self, (key, reason, made): Doomed) {
        match made {
            Ok((bytes, hash)) => {
                self.view.tombstones += 1;
                self.uplink.sink.tombstoned(key, &reason);
                self.core.replace(key, hash, bytes.len() as u32);
                self.tombstones.insert(key, bytes);
            }
            Err(error) => {
                error!(index = key, error, "tombstone not made");
                self.core.hold(self.now_ms(), key);
            }
        }
    }

    fn drop_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close(VarInt::from_u32(0), b"");
        }
        (self.connecting, self.closed, self.frames, self.opening) = (None, None, None, None);
        self.to_open.clear();
        self.sending.clear();
        self.view.session = None;
    }

    /// Returns when it wants to be called again because something changed too soon after the last time.
    fn publish(&mut self, now: bool) -> Option<Instant> {
        let (stats, phase) = (self.core.stats(), self.core.phase());
        if !now {
            self.view.phase = phase_name(phase);
        }
        let view = &mut self.view;
        view.connected = !now && matches!(phase, Phase::Live | Phase::Leaving);
        view.rtt_ms = self.connection.as_ref().map(|c| c.rtt().as_secs_f64() * 1000.0);
        (view.in_flight, view.in_flight_bytes, view.held) = (stats.in_flight, stats.in_flight_bytes, stats.held);
        (view.sent, view.retransmits, view.acked) = (stats.sent, stats.resent, stats.acked);
        (view.retries_asked, view.sessions, view.refusals) = (stats.retries_asked, stats.sessions, stats.refusals);
        let view = &self.view;
        let sender = &self.uplink.status;
        let known = sender.borrow().clone();
        let due = self
            .published
            .map(|at| at + STATUS_INTERVAL)
            .filter(|due| *due > Instant::now());
        // A change of phase is news at once; counters wait their turn.
        if let Some(due) = due
            && known.phase == view.phase
            && !now
        {
            return (known != *view).then_some(due);
        }
        if known != *view {
            sender.send_replace(view.clone());
            self.published = Some(Instant::now());
        }
        None
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

fn read_next(source: &dyn BatchSource, from: u64) -> Read {
    let (index, bytes) = match source.next_from(from) {
        Ok(Some(found)) => found,
        Ok(None) => return Read::Nothing,
        Err(error) => return Read::Failed(error),
    };
    match Envelope::parse(bytes) {
        Ok(batch) => {
            let bytes = batch.bytes().clone();
            let (epoch, seq, hash) = (batch.header.id.epoch, batch.header.id.seq, batch.hash);
            // No envelope is larger than its own limit, which is far below 4 GiB.
            let offer = Offer {
                key: index,
                epoch,
                seq,
                hash,
                bytes: bytes.len() as u32,
                lane: Lane::Live,
            };
            Read::Batch(ReadBatch { offer, bytes })
        }
        Err(error) => Read::Strange(index, error.to_string()),
    }
}

fn make_tombstone(source: &dyn BatchSource, key: u64, reason: &str) -> Result<(Bytes, [u8; 32]), String> {
    let bytes = source.read(key).map_err(|e| e.to_string())?;
    let batch = Envelope::parse(bytes).map_err(|e| e.to_string())?;
    // Equal every time it is made: after a restart the same batch is refused for the same reason.
    let sealed = envelope::seal(&batch.header.tombstone(reason), None, Compression::default());
    let sealed = sealed.map_err(|e| e.to_string())?;
    let hash = Envelope::parse(sealed.clone()).map_err(|e| e.to_string())?.hash;
    Ok((sealed, hash))
}

async fn open(
    connection: &Connection,
    key: u64,
    announcement: Announcement,
    bytes: Bytes,
) -> Result<Opened, ConnectionError> {
    let Announcement { lane, epoch, seq } = announcement;
    let mut stream = connection.open_uni().await?;
    // An error here is the end of the connection, which tells its own reason.
    let _ = stream.set_priority(i32::from(lane == Lane::Live));
    let preamble = Preamble {
        lane,
        epoch,
        seq,
        length: bytes.len() as u32,
    };
    Ok(match stream.write_all(&preamble.encode()).await {
        Ok(()) => Opened::Stream(key, stream, bytes),
        Err(_) => Opened::Gone,
    })
}

/// Until the gateway's transport has everything, or wants no more.
async fn deliver(key: u64, mut stream: SendStream, bytes: Bytes) -> u64 {
    if stream.write_chunk(bytes).await.is_ok() && stream.finish().is_ok() {
        // However it ends, the answer comes as a frame or as the end of the connection.
        let _ = stream.stopped().await;
    }
    key
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
