//! What is kept, under a cap for each scope and one for all: what was not used for longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use sluice_store::{Inputs, Scope, TimeRange};

use super::Asked;
use super::budget::size;
use super::sliced::Grouping;

/// Small answers are kept by the thousand; finding the oldest looks at all of them.
pub(super) const MAX_KEPT: usize = 4096;
/// Of one grouping: those of some windows of different lengths.
const MAX_RANGES: usize = 1024;
/// What an answer takes beside its rows and its text, about.
const OVERHEAD: u64 = 512;

/// What something is kept for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Answer(Asked),
    Ranges(Arc<Grouping>),
}

/// Under a cap, whose limits are those of [`State::put`].
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) bytes: u64,
    next: u64,
    pub(super) of_scope: HashMap<Scope, u64>,
    held: HashMap<Key, Held>,
}

/// How many bytes may be kept, in all and for one scope.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    pub(super) most: u64,
    pub(super) tenant_most: u64,
}

#[derive(Debug)]
struct Held {
    what: What,
    bytes: u64,
    used: u64,
}

#[derive(Debug)]
pub(super) enum What {
    Answer {
        inputs: Inputs,
        schema: SchemaRef,
        rows: Arc<[RecordBatch]>,
    },
    Ranges(BTreeMap<TimeRange, OfRange>),
}

/// The groups of one range of time; `None`: it has none.
#[derive(Clone, Debug)]
pub(super) struct OfRange {
    inputs: Inputs,
    rows: Option<RecordBatch>,
    bytes: u64,
    used: u64,
}

/// What was forgotten, to be dropped where nobody waits for it.
pub(super) type Gone = Vec<(Key, What)>;

impl Key {
    fn scope(&self) -> &Scope {
        match self {
            Self::Answer(asked) => &asked.scope,
            Self::Ranges(grouping) => &grouping.scope,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        OVERHEAD
            + match self {
                Self::Answer(asked) => {
                    let params: usize = asked.params.iter().map(ScalarValue::size).sum();
                    (asked.sql.len() + params) as u64
                }
                Self::Ranges(grouping) => grouping.bytes,
            }
    }
}

impl What {
    fn bytes(&self) -> u64 {
        match self {
            Self::Answer { rows, .. } => rows.iter().map(size).sum(),
            Self::Ranges(ranges) => ranges.values().map(|kept| kept.bytes).sum(),
        }
    }
}

impl OfRange {
    /// Rows that share their memory with no others.
    pub(super) fn new(inputs: Inputs, rows: Option<RecordBatch>) -> Self {
        let bytes = rows.as_ref().map_or(0, size) + size_of::<(TimeRange, Self)>() as u64;
        let used = 0;
        Self {
            inputs,
            rows,
            bytes,
            used,
        }
    }
}

impl State {
    /// The rows of an answer, if it was made of the same.
    pub(super) fn answer(&mut self, asked: &Asked, inputs: Inputs) -> Option<(SchemaRef, Arc<[RecordBatch]>)> {
        self.next += 1;
        let held = self.held.get_mut(&Key::Answer(asked.clone()))?;
        match &held.what {
            What::Answer {
                inputs: of,
                schema,
                rows,
            } if *of == inputs => {
                held.used = self.next;
                Some((Arc::clone(schema), Arc::clone(rows)))
            }
            _ => None,
        }
    }

    /// The groups of each of some ranges that is made of the same, and when they were asked for.
    pub(super) fn ranges(
        &mut self,
        grouping: &Arc<Grouping>,
        wanted: impl Iterator<Item = (TimeRange, Option<Inputs>)>,
    ) -> (u64, Vec<Option<Option<RecordBatch>>>) {
        self.next += 1;
        let now = self.next;
        let mut none: BTreeMap<TimeRange, OfRange> = BTreeMap::new();
        let known = match self.held.get_mut(&Key::Ranges(Arc::clone(grouping))) {
            Some(Held {
                what: What::Ranges(known),
                used,
                ..
            }) => {
                *used = now;
                known
            }
            _ => &mut none,
        };
        let each = wanted.map(|(range, inputs)| {
            let kept = known
                .get_mut(&range)
                .filter(|kept| inputs.is_some_and(|inputs| kept.inputs == inputs))?;
            kept.used = now;
            Some(kept.rows.clone())
        });
        (now, each.collect())
    }

    /// Adds ranges that were `asked` for at some moment to those of their grouping, which together take no more than `most` bytes.
    pub(super) fn put_ranges(
        &mut self,
        grouping: Arc<Grouping>,
        asked: u64,
        more: Vec<(TimeRange, OfRange)>,
        most: u64,
        caps: Caps,
    ) -> Gone {
        let key = Key::Ranges(grouping);
        let mut gone = BTreeMap::new();
        let mut all = match self.forget(&key) {
            Some((_, What::Ranges(known))) => known,
            _ => BTreeMap::new(),
        };
        for (range, mut kept) in more {
            kept.used = asked;
            gone.extend(all.insert(range, kept).map(|old| (range, old)));
        }
        let mut bytes: u64 = all.values().map(|kept| kept.bytes).sum();
        let mut by_use: Vec<(u64, TimeRange)> = all.iter().map(|(range, kept)| (kept.used, *range)).collect();
        // Of those that were asked for together the oldest go first: the window moves away from them.
        by_use.sort_unstable();
        for (_, range) in by_use {
            if all.len() <= MAX_RANGES && bytes <= most {
                break;
            }
            if let Some(kept) = all.remove(&range) {
                bytes -= kept.bytes;
                gone.insert(range, kept);
            }
        }
        let mut forgotten = self.put(key.clone(), What::Ranges(all), caps);
        forgotten.push((key, What::Ranges(gone)));
        forgotten
    }

    pub(super) fn put(&mut self, key: Key, what: What, caps: Caps) -> Gone {
        let mut gone: Gone = self.forget(&key).into_iter().collect();
        let bytes = what.bytes() + key.bytes();
        let of_scope = self.of_scope.get(key.scope()).copied().unwrap_or(0);
        if of_scope + bytes > caps.tenant_most {
            self.make_room(Some(key.scope()), of_scope + bytes - caps.tenant_most, &mut gone);
        }
        if self.bytes + bytes > caps.most {
            let over = self.bytes + bytes - caps.most;
            self.make_room(None, over, &mut gone);
        }
        while self.held.len() >= MAX_KEPT {
            self.make_room(None, 1, &mut gone);
        }
        self.next += 1;
        let used = self.next;
        self.bytes += bytes;
        *self.of_scope.entry(key.scope().clone()).or_default() += bytes;
        self.held.insert(key, Held { what, bytes, used });
        gone
    }

    fn forget(&mut self, key: &Key) -> Option<(Key, What)> {
        let (key, held) = self.held.remove_entry(key)?;
        self.bytes -= held.bytes;
        if let Some(bytes) = self.of_scope.get_mut(key.scope()) {
            *bytes -= held.bytes;
            if *bytes == 0 {
                self.of_scope.remove(key.scope());
            }
        }
        Some((key, held.what))
    }

    /// Forgets what was not used for longest, of one scope or of all, until so many bytes are free.
    fn make_room(&mut self, scope: Option<&Scope>, bytes: u64, gone: &mut Gone) {
        let mut freed = 0;
        while freed < bytes {
            let of_scope = self
                .held
                .iter()
                .filter(|(key, _)| scope.is_none_or(|scope| scope == key.scope()));
            let Some((oldest, held)) = of_scope.min_by_key(|(_, held)| held.used) else {
                return;
            };
            freed += held.bytes;
            let oldest = oldest.clone();
            gone.extend(self.forget(&oldest));
        }
    }
}
