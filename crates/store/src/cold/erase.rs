//! Taking erased rows out of the table: files are written anew without them, and in the same commit their ledger rows say so.
//!
//! A file is looked at with the few columns that decide, and only if its bounds and what is known of it do not exclude it; it is written anew
//! piece by piece.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use deltalake::kernel::Add;
use object_store::path::Path;

use super::begun::Begun;
use super::commit::MAX_STAGED_AGE;
use super::files::{EncodeError, FileWriter, into_adds};
use super::stream::Pieces;
use super::swap::Why;
use super::version::{ColdFile, ColdVersion};
use super::{ColdTable, CommitError};
use crate::erase::{Charges, Erasure, Erasures, Whose, charge, strike};
use crate::rows::{self, LEDGER, RowsError};

/// Bytes of files with erased rows that one commit writes anew.
const MAX_BYTES: u64 = 256 << 20;
/// Batches that one commit charges, about.
const MAX_CHARGES: usize = 1 << 20;
/// Times that others may change the same files before it is left to the next turn.
const MAX_RACES: u32 = 10;
/// Tenants of one file that are remembered.
const MAX_TENANTS: usize = 1024;

/// What decides whether a row is erased, and what its batch is charged.
const DECIDING: [&str; 7] = [
    "tenant",
    "signal",
    "time",
    "quarantined_by",
    "partition",
    "offset",
    "ingested_at",
];

/// What was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EraseReport {
    pub rows: u64,
    pub files_before: usize,
    pub files_after: usize,
    /// Files that had to be read to know.
    pub files_read: usize,
}

/// What is known of files that were read: those that hold no erased rows, as long as the same is erased; and whose rows a file holds, so
/// that it is not read again before they can be old enough.
#[derive(Debug, Default)]
pub struct Cleaned {
    erasures: Erasures,
    clean: HashSet<Path>,
    owners: HashMap<Path, Owners>,
}

/// When the first row of each tenant in a file was taken in, in microseconds.
type Owners = BTreeMap<String, i64>;

/// What a look at a file found.
struct Found {
    charges: Charges,
    owners: Option<Owners>,
}

impl ColdTable {
    /// Takes all rows out that are erased, commit by commit. What fails or loses a race is found again by the next call.
    pub async fn erase(&self, erasures: &Erasures, cleaned: &mut Cleaned) -> Result<EraseReport, CommitError> {
        let mut report = EraseReport::default();
        if cleaned.erasures != *erasures {
            cleaned.erasures = erasures.clone();
            cleaned.clean.clear();
        }
        let all: Arc<[Erasure]> = erasures.0.clone().into();
        let mut races = 0;
        while !all.is_empty() {
            let version = self.refresh().await?;
            cleaned.forget_others(&version);
            let mut charges = Charges::new();
            let (mut gone, mut bytes, mut more) = (Vec::new(), 0, false);
            for file in &version.files {
                if cleaned.clean.contains(&file.path) || !may_hold(file, cleaned.owners.get(&file.path), &all) {
                    continue;
                }
                if bytes >= MAX_BYTES || charges.len() >= MAX_CHARGES {
                    more = true;
                    break;
                }
                report.files_read += 1;
                let found = self.look(file, &all).await?;
                if found.charges.is_empty() {
                    cleaned.clean.insert(file.path.clone());
                    cleaned
                        .owners
                        .extend(found.owners.map(|owners| (file.path.clone(), owners)));
                    continue;
                }
                for (place, charge) in found.charges {
                    charges.entry(place).or_default().add(charge);
                }
                bytes += file.bytes;
                gone.push(Arc::clone(file));
            }
            if gone.is_empty() {
                return Ok(report);
            }
            let others = self.charged(&version, &charges, &gone).await?;
            gone.extend(others);
            let rows = charges.values().map(|charge| charge.rows()).sum::<u64>();
            let charges = Arc::new(charges);
            let begun = Begun::now(MAX_STAGED_AGE);
            let mut adds: Vec<Add> = Vec::new();
            for file in &gone {
                match self.rewrite(file, &all, &charges).await {
                    Ok(written) => adds.extend(written),
                    Err(error) => {
                        self.discard(&adds).await;
                        return Err(error);
                    }
                }
            }
            if self
                .swap(&gone, &adds, Why::Rows("rows that were erased"), begun)
                .await?
            {
                report.rows += rows;
                report.files_before += gone.len();
                report.files_after += adds.len();
                races = 0;
            } else {
                self.discard(&adds).await;
                races += 1;
                if races >= MAX_RACES {
                    return Err(CommitError::Stale);
                }
                continue;
            }
            if !more {
                return Ok(report);
            }
        }
        Ok(report)
    }

    /// What of a file is erased.
    async fn look(&self, file: &Arc<ColdFile>, erasures: &Arc<[Erasure]>) -> Result<Found, CommitError> {
        let (file, mapping, erasures) = (Arc::clone(file), self.mapping().clone(), Arc::clone(erasures));
        self.compute(move |door| {
            let mut found = Found {
                charges: Charges::new(),
                owners: Some(Owners::new()),
            };
            for piece in Pieces::open(door, &mapping, &file, Some(&DECIDING))? {
                let piece = piece?;
                strike(&piece, &erasures, &mut found.charges)?;
                found.owners = match found.owners {
                    Some(owners) => add_owners(owners, &piece)?,
                    None => None,
                };
            }
            Ok(found)
        })
        .await
    }

    /// Further files with ledger rows of the batches, which must say what was erased.
    async fn charged(
        &self,
        version: &ColdVersion,
        charges: &Charges,
        gone: &[Arc<ColdFile>],
    ) -> Result<Vec<Arc<ColdFile>>, CommitError> {
        let seen: HashSet<&Path> = gone.iter().map(|file| &file.path).collect();
        let others = version
            .files
            .iter()
            .filter(|file| file.may_hold_hidden() && !seen.contains(&file.path) && touches(file, charges));
        let places: Arc<HashSet<(i64, i64)>> = Arc::new(charges.keys().copied().collect());
        let mut found = Vec::new();
        for file in others {
            let (read, mapping, places) = (Arc::clone(file), self.mapping().clone(), Arc::clone(&places));
            let has_any = self.compute(move |door| {
                for piece in Pieces::open(door, &mapping, &read, Some(&["signal", "partition", "offset"]))? {
                    if has_ledger_of(&piece?, &places)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            });
            if has_any.await? {
                found.push(Arc::clone(file));
            }
        }
        Ok(found)
    }

    /// Writes a file anew without what is erased and with what the ledger must say; nothing is visible yet.
    async fn rewrite(
        &self,
        file: &Arc<ColdFile>,
        erasures: &Arc<[Erasure]>,
        charges: &Arc<Charges>,
    ) -> Result<Vec<Add>, CommitError> {
        let (file, making) = (Arc::clone(file), self.making().clone());
        let (erasures, charges) = (Arc::clone(erasures), Arc::clone(charges));
        self.compute(move |door| {
            let pieces = Pieces::open(door, &making.mapping, &file, None)?;
            let mut writer = FileWriter::new(door, &making, file.day.clone(), pieces.traced())?;
            for piece in pieces {
                let piece = piece?;
                let left = strike(&piece, &erasures, &mut Charges::new())?.unwrap_or(piece);
                writer.add(&charge(&left, &charges)?.unwrap_or(left))?;
            }
            into_adds(writer.finish()?.into_iter().collect(), true)
        })
        .await
    }
}

impl Cleaned {
    /// What was merged or removed is not remembered.
    fn forget_others(&mut self, version: &ColdVersion) {
        let there: HashSet<&Path> = version.files.iter().map(|file| &file.path).collect();
        self.clean.retain(|path| there.contains(path));
        self.owners.retain(|path, _| there.contains(path));
    }
}

/// Whether a file may hold rows that are erased, by its bounds and by whose rows are known to be in it.
fn may_hold(file: &ColdFile, owners: Option<&Owners>, erasures: &[Erasure]) -> bool {
    if file.only_ledger() {
        return false;
    }
    let tenants = file.stats.texts("tenant");
    let (times, oldest) = (file.stats.times_ns(), file.stats.oldest_us());
    erasures.iter().any(|erasure| {
        let by_tenant = match (&erasure.whose, tenants) {
            (Whose::Tenant(tenant), Some((low, high))) => low <= tenant.as_str() && tenant.as_str() <= high,
            (Whose::AllBut(others), Some((low, high))) if low == high => !others.contains(low),
            _ => true,
        };
        let by_time = times.is_none_or(|times| erasure.meets(times));
        let by_age = oldest.is_none_or(|oldest| oldest < erasure.before_us);
        let by_owner = owners.is_none_or(|owners| {
            let mut owners = owners.iter();
            owners.any(|(tenant, oldest)| erasure.whose.includes(tenant) && *oldest < erasure.before_us)
        });
        by_tenant && by_time && by_age && by_owner
    })
}

/// `None`: they are too many to remember.
fn add_owners(mut owners: Owners, piece: &RecordBatch) -> Result<Option<Owners>, EncodeError> {
    let (tenants, signals) = (rows::texts(piece, "tenant")?, rows::texts(piece, "signal")?);
    let taken_in = rows::numbers::<TimestampMicrosecondType>(piece, "ingested_at")?;
    for row in (0..piece.num_rows()).filter(|row| signals.value(*row) != LEDGER && taken_in.is_valid(*row)) {
        let at = taken_in.value(row);
        match owners.get_mut(tenants.value(row)) {
            Some(oldest) => *oldest = at.min(*oldest),
            None => {
                owners.insert(tenants.value(row).to_owned(), at);
            }
        }
    }
    Ok((owners.len() <= MAX_TENANTS).then_some(owners))
}

fn has_ledger_of(piece: &RecordBatch, places: &HashSet<(i64, i64)>) -> Result<bool, RowsError> {
    let signals = rows::texts(piece, "signal")?;
    let (partitions, offsets) = (rows::ints(piece, "partition")?, rows::ints(piece, "offset")?);
    let mut all = 0..piece.num_rows();
    Ok(all.any(|row| signals.value(row) == LEDGER && places.contains(&(partitions.value(row), offsets.value(row)))))
}

fn touches(file: &ColdFile, charges: &Charges) -> bool {
    let Some(spans) = &file.offsets else { return true };
    let within = |(partition, offset): &(i64, i64)| {
        spans
            .iter()
            .any(|span| span.partition == *partition && (span.first..=span.last).contains(offset))
    };
    charges.keys().any(within)
}
