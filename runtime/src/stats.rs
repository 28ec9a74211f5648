//! What a plugin did and what it cost, counted since its load.

use std::collections::BTreeMap;

use crate::policy::Kind;

/// A snapshot for status pages, metrics and reports.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PluginStats {
    pub name: String,
    pub version: String,
    pub kind: &'static str,
    pub enabled: bool,
    pub rows_in: u64,
    pub rows_out: u64,
    pub dropped: Vec<(String, u64)>,
    pub quarantined: u64,
    /// Rows refused because this plugin is a mask and failed.
    pub refused: u64,
    pub faults: u64,
    pub last_fault: Option<String>,
    /// Time of the thread inside the guest and in the hand-over.
    pub cpu_ns: u64,
    /// Linear memory of the largest instance so far.
    pub memory_bytes: u64,
    pub breaker: &'static str,
    pub log_lines_cut: u64,
}

/// The counters behind it; kept under the plugin's lock.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) dropped: BTreeMap<String, u64>,
    pub(crate) quarantined: u64,
    pub(crate) refused: u64,
    pub(crate) faults: u64,
    pub(crate) last_fault: Option<String>,
    pub(crate) cpu_ns: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) log_lines_cut: u64,
}

impl Counters {
    pub(crate) fn snapshot(
        &self,
        name: &str,
        version: &str,
        kind: Kind,
        enabled: bool,
        breaker: &'static str,
    ) -> PluginStats {
        PluginStats {
            name: name.to_owned(),
            version: version.to_owned(),
            kind: kind.as_str(),
            enabled,
            rows_in: self.rows_in,
            rows_out: self.rows_out,
            dropped: self
                .dropped
                .iter()
                .map(|(reason, rows)| (reason.clone(), *rows))
                .collect(),
            quarantined: self.quarantined,
            refused: self.refused,
            faults: self.faults,
            last_fault: self.last_fault.clone(),
            cpu_ns: self.cpu_ns,
            memory_bytes: self.memory_bytes,
            breaker,
            log_lines_cut: self.log_lines_cut,
        }
    }
}
