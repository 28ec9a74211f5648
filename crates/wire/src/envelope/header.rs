//! The header of a batch: what is known of it without looking at its rows.

use crate::counts::{Counts, Dropped};
use crate::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};

use super::EnvelopeError;

/// Plugins times reasons that one batch may name.
const MAX_DROP_ENTRIES: usize = 4096;

/// What a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Rows, or none when all were dropped.
    Data,
    /// Stands for a batch that can never be delivered: its id, its counts, no rows.
    Tombstone,
    /// What an edge says of itself; no rows.
    Report,
}

/// What is known of a batch without looking at its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: BatchId,
    /// Generation of the log that the epoch began in; 0 while the edge has never heard of one.
    pub generation: u32,
    pub kind: Kind,
    /// Rows in the payload: stored and quarantined ones.
    pub rows: u32,
    pub counts: Counts,
    /// Journal positions below this one are in this batch or an earlier one.
    pub journal_upto: u64,
    pub time_min_ns: i64,
    pub time_max_ns: i64,
    pub sealed_at_ns: u64,
    /// Reason of a tombstone, JSON of a report, else empty.
    pub detail: String,
}

impl Header {
    /// The header of the batch that stands for this one when it can never be delivered: what it held counts as damaged.
    pub fn tombstone(&self, reason: &str) -> Header {
        let mut header = self.clone();
        header.kind = Kind::Tombstone;
        header.rows = 0;
        header.counts.damaged = header
            .counts
            .damaged
            .saturating_add(header.counts.stored)
            .saturating_add(header.counts.quarantined);
        header.counts.stored = 0;
        header.counts.quarantined = 0;
        header.detail = reason.to_owned();
        header
    }

    /// The rules that hold for every batch, whoever made it.
    pub(super) fn check(&self) -> Result<(), EnvelopeError> {
        let counts = &self.counts;
        if !counts.balances() {
            return Err(EnvelopeError::Unbalanced {
                accepted: counts.accepted,
                stored: counts.stored,
                quarantined: counts.quarantined,
                damaged: counts.damaged,
                dropped: counts.dropped_rows(),
            });
        }
        let held = counts.stored.saturating_add(counts.quarantined);
        if held != u64::from(self.rows) {
            return Err(EnvelopeError::Rows {
                header: u64::from(self.rows),
                found: held,
            });
        }
        if self.kind != Kind::Data && self.rows != 0 {
            return Err(EnvelopeError::Invalid("only a data batch may hold rows"));
        }
        if counts.dropped.len() > MAX_DROP_ENTRIES || counts.refused.len() > MAX_DROP_ENTRIES {
            return Err(EnvelopeError::Invalid("more reasons for dropped events than allowed"));
        }
        Ok(())
    }
}

/// The header as protobuf. Tags keep their meaning for ever; LINK.md lists them.
pub(super) mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::envelope) struct Header {
        #[prost(string, tag = "1")]
        pub(super) tenant: String,
        #[prost(string, tag = "2")]
        pub(super) node: String,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) spool: Vec<u8>,
        #[prost(uint32, tag = "4")]
        pub(super) epoch_number: u32,
        #[prost(fixed64, tag = "5")]
        pub(super) epoch_random: u64,
        #[prost(uint64, tag = "6")]
        pub(super) seq: u64,
        #[prost(uint32, tag = "7")]
        pub(super) generation: u32,
        #[prost(uint32, tag = "8")]
        pub(super) kind: u32,
        #[prost(uint32, tag = "9")]
        pub(super) rows: u32,
        #[prost(message, required, tag = "10")]
        pub(super) counts: Counts,
        #[prost(uint64, tag = "11")]
        pub(super) journal_upto: u64,
        #[prost(sfixed64, tag = "12")]
        pub(super) time_min_ns: i64,
        #[prost(sfixed64, tag = "13")]
        pub(super) time_max_ns: i64,
        #[prost(fixed64, tag = "14")]
        pub(super) sealed_at_ns: u64,
        #[prost(string, tag = "15")]
        pub(super) detail: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Counts {
        #[prost(uint64, tag = "1")]
        pub(super) accepted: u64,
        #[prost(uint64, tag = "2")]
        pub(super) stored: u64,
        #[prost(uint64, tag = "3")]
        pub(super) quarantined: u64,
        #[prost(uint64, tag = "4")]
        pub(super) damaged: u64,
        #[prost(message, repeated, tag = "5")]
        pub(super) dropped: Vec<Dropped>,
        #[prost(message, repeated, tag = "6")]
        pub(super) refused: Vec<Dropped>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Dropped {
        #[prost(string, tag = "1")]
        pub(super) plugin: String,
        #[prost(string, tag = "2")]
        pub(super) reason: String,
        #[prost(uint64, tag = "3")]
        pub(super) rows: u64,
    }
}

const KINDS: [(Kind, u32); 3] = [(Kind::Data, 1), (Kind::Tombstone, 2), (Kind::Report, 3)];

impl From<&Header> for wire::Header {
    fn from(h: &Header) -> Self {
        Self {
            tenant: h.id.stream.tenant.as_str().to_owned(),
            node: h.id.stream.node.as_str().to_owned(),
            spool: h.id.stream.spool.to_vec(),
            epoch_number: h.id.epoch.number,
            epoch_random: h.id.epoch.random,
            seq: h.id.seq,
            generation: h.generation,
            kind: KINDS.iter().find(|(k, _)| *k == h.kind).map_or(0, |(_, n)| *n),
            rows: h.rows,
            counts: wire::Counts::from(&h.counts),
            journal_upto: h.journal_upto,
            time_min_ns: h.time_min_ns,
            time_max_ns: h.time_max_ns,
            sealed_at_ns: h.sealed_at_ns,
            detail: h.detail.clone(),
        }
    }
}

impl TryFrom<wire::Header> for Header {
    type Error = EnvelopeError;

    fn try_from(h: wire::Header) -> Result<Self, EnvelopeError> {
        let spool = h
            .spool
            .try_into()
            .map_err(|_| EnvelopeError::Invalid("spool id is not 16 bytes"))?;
        let stream = StreamId {
            tenant: TenantId::new(&h.tenant).map_err(EnvelopeError::Id)?,
            node: NodeId::new(&h.node).map_err(EnvelopeError::Id)?,
            spool,
        };
        let epoch = Epoch {
            number: h.epoch_number,
            random: h.epoch_random,
        };
        let kind = KINDS
            .iter()
            .find(|(_, n)| *n == h.kind)
            .ok_or(EnvelopeError::Kind(h.kind))?
            .0;
        Ok(Self {
            id: BatchId {
                stream,
                epoch,
                seq: h.seq,
            },
            generation: h.generation,
            kind,
            rows: h.rows,
            counts: h.counts.into(),
            journal_upto: h.journal_upto,
            time_min_ns: h.time_min_ns,
            time_max_ns: h.time_max_ns,
            sealed_at_ns: h.sealed_at_ns,
            detail: h.detail,
        })
    }
}

impl From<&Counts> for wire::Counts {
    fn from(c: &Counts) -> Self {
        let list = |l: &[Dropped]| {
            let one = |d: &Dropped| wire::Dropped {
                plugin: d.plugin.clone(),
                reason: d.reason.clone(),
                rows: d.rows,
            };
            l.iter().map(one).collect()
        };
        Self {
            accepted: c.accepted,
            stored: c.stored,
            quarantined: c.quarantined,
            damaged: c.damaged,
            dropped: list(&c.dropped),
            refused: list(&c.refused),
        }
    }
}

impl From<wire::Counts> for Counts {
    fn from(c: wire::Counts) -> Self {
        let list = |l: Vec<wire::Dropped>| {
            l.into_iter()
                .map(|d| Dropped {
                    plugin: d.plugin,
                    reason: d.reason,
                    rows: d.rows,
                })
                .collect()
        };
        Self {
            accepted: c.accepted,
            stored: c.stored,
            quarantined: c.quarantined,
            damaged: c.damaged,
            dropped: list(c.dropped),
            refused: list(c.refused),
        }
    }
}
