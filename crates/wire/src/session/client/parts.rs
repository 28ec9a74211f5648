//! What goes into the edge's half of a session and what comes out of it.

use bytes::Bytes;

use crate::ids::{Epoch, StreamId};
use crate::session::frame::{Hello, Lane, Renew};
use crate::session::lanes::LanePolicy;

/// What an edge says of itself, and its limits. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    pub stream: StreamId,
    pub epoch: Epoch,
    pub generation: u32,
    pub agent: String,
    /// Batches on their way or waiting to be sent; the gateway's number counts if it is smaller.
    pub max_in_flight: usize,
    /// Their bytes; the only batch of a lane may be larger.
    pub max_in_flight_bytes: u64,
    /// How the lanes share the two.
    pub policy: LanePolicy,
    /// Batches that a gateway asked to hold one by one; more of them stop the flow.
    pub max_held: usize,
    /// From the start of one attempt to the next while nothing answers, drawn between the two.
    pub retry_ms: (u64, u64),
    /// Smallest and largest range of the full-jitter back-off when refused.
    pub backoff_ms: (u64, u64),
    /// How many there are to be refused by; the range doubles when all of them have.
    pub gateways: u32,
    /// How long one attempt to connect may take; every third one may take three times as long, for very slow links.
    pub connect_timeout_ms: u64,
    pub hello_timeout_ms: u64,
    /// From the delivery of a batch by the transport to its acknowledgement.
    pub ack_timeout_ms: u64,
    /// It asks for new certificates.
    pub renews: bool,
}

impl ClientOptions {
    pub fn new(stream: StreamId, epoch: Epoch) -> Self {
        Self {
            stream,
            epoch,
            generation: 0,
            agent: String::new(),
            max_in_flight: 32,
            max_in_flight_bytes: 8 << 20,
            policy: LanePolicy::default(),
            max_held: 256,
            retry_ms: (1_000, 2_000),
            backoff_ms: (500, 60_000),
            gateways: 1,
            connect_timeout_ms: 3_000,
            hello_timeout_ms: 10_000,
            ack_timeout_ms: 30_000,
            renews: false,
        }
    }
}

/// A durable batch that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where the caller finds its bytes; grows within a lane.
    pub key: u64,
    pub epoch: Epoch,
    pub seq: u64,
    pub hash: [u8; 32],
    pub bytes: u32,
    pub lane: Lane,
}

/// What the caller shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection; then `handle_connected`, `handle_disconnected` or `handle_refused`.
    Connect,
    SendHello(Hello),
    /// Send the batch on a stream of its own, begun in the order of these actions.
    SendBatch {
        key: u64,
    },
    /// The batch was given back: what is not sent of it need not be; it comes again by `SendBatch`.
    Recall {
        key: u64,
    },
    /// The batch was live, is backlog now, and is known here no more: it is to be offered again when its turn comes.
    Forget {
        key: u64,
        /// Some of it may have reached a gateway.
        was_sent: bool,
    },
    /// The batch is durable in the log and may be forgotten.
    Acked {
        key: u64,
    },
    /// The batch can never be stored: `replace` it by its tombstone.
    Tombstone {
        key: u64,
        reason: String,
    },
    /// The batch is kept back and tried again later: someone should look.
    Held {
        key: u64,
        reason: String,
    },
    /// The session was refused: someone should look.
    Refused {
        reason: String,
    },
    /// Close the connection; nothing needs to be reported for it any more.
    Close {
        reason: String,
        /// There is nothing wrong with the gateway: it is the next one, too.
        again: bool,
    },
    /// Ask for a new certificate.
    SendRenew(Renew),
    /// The certificates that answer what was asked.
    Renewed {
        certificates: Vec<Bytes>,
    },
    NotRenewed {
        after_ms: u32,
        reason: String,
    },
}

/// What the caller can show of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between two attempts.
    Waiting,
    Connecting,
    /// HELLO sent, no answer yet.
    Greeting,
    Live,
    /// The gateway leaves; what is on its way may still be acknowledged.
    Leaving,
    /// The certificate is expired: the gateway takes nothing until there is a new one.
    Renewing,
}

/// Running totals and levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    pub in_flight: usize,
    pub in_flight_bytes: u64,
    /// By lane, in the order of [`Lane::ALL`].
    pub lanes: [LaneStats; 2],
    pub held: usize,
    pub sent: u64,
    pub resent: u64,
    pub acked: u64,
    pub retries_asked: u64,
    pub unknown_acks: u64,
    pub sessions: u64,
    pub refusals: u64,
}

/// Of the batches that were offered and are not acknowledged, those of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    pub queued: usize,
    pub queued_bytes: u64,
    pub in_flight: usize,
    pub in_flight_bytes: u64,
    /// The smallest key.
    pub oldest: Option<u64>,
    /// Until when the gateway asked it to wait.
    pub rests_until: Option<u64>,
}
