//! The rows of an envelope as bytes: which codec, compressed how, and back from bytes that may be anything.

use arrow_array::RecordBatch;
use zstd::bulk::{Compressor, Decompressor};

use super::{Compression, EnvelopeError, Packing, cap};
use crate::layout::{self, IpcLimits};
use crate::packed;

pub(super) const ARROW: u8 = 0;
pub(super) const ARROW_ZSTD: u8 = 1;
pub(super) const PACKED: u8 = 2;
pub(super) const NEWEST_CODEC: u8 = PACKED;

/// What stands before the zstd block of packed columns: memory once unpacked (u32), preset dictionary, zero.
const PACKED_HEAD: usize = 6;
const NO_DICTIONARY: u8 = 0;
const FIRST_DICTIONARY: u8 = 1;
/// A larger batch holds its names often enough by itself, and loading a dictionary takes time.
const DICTIONARY_UP_TO: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Payload {
    pub(super) codec: u8,
    /// Before compression.
    pub(super) raw_bytes: usize,
    pub(super) bytes: Vec<u8>,
}

impl Payload {
    pub(super) fn of(rows: &RecordBatch, compression: Compression) -> Result<Self, EnvelopeError> {
        match compression.packing {
            Packing::Columns | Packing::Shapes if compression.zstd_level != 0 => {
                let packed = Self::packed(rows, compression.packing == Packing::Shapes, compression.zstd_level)?;
                match packed {
                    Some(packed) => Ok(packed),
                    None => Self::arrow(layout::to_ipc(rows)?, compression.zstd_level),
                }
            }
            _ => Self::arrow(layout::to_ipc(rows)?, compression.zstd_level),
        }
    }

    fn arrow(raw: Vec<u8>, level: i32) -> Result<Self, EnvelopeError> {
        if level != 0 {
            let bytes = zstd::bulk::compress(&raw, level).map_err(EnvelopeError::Compress)?;
            if bytes.len() < raw.len() {
                return Ok(Self {
                    codec: ARROW_ZSTD,
                    raw_bytes: raw.len(),
                    bytes,
                });
            }
        }
        Ok(Self {
            codec: ARROW,
            raw_bytes: raw.len(),
            bytes: raw,
        })
    }

    /// `None` where it would not come back as it was: what is sealed was accepted, and nobody can be asked for it again.
    fn packed(rows: &RecordBatch, shapes: bool, level: i32) -> Result<Option<Self>, EnvelopeError> {
        let packed = packed::pack(rows, shapes)?;
        cap("rows once unpacked", packed.unpacked, u32::MAX as usize)?;
        let no_limits = IpcLimits {
            max_bytes: usize::MAX,
            max_rows: usize::MAX,
            max_columns: usize::MAX,
            max_expanded_bytes: usize::MAX,
        };
        let back = packed::unpack(&packed.bytes, packed.unpacked, &no_limits);
        if back.ok().is_none_or(|back| back.columns() != rows.columns()) {
            return Ok(None);
        }
        let dictionary = packed.bytes.len() <= DICTIONARY_UP_TO;
        let block = if dictionary {
            Compressor::with_dictionary(level, packed::DICTIONARY_1).and_then(|mut zstd| zstd.compress(&packed.bytes))
        } else {
            zstd::bulk::compress(&packed.bytes, level)
        };
        let block = block.map_err(EnvelopeError::Compress)?;
        let mut bytes = Vec::with_capacity(PACKED_HEAD + block.len());
        bytes.extend_from_slice(&(packed.unpacked as u32).to_le_bytes());
        bytes.extend([if dictionary { FIRST_DICTIONARY } else { NO_DICTIONARY }, 0]);
        bytes.extend_from_slice(&block);
        Ok(Some(Self {
            codec: PACKED,
            raw_bytes: packed.bytes.len(),
            bytes,
        }))
    }
}

/// What holds for a payload before any of it is decompressed.
pub(super) fn check(codec: u8, raw_bytes: u32, payload: &[u8]) -> Result<(), EnvelopeError> {
    if codec == ARROW && raw_bytes as usize != payload.len() {
        return Err(EnvelopeError::Invalid(
            "rows are stored as they are, yet have two lengths",
        ));
    }
    if codec == PACKED && !payload.is_empty() {
        let Some((head, _)) = payload.split_first_chunk::<PACKED_HEAD>() else {
            return Err(EnvelopeError::Invalid(
                "packed columns are shorter than what stands before them",
            ));
        };
        if head[4] > FIRST_DICTIONARY || head[5] != 0 {
            return Err(EnvelopeError::Codec(codec));
        }
    }
    Ok(())
}

/// Memory that packed columns announce.
pub(super) fn unpacked_bytes(codec: u8, payload: &[u8]) -> usize {
    match payload.first_chunk::<4>() {
        Some(head) if codec == PACKED => u32::from_le_bytes(*head) as usize,
        _ => 0,
    }
}

/// Decompresses, decodes and validates.
pub(super) fn rows(
    codec: u8,
    raw_bytes: usize,
    payload: &[u8],
    limits: &IpcLimits,
) -> Result<RecordBatch, EnvelopeError> {
    // Before anything is allocated for it.
    cap("rows before compression", raw_bytes, limits.max_bytes)?;
    match (codec, payload.split_at_checked(PACKED_HEAD)) {
        (ARROW, _) => Ok(layout::from_ipc(payload, limits)?),
        (PACKED, Some((head, block))) => {
            let unpacked = unpacked_bytes(codec, payload);
            cap("rows once unpacked", unpacked, limits.max_bytes)?;
            let dictionary = if head[4] == FIRST_DICTIONARY {
                packed::DICTIONARY_1
            } else {
                &[]
            };
            let raw = Decompressor::with_dictionary(dictionary)
                .and_then(|mut zstd| zstd.decompress(block, raw_bytes))
                .map_err(EnvelopeError::Decompress)?;
            Ok(packed::unpack(&whole(raw, raw_bytes)?, unpacked, limits)?)
        }
        _ => {
            let raw = zstd::bulk::decompress(payload, raw_bytes).map_err(EnvelopeError::Decompress)?;
            Ok(layout::from_ipc(&whole(raw, raw_bytes)?, limits)?)
        }
    }
}

fn whole(raw: Vec<u8>, expected: usize) -> Result<Vec<u8>, EnvelopeError> {
    if raw.len() == expected {
        Ok(raw)
    } else {
        Err(EnvelopeError::Invalid("rows are shorter than announced"))
    }
}
