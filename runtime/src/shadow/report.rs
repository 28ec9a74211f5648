//! What running a candidate beside the version that serves has shown.

use std::collections::BTreeMap;
use std::time::Duration;

use super::compare::Compared;
use crate::reasons::OTHER;

/// Columns, and reasons of each side, that are counted apart.
const MAX_NAMES: usize = 64;

/// Sums over all batches that both answered, but for the numbers of faults.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ShadowReport {
    /// Of the candidate.
    pub version: String,
    /// Of the batches that it gets.
    pub share: f64,
    /// Compared.
    pub batches: u64,
    pub rows: u64,
    /// Batches that it was to get and did not, because it was busy with others.
    pub skipped: u64,
    /// Batches that wait for it.
    pub waiting: u64,
    pub kept_by_both: u64,
    pub kept_by_current_only: u64,
    pub kept_by_candidate_only: u64,
    pub kept_by_neither: u64,
    /// Rows that both keep and that are not the same then, and of those which columns differ.
    pub rows_different: u64,
    pub columns_different: BTreeMap<String, u64>,
    pub dropped_by_current: BTreeMap<String, u64>,
    pub dropped_by_candidate: BTreeMap<String, u64>,
    pub quarantined_by_current: u64,
    pub quarantined_by_candidate: u64,
    pub faults_current: u64,
    pub faults_candidate: u64,
    /// Of the candidate.
    pub last_fault: Option<String>,
    pub cpu_ns_current: u64,
    pub cpu_ns_candidate: u64,
    pub cpu_ns_per_row_current: f64,
    pub cpu_ns_per_row_candidate: f64,
}

impl ShadowReport {
    pub(super) fn add(&mut self, compared: &Compared, rows: u64, current: Duration, candidate: Duration) {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.batches += 1;
        self.rows += rows;
        self.kept_by_both += compared.both;
        self.kept_by_current_only += compared.current_only;
        self.kept_by_candidate_only += compared.candidate_only;
        self.kept_by_neither += rows - compared.both - compared.current_only - compared.candidate_only;
        self.rows_different += compared.rows_different;
        add_all(&mut self.columns_different, &compared.columns);
        add_all(&mut self.dropped_by_current, &compared.drops.0);
        add_all(&mut self.dropped_by_candidate, &compared.drops.1);
        self.quarantined_by_current += compared.quarantined.0;
        self.quarantined_by_candidate += compared.quarantined.1;
        self.cpu_ns_current += ns(current);
        self.cpu_ns_candidate += ns(candidate);
        let per_row = |ns: u64| ns as f64 / self.rows.max(1) as f64;
        self.cpu_ns_per_row_current = per_row(self.cpu_ns_current);
        self.cpu_ns_per_row_candidate = per_row(self.cpu_ns_candidate);
    }
}

fn add_all(sums: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (name, rows) in more {
        let known = sums.contains_key(name) || sums.len() < MAX_NAMES;
        let name = if known { name.as_str() } else { OTHER };
        *sums.entry(name.to_owned()).or_default() += rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p15_invented_names_are_counted_together() {
        let mut sums = BTreeMap::new();
        for n in 0..1000 {
            add_all(&mut sums, &BTreeMap::from([(format!("c{n}"), 1)]));
        }
        assert_eq!(sums.len(), MAX_NAMES + 1);
        assert_eq!(sums.values().sum::<u64>(), 1000);
    }
}
