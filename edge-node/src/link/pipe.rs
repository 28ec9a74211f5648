//! The sending half of one connection: which stream gets the next bytes, and how many bytes the transport may hold.
//!
//! Each lane writes one stream after the other, in small pieces, so that a fresh batch waits for a piece of the backlog and
//! never for a batch of it. What is written and not yet sent is kept small too: it takes from the windows that both lanes need.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use quinn::{Connection, SendStream, VarInt, WriteError};
use sluice_wire::envelope::Envelope;
use sluice_wire::ids::Epoch;
use sluice_wire::session::frame::{Lane, Preamble};
use sluice_wire::session::lanes::{LanePolicy, Turns, Waiting};

use super::{BatchSource, SourceError};

/// What is written at once: at 256 kbit/s a live batch waits half a second for it.
const PIECE_BYTES: usize = 16 << 10;
/// The transport may hold this many times what it may have on its way, so that it never waits for us.
const WINDOW_FACTOR: u64 = 2;
const MIN_SEND_WINDOW: u64 = 64 << 10;

/// A batch that is to be sent.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) key: u64,
    pub(super) lane: Lane,
    pub(super) epoch: Epoch,
    pub(super) seq: u64,
    /// Read from the source where they are not at hand.
    pub(super) bytes: Option<Bytes>,
}

/// What happened on the way.
#[derive(Debug)]
pub(super) enum Progress {
    /// So many bytes of a lane were given to the transport.
    Wrote(Lane, usize),
    /// The gateway's transport has everything of a batch, or wants no more.
    Delivered(u64),
    /// What was read again of a batch, before any of it is sent: its hash and its bytes. Damage may have changed both.
    Reread(u64, [u8; 32], u32),
    Unreadable(u64, SourceError),
}

pub(super) struct Pipe {
    connection: Connection,
    source: Arc<dyn BatchSource>,
    policy: LanePolicy,
    turns: Turns,
    lanes: [VecDeque<Sending>; 2],
    delivering: FuturesUnordered<BoxFuture<'static, u64>>,
    /// The most that the transport may hold.
    max_bytes: u64,
}

struct Sending {
    parcel: Parcel,
    reading: Option<BoxFuture<'static, Result<Envelope, SourceError>>>,
    stream: Option<SendStream>,
    /// The preamble and what is left of the batch.
    left: Bytes,
    head: Bytes,
}

impl Pipe {
    pub(super) fn new(
        connection: Connection,
        source: Arc<dyn BatchSource>,
        policy: LanePolicy,
        max_bytes: u64,
    ) -> Self {
        Self {
            connection,
            source,
            policy,
            turns: Turns::new(policy),
            lanes: [VecDeque::new(), VecDeque::new()],
            delivering: FuturesUnordered::new(),
            max_bytes,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The batches of a lane are sent in the order of these calls.
    pub(super) fn push(&mut self, parcel: Parcel) {
        let lane = parcel.lane;
        self.lanes[lane as usize].push_back(Sending {
            parcel,
            reading: None,
            stream: None,
            left: Bytes::new(),
            head: Bytes::new(),
        });
    }

    /// What is not sent of the batch yet is not sent any more.
    pub(super) fn recall(&mut self, key: u64) {
        for lane in &mut self.lanes {
            let Some(at) = lane.iter().position(|sending| sending.parcel.key == key) else {
                continue;
            };
            if let Some(Sending {
                stream: Some(mut stream),
                ..
            }) = lane.remove(at)
            {
                // An error means that the gateway has stopped it already.
                let _ = stream.reset(VarInt::from_u32(0));
            }
        }
    }

    /// Sends on. Nothing is lost when the future is dropped; it never ends while there is nothing to do, or when the connection
    /// is over, which tells of itself elsewhere. `may_write` says how many bytes of a lane may go now.
    pub(super) async fn progress(&mut self, may_write: impl Fn(Lane) -> u64) -> Progress {
        let window = self.connection.stats().path.cwnd.saturating_mul(WINDOW_FACTOR);
        self.connection
            .set_send_window(window.clamp(MIN_SEND_WINDOW, self.max_bytes.max(MIN_SEND_WINDOW)));
        let Self {
            connection,
            source,
            policy,
            turns,
            lanes,
            delivering,
            ..
        } = self;
        tokio::select! {
            Some(key) = delivering.next() => Progress::Delivered(key),
            (lane, step) = step(connection, source, *policy, turns, lanes, may_write) => match step {
                Step::Wrote { bytes, finished } => {
                    if let Some(sending) = finished.then(|| lanes[lane as usize].pop_front()).flatten() {
                        delivering.push(deliver(sending).boxed());
                    }
                    turns.sent(lane, bytes as u64);
                    Progress::Wrote(lane, bytes)
                }
                Step::Reread { key, hash, bytes } => Progress::Reread(key, hash, bytes),
                Step::Unreadable(error) => {
                    let key = lanes[lane as usize].pop_front().map_or(error.index, |s| s.parcel.key);
                    Progress::Unreadable(key, error)
                }
            },
        }
    }
}

enum Step {
    Wrote { bytes: usize, finished: bool },
    Reread { key: u64, hash: [u8; 32], bytes: u32 },
    Unreadable(SourceError),
}

/// One piece of the batch whose turn it is. Safe to drop.
async fn step(
    connection: &Connection,
    source: &Arc<dyn BatchSource>,
    policy: LanePolicy,
    turns: &mut Turns,
    lanes: &mut [VecDeque<Sending>; 2],
    may_write: impl Fn(Lane) -> u64,
) -> (Lane, Step) {
    let waiting = Lane::ALL.map(|lane| match lanes[lane as usize].is_empty() {
        true => Waiting::Nothing,
        false if may_write(lane) == 0 => Waiting::Blocked,
        false => Waiting::Ready,
    });
    let Some(lane) = turns.next(waiting) else {
        return std::future::pending().await;
    };
    let most = usize::try_from(may_write(lane)).unwrap_or(usize::MAX).min(PIECE_BYTES);
    let Some(sending) = lanes[lane as usize].front_mut() else {
        return std::future::pending().await;
    };
    if sending.stream.is_none() {
        match sending.load(source).await {
            Ok(None) => {}
            Ok(Some(hash)) => {
                let (key, bytes) = (sending.parcel.key, sending.left.len() as u32);
                return (lane, Step::Reread { key, hash, bytes });
            }
            Err(error) => return (lane, Step::Unreadable(error)),
        }
    }
    let written = match sending.write(connection, policy, most).await {
        Ok(written) => written,
        // The answer comes as a frame, or the connection's end as an event of its own.
        Err(Trouble::Stopped) => sending.abandon(),
        Err(Trouble::Gone) => return std::future::pending().await,
    };
    let finished = sending.is_written();
    (
        lane,
        Step::Wrote {
            bytes: written,
            finished,
        },
    )
}

enum Trouble {
    Stopped,
    Gone,
}

impl Sending {
    /// Opens the stream where it is not, then writes one piece.
    async fn write(&mut self, connection: &Connection, policy: LanePolicy, most: usize) -> Result<usize, Trouble> {
        if self.stream.is_none() {
            let stream = connection.open_uni().await.map_err(|_| Trouble::Gone)?;
            // An error here is the end of the connection.
            let _ = stream.set_priority(priority(policy, self.parcel.lane));
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else {
            return Err(Trouble::Gone);
        };
        let piece = self.left.slice(..self.left.len().min(most));
        let mut pieces = [self.head.clone(), piece];
        let first = usize::from(self.head.is_empty());
        match stream.write_chunks(&mut pieces[first..]).await {
            Ok(written) => {
                let of_head = written.bytes.min(self.head.len());
                self.head.advance(of_head);
                self.left.advance(written.bytes - of_head);
                Ok(written.bytes)
            }
            Err(WriteError::Stopped(_)) => Err(Trouble::Stopped),
            Err(_) => Err(Trouble::Gone),
        }
    }

    /// Has the bytes at hand. Gives the hash of what had to be read for it, once.
    async fn load(&mut self, source: &Arc<dyn BatchSource>) -> Result<Option<[u8; 32]>, SourceError> {
        if !self.head.is_empty() {
            return Ok(None);
        }
        let (bytes, hash) = match self.parcel.bytes.take() {
            Some(bytes) => (bytes, None),
            None => {
                let key = self.parcel.key;
                let reading = self
                    .reading
                    .get_or_insert_with(|| read(Arc::clone(source), key).boxed());
                let read = reading.await;
                self.reading = None;
                let batch = read?;
                (batch.bytes().clone(), Some(batch.hash))
            }
        };
        let preamble = Preamble {
            lane: self.parcel.lane,
            epoch: self.parcel.epoch,
            seq: self.parcel.seq,
            // No envelope is larger than its own limit, which is far below 4 GiB.
            length: bytes.len() as u32,
        };
        self.head = Bytes::copy_from_slice(&preamble.encode());
        self.left = bytes;
        Ok(hash)
    }

    fn is_written(&self) -> bool {
        self.stream.is_some() && self.head.is_empty() && self.left.is_empty()
    }

    /// The gateway wants no more of it.
    fn abandon(&mut self) -> usize {
        (self.head, self.left) = (Bytes::new(), Bytes::new());
        0
    }
}

async fn read(source: Arc<dyn BatchSource>, key: u64) -> Result<Envelope, SourceError> {
    let failed = move |what: String| SourceError { index: key, what };
    let read = tokio::task::spawn_blocking(move || {
        let bytes = source.read(key)?;
        Envelope::parse(bytes).map_err(|error| failed(format!("is no batch: {error}")))
    });
    read.await
        .unwrap_or_else(|_| Err(failed("reading panicked".to_owned())))
}

/// The transport sends what has the highest first, what it sends again included.
fn priority(policy: LanePolicy, lane: Lane) -> i32 {
    match policy {
        LanePolicy::FreshFirst => i32::from(lane == Lane::Live),
        LanePolicy::OldestFirst => i32::from(lane == Lane::Backlog),
        LanePolicy::Weighted { .. } => 0,
    }
}

async fn deliver(sending: Sending) -> u64 {
    if let Some(mut stream) = sending.stream
        && stream.finish().is_ok()
    {
        // However it ends, the answer comes as a frame or as the end of the connection.
        let _ = stream.stopped().await;
    }
    sending.parcel.key
}
