//! Taking erased rows out of the table: files are written anew without them, and in the same commit their ledger rows say so.

use std::collections::HashSet;
use std::sync::Arc;

use object_store::path::Path;

use super::files::encode;
use super::replace::blocking;
use super::version::{ColdFile, ColdVersion};
use super::{ColdTable, CommitError};
use crate::erase::{Charges, Erasure, Erasures, Whose, charge, strike};

/// Bytes of files with erased rows that one commit writes anew.
const MAX_BYTES: u64 = 256 << 20;
/// Times that others may change the same files before it is left to the next turn.
const MAX_RACES: u32 = 10;

/// What was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EraseReport {
    pub rows: u64,
    pub files_before: usize,
    pub files_after: usize,
}

/// Files that hold no erased rows, as long as the same is erased: each is read once.
#[derive(Debug, Default)]
pub struct Cleaned {
    erasures: Erasures,
    files: HashSet<Path>,
}

impl ColdTable {
    /// Takes all rows out that are erased, commit by commit. What fails or loses a race is found again by the next call.
    pub async fn erase(&self, erasures: &Erasures, cleaned: &mut Cleaned) -> Result<EraseReport, CommitError> {
        let mut report = EraseReport::default();
        if cleaned.erasures != *erasures {
            *cleaned = Cleaned {
                erasures: erasures.clone(),
                files: HashSet::new(),
            };
        }
        let clean = &mut cleaned.files;
        let mut races = 0;
        while !erasures.0.is_empty() {
            let version = self.refresh().await?;
            // What was merged or removed is not remembered.
            let there: HashSet<&Path> = version.files.iter().map(|file| &file.path).collect();
            clean.retain(|path| there.contains(path));
            let mut charges = Charges::new();
            let (mut gone, mut adds, mut bytes) = (Vec::new(), Vec::new(), 0);
            let mut more = false;
            for file in version.files.iter().filter(|file| may_hold(file, &erasures.0)) {
                if clean.contains(&file.path) {
                    continue;
                }
                if bytes >= MAX_BYTES {
                    more = true;
                    break;
                }
                let rows = self.rows_of(file).await?;
                let mut struck = Vec::with_capacity(rows.len());
                let mut has_any = false;
                for batch in rows {
                    let left = strike(&batch, &erasures.0, &mut charges).map_err(super::EncodeError::from)?;
                    has_any |= left.is_some();
                    struck.push(left.unwrap_or(batch));
                }
                if has_any {
                    bytes += file.bytes;
                    gone.push((Arc::clone(file), struck));
                } else {
                    clean.insert(file.path.clone());
                }
            }
            if gone.is_empty() {
                return Ok(report);
            }
            self.charge(&version, &charges, &mut gone).await?;
            let files: Vec<Arc<ColdFile>> = gone.iter().map(|(file, _)| Arc::clone(file)).collect();
            for (_, rows) in gone {
                if rows.iter().any(|batch| batch.num_rows() > 0) {
                    let mapping = self.mapping().clone();
                    let written = blocking(move || encode(&mapping, &rows)).await?;
                    adds.extend(self.write(written, true).await?);
                }
            }
            let what = "rows that were erased";
            if self.swap(&files, &adds, what).await? {
                report.rows += charges.values().map(|charge| charge.rows()).sum::<u64>();
                report.files_before += files.len();
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

    /// Lets the ledger rows of the batches say what was erased, wherever they lie.
    async fn charge(
        &self,
        version: &ColdVersion,
        charges: &Charges,
        gone: &mut Vec<(Arc<ColdFile>, Vec<arrow::array::RecordBatch>)>,
    ) -> Result<(), CommitError> {
        for (_, rows) in gone.iter_mut() {
            for batch in rows.iter_mut() {
                if let Some(charged) = charge(batch, charges).map_err(super::EncodeError::from)? {
                    *batch = charged;
                }
            }
        }
        let seen: HashSet<Path> = gone.iter().map(|(file, _)| file.path.clone()).collect();
        let others = version
            .files
            .iter()
            .filter(|file| file.may_hold_hidden() && !seen.contains(&file.path) && touches(file, charges));
        for file in others {
            let rows = self.rows_of(file).await?;
            let mut has_any = false;
            let mut all = Vec::with_capacity(rows.len());
            for batch in rows {
                let charged = charge(&batch, charges).map_err(super::EncodeError::from)?;
                has_any |= charged.is_some();
                all.push(charged.unwrap_or(batch));
            }
            if has_any {
                gone.push((Arc::clone(file), all));
            }
        }
        Ok(())
    }
}

/// Whether a file may hold rows that are erased, by its bounds.
fn may_hold(file: &ColdFile, erasures: &[Erasure]) -> bool {
    if file.only_ledger() {
        return false;
    }
    let tenants = file.stats.texts("tenant");
    erasures.iter().any(|erasure| match (&erasure.whose, tenants) {
        (Whose::Tenant(tenant), Some((low, high))) => low <= tenant.as_str() && tenant.as_str() <= high,
        (Whose::AllBut(others), Some((low, high))) if low == high => !others.contains(low),
        _ => true,
    })
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
