//! What a plugin did and what it cost, by version, counted since the start of the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::lock;
use crate::policy::Kind;
use crate::shadow::ShadowReport;
use crate::slot::Edition;

/// Versions of one place whose figures are kept once they serve no more; the oldest goes first.
const MAX_RETIRED: usize = 4;

/// A snapshot for status pages, metrics and reports: one version of one place of the chain.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PluginStats {
    pub name: String,
    pub version: String,
    pub kind: &'static str,
    pub state: Standing,
    pub enabled: bool,
    /// Batches that it served.
    pub batches: u64,
    pub rows_in: u64,
    pub rows_out: u64,
    pub dropped: Vec<(String, u64)>,
    pub quarantined: u64,
    /// Rows refused because this plugin is a mask and failed.
    pub refused: u64,
    pub faults: u64,
    /// Hand-overs that went wrong on an instance that had served before, and so were tried once more on a fresh one.
    pub restarts: u64,
    pub last_fault: Option<String>,
    /// Batches on which it failed and that the version before it served instead.
    pub rescued: u64,
    /// Time of the thread inside the guest and in the hand-over.
    pub cpu_ns: u64,
    /// Linear memory of the largest instance so far.
    pub memory_bytes: u64,
    pub breaker: &'static str,
    pub log_lines_cut: u64,
    /// Why it may not run.
    pub blocked: Option<String>,
    /// The version that failed and in whose place this one is again.
    pub rolled_back_from: Option<String>,
    /// What a candidate beside it would do.
    pub shadow: Option<ShadowReport>,
}

/// What a version is in its place. Reports carry these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Serves.
    Current,
    /// Serves, is new, and the version before it stands by.
    Probation,
    /// Would serve and is switched off.
    Disabled,
    /// Would serve and may not.
    Blocked,
    /// Stands by while a newer one is on probation.
    Previous,
    /// Runs beside the one that serves, without effect.
    Shadow,
    /// Failed when it was new; the version before it serves again.
    #[serde(rename = "rolled back")]
    RolledBack,
    /// Serves no more.
    Retired,
}

impl Standing {
    /// Whether it is the one version of its place that batches go to.
    pub fn is_in_place(self) -> bool {
        matches!(self, Self::Current | Self::Probation | Self::Disabled | Self::Blocked)
    }
}

/// The counters behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) batches: u64,
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) dropped: BTreeMap<String, u64>,
    pub(crate) quarantined: u64,
    pub(crate) refused: u64,
    pub(crate) faults: u64,
    pub(crate) restarts: u64,
    pub(crate) last_fault: Option<String>,
    pub(crate) rescued: u64,
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
            state: Standing::Current,
            enabled,
            batches: self.batches,
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
            restarts: self.restarts,
            last_fault: self.last_fault.clone(),
            rescued: self.rescued,
            cpu_ns: self.cpu_ns,
            memory_bytes: self.memory_bytes,
            breaker,
            log_lines_cut: self.log_lines_cut,
            blocked: None,
            rolled_back_from: None,
            shadow: None,
        }
    }

    /// Adds what a later life of the same version counted.
    fn add(&mut self, later: &Counters) {
        self.batches += later.batches;
        self.rows_in += later.rows_in;
        self.rows_out += later.rows_out;
        for (reason, rows) in &later.dropped {
            *self.dropped.entry(reason.clone()).or_default() += rows;
        }
        self.quarantined += later.quarantined;
        self.refused += later.refused;
        self.faults += later.faults;
        self.restarts += later.restarts;
        if later.last_fault.is_some() {
            self.last_fault.clone_from(&later.last_fault);
        }
        self.rescued += later.rescued;
        self.cpu_ns = self.cpu_ns.saturating_add(later.cpu_ns);
        self.memory_bytes = self.memory_bytes.max(later.memory_bytes);
        self.log_lines_cut += later.log_lines_cut;
    }
}

/// The counts of every version that was in one place. A version that comes back counts on where it ended.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    /// By the time of their first service.
    list: Vec<Version>,
}

#[derive(Debug)]
struct Version {
    version: String,
    kind: Kind,
    /// Of all its lives. What batches at work still count is not lost with the plugin.
    lives: Vec<Arc<Mutex<Counters>>>,
}

impl Versions {
    /// A version begins to serve.
    pub(crate) fn note(&mut self, edition: &Edition) {
        let plugin = &edition.plugin;
        self.add(&edition.version, plugin.kind(), plugin.counters());
    }

    fn add(&mut self, version: &str, kind: Kind, counters: &Arc<Mutex<Counters>>) {
        let place = self.list.iter().position(|known| known.version == version);
        let known = match place {
            Some(place) => &mut self.list[place],
            None => {
                self.list.push(Version {
                    version: version.to_owned(),
                    kind,
                    lives: Vec::new(),
                });
                let last = self.list.len() - 1;
                &mut self.list[last]
            }
        };
        known.kind = kind;
        if !known.lives.iter().any(|life| Arc::ptr_eq(life, counters)) {
            known.fold();
            known.lives.push(counters.clone());
        }
    }

    /// Forgets the oldest of those that serve no more.
    pub(crate) fn limit(&mut self, serving: &[&str]) {
        let retired = |list: &[Version]| list.iter().filter(|v| !serving.contains(&&*v.version)).count();
        while retired(&self.list) > MAX_RETIRED {
            if let Some(oldest) = self.list.iter().position(|v| !serving.contains(&&*v.version)) {
                self.list.remove(oldest);
            }
        }
    }

    /// Every version with its kind and its counts, the newest first.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&str, Kind, Counters)> {
        self.list.iter().rev().map(|version| {
            let mut sum = Counters::default();
            version.lives.iter().for_each(|life| sum.add(&lock(life)));
            (version.version.as_str(), version.kind, sum)
        })
    }
}

impl Version {
    /// Makes one of all lives that nobody can count for any more.
    fn fold(&mut self) {
        let mut ended = Counters::default();
        let mut folded = 0;
        self.lives.retain(|life| {
            let over = Arc::strong_count(life) == 1;
            if over {
                ended.add(&lock(life));
                folded += 1;
            }
            !over
        });
        if folded > 0 {
            self.lives.insert(0, Arc::new(Mutex::new(ended)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(rows: u64) -> Arc<Mutex<Counters>> {
        Arc::new(Mutex::new(Counters {
            rows_in: rows,
            ..Counters::default()
        }))
    }

    fn rows(versions: &Versions) -> Vec<(String, u64)> {
        versions
            .each()
            .map(|(version, _, counts)| (version.to_owned(), counts.rows_in))
            .collect()
    }

    #[test]
    fn a_version_that_comes_back_counts_on_and_batches_at_work_are_not_lost() {
        let mut versions = Versions::default();
        let at_work = life(5);
        versions.add("1", Kind::Filter, &at_work);
        versions.add("2", Kind::Filter, &life(7));
        versions.add("1", Kind::Filter, &life(10));
        lock(&at_work).rows_in += 1;
        assert_eq!(rows(&versions), [("2".to_owned(), 7), ("1".to_owned(), 16)]);
        drop(at_work);
        for _ in 0..100 {
            versions.add("1", Kind::Filter, &life(1));
        }
        assert_eq!(rows(&versions)[1], ("1".to_owned(), 116));
        assert!(versions.list[0].lives.len() <= 3, "lives that are over do not pile up");
    }

    #[test]
    fn p15_old_versions_are_forgotten_and_those_that_serve_are_not() {
        let mut versions = Versions::default();
        for version in 0..100 {
            versions.add(&version.to_string(), Kind::Filter, &life(1));
            versions.limit(&["0", &version.to_string()]);
        }
        let kept: Vec<String> = rows(&versions).into_iter().map(|(version, _)| version).collect();
        assert_eq!(kept, ["99", "98", "97", "96", "95", "0"]);
    }
}
