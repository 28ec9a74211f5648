//! One batch as bytes: header, payload, hash. Spool, link and log carry exactly these bytes; LINK.md describes them.

mod header;
mod payload;

use std::fmt;

use arrow_array::RecordBatch;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::ids::IdError;
use crate::layout::{IpcLimits, LayoutError};

use header::wire;
pub use header::{Header, Kind};
use payload::Payload;

/// The newest version of the envelope that this build writes and reads.
pub const VERSION: u8 = 1;
/// No envelope is larger, whatever a log or a gateway allows.
pub const MAX_ENVELOPE_BYTES: usize = 64 << 20;
/// A header beside its payload is small; the room is for reports and many drop reasons.
pub const MAX_HEADER_BYTES: usize = 512 << 10;
const MAGIC: [u8; 4] = *b"SLCB";
const FIXED_BYTES: usize = 20;
const HASH_BYTES: usize = 32;

/// How [`seal`] compresses rows.
#[derive(Clone, Copy, Debug)]
pub struct Compression {
    /// As zstd counts them; 0 stores the rows as an Arrow stream, as they are.
    pub zstd_level: i32,
    pub packing: Packing,
}

/// What is done to rows before they are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// An Arrow IPC stream.
    Arrow,
    /// Columns packed as numbers and texts.
    Columns,
    /// Columns packed, and texts taken apart.
    #[default]
    Shapes,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            // The level that the layout was measured with.
            zstd_level: 3,
            packing: Packing::default(),
        }
    }
}

impl Compression {
    /// The rows as an Arrow stream that is not compressed.
    pub const NONE: Self = Self {
        zstd_level: 0,
        packing: Packing::Arrow,
    };

    /// This level of zstd, and what is packed by default.
    pub fn level(zstd_level: i32) -> Self {
        Self {
            zstd_level,
            ..Self::default()
        }
    }
}

/// Why bytes are not an envelope, or a batch cannot become one.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("batch is {found} bytes, shorter than the {expected} that it needs")]
    Truncated { found: usize, expected: usize },
    #[error("not a batch: it begins with {0:02x?}")]
    Magic([u8; 4]),
    #[error("batch has the newer format {found}, this program reads up to {newest}: upgrade it")]
    Newer { found: u8, newest: u8 },
    #[error("batch has the unknown codec {0}: upgrade this program")]
    Codec(u8),
    #[error("{what} is {found} bytes, at most {max} are allowed")]
    TooLarge { what: &'static str, found: u64, max: u64 },
    #[error("batch has {0} bytes after its end")]
    Trailing(usize),
    #[error("hash of the batch does not match its bytes")]
    Hash,
    #[error("header of the batch cannot be read")]
    Header(#[source] prost::DecodeError),
    #[error("header of the batch holds a bad id")]
    Id(#[source] IdError),
    #[error("batch is of the unknown kind {0}: upgrade this program")]
    Kind(u32),
    #[error("header of the batch: {0}")]
    Invalid(&'static str),
    #[error(
        "counts of the batch do not balance: accepted {accepted}, stored {stored}, quarantined {quarantined}, damaged {damaged}, dropped {dropped}"
    )]
    Unbalanced {
        accepted: u64,
        stored: u64,
        quarantined: u64,
        damaged: u64,
        dropped: u64,
    },
    #[error("header of the batch says {header} rows, {found} were found")]
    Rows { header: u64, found: u64 },
    #[error("rows cannot be decompressed")]
    Decompress(#[source] std::io::Error),
    #[error("rows cannot be compressed")]
    Compress(#[source] std::io::Error),
    #[error("rows of the batch are not valid")]
    Layout(#[from] LayoutError),
}

impl EnvelopeError {
    /// Whether another build of this program may read these bytes: then they are held, not given up.
    pub fn needs_upgrade(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::Codec(_) | Self::Kind(_))
    }
}

/// Makes the bytes of a batch. The same arguments give the same bytes.
pub fn seal(header: &Header, rows: Option<&RecordBatch>, compression: Compression) -> Result<Bytes, EnvelopeError> {
    header.check()?;
    let found = rows.map_or(0, |r| r.num_rows() as u64);
    if found != u64::from(header.rows) {
        return Err(EnvelopeError::Rows {
            header: u64::from(header.rows),
            found,
        });
    }
    let Payload {
        codec,
        raw_bytes,
        bytes: payload,
    } = match rows {
        Some(rows) if rows.num_rows() > 0 => Payload::of(rows, compression)?,
        _ => Payload::default(),
    };
    let head = wire::Header::from(header).encode_to_vec();
    cap("header", head.len(), MAX_HEADER_BYTES)?;
    cap("rows before compression", raw_bytes, u32::MAX as usize)?;
    let total = FIXED_BYTES + head.len() + payload.len() + HASH_BYTES;
    cap("batch", total, MAX_ENVELOPE_BYTES)?;

    let mut out = BytesMut::with_capacity(total);
    out.put_slice(&MAGIC);
    out.put_u8(VERSION);
    out.put_u8(codec);
    out.put_u16_le(0);
    out.put_u32_le(head.len() as u32);
    out.put_u32_le(payload.len() as u32);
    out.put_u32_le(raw_bytes as u32);
    out.put_slice(&head);
    out.put_slice(&payload);
    let hash = blake3::hash(&out);
    out.put_slice(hash.as_bytes());
    Ok(out.freeze())
}

/// A batch whose header, hash and counts were checked; its rows were not looked at.
#[derive(Clone)]
pub struct Envelope {
    pub header: Header,
    pub hash: [u8; 32],
    codec: u8,
    raw_bytes: u32,
    payload: Bytes,
    bytes: Bytes,
}

impl Envelope {
    /// Checks lengths, version, hash, header and counts. Reads no more than it was given and allocates in proportion to
    /// the header only.
    pub fn parse(bytes: Bytes) -> Result<Envelope, EnvelopeError> {
        let fixed = Fixed::read(&bytes)?;
        let body = bytes.len() - HASH_BYTES;
        let mut hash = [0u8; HASH_BYTES];
        hash.copy_from_slice(&bytes[body..]);
        if blake3::hash(&bytes[..body]) != hash {
            return Err(EnvelopeError::Hash);
        }
        let head_end = FIXED_BYTES + fixed.header;
        let message = wire::Header::decode(&bytes[FIXED_BYTES..head_end]).map_err(EnvelopeError::Header)?;
        let header = Header::try_from(message)?;
        header.check()?;
        let payload = bytes.slice(head_end..body);
        if (header.rows == 0) != payload.is_empty() || (fixed.raw_bytes == 0) != payload.is_empty() {
            return Err(EnvelopeError::Invalid(
                "rows are announced and missing, or there and not announced",
            ));
        }
        payload::check(fixed.codec, fixed.raw_bytes, &payload)?;
        Ok(Envelope {
            header,
            hash,
            codec: fixed.codec,
            raw_bytes: fixed.raw_bytes,
            payload,
            bytes,
        })
    }

    /// The bytes that were parsed.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the rows need in memory before they are decoded.
    pub fn raw_bytes(&self) -> u64 {
        u64::from(self.raw_bytes) + payload::unpacked_bytes(self.codec, &self.payload) as u64
    }

    /// Decompresses, decodes and validates the rows. `None` if the batch has none.
    pub fn rows(&self, limits: &IpcLimits) -> Result<Option<RecordBatch>, EnvelopeError> {
        if self.payload.is_empty() {
            return Ok(None);
        }
        let rows = payload::rows(self.codec, self.raw_bytes as usize, &self.payload, limits)?;
        if rows.num_rows() as u64 != u64::from(self.header.rows) {
            return Err(EnvelopeError::Rows {
                header: u64::from(self.header.rows),
                found: rows.num_rows() as u64,
            });
        }
        Ok(Some(rows))
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("header", &self.header)
            .field("hash", &hex::encode(self.hash))
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

fn cap(what: &'static str, found: usize, max: usize) -> Result<(), EnvelopeError> {
    if found > max {
        return Err(EnvelopeError::TooLarge {
            what,
            found: found as u64,
            max: max as u64,
        });
    }
    Ok(())
}

/// The part of fixed size, its lengths checked against the bytes.
struct Fixed {
    codec: u8,
    header: usize,
    raw_bytes: u32,
}

impl Fixed {
    fn read(bytes: &[u8]) -> Result<Fixed, EnvelopeError> {
        let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
        let u32_at = |i: usize| u32::from_le_bytes([at(i), at(i + 1), at(i + 2), at(i + 3)]);
        let short = |expected| EnvelopeError::Truncated {
            found: bytes.len(),
            expected,
        };
        if bytes.len() < 6 {
            return Err(short(FIXED_BYTES + HASH_BYTES));
        }
        let magic = [at(0), at(1), at(2), at(3)];
        if magic != MAGIC {
            return Err(EnvelopeError::Magic(magic));
        }
        // Before any length, which a newer format may have elsewhere.
        if at(4) != VERSION {
            return match at(4) {
                0 => Err(EnvelopeError::Invalid("format 0 never existed")),
                found => Err(EnvelopeError::Newer { found, newest: VERSION }),
            };
        }
        if at(5) > payload::NEWEST_CODEC {
            return Err(EnvelopeError::Codec(at(5)));
        }
        cap("batch", bytes.len(), MAX_ENVELOPE_BYTES)?;
        if bytes.len() < FIXED_BYTES + HASH_BYTES {
            return Err(short(FIXED_BYTES + HASH_BYTES));
        }
        if at(6) != 0 || at(7) != 0 {
            return Err(EnvelopeError::Invalid("reserved bytes are not zero"));
        }
        let (header, payload) = (u32_at(8) as usize, u32_at(12) as usize);
        cap("header", header, MAX_HEADER_BYTES)?;
        cap("rows", payload, MAX_ENVELOPE_BYTES)?;
        let expected = FIXED_BYTES + header + payload + HASH_BYTES;
        if bytes.len() < expected {
            return Err(short(expected));
        }
        if bytes.len() > expected {
            return Err(EnvelopeError::Trailing(bytes.len() - expected));
        }
        Ok(Fixed {
            codec: at(5),
            header,
            raw_bytes: u32_at(16),
        })
    }
}
