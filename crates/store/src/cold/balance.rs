//! Whether the table holds what its ledger says: accepted = stored + dropped + quarantined + damaged + erased for each batch, as many rows as
//! were stored and quarantined, and a ledger row for each offset.
//!
//! A look reads ledger rows that it has not seen, and counts all other rows by the statistics of their files. When the sums disagree, the
//! rows themselves are counted, offset by offset, to say whose they are. Sums may agree by chance, one row less and another one twice, so
//! each look also counts the rows of some offsets, and goes on from there the next time (`round`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use object_store::path::Path;
use serde::Serialize;

use super::files::{EncodeError, OffsetSpan};
use super::round::{self, Extents, Place, Round};
use super::stream::Pieces;
use super::version::{ColdFile, ColdVersion};
use super::{ColdTable, CommitError};
use crate::rows::{self, LEDGER, RowsError};

/// Bytes of files whose ledger rows one look reads; the next one goes on.
const MAX_BYTES: u64 = 256 << 20;
/// Ranges that are named, of each way in which they are found; there may be more.
pub const MAX_HOLES: usize = 32;
/// Offsets whose rows are counted at once.
const WINDOW: u64 = 1 << 18;
/// Bytes of files of which one look counts rows although the sums agree, in three of their columns.
const ROUND_BYTES: u64 = 2 << 30;
/// Ranges that cannot be read before a look gives up: much is gone, or the store of files is away and each try takes long.
const MAX_UNREAD: u64 = 4;

const LEDGER_COLUMNS: [&str; 6] = ["tenant", "stream", "signal", "partition", "offset", "attrs"];
const PLACE_COLUMNS: [&str; 3] = ["signal", "partition", "offset"];

/// What is wrong about a range of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// The counts of a batch do not name every accepted event.
    Unbalanced,
    /// Fewer rows than the ledger says.
    Missing,
    /// More rows than the ledger says.
    Surplus,
    /// No ledger row, so it is not known whose the rows were.
    NoLedger,
    /// More than one ledger row.
    Repeated,
}

impl Wrong {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unbalanced => "unbalanced",
            Self::Missing => "missing",
            Self::Surplus => "surplus",
            Self::NoLedger => "no_ledger",
            Self::Repeated => "repeated",
        }
    }
}

/// Consecutive offsets of one stream at which the ledger does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hole {
    pub wrong: Wrong,
    /// Empty where there is no ledger row.
    pub tenant: String,
    pub stream: String,
    pub partition: i64,
    pub first: i64,
    pub last: i64,
    /// Events that are missing or too many; without a ledger row, offsets.
    pub events: u64,
}

impl Hole {
    fn includes(&self, other: &Self) -> bool {
        (self.wrong, self.partition) == (other.wrong, other.partition)
            && self.first <= other.first
            && other.last <= self.last
    }
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Ledger rows that were taken into account.
    pub records: u64,
    /// The version of the table.
    pub version: u64,
    pub holes: Vec<Hole>,
    /// Ranges of offsets whose rows could not be counted at this look.
    pub unread: u64,
}

/// What is known of files that were read.
#[derive(Debug, Default)]
pub struct Known {
    files: HashMap<Path, Sums>,
    /// What was found when the sums disagreed last, and by how much.
    found: Option<(Disagreement, Vec<Hole>)>,
    round: Round,
}

/// What the ledger rows of one file say.
#[derive(Clone, Debug, Default)]
struct Sums {
    rows: u64,
    ledger_rows: u64,
    /// Rows that must be somewhere in the table.
    owed: u64,
    /// Ledger rows, and the first and last offset of them.
    partitions: BTreeMap<i64, (u64, i64, i64)>,
    unbalanced: Vec<Hole>,
}

/// By how much sums disagree: rows, and offsets of each partition.
type Disagreement = (i128, BTreeMap<i64, i128>);

impl ColdTable {
    /// Looks at the newest version. `None`: there are still files to read, and the next call goes on.
    pub async fn balance(&self, known: &mut Known) -> Result<Option<Balance>, CommitError> {
        let version = self.refresh().await?;
        let there: HashSet<&Path> = version.files.iter().map(|file| &file.path).collect();
        known.files.retain(|path, _| there.contains(path));
        let mut bytes = 0;
        for file in &version.files {
            if known.files.contains_key(&file.path) {
                continue;
            }
            let sums = match file.stats.rows {
                Some(rows) if !file.may_hold_hidden() => Sums {
                    rows,
                    ..Sums::default()
                },
                _ if bytes >= MAX_BYTES => return Ok(None),
                _ => {
                    bytes += file.bytes;
                    self.sums_of(file).await?
                }
            };
            known.files.insert(file.path.clone(), sums);
        }
        let mut balance = Balance {
            records: known.files.values().map(|sums| sums.ledger_rows).sum(),
            version: version.number,
            holes: Vec::new(),
            unread: 0,
        };
        let unbalanced = known.files.values().flat_map(|sums| &sums.unbalanced);
        balance.holes.extend(unbalanced.take(MAX_HOLES).cloned());
        let disagreement = disagreement(known.files.values(), &version);
        if disagreement.0 == 0 && disagreement.1.is_empty() {
            known.found = None;
        } else {
            let holes = match known.found.take() {
                Some((same, holes)) if same == disagreement => holes,
                _ => self.holes(&version, known).await?,
            };
            balance.holes.extend(holes.iter().cloned());
            known.found = Some((disagreement, holes));
        }
        balance.unread = self.go_round(&version, known, &balance.holes).await;
        let mut more = Vec::new();
        join(&mut more, known.round.holes().cloned().collect());
        more.retain(|hole| !balance.holes.iter().any(|named| named.includes(hole)));
        more.truncate(MAX_HOLES);
        balance.holes.extend(more);
        Ok(Some(balance))
    }

    async fn sums_of(&self, file: &Arc<ColdFile>) -> Result<Sums, CommitError> {
        let (file, mapping) = (Arc::clone(file), self.mapping().clone());
        self.compute(move |door| {
            let mut sums = Sums::default();
            for piece in Pieces::open(door, &mapping, &file, Some(&LEDGER_COLUMNS))? {
                let piece = piece?;
                sums.rows += piece.num_rows() as u64;
                for entry in entries(&piece)? {
                    sums.ledger_rows += 1;
                    sums.owed += entry.owed;
                    let place = sums
                        .partitions
                        .entry(entry.partition)
                        .or_insert((0, entry.offset, entry.offset));
                    *place = (place.0 + 1, place.1.min(entry.offset), place.2.max(entry.offset));
                    if entry.accepted != entry.named && sums.unbalanced.len() < MAX_HOLES {
                        let events = entry.accepted.abs_diff(entry.named);
                        sums.unbalanced.push(entry.hole(Wrong::Unbalanced, events));
                    }
                }
            }
            Ok(sums)
        })
        .await
    }

    /// Counts rows offset by offset, window by window, until enough is found.
    async fn holes(&self, version: &ColdVersion, known: &Known) -> Result<Vec<Hole>, CommitError> {
        let mut holes = Vec::new();
        for (partition, (mut first, last)) in extents(version, known) {
            while first <= last && holes.len() < MAX_HOLES {
                let end = first.saturating_add(WINDOW as i64 - 1).min(last);
                let window = OffsetSpan {
                    partition,
                    first,
                    last: end,
                };
                for found in self.holes_in(version, &[window]).await? {
                    join(&mut holes, found);
                }
                first = end.saturating_add(1);
            }
        }
        holes.truncate(MAX_HOLES);
        Ok(holes)
    }

    /// Counts the next offsets of the round, and those that did not hold; `named` are holes that were found already. Returns how many windows
    /// could not be read.
    async fn go_round(&self, version: &ColdVersion, known: &mut Known, named: &[Hole]) -> u64 {
        let extents = extents(version, known);
        let round = &mut known.round;
        let again = round.again();
        let mut look = Look { bytes: 0, unread: 0 };
        self.count_windows(version, &extents, &again, named, round, &mut look)
            .await;
        look.bytes = 0;
        let mut left = round::windows(&extents);
        while look.bytes < ROUND_BYTES && look.unread < MAX_UNREAD {
            let mut places = round.group(&extents, &mut left);
            if places.is_empty() {
                break;
            }
            places.retain(|place| !again.contains(place));
            self.count_windows(version, &extents, &places, named, round, &mut look)
                .await;
        }
        look.unread
    }

    async fn count_windows(
        &self,
        version: &ColdVersion,
        extents: &Extents,
        places: &[Place],
        named: &[Hole],
        round: &mut Round,
        look: &mut Look,
    ) {
        let mut windows = Vec::new();
        for place in places {
            match round::span(extents, *place) {
                Some(window) => windows.push((*place, window)),
                // It has left the table.
                None => round.found(*place, Vec::new()),
            }
        }
        if windows.is_empty() {
            return;
        }
        windows.sort_unstable_by_key(|(place, _)| *place);
        let spans: Vec<OffsetSpan> = windows.iter().map(|(_, window)| *window).collect();
        let touched = version.files.iter().filter(|file| touches(file, &spans));
        look.bytes += touched.map(|file| file.bytes).sum::<u64>();
        let mut all = self.holes_in(version, &spans).await;
        for (at, (place, window)) in windows.into_iter().enumerate() {
            let holes = match &mut all {
                Ok(all) => Ok(std::mem::take(&mut all[at])),
                // Others of them may lie in files that can be read.
                Err(_) => self.holes_in(version, &[window]).await.map(|holes| holes.concat()),
            };
            match holes {
                Ok(mut holes) => {
                    holes.retain(|hole| !named.iter().any(|named| named.includes(hole)));
                    round.found(place, holes);
                }
                Err(error) => {
                    let OffsetSpan { partition, first, last } = window;
                    tracing::warn!(partition, first, last, %error, "rows of cold cannot be counted");
                    round.unread(place);
                    look.unread += 1;
                    if look.unread >= MAX_UNREAD {
                        return;
                    }
                }
            }
        }
    }

    /// Of each window, which are in order and share no offset.
    async fn holes_in(&self, version: &ColdVersion, windows: &[OffsetSpan]) -> Result<Vec<Vec<Hole>>, CommitError> {
        let mut counted = Offsets::new();
        for file in version.files.iter().filter(|file| touches(file, windows)) {
            let (file, mapping) = (Arc::clone(file), self.mapping().clone());
            let windows = windows.to_vec();
            let columns: &'static [&'static str] = match file.may_hold_hidden() {
                true => &LEDGER_COLUMNS,
                false => &PLACE_COLUMNS,
            };
            counted = self
                .compute(move |door| {
                    for piece in Pieces::open(door, &mapping, &file, Some(columns))? {
                        count(&piece?, &windows, columns.len() > PLACE_COLUMNS.len(), &mut counted)?;
                    }
                    Ok(counted)
                })
                .await?;
        }
        Ok(windows.iter().map(|window| compare(&counted, *window)).collect())
    }
}

/// What one look has read of the round.
struct Look {
    bytes: u64,
    unread: u64,
}

/// The first and last offset of each partition that the table should hold.
fn extents(version: &ColdVersion, known: &Known) -> Extents {
    let mut begins: BTreeMap<i64, i64> = BTreeMap::new();
    for (partition, (_, first, _)) in known.files.values().flat_map(|sums| &sums.partitions) {
        let begin = begins.entry(*partition).or_insert(*first);
        *begin = (*begin).min(*first);
    }
    let committed = version.committed.iter().map(|(partition, last)| {
        let (partition, last) = (partition.as_i64(), rows::signed(*last));
        // Where the log began is not known if its first ledger row is gone.
        (partition, (begins.get(&partition).copied().unwrap_or(last), last))
    });
    committed.collect()
}

/// What was counted, by partition and offset.
type Offsets = BTreeMap<(i64, i64), Counted>;

/// What was counted at one offset.
#[derive(Debug, Default)]
struct Counted {
    rows: u64,
    ledger_rows: u64,
    entry: Option<Entry>,
}

/// What a ledger row says.
#[derive(Clone, Debug)]
struct Entry {
    tenant: String,
    stream: String,
    partition: i64,
    offset: i64,
    accepted: u64,
    /// The accepted events that have a name.
    named: u64,
    /// Rows beside it.
    owed: u64,
}

impl Entry {
    fn hole(&self, wrong: Wrong, events: u64) -> Hole {
        Hole {
            wrong,
            tenant: self.tenant.clone(),
            stream: self.stream.clone(),
            partition: self.partition,
            first: self.offset,
            last: self.offset,
            events,
        }
    }
}

/// The ledger rows of a piece.
fn entries(piece: &RecordBatch) -> Result<Vec<Entry>, EncodeError> {
    let (tenants, signals) = (rows::texts(piece, "tenant")?, rows::texts(piece, "signal")?);
    let (partitions, offsets) = (rows::ints(piece, "partition")?, rows::ints(piece, "offset")?);
    let streams = rows::texts(piece, "stream")?;
    let attrs = piece
        .column_by_name("attrs")
        .and_then(|column| column.as_map_opt())
        .ok_or(RowsError::Schema)?;
    let (keys, values) = (
        attrs.keys().as_string_opt::<i32>(),
        attrs.values().as_string_opt::<i32>(),
    );
    let (keys, values) = keys.zip(values).ok_or(RowsError::Schema)?;
    let mut found = Vec::new();
    for row in (0..piece.num_rows()).filter(|row| signals.value(*row) == LEDGER) {
        let mut entry = Entry {
            tenant: tenants.value(row).to_owned(),
            stream: if streams.is_valid(row) { streams.value(row) } else { "" }.to_owned(),
            partition: partitions.value(row),
            offset: offsets.value(row),
            accepted: 0,
            named: 0,
            owed: 0,
        };
        for at in attrs.value_offsets()[row] as usize..attrs.value_offsets()[row + 1] as usize {
            let count = if values.is_valid(at) { values.value(at) } else { "" };
            let count = count.parse::<u64>().unwrap_or(0);
            match keys.value(at) {
                "accepted" => entry.accepted = count,
                "stored" | "quarantined" => {
                    entry.named = entry.named.saturating_add(count);
                    entry.owed = entry.owed.saturating_add(count);
                }
                "damaged" | "erased" => entry.named = entry.named.saturating_add(count),
                key if key.starts_with("dropped/") => entry.named = entry.named.saturating_add(count),
                _ => {}
            }
        }
        found.push(entry);
    }
    Ok(found)
}

/// What a version must hold by its ledger against what it holds by its files.
fn disagreement<'a>(files: impl Iterator<Item = &'a Sums>, version: &ColdVersion) -> Disagreement {
    let mut rows = 0i128;
    let mut partitions: BTreeMap<i64, (u64, i64, i64)> = BTreeMap::new();
    for sums in files {
        rows += i128::from(sums.rows) - i128::from(sums.ledger_rows) - i128::from(sums.owed);
        for (partition, (count, first, last)) in &sums.partitions {
            let all = partitions.entry(*partition).or_insert((0, *first, *last));
            *all = (all.0 + count, all.1.min(*first), all.2.max(*last));
        }
    }
    let committed = version.committed.iter();
    let offsets = committed.filter_map(|(partition, held)| {
        let (partition, held) = (partition.as_i64(), i128::from(*held));
        let (count, first) = partitions
            .get(&partition)
            .map_or((0, held), |(count, first, _)| (*count, i128::from(*first)));
        let off = held - first + 1 - i128::from(count);
        (off != 0).then_some((partition, off))
    });
    (rows, offsets.collect())
}

fn count(
    piece: &RecordBatch,
    windows: &[OffsetSpan],
    has_ledger: bool,
    counted: &mut Offsets,
) -> Result<(), EncodeError> {
    let is_in = |partition: i64, offset: i64| {
        let behind = windows.partition_point(|window| (window.partition, window.first) <= (partition, offset));
        let window = behind.checked_sub(1).map(|at| &windows[at]);
        window.is_some_and(|window| window.partition == partition && offset <= window.last)
    };
    let signals = rows::texts(piece, "signal")?;
    let (partitions, offsets) = (rows::ints(piece, "partition")?, rows::ints(piece, "offset")?);
    for row in (0..piece.num_rows()).filter(|row| is_in(partitions.value(*row), offsets.value(*row))) {
        let counted = counted.entry((partitions.value(row), offsets.value(row))).or_default();
        match signals.value(row) == LEDGER {
            true => counted.ledger_rows += 1,
            false => counted.rows += 1,
        }
    }
    if has_ledger {
        for entry in entries(piece)? {
            if is_in(entry.partition, entry.offset) {
                let place = (entry.partition, entry.offset);
                counted.entry(place).or_default().entry = Some(entry);
            }
        }
    }
    Ok(())
}

fn compare(counted: &Offsets, window: OffsetSpan) -> Vec<Hole> {
    let mut holes: Vec<Hole> = Vec::new();
    let nobody = |first: i64, last: i64| Hole {
        wrong: Wrong::NoLedger,
        tenant: String::new(),
        stream: String::new(),
        partition: window.partition,
        first,
        last,
        events: last.abs_diff(first) + 1,
    };
    let mut next = window.first;
    let places = (window.partition, window.first)..=(window.partition, window.last);
    for ((_, offset), counted) in counted.range(places) {
        if *offset > next {
            join(&mut holes, vec![nobody(next, offset - 1)]);
        }
        next = offset.saturating_add(1);
        let Some(entry) = &counted.entry else {
            join(&mut holes, vec![nobody(*offset, *offset)]);
            continue;
        };
        let hole = if counted.ledger_rows > 1 {
            Some((Wrong::Repeated, counted.ledger_rows - 1))
        } else if counted.rows < entry.owed {
            Some((Wrong::Missing, entry.owed - counted.rows))
        } else if counted.rows > entry.owed {
            Some((Wrong::Surplus, counted.rows - entry.owed))
        } else {
            None
        };
        join(
            &mut holes,
            hole.map(|(wrong, events)| entry.hole(wrong, events))
                .into_iter()
                .collect(),
        );
    }
    if next <= window.last {
        join(&mut holes, vec![nobody(next, window.last)]);
    }
    holes
}

/// Neighbours of the same stream become one range.
fn join(holes: &mut Vec<Hole>, more: Vec<Hole>) {
    for hole in more {
        match holes.last_mut() {
            Some(before)
                if (before.wrong, before.partition, &before.stream, &before.tenant)
                    == (hole.wrong, hole.partition, &hole.stream, &hole.tenant)
                    && before.last.saturating_add(1) == hole.first =>
            {
                before.last = hole.last;
                before.events = before.events.saturating_add(hole.events);
            }
            _ => holes.push(hole),
        }
    }
}

fn touches(file: &ColdFile, windows: &[OffsetSpan]) -> bool {
    file.offsets.as_ref().is_none_or(|spans| {
        spans.iter().any(|span| {
            let among = |window: &OffsetSpan| {
                span.partition == window.partition && span.first <= window.last && window.first <= span.last
            };
            windows.iter().any(among)
        })
    })
}
