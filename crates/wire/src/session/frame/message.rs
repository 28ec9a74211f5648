//! Frames as protobuf messages, and the ways between them and what the halves of a session use.

use super::{
    Ack, FrameError, Hello, MAX_CERTIFICATES, MAX_CERTIFICATES_BYTES, MAX_RENEWAL_PROOF_BYTES,
    MAX_RENEWAL_REQUEST_BYTES, Nack, NotRenewed, Refused, RefusedCode, Renew, Renewed, Verdict, Welcome, cut,
    owned_cut,
};
use crate::ids::Epoch;

/// Frames as protobuf. Tags keep their meaning for ever; LINK.md lists them.
pub(super) mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::session::frame) struct Hello {
        #[prost(string, tag = "1")]
        pub(in crate::session::frame) stream: String,
        #[prost(uint32, tag = "2")]
        pub(in crate::session::frame) epoch_number: u32,
        #[prost(fixed64, tag = "3")]
        pub(in crate::session::frame) epoch_random: u64,
        #[prost(uint32, repeated, tag = "4")]
        pub(in crate::session::frame) versions: Vec<u32>,
        #[prost(uint32, tag = "5")]
        pub(in crate::session::frame) generation: u32,
        #[prost(string, tag = "6")]
        pub(in crate::session::frame) agent: String,
        #[prost(bool, tag = "7")]
        pub(in crate::session::frame) renews: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::session::frame) struct Welcome {
        #[prost(uint32, tag = "1")]
        pub(in crate::session::frame) version: u32,
        #[prost(fixed64, tag = "2")]
        pub(in crate::session::frame) session: u64,
        #[prost(uint32, tag = "3")]
        pub(in crate::session::frame) max_batch_bytes: u32,
        #[prost(uint32, tag = "4")]
        pub(in crate::session::frame) generation: u32,
        #[prost(uint32, tag = "5")]
        pub(in crate::session::frame) max_in_flight: u32,
        #[prost(uint64, tag = "6")]
        pub(in crate::session::frame) max_in_flight_bytes: u64,
        #[prost(bool, tag = "7")]
        pub(in crate::session::frame) renews: bool,
        #[prost(bool, tag = "8")]
        pub(in crate::session::frame) renewal_only: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::session::frame) struct Refused {
        #[prost(uint32, tag = "1")]
        pub(in crate::session::frame) code: u32,
        #[prost(string, tag = "2")]
        pub(in crate::session::frame) reason: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::session::frame) struct Ack {
        #[prost(uint32, tag = "1")]
        pub(in crate::session::frame) epoch_number: u32,
        #[prost(fixed64, tag = "2")]
        pub(in crate::session::frame) epoch_random: u64,
        #[prost(uint64, tag = "3")]
        pub(in crate::session::frame) seq: u64,
        #[prost(bytes = "vec", tag = "4")]
        pub(in crate::session::frame) hash: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::session::frame) struct Nack {
        #[prost(uint32, tag = "1")]
        pub(in crate::session::frame) epoch_number: u32,
        #[prost(fixed64, tag = "2")]
        pub(in crate::session::frame) epoch_random: u64,
        #[prost(uint64, tag = "3")]
        pub(in crate::session::frame) seq: u64,
        /// 1 retry, 2 hold, 3 permanent
        #[prost(uint32, tag = "4")]
        pub(in crate::session::frame) verdict: u32,
        #[prost(uint32, tag = "5")]
        pub(in crate::session::frame) after_ms: u32,
        #[prost(string, tag = "6")]
        pub(in crate::session::frame) reason: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::session::frame) struct GoAway {
        #[prost(string, tag = "1")]
        pub(in crate::session::frame) reason: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::session::frame) struct Renew {
        #[prost(bytes = "bytes", tag = "1")]
        pub(in crate::session::frame) request: bytes::Bytes,
        #[prost(uint32, tag = "2")]
        pub(in crate::session::frame) scheme: u32,
        #[prost(bytes = "bytes", tag = "3")]
        pub(in crate::session::frame) proof: bytes::Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::session::frame) struct Renewed {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        pub(in crate::session::frame) certificates: Vec<bytes::Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::session::frame) struct NotRenewed {
        #[prost(uint32, tag = "1")]
        pub(in crate::session::frame) after_ms: u32,
        #[prost(string, tag = "2")]
        pub(in crate::session::frame) reason: String,
    }
}

impl From<&Hello> for wire::Hello {
    fn from(f: &Hello) -> Self {
        Self {
            stream: f.stream.to_string(),
            epoch_number: f.epoch.number,
            epoch_random: f.epoch.random,
            versions: f.versions.iter().copied().take(64).collect(),
            generation: f.generation,
            agent: cut(&f.agent).to_owned(),
            renews: f.renews,
        }
    }
}

impl TryFrom<wire::Hello> for Hello {
    type Error = FrameError;

    fn try_from(f: wire::Hello) -> Result<Self, FrameError> {
        let invalid = |what| FrameError::Invalid { kind: "HELLO", what };
        Ok(Self {
            stream: f
                .stream
                .parse()
                .map_err(|_| invalid("stream is not tenant/node/<32 hex digits>"))?,
            epoch: Epoch {
                number: f.epoch_number,
                random: f.epoch_random,
            },
            versions: f.versions,
            generation: f.generation,
            agent: owned_cut(f.agent),
            renews: f.renews,
        })
    }
}

impl From<&Welcome> for wire::Welcome {
    fn from(f: &Welcome) -> Self {
        Self {
            version: f.version,
            session: f.session,
            max_batch_bytes: f.max_batch_bytes,
            generation: f.generation,
            max_in_flight: f.max_in_flight,
            max_in_flight_bytes: f.max_in_flight_bytes,
            renews: f.renews,
            renewal_only: f.renewal_only,
        }
    }
}

impl From<wire::Welcome> for Welcome {
    fn from(f: wire::Welcome) -> Self {
        Self {
            version: f.version,
            session: f.session,
            max_batch_bytes: f.max_batch_bytes,
            generation: f.generation,
            max_in_flight: f.max_in_flight,
            max_in_flight_bytes: f.max_in_flight_bytes,
            renews: f.renews,
            renewal_only: f.renewal_only,
        }
    }
}

const REFUSED_CODES: [(RefusedCode, u32); 5] = [
    (RefusedCode::Version, 1),
    (RefusedCode::Identity, 2),
    (RefusedCode::Overload, 3),
    (RefusedCode::Protocol, 4),
    (RefusedCode::Revoked, 5),
];

impl RefusedCode {
    /// The number on the wire, also used as the code with which a connection is closed.
    pub fn number(self) -> u32 {
        match self {
            Self::Other(number) => number,
            known => REFUSED_CODES
                .iter()
                .find(|(code, _)| *code == known)
                .map_or(0, |(_, number)| *number),
        }
    }

    pub fn from_number(number: u32) -> Self {
        REFUSED_CODES
            .iter()
            .find(|(_, n)| *n == number)
            .map_or(Self::Other(number), |(code, _)| *code)
    }
}

impl From<&Refused> for wire::Refused {
    fn from(f: &Refused) -> Self {
        Self {
            code: f.code.number(),
            reason: cut(&f.reason).to_owned(),
        }
    }
}

impl From<wire::Refused> for Refused {
    fn from(f: wire::Refused) -> Self {
        Self {
            code: RefusedCode::from_number(f.code),
            reason: owned_cut(f.reason),
        }
    }
}

impl From<&Ack> for wire::Ack {
    fn from(f: &Ack) -> Self {
        Self {
            epoch_number: f.epoch.number,
            epoch_random: f.epoch.random,
            seq: f.seq,
            hash: f.hash.to_vec(),
        }
    }
}

impl TryFrom<wire::Ack> for Ack {
    type Error = FrameError;

    fn try_from(f: wire::Ack) -> Result<Self, FrameError> {
        let hash = f.hash.try_into().map_err(|_| FrameError::Invalid {
            kind: "ACK",
            what: "hash is not 32 bytes",
        })?;
        Ok(Self {
            epoch: Epoch {
                number: f.epoch_number,
                random: f.epoch_random,
            },
            seq: f.seq,
            hash,
        })
    }
}

impl From<&Nack> for wire::Nack {
    fn from(f: &Nack) -> Self {
        let (verdict, after_ms) = match f.verdict {
            Verdict::Retry { after_ms } => (1, after_ms),
            Verdict::Hold { after_ms } => (2, after_ms),
            Verdict::Permanent => (3, 0),
        };
        Self {
            epoch_number: f.epoch.number,
            epoch_random: f.epoch.random,
            seq: f.seq,
            verdict,
            after_ms,
            reason: cut(&f.reason).to_owned(),
        }
    }
}

impl TryFrom<wire::Nack> for Nack {
    type Error = FrameError;

    fn try_from(f: wire::Nack) -> Result<Self, FrameError> {
        let verdict = match f.verdict {
            1 => Verdict::Retry { after_ms: f.after_ms },
            2 => Verdict::Hold { after_ms: f.after_ms },
            3 => Verdict::Permanent,
            _ => {
                return Err(FrameError::Invalid {
                    kind: "NACK",
                    what: "unknown verdict",
                });
            }
        };
        let epoch = Epoch {
            number: f.epoch_number,
            random: f.epoch_random,
        };
        Ok(Self {
            epoch,
            seq: f.seq,
            verdict,
            reason: owned_cut(f.reason),
        })
    }
}

impl From<&Renew> for wire::Renew {
    fn from(f: &Renew) -> Self {
        Self {
            request: f.request.clone(),
            scheme: f.scheme,
            proof: f.proof.clone(),
        }
    }
}

impl TryFrom<wire::Renew> for Renew {
    type Error = FrameError;

    fn try_from(f: wire::Renew) -> Result<Self, FrameError> {
        if f.request.len() > MAX_RENEWAL_REQUEST_BYTES || f.proof.len() > MAX_RENEWAL_PROOF_BYTES {
            return Err(FrameError::Invalid {
                kind: "RENEW",
                what: "request or proof is too long",
            });
        }
        Ok(Self {
            request: f.request,
            scheme: f.scheme,
            proof: f.proof,
        })
    }
}

impl From<&Renewed> for wire::Renewed {
    fn from(f: &Renewed) -> Self {
        Self {
            certificates: f.certificates.clone(),
        }
    }
}

impl TryFrom<wire::Renewed> for Renewed {
    type Error = FrameError;

    fn try_from(f: wire::Renewed) -> Result<Self, FrameError> {
        let renewed = Self {
            certificates: f.certificates,
        };
        if renewed.fits() {
            return Ok(renewed);
        }
        Err(FrameError::Invalid {
            kind: "RENEWED",
            what: "no certificate, or too many or too long ones",
        })
    }
}

impl Renewed {
    /// Whether there is a certificate, and all of them go into a frame.
    pub fn fits(&self) -> bool {
        let bytes: usize = self.certificates.iter().map(bytes::Bytes::len).sum();
        (1..=MAX_CERTIFICATES).contains(&self.certificates.len()) && bytes <= MAX_CERTIFICATES_BYTES
    }
}

impl From<&NotRenewed> for wire::NotRenewed {
    fn from(f: &NotRenewed) -> Self {
        Self {
            after_ms: f.after_ms,
            reason: cut(&f.reason).to_owned(),
        }
    }
}

impl From<wire::NotRenewed> for NotRenewed {
    fn from(f: wire::NotRenewed) -> Self {
        Self {
            after_ms: f.after_ms,
            reason: owned_cut(f.reason),
        }
    }
}
