//! The few bytes that open the stream of a batch.

use bytes::Buf;

use super::frame::{FrameError, Lane, VERSION};
use crate::ids::Epoch;

/// The first bytes of the stream of a batch, so that a gateway knows what comes before it takes it, and can answer by
/// name whatever the bytes after it hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    pub lane: Lane,
    pub epoch: Epoch,
    pub seq: u64,
    /// Bytes of the batch that follow; the stream ends after them.
    pub length: u32,
}

impl Preamble {
    pub const BYTES: usize = 28;
    const MAGIC: [u8; 2] = *b"SB";

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0u8; Self::BYTES];
        out[..2].copy_from_slice(&Self::MAGIC);
        out[2] = VERSION as u8;
        out[3] = self.lane.tag();
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[8..12].copy_from_slice(&self.epoch.number.to_le_bytes());
        out[12..20].copy_from_slice(&self.epoch.random.to_le_bytes());
        out[20..28].copy_from_slice(&self.seq.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, FrameError> {
        let invalid = |what| FrameError::Invalid {
            kind: "preamble of a batch",
            what,
        };
        let mut rest = &bytes[..];
        if rest.get_u8() != Self::MAGIC[0] || rest.get_u8() != Self::MAGIC[1] {
            return Err(invalid("wrong first bytes"));
        }
        if u32::from(rest.get_u8()) != VERSION {
            return Err(invalid("version was not agreed"));
        }
        let lane = Lane::from_tag(rest.get_u8()).ok_or_else(|| invalid("unknown lane"))?;
        let length = rest.get_u32_le();
        let epoch = Epoch {
            number: rest.get_u32_le(),
            random: rest.get_u64_le(),
        };
        Ok(Self {
            lane,
            epoch,
            seq: rest.get_u64_le(),
            length,
        })
    }
}
