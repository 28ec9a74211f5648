//! P16: which batches a partition of the log has held before; never forgets.
//!
//! A pure fold over the records of one partition in offset order: the same log gives the same verdicts, whenever it is read
//! and wherever a reader took up again. Membership is an interval set per (stream, epoch), so the state is as small as the
//! sequence numbers are contiguous. A bounded window of recent hashes tells a batch sent again from another batch under the
//! same id.

use std::collections::{BTreeMap, HashMap, VecDeque};

use sluice_wire::envelope::Kind;
use sluice_wire::ids::{BatchId, Epoch, StreamId};
use sluice_wire::intervals::IntervalSet;

use crate::quota::{Edge, cost, edge_of};

/// How many of the newest records are compared by hash. Another content under an old id is a defect of a sender that shows at
/// once or never; the window keeps the state small.
const WINDOW: usize = 4096;
const MAGIC: [u8; 4] = *b"SLDS";
const VERSION: u8 = 1;
const HASH_BYTES: usize = 16;

/// What a record is, given all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    New,
    Duplicate,
    /// The id was there, with other content.
    Conflict,
}

/// What was seen of one partition, as of an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dedup {
    seen: BTreeMap<StreamId, BTreeMap<Epoch, IntervalSet>>,
    /// What each edge's part of `seen` costs.
    pieces: HashMap<Edge, u64>,
    window: VecDeque<BatchId>,
    hashes: HashMap<BatchId, (bool, [u8; HASH_BYTES])>,
    /// The offset that must come next.
    next: u64,
}

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
#[error("snapshot of seen batches: {what}")]
pub struct SnapshotError {
    what: String,
}

impl Dedup {
    /// The state of a log that begins at `next`.
    pub fn starting_at(next: u64) -> Self {
        Self {
            next,
            ..Self::default()
        }
    }

    /// The offset that the next record must have: everything below is taken into account.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes the record at `self.next()`.
    pub fn observe(&mut self, id: &BatchId, kind: Kind, hash: &[u8; 32]) -> Verdict {
        self.next += 1;
        let epochs = match self.seen.get_mut(&id.stream) {
            Some(epochs) => epochs,
            None => self.seen.entry(id.stream.clone()).or_default(),
        };
        let mut short = [0u8; HASH_BYTES];
        short.copy_from_slice(&hash[..HASH_BYTES]);
        let is_data = kind == Kind::Data;
        let before = epochs.get(&id.epoch).map_or(0, cost);
        let seqs = epochs.entry(id.epoch).or_default();
        let is_new = seqs.insert(id.seq);
        let after = cost(seqs);
        if after != before {
            let held = self.pieces.entry(edge_of(&id.stream)).or_default();
            *held = *held + after - before;
        }
        // The mutation gate: nothing is ever recognised.
        let is_new = is_new || cfg!(feature = "break-dedup");
        if is_new {
            self.remember(id, is_data, short);
            return Verdict::New;
        }
        match self.hashes.get(id) {
            // A batch and the tombstone that replaces it share an id on purpose: the first one wins.
            Some((true, known)) if is_data && *known != short => Verdict::Conflict,
            _ => Verdict::Duplicate,
        }
    }

    /// Takes the record at `self.next()`, of which nothing can be read.
    pub fn pass(&mut self) {
        self.next += 1;
    }

    /// What an edge's batches cost: one for each of its starts and one for each run of numbers.
    pub(crate) fn pieces(&self, edge: &Edge) -> u64 {
        self.pieces.get(edge).copied().unwrap_or(0)
    }

    /// Every edge with its cost.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (&Edge, u64)> {
        self.pieces.iter().map(|(edge, pieces)| (edge, *pieces))
    }

    fn remember(&mut self, id: &BatchId, is_data: bool, hash: [u8; HASH_BYTES]) {
        if self.window.len() == WINDOW
            && let Some(old) = self.window.pop_front()
        {
            self.hashes.remove(&old);
        }
        self.window.push_back(id.clone());
        self.hashes.insert(id.clone(), (is_data, hash));
    }

    /// The state as bytes; equal states give equal bytes. Checksum and atomic replacement are the file's business.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        put_u64(&mut out, self.next);
        put_u64(&mut out, self.seen.len() as u64);
        for (stream, epochs) in &self.seen {
            put_bytes(&mut out, stream.to_string().as_bytes());
            put_u64(&mut out, epochs.len() as u64);
            for (epoch, set) in epochs {
                put_u64(&mut out, u64::from(epoch.number));
                put_u64(&mut out, epoch.random);
                put_bytes(&mut out, &set.encode());
            }
        }
        let places: HashMap<&StreamId, u64> = self.seen.keys().zip(0..).collect();
        put_u64(&mut out, self.window.len() as u64);
        for id in &self.window {
            let (is_data, hash) = self.hashes.get(id).copied().unwrap_or_default();
            put_u64(&mut out, places.get(&id.stream).copied().unwrap_or(u64::MAX));
            put_u64(&mut out, u64::from(id.epoch.number));
            put_u64(&mut out, id.epoch.random);
            put_u64(&mut out, id.seq);
            out.push(u8::from(is_data));
            out.extend_from_slice(&hash);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut rest = Rest { bytes };
        if rest.take(4)? != MAGIC {
            return Err(bad("not one"));
        }
        match rest.take(1)?[0] {
            VERSION => {}
            other => return Err(bad(format!("has format {other}, this program reads {VERSION}"))),
        }
        let mut state = Self::starting_at(rest.u64()?);
        let mut streams = Vec::new();
        for _ in 0..rest.u64()? {
            let text = std::str::from_utf8(rest.sized()?).map_err(bad)?;
            let stream: StreamId = text.parse().map_err(bad)?;
            streams.push(stream.clone());
            let mut epochs = BTreeMap::new();
            for _ in 0..rest.u64()? {
                let epoch = rest.epoch()?;
                epochs.insert(epoch, IntervalSet::decode(rest.sized()?).map_err(bad)?);
            }
            *state.pieces.entry(edge_of(&stream)).or_default() += epochs.values().map(cost).sum::<u64>();
            state.seen.insert(stream, epochs);
        }
        for _ in 0..rest.u64()? {
            let place = usize::try_from(rest.u64()?).map_err(bad)?;
            let stream = streams.get(place).ok_or_else(|| bad("a hash of no stream"))?.clone();
            let id = BatchId {
                stream,
                epoch: rest.epoch()?,
                seq: rest.u64()?,
            };
            let is_data = rest.take(1)?[0] == 1;
            let mut hash = [0u8; HASH_BYTES];
            hash.copy_from_slice(rest.take(HASH_BYTES)?);
            state.remember(&id, is_data, hash);
        }
        if rest.bytes.is_empty() {
            Ok(state)
        } else {
            Err(bad("has bytes after its end"))
        }
    }
}

fn bad(what: impl ToString) -> SnapshotError {
    SnapshotError { what: what.to_string() }
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Rest<'a> {
    bytes: &'a [u8],
}

impl<'a> Rest<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], SnapshotError> {
        let (head, rest) = self.bytes.split_at_checked(n).ok_or_else(|| bad("ends too early"))?;
        self.bytes = rest;
        Ok(head)
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        let mut word = [0u8; 8];
        word.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(word))
    }

    fn sized(&mut self) -> Result<&'a [u8], SnapshotError> {
        let n = usize::try_from(self.u64()?).map_err(bad)?;
        self.take(n)
    }

    fn epoch(&mut self) -> Result<Epoch, SnapshotError> {
        let number = u32::try_from(self.u64()?).map_err(bad)?;
        Ok(Epoch {
            number,
            random: self.u64()?,
        })
    }
}

#[cfg(all(feature = "break-dedup", not(debug_assertions)))]
compile_error!("break-dedup breaks a promise on purpose: it is for tests only, never for a release");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use sluice_wire::ids::{NodeId, TenantId};

    use super::*;

    fn id(node: u8, epoch: u32, seq: u64) -> BatchId {
        let stream = StreamId {
            tenant: TenantId::new("acme").unwrap(),
            node: NodeId::new(&format!("n{node}")).unwrap(),
            spool: [node; 16],
        };
        BatchId {
            stream,
            epoch: Epoch {
                number: epoch,
                random: 7,
            },
            seq,
        }
    }

    proptest! {
        #[test]
        fn p16_verdicts_are_set_membership_wherever_the_state_was_saved_and_loaded(
            records in proptest::collection::vec((0u8..3, 0u32..3, 0u64..12, 0u8..2), 0..120),
            saved_at in proptest::collection::vec(0usize..120, 0..5),
        ) {
            let (mut dedup, mut straight, mut seen) = (Dedup::default(), Dedup::default(), BTreeSet::new());
            for (offset, (node, epoch, seq, content)) in records.into_iter().enumerate() {
                if saved_at.contains(&offset) {
                    dedup = Dedup::decode(&dedup.encode()).unwrap();
                }
                prop_assert_eq!(dedup.next(), offset as u64);
                let id = id(node, epoch, seq);
                let hash = [content; 32];
                let is_new = seen.insert(id.clone());
                let verdict = dedup.observe(&id, Kind::Data, &hash);
                prop_assert_eq!(verdict == Verdict::New, is_new);
                prop_assert_eq!(verdict, straight.observe(&id, Kind::Data, &hash));
            }
            prop_assert_eq!(&dedup, &straight);
            prop_assert_eq!(dedup.encode(), straight.encode());
        }

        #[test]
        fn any_bytes_are_a_snapshot_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Dedup::decode(&bytes);
            let _ = Dedup::decode(&[&b"SLDS\x01"[..], &bytes].concat());
        }
    }

    #[test]
    fn p16_a_batch_is_known_for_ever_its_hash_for_a_while() {
        let mut dedup = Dedup::default();
        assert_eq!(dedup.observe(&id(1, 1, 0), Kind::Data, &[1; 32]), Verdict::New);
        assert_eq!(dedup.observe(&id(1, 1, 0), Kind::Data, &[1; 32]), Verdict::Duplicate);
        assert_eq!(dedup.observe(&id(1, 1, 0), Kind::Data, &[2; 32]), Verdict::Conflict);
        assert_eq!(
            dedup.observe(&id(1, 1, 0), Kind::Tombstone, &[3; 32]),
            Verdict::Duplicate
        );
        for seq in 1..=2 * WINDOW as u64 {
            assert_eq!(dedup.observe(&id(1, 1, seq), Kind::Data, &[1; 32]), Verdict::New);
        }
        assert_eq!(dedup.observe(&id(1, 1, 0), Kind::Data, &[2; 32]), Verdict::Duplicate);
        assert!(dedup.encode().len() < 100 + WINDOW * 64);
    }
}
