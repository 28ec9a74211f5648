//! Frames of the control stream. LINK.md describes them.

mod message;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::ids::{Epoch, StreamId};

pub use super::preamble::Preamble;
use message::wire;

/// The newest version of the session protocol that this build speaks.
pub const VERSION: u32 = 1;
/// All versions that this build speaks.
pub const VERSIONS: &[u32] = &[VERSION];
/// No frame is longer, its tag included, its length prefix not.
pub const MAX_FRAME_BYTES: usize = 64 << 10;
/// Texts of a peer are cut to this before they are shown or logged.
pub const MAX_TEXT_BYTES: usize = 1024;
/// Of a request for a certificate, and of the signature that goes with it.
pub const MAX_RENEWAL_REQUEST_BYTES: usize = 8 << 10;
pub const MAX_RENEWAL_PROOF_BYTES: usize = 1 << 10;
/// Of the certificates that answer it.
pub const MAX_CERTIFICATES: usize = 4;
pub const MAX_CERTIFICATES_BYTES: usize = 32 << 10;
/// What the application layer of the transport is told to negotiate.
pub const ALPN: &[u8] = b"sluice/1";

/// Which of the two queues of an edge a batch waits in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// What was accepted just now.
    #[default]
    Live,
    /// What an outage left behind.
    Backlog,
}

impl Lane {
    pub const ALL: [Lane; 2] = [Lane::Live, Lane::Backlog];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Backlog => "backlog",
        }
    }

    pub(super) fn tag(self) -> u8 {
        match self {
            Self::Live => 0,
            Self::Backlog => 1,
        }
    }

    pub(super) fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.tag() == tag)
    }
}

/// One message of the control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Hello(Hello),
    Welcome(Welcome),
    Refused(Refused),
    Ack(Ack),
    Nack(Nack),
    GoAway(GoAway),
    Renew(Renew),
    Renewed(Renewed),
    NotRenewed(NotRenewed),
}

/// The first frame of an edge: who speaks, and what it can speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub stream: StreamId,
    pub epoch: Epoch,
    pub versions: Vec<u32>,
    /// Generation of the log that the epoch began in; 0 if none was heard of yet.
    pub generation: u32,
    /// Program and version, for people.
    pub agent: String,
    /// Knows how to ask for a new certificate.
    pub renews: bool,
}

/// The gateway's answer: batches may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    pub version: u32,
    /// For logs of both sides.
    pub session: u64,
    pub max_batch_bytes: u32,
    pub generation: u32,
    /// Batches that may be on their way at once.
    pub max_in_flight: u32,
    /// Bytes of batches that may be on their way at once.
    pub max_in_flight_bytes: u64,
    /// The edge may ask for a new certificate.
    pub renews: bool,
    /// And for nothing else: the one that it has is expired.
    pub renewal_only: bool,
}

/// The gateway's other answer. Nothing that the edge holds is given up for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: RefusedCode,
    pub reason: String,
}

/// Why a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedCode {
    /// No version of the session protocol in common.
    Version,
    /// The stream is not one that the certificate may speak for.
    Identity,
    /// Too much to do; another gateway or a later time will serve.
    Overload,
    /// The first frame was not a valid HELLO, or something else broke the rules.
    Protocol,
    /// The certificate is revoked.
    Revoked,
    /// A code of a newer version.
    Other(u32),
}

/// The batch is durable in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub epoch: Epoch,
    pub seq: u64,
    pub hash: [u8; 32],
}

/// The batch is not in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    pub epoch: Epoch,
    pub seq: u64,
    pub verdict: Verdict,
    pub reason: String,
}

/// What the edge shall do with a batch that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Overload or quota: the lane waits this long, then sends it again.
    Retry { after_ms: u32 },
    /// Something about this batch that an operator can change: hold it, raise an alarm, let others pass, try again then.
    Hold { after_ms: u32 },
    /// Its content can never be stored: a tombstone takes its place.
    Permanent,
}

/// The gateway is leaving: what is on its way may still be acknowledged, nothing new is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAway {
    pub reason: String,
}

/// The edge asks for a certificate of a new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renew {
    /// PKCS#10 in DER.
    pub request: Bytes,
    /// The TLS number of the signature scheme of the proof.
    pub scheme: u32,
    /// [`renewal_message`] signed with the key of the certificate that the edge has.
    pub proof: Bytes,
}

/// The new certificate in DER, and those between it and the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    pub certificates: Vec<Bytes>,
}

/// There is no new certificate now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRenewed {
    pub after_ms: u32,
    pub reason: String,
}

/// What the proof of a [`Renew`] signs: no other use of the key signs anything that begins so.
pub fn renewal_message(request: &[u8]) -> Vec<u8> {
    [b"sluice renewal 1\0", request].concat()
}

/// Why bytes are not a frame. The connection is closed then.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame is {found} bytes, at most {max} are allowed")]
    TooLarge { found: usize, max: usize },
    #[error("frame is empty")]
    Empty,
    #[error("frame {kind} cannot be read")]
    Body {
        kind: &'static str,
        source: prost::DecodeError,
    },
    #[error("frame {kind}: {what}")]
    Invalid { kind: &'static str, what: &'static str },
    #[error("frame has the unknown tag {0}")]
    Tag(u8),
}

impl Frame {
    /// Length, tag, body. Texts are cut to [`MAX_TEXT_BYTES`], so that no frame of ours is ever too large.
    pub fn encode(&self) -> Bytes {
        let (tag, body) = match self {
            Self::Hello(f) => (1, wire::Hello::from(f).encode_to_vec()),
            Self::Welcome(f) => (2, wire::Welcome::from(f).encode_to_vec()),
            Self::Refused(f) => (3, wire::Refused::from(f).encode_to_vec()),
            Self::Ack(f) => (4, wire::Ack::from(f).encode_to_vec()),
            Self::Nack(f) => (5, wire::Nack::from(f).encode_to_vec()),
            Self::GoAway(f) => (
                6,
                wire::GoAway {
                    reason: cut(&f.reason).to_owned(),
                }
                .encode_to_vec(),
            ),
            Self::Renew(f) => (7, wire::Renew::from(f).encode_to_vec()),
            Self::Renewed(f) => (8, wire::Renewed::from(f).encode_to_vec()),
            Self::NotRenewed(f) => (9, wire::NotRenewed::from(f).encode_to_vec()),
        };
        let mut out = BytesMut::with_capacity(5 + body.len());
        out.put_u32_le(1 + body.len() as u32);
        out.put_u8(tag);
        out.put_slice(&body);
        out.freeze()
    }

    /// Takes one frame off the front of what was received; `None` if it is not all there yet. A frame with an unknown
    /// tag is an error: a newer peer sends only what the agreed version has.
    pub fn decode(received: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(prefix) = received.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge {
                found: length,
                max: MAX_FRAME_BYTES,
            });
        }
        if received.len() < 4 + length {
            return Ok(None);
        }
        received.advance(4);
        let mut frame = received.split_to(length);
        if frame.is_empty() {
            return Err(FrameError::Empty);
        }
        let tag = frame.get_u8();
        Self::decode_body(tag, &frame).map(Some)
    }

    fn decode_body(tag: u8, body: &[u8]) -> Result<Frame, FrameError> {
        Ok(match tag {
            1 => Self::Hello(read::<wire::Hello>("HELLO", body)?.try_into()?),
            2 => Self::Welcome(read::<wire::Welcome>("WELCOME", body)?.into()),
            3 => Self::Refused(read::<wire::Refused>("REFUSED", body)?.into()),
            4 => Self::Ack(read::<wire::Ack>("ACK", body)?.try_into()?),
            5 => Self::Nack(read::<wire::Nack>("NACK", body)?.try_into()?),
            6 => Self::GoAway(GoAway {
                reason: owned_cut(read::<wire::GoAway>("GOAWAY", body)?.reason),
            }),
            7 => Self::Renew(read::<wire::Renew>("RENEW", body)?.try_into()?),
            8 => Self::Renewed(read::<wire::Renewed>("RENEWED", body)?.try_into()?),
            9 => Self::NotRenewed(read::<wire::NotRenewed>("NOT_RENEWED", body)?.into()),
            other => return Err(FrameError::Tag(other)),
        })
    }
}

/// At most [`MAX_TEXT_BYTES`] of a text, ending between two characters.
pub fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn owned_cut(mut text: String) -> String {
    text.truncate(cut(&text).len());
    text
}

fn read<M: Message + Default>(kind: &'static str, body: &[u8]) -> Result<M, FrameError> {
    M::decode(body).map_err(|source| FrameError::Body { kind, source })
}
