//! The bytes of a segment: header, frames, and the walk over frames that survives damage. FORMAT.md has the tables.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::Mark;

/// Markers hold totals.
const PLAIN: u8 = 1;
/// Markers hold totals and a mark.
const MARKED: u8 = 2;
const MAGIC: [u8; 4] = *b"SLWS";
const BLOCK_BYTES: usize = 48;
pub(crate) const MAX_NOTE_BYTES: usize = 64 << 10;
pub(crate) const MAX_HEADER_BYTES: u64 = 2 * (BLOCK_BYTES + MAX_NOTE_BYTES) as u64;
pub(crate) const FRAME_BYTES: usize = 28;
/// No frame is longer, whatever its writer allowed; keeps a reader from believing a length.
pub(crate) const MAX_PAYLOAD_BYTES: u32 = 1 << 30;
/// Payload of a commit marker, and what follows in a segment with marks.
const TOTALS_BYTES: usize = 16;
const MARK_BYTES: usize = 16;
/// What a walk reads at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Where bytes come from: a file, or a slice in tests.
pub(crate) trait Source {
    /// Fills as much of `buf` as there is; fewer bytes only at the end.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl Source for [u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|at| self.get(at..))
            .unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) first: u64,
    /// `None` for the first segment of a log's life.
    pub(crate) prev_first: Option<u64>,
    pub(crate) prev_end: u64,
    pub(crate) salt: u32,
    pub(crate) note: Vec<u8>,
    /// Whether markers carry marks.
    pub(crate) marked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Newer(u8),
    Unreadable,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&[if self.marked { MARKED } else { PLAIN }, 0, 0, 0]);
        block.extend_from_slice(&self.first.to_le_bytes());
        block.extend_from_slice(&self.prev_first.unwrap_or(u64::MAX).to_le_bytes());
        block.extend_from_slice(&self.prev_end.to_le_bytes());
        block.extend_from_slice(&self.salt.to_le_bytes());
        block.extend_from_slice(&(self.note.len() as u32).to_le_bytes());
        block.extend_from_slice(&crc32c::crc32c(&self.note).to_le_bytes());
        block.extend_from_slice(&crc32c::crc32c(&block).to_le_bytes());
        let mut out = Vec::with_capacity(self.encoded_len() as usize);
        out.extend_from_slice(&block);
        out.extend_from_slice(&block);
        out.extend_from_slice(&self.note);
        out.extend_from_slice(&self.note);
        out
    }

    /// Where frames begin.
    pub(crate) fn encoded_len(&self) -> u64 {
        (2 * BLOCK_BYTES + 2 * self.note.len()) as u64
    }

    /// What is written at once when the segment is begun: with marks its first marker, too. A shorter file was never finished.
    pub(crate) fn begun_len(&self) -> u64 {
        self.encoded_len() + if self.marked { commit_len(true) } else { 0 }
    }

    pub(crate) fn decode<S: Source + ?Sized>(source: &S) -> io::Result<Result<Header, HeaderError>> {
        let mut blocks = [0u8; 2 * BLOCK_BYTES];
        let found = source.read_at(0, &mut blocks)?;
        let copies = [&blocks[..BLOCK_BYTES], &blocks[BLOCK_BYTES..]];
        let Some(block) = copies
            .into_iter()
            .find(|b| u32_at(b, 44) == crc32c::crc32c(&b[..44]) && b[..4] == MAGIC)
        else {
            let newer = |b: &[u8]| b[..4] == MAGIC && b[4] > MARKED;
            return Ok(Err(
                if found == blocks.len() && copies.into_iter().all(newer) && blocks[4] == blocks[BLOCK_BYTES + 4] {
                    HeaderError::Newer(blocks[4])
                } else {
                    HeaderError::Unreadable
                },
            ));
        };
        if block[4] != PLAIN && block[4] != MARKED {
            return Ok(Err(HeaderError::Newer(block[4])));
        }
        let note_len = u32_at(block, 36) as usize;
        if note_len > MAX_NOTE_BYTES {
            return Ok(Err(HeaderError::Unreadable));
        }
        let mut notes = vec![0u8; 2 * note_len];
        source.read_at(2 * BLOCK_BYTES as u64, &mut notes)?;
        let good = |n: &&[u8]| crc32c::crc32c(n) == u32_at(block, 40);
        let Some(note) = [&notes[..note_len], &notes[note_len..]].into_iter().find(good) else {
            return Ok(Err(HeaderError::Unreadable));
        };
        let prev_first = Some(u64_at(block, 16)).filter(|p| *p != u64::MAX);
        let (first, prev_end, salt) = (u64_at(block, 8), u64_at(block, 24), u32_at(block, 32));
        Ok(Ok(Header {
            first,
            prev_first,
            prev_end,
            salt,
            note: note.to_vec(),
            marked: block[4] == MARKED,
        }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Record,
    Commit,
}

/// Records and payload bytes of a segment up to a marker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// Bytes of a marker's frame.
pub(crate) fn commit_len(marked: bool) -> u64 {
    (FRAME_BYTES + TOTALS_BYTES + if marked { MARK_BYTES } else { 0 }) as u64
}

/// Appends a record's frame, which will stand at `offset` of the file.
pub(crate) fn put_record(out: &mut Vec<u8>, offset: u64, salt: u32, index: u64, payload: &[u8]) {
    put_frame(out, 1, offset, salt, index, payload);
}

/// Appends the marker that makes everything before it count; with a mark in a segment that carries them.
pub(crate) fn put_commit(out: &mut Vec<u8>, offset: u64, salt: u32, next: u64, totals: Totals, mark: Option<Mark>) {
    let mut payload = [0u8; TOTALS_BYTES + MARK_BYTES];
    payload[..8].copy_from_slice(&totals.records.to_le_bytes());
    payload[8..16].copy_from_slice(&totals.bytes.to_le_bytes());
    payload[16..].copy_from_slice(&mark.unwrap_or_default());
    let length = if mark.is_some() { payload.len() } else { TOTALS_BYTES };
    put_frame(out, 2, offset, salt, next, &payload[..length]);
}

fn put_frame(out: &mut Vec<u8>, kind: u8, offset: u64, salt: u32, index: u64, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&salt.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let crc = head_crc(&out[start..], offset);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(payload);
}

fn head_crc(head: &[u8], offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..24]), &offset.to_le_bytes())
}

#[derive(Clone, Copy, Debug)]
struct FrameHead {
    kind: FrameKind,
    salt: u32,
    len: u32,
    index: u64,
    payload_crc: u32,
}

impl FrameHead {
    fn parse(bytes: &[u8], offset: u64, salt: Option<u32>) -> Option<FrameHead> {
        let kind = match bytes.get(..4)? {
            [1, 0, 0, 0] => FrameKind::Record,
            [2, 0, 0, 0] => FrameKind::Commit,
            _ => return None,
        };
        let head = bytes.get(..FRAME_BYTES)?;
        let found = FrameHead {
            kind,
            salt: u32_at(head, 4),
            len: u32_at(head, 8),
            index: u64_at(head, 12),
            payload_crc: u32_at(head, 20),
        };
        let fits = salt.is_none_or(|s| s == found.salt) && found.len <= MAX_PAYLOAD_BYTES;
        (fits && u32_at(head, 24) == head_crc(head, offset)).then_some(found)
    }
}

/// What a walk meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Record {
        index: u64,
        payload: Bytes,
    },
    /// Indices that existed and cannot be read.
    Lost {
        indices: Range<u64>,
        bytes: u64,
        what: &'static str,
    },
    /// Everything up to here was committed; the next record has this index.
    Commit {
        totals: Totals,
        mark: Option<Mark>,
    },
}

pub(crate) const PAYLOAD_DAMAGED: &str = "checksum of the record does not match";
pub(crate) const FRAME_DAMAGED: &str = "frame cannot be read";

/// Goes over the frames of one segment, passing over what is damaged.
pub(crate) struct Walk<'a, S: Source + ?Sized> {
    source: &'a S,
    end: u64,
    salt: Option<u32>,
    at: u64,
    /// Where the frame of the last item began.
    frame_at: u64,
    expected: u64,
    /// Unreadable bytes since the last good frame.
    skipped: u64,
    chunk: Bytes,
    chunk_at: u64,
}

impl<'a, S: Source + ?Sized> Walk<'a, S> {
    /// Begins at offset `at`, where the frame of index `expected` should stand, and ends at offset `end`. Without a salt the
    /// first valid frame gives it.
    pub(crate) fn new(source: &'a S, at: u64, end: u64, expected: u64, salt: Option<u32>) -> Self {
        Self {
            source,
            end,
            salt,
            at,
            frame_at: at,
            expected,
            skipped: 0,
            chunk: Bytes::new(),
            chunk_at: 0,
        }
    }

    /// Offset behind the last item.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Index that the next record should have.
    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// Where the frame of the last record or marker began.
    pub(crate) fn frame_at(&self) -> u64 {
        self.frame_at
    }

    /// Unreadable bytes behind the last good frame.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            let Some(head) = self.find_head()? else {
                return Ok(None);
            };
            if head.index > self.expected {
                let indices = self.expected..head.index;
                self.expected = head.index;
                let bytes = std::mem::take(&mut self.skipped);
                return Ok(Some(Item::Lost {
                    indices,
                    bytes,
                    what: FRAME_DAMAGED,
                }));
            }
            let total = FRAME_BYTES as u64 + u64::from(head.len);
            if head.index < self.expected {
                // A valid frame out of order can only be a leftover.
                self.at += total;
                self.skipped += total;
                continue;
            }
            let Some(payload) = self.window(self.at + FRAME_BYTES as u64, head.len as usize)? else {
                return Ok(None);
            };
            let good = crc32c::crc32c(&payload) == head.payload_crc || cfg!(feature = "break-checksum");
            self.frame_at = self.at;
            self.at += total;
            match head.kind {
                FrameKind::Commit if good && [TOTALS_BYTES, TOTALS_BYTES + MARK_BYTES].contains(&payload.len()) => {
                    self.skipped = 0;
                    let mark = payload[TOTALS_BYTES..].try_into().ok();
                    let totals = Totals {
                        records: u64_at(&payload, 0),
                        bytes: u64_at(&payload, 8),
                    };
                    return Ok(Some(Item::Commit { totals, mark }));
                }
                FrameKind::Commit => self.skipped += total,
                FrameKind::Record => {
                    self.skipped = 0;
                    self.expected += 1;
                    let index = head.index;
                    return Ok(Some(if good {
                        Item::Record { index, payload }
                    } else {
                        Item::Lost {
                            indices: index..index + 1,
                            bytes: u64::from(head.len),
                            what: PAYLOAD_DAMAGED,
                        }
                    }));
                }
            }
        }
    }

    /// The head of the next valid frame at or behind the current offset, which moves there. `None` if there is none; the
    /// offset then stands at the end.
    fn find_head(&mut self) -> io::Result<Option<FrameHead>> {
        loop {
            let Some(bytes) = self.window(self.at, FRAME_BYTES)? else {
                self.skipped += self.end.saturating_sub(self.at);
                self.at = self.end.max(self.at);
                return Ok(None);
            };
            if let Some(head) = FrameHead::parse(&bytes, self.at, self.salt)
                && self.end - self.at >= FRAME_BYTES as u64 + u64::from(head.len)
            {
                self.salt = Some(head.salt);
                return Ok(Some(head));
            }
            let step = self.bytes_to_next_candidate();
            self.at += step;
            self.skipped += step;
        }
    }

    /// How far the next place in the chunk is that could begin a frame; at least 1.
    fn bytes_to_next_candidate(&self) -> u64 {
        let from = (self.at - self.chunk_at) as usize + 1;
        let rest = self.chunk.get(from..).unwrap_or_default();
        let found = rest.windows(4).position(|w| matches!(w, [1 | 2, 0, 0, 0]));
        1 + found.unwrap_or(rest.len().saturating_sub(3)) as u64
    }

    /// `need` bytes at `at`; `None` if they reach behind the end.
    fn window(&mut self, at: u64, need: usize) -> io::Result<Option<Bytes>> {
        if at + need as u64 > self.end {
            return Ok(None);
        }
        let held = self.chunk_at..self.chunk_at + self.chunk.len() as u64;
        if at < held.start || at + need as u64 > held.end {
            let room = usize::try_from(self.end - at).unwrap_or(usize::MAX);
            let mut buf = vec![0u8; need.max(CHUNK_BYTES).min(room)];
            let found = self.source.read_at(at, &mut buf)?;
            buf.truncate(found);
            if found < need {
                // The file is shorter than it was said to be.
                self.end = at + found as u64;
                return Ok(None);
            }
            self.chunk = Bytes::from(buf);
            self.chunk_at = at;
        }
        let from = (at - self.chunk_at) as usize;
        Ok(Some(self.chunk.slice(from..from + need)))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0u8; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0u8; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk_all(bytes: &[u8], at: u64, salt: Option<u32>) -> Vec<Item> {
        let mut walk = Walk::new(bytes, at, bytes.len() as u64, 0, salt);
        std::iter::from_fn(|| walk.next().unwrap()).collect()
    }

    fn frames(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, payload) in payloads.iter().enumerate() {
            let at = out.len() as u64;
            put_record(&mut out, at, 7, index as u64, payload);
        }
        let at = out.len() as u64;
        put_commit(&mut out, at, 7, payloads.len() as u64, Totals::default(), None);
        out
    }

    proptest! {
        #[test]
        fn header_survives_one_flipped_bit_anywhere(marked: bool, note in proptest::collection::vec(any::<u8>(), 0..40), at: proptest::sample::Index, bit in 0u8..8) {
            let header = Header { first: 9, prev_first: Some(3), prev_end: 8, salt: 77, note, marked };
            let mut bytes = header.encode();
            prop_assert_eq!(bytes.len() as u64, header.encoded_len());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Header::decode(&bytes[..]).unwrap(), Ok(header));
        }

        #[test]
        fn p6_a_flipped_bit_costs_at_most_the_record_it_hits(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..12),
            at: proptest::sample::Index, bit in 0u8..8,
        ) {
            let mut bytes = frames(&payloads);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let mut lost = 0;
            let mut expected = 0;
            for item in walk_all(&bytes, 0, Some(7)) {
                match item {
                    Item::Record { index, payload } => {
                        prop_assert_eq!(index, expected);
                        prop_assert_eq!(&payload[..], &payloads[index as usize][..]);
                        expected += 1;
                    }
                    Item::Lost { indices, .. } => {
                        prop_assert_eq!(indices.start, expected);
                        lost += indices.end - indices.start;
                        expected = indices.end;
                    }
                    Item::Commit { .. } => {}
                }
            }
            prop_assert!(lost <= 1);
            // Only a flip in the marker itself hides nothing: all records were met before it.
            prop_assert_eq!(expected, payloads.len() as u64);
        }

        #[test]
        fn any_bytes_are_walked_without_panic(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), any::<u8>()], 0..400)) {
            let _ = walk_all(&bytes, 0, None);
            let _ = Header::decode(&bytes[..]);
        }
    }

    #[test]
    fn a_record_that_holds_a_log_is_not_taken_for_frames() {
        let inner = frames(&[b"forged".to_vec(), b"forged too".to_vec()]);
        let mut bytes = frames(&[b"a".to_vec(), inner, b"b".to_vec()]);
        let second_head = FRAME_BYTES + 1;
        bytes[second_head + 8] ^= 0xff;
        let items = walk_all(&bytes, 0, Some(7));
        assert!(matches!(&items[1], Item::Lost { indices, .. } if *indices == (1..2)));
        assert!(matches!(&items[2], Item::Record { index: 2, payload } if &payload[..] == b"b"));
    }
}
