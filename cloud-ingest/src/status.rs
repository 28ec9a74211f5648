//! What ingest says of itself: the gateway's counters, and per partition where log, hot and cold are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use sluice_store::Stores;
use sluice_store::cold::{Balance, Hole};
use sluice_wire::ids::Partition;
use tokio::sync::{Notify, watch};

use crate::gateway;
use crate::gateway::GatewayStatus;
use crate::log::Log;
use crate::tenants;

/// Shared by the writers: what they count, and how they wake each other.
#[derive(Debug, Default)]
pub struct WriterCounters {
    pub(crate) commits: AtomicU64,
    pub(crate) committed_rows: AtomicU64,
    pub(crate) commit_failures: AtomicU64,
    /// Cold files that were replaced by fewer ones, and files that were deleted.
    pub(crate) merged_files: AtomicU64,
    pub(crate) removed_files: AtomicU64,
    pub(crate) tidy_failures: AtomicU64,
    pub(crate) erased_rows: AtomicU64,
    /// Batches that can neither be stored nor set aside, because there is no room.
    pub(crate) not_set_aside: AtomicU64,
    /// Of a shared hot store: rows inserted, claims made, times that it took nothing, that an outcome was unknown, that rows it had
    /// acknowledged were gone, and that rows of lost claims were deleted.
    pub(crate) hot_rows: AtomicU64,
    pub(crate) hot_claims: AtomicU64,
    pub(crate) hot_busy: AtomicU64,
    pub(crate) hot_doubts: AtomicU64,
    pub(crate) hot_losses: AtomicU64,
    pub(crate) hot_sweeps: AtomicU64,
    /// How far the clock of this machine is ahead of the time that is believed, in seconds: an alarm.
    pub(crate) clock_ahead_s: AtomicU64,
    /// What the last look at the ledger found.
    pub(crate) balance: watch::Sender<Option<Balance>>,
    /// Hot is full and waits for cold.
    pub(crate) pressure: Notify,
    /// Counts the times that hot may have got room.
    pub(crate) freed: watch::Sender<u64>,
}

impl WriterCounters {
    pub(crate) fn committed(&self, rows: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.committed_rows.fetch_add(rows as u64, Ordering::Relaxed);
    }
}

/// One look at ingest.
#[derive(Clone, Debug, Serialize)]
pub struct IngestStatus {
    pub gateway: Option<GatewayStatus>,
    /// Why the log cannot be used at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_trouble: Option<String>,
    pub partitions: Vec<PartitionStatus>,
    pub hot_bytes: u64,
    pub hot_cap_bytes: u64,
    /// Of a shared hot store, by this process.
    pub hot_rows: u64,
    pub hot_claims: u64,
    pub hot_busy: u64,
    pub hot_doubts: u64,
    pub hot_losses: u64,
    pub hot_sweeps: u64,
    pub commits: u64,
    pub committed_rows: u64,
    pub commit_failures: u64,
    /// Files and bytes of the cold table; unknown while it cannot be read.
    pub cold_files: Option<u64>,
    pub cold_bytes: Option<u64>,
    /// Small files that became fewer ones, and files that were removed from the lake.
    pub merged_files: u64,
    pub removed_files: u64,
    pub tidy_failures: u64,
    /// Rows taken out of cold because they were erased, or older than their tenant's retention.
    pub erased_rows: u64,
    /// Batches that could neither be stored nor set aside: an alarm.
    pub not_set_aside: u64,
    /// How far the clock is ahead of the time by which is deleted for age: an alarm, and nothing more is deleted than by that time.
    pub clock_ahead_seconds: u64,
    /// Ledger rows of cold against which its rows were counted last; absent: not yet by this process.
    pub ledger_checked: Option<u64>,
    /// Where the ledger does not hold: an alarm. At most so many ranges are named (`sluice_store::cold::MAX_HOLES`) for each kind.
    pub ledger_broken: Vec<Hole>,
}

/// How far one partition is. Ends are next offsets.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionStatus {
    pub partition: i64,
    pub log_first: u64,
    pub log_end: u64,
    pub log_bytes: u64,
    pub hot_end: Option<u64>,
    pub cold_end: Option<u64>,
    /// Records of the log that no store shows yet.
    pub lag: u64,
}

/// Reads the status at any time.
#[derive(Clone)]
pub struct StatusHandle {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) stores: Stores,
    pub(crate) gateway: Option<gateway::StatusHandle>,
    pub(crate) counters: Arc<WriterCounters>,
}

impl std::fmt::Debug for StatusHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusHandle").finish_non_exhaustive()
    }
}

impl StatusHandle {
    /// Asks the cold table too, so it may fail to know the cold ends; then they are absent.
    pub async fn snapshot(&self) -> IngestStatus {
        let read = self.stores.cold.extent().await.ok();
        let is_known = read.is_some();
        let cold = read.unwrap_or_default();
        let partitions = self
            .log
            .partitions()
            .into_iter()
            .map(|p| self.partition(p, &cold.committed))
            .collect();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let balance = self.counters.balance.borrow().clone();
        IngestStatus {
            gateway: self.gateway.as_ref().map(gateway::StatusHandle::snapshot),
            log_trouble: self.log.trouble(),
            partitions,
            hot_bytes: self.stores.hot.bytes(),
            hot_cap_bytes: self.stores.hot.cap_bytes(),
            hot_rows: load(&self.counters.hot_rows),
            hot_claims: load(&self.counters.hot_claims),
            hot_busy: load(&self.counters.hot_busy),
            hot_doubts: load(&self.counters.hot_doubts),
            hot_losses: load(&self.counters.hot_losses),
            hot_sweeps: load(&self.counters.hot_sweeps),
            commits: load(&self.counters.commits),
            committed_rows: load(&self.counters.committed_rows),
            commit_failures: load(&self.counters.commit_failures),
            cold_files: is_known.then_some(cold.files),
            cold_bytes: is_known.then_some(cold.bytes),
            merged_files: load(&self.counters.merged_files),
            removed_files: load(&self.counters.removed_files),
            tidy_failures: load(&self.counters.tidy_failures),
            erased_rows: load(&self.counters.erased_rows),
            not_set_aside: load(&self.counters.not_set_aside),
            clock_ahead_seconds: load(&self.counters.clock_ahead_s),
            ledger_checked: balance.as_ref().map(|balance| balance.records),
            ledger_broken: balance.map(|balance| balance.holes).unwrap_or_default(),
        }
    }

    fn partition(&self, partition: Partition, cold: &BTreeMap<Partition, u64>) -> PartitionStatus {
        let log_end = self.log.end(partition);
        let hot_end = self.stores.hot.claimed(partition).map(|(_, next)| next);
        let cold_end = cold.get(&partition).map(|last| last + 1);
        PartitionStatus {
            partition: partition.as_i64(),
            log_first: self.log.first(partition),
            log_end,
            log_bytes: self.log.bytes(partition),
            hot_end,
            cold_end,
            lag: log_end.saturating_sub(hot_end.max(cold_end).unwrap_or(0)),
        }
    }
}

impl IngestStatus {
    /// In Prometheus' text format.
    pub fn metrics(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let mut put = |name: &str, kind: &str, help: &str, values: Vec<(String, u64)>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let one = |value| vec![(String::new(), value)];
        let each = |value: fn(&PartitionStatus) -> Option<u64>| {
            let labelled = |p: &PartitionStatus| Some((format!("{{partition=\"{}\"}}", p.partition), value(p)?));
            self.partitions.iter().filter_map(labelled).collect::<Vec<_>>()
        };
        put(
            "sluice_log_up",
            "gauge",
            "Whether the log can be used: 0 while it is out of reach.",
            one(u64::from(self.log_trouble.is_none())),
        );
        put(
            "sluice_log_end",
            "gauge",
            "Next offset of the log.",
            each(|p| Some(p.log_end)),
        );
        put(
            "sluice_log_bytes",
            "gauge",
            "Bytes of the log on disk.",
            each(|p| Some(p.log_bytes)),
        );
        put(
            "sluice_hot_end",
            "gauge",
            "Next offset that hot will hold.",
            each(|p| p.hot_end),
        );
        put(
            "sluice_cold_end",
            "gauge",
            "Next offset that cold will hold.",
            each(|p| p.cold_end),
        );
        put(
            "sluice_lag_records",
            "gauge",
            "Log records that no store shows yet.",
            each(|p| Some(p.lag)),
        );
        put(
            "sluice_hot_bytes",
            "gauge",
            "Bytes of rows held in hot.",
            one(self.hot_bytes),
        );
        let shared = [
            ("rows", "Rows inserted into a shared hot store.", self.hot_rows),
            (
                "claims",
                "Claims of a partition of a shared hot store.",
                self.hot_claims,
            ),
            (
                "busy",
                "Inserts that a shared hot store refused for the moment.",
                self.hot_busy,
            ),
            (
                "doubts",
                "Times that the outcome in a shared hot store was unknown.",
                self.hot_doubts,
            ),
            (
                "losses",
                "Times that rows which hot had acknowledged were gone: an alarm.",
                self.hot_losses,
            ),
            (
                "sweeps",
                "Times that rows of lost claims were deleted from hot.",
                self.hot_sweeps,
            ),
        ];
        for (name, help, value) in shared {
            put(&format!("sluice_hot_{name}_total"), "counter", help, one(value));
        }
        put(
            "sluice_cold_commits_total",
            "counter",
            "Commits to the cold table.",
            one(self.commits),
        );
        put(
            "sluice_cold_rows_total",
            "counter",
            "Rows committed to the cold table.",
            one(self.committed_rows),
        );
        put(
            "sluice_cold_failures_total",
            "counter",
            "Commits that failed and were tried again.",
            one(self.commit_failures),
        );
        let known = |value: Option<u64>| {
            value
                .map(|value| (String::new(), value))
                .into_iter()
                .collect::<Vec<_>>()
        };
        put(
            "sluice_cold_files",
            "gauge",
            "Files of the cold table.",
            known(self.cold_files),
        );
        put(
            "sluice_cold_bytes",
            "gauge",
            "Bytes of the cold table's files.",
            known(self.cold_bytes),
        );
        put(
            "sluice_cold_merged_files_total",
            "counter",
            "Small cold files that became fewer ones.",
            one(self.merged_files),
        );
        put(
            "sluice_cold_removed_files_total",
            "counter",
            "Cold files that nothing needed any more.",
            one(self.removed_files),
        );
        put(
            "sluice_cold_tidy_failures_total",
            "counter",
            "Times that merging, removing or counting cold files failed.",
            one(self.tidy_failures),
        );
        put(
            "sluice_erased_rows_total",
            "counter",
            "Rows taken out of cold because they were erased or too old.",
            one(self.erased_rows),
        );
        put(
            "sluice_not_set_aside_total",
            "counter",
            "Batches that could neither be stored nor set aside: an alarm.",
            one(self.not_set_aside),
        );
        put(
            "sluice_retention_clock_ahead_seconds",
            "gauge",
            "How far this machine's clock is ahead of the time by which is deleted for age; above 0 is an alarm.",
            one(self.clock_ahead_seconds),
        );
        put(
            "sluice_ledger_checked_records",
            "gauge",
            "Ledger rows of cold against which its rows were counted last.",
            known(self.ledger_checked),
        );
        put(
            "sluice_ledger_broken",
            "gauge",
            "Ranges of offsets at which the ledger does not hold; above 0 is an alarm.",
            one(self.ledger_broken.len() as u64),
        );
        put(
            "sluice_ledger_broken_events",
            "gauge",
            "Events that are missing, too many or without a name, by stream and offsets: an alarm.",
            self.ledger_broken.iter().map(broken).collect(),
        );
        if let Some(g) = &self.gateway {
            put("sluice_gateway_sessions", "gauge", "Edges connected.", one(g.sessions));
            put(
                "sluice_gateway_batches_total",
                "counter",
                "Batches received.",
                one(g.batches_received),
            );
            put(
                "sluice_gateway_bytes_total",
                "counter",
                "Bytes of batches received.",
                one(g.bytes_received),
            );
            put(
                "sluice_gateway_acknowledged_total",
                "counter",
                "Batches durable and acknowledged.",
                one(g.batches_acknowledged),
            );
            put(
                "sluice_gateway_rows_total",
                "counter",
                "Rows of acknowledged batches.",
                one(g.rows_acknowledged),
            );
            put(
                "sluice_gateway_invalid_total",
                "counter",
                "Batches refused for good.",
                one(g.batches_invalid),
            );
            put(
                "sluice_gateway_backlog_rests_total",
                "counter",
                "Batches of the backlog that had to wait because hot is behind the log.",
                one(g.backlog_rests),
            );
            put(
                "sluice_gateway_quota_holds_total",
                "counter",
                "Batches held back: their edge's share of the state of duplicates is used up.",
                one(g.quota_holds),
            );
            for (name, kind, help, values) in tenants::metrics(&g.tenants) {
                put(name, kind, help, values);
            }
            put(
                "sluice_gateway_tenant_refused_total",
                "counter",
                "Sessions refused or ended because their tenant is suspended or not known: an alarm.",
                one(g.refused_tenant + g.cut_tenant),
            );
            put(
                "sluice_gateway_identity_refused_total",
                "counter",
                "Peers without a usable identity.",
                one(g.refused_identity),
            );
            put(
                "sluice_gateway_foreign_refused_total",
                "counter",
                "Batches that said they are of another tenant or node than their session: an alarm.",
                one(g.refused_foreign),
            );
            put(
                "sluice_gateway_handshakes_failed_total",
                "counter",
                "Peers whose certificate no authority of ours vouches for, is expired or is missing.",
                one(g.handshakes_failed),
            );
            put(
                "sluice_gateway_overload_refused_total",
                "counter",
                "Connections refused because there are as many as there may be.",
                one(g.refused_overload),
            );
            put(
                "sluice_gateway_protocol_refused_total",
                "counter",
                "Peers that do not speak as LINK.md has it.",
                one(g.refused_protocol),
            );
            put(
                "sluice_gateway_revoked_refused_total",
                "counter",
                "Peers with a revoked certificate.",
                one(g.refused_revoked),
            );
            let cut = |reason: &str, count| (format!("{{reason=\"{reason}\"}}"), count);
            put(
                "sluice_gateway_sessions_cut_total",
                "counter",
                "Sessions ended because of their certificate.",
                vec![cut("revoked", g.cut_revoked), cut("expired", g.cut_expired)],
            );
            put(
                "sluice_gateway_renewals_total",
                "counter",
                "Certificates that edges got over the link.",
                one(g.renewals),
            );
            put(
                "sluice_gateway_renewal_failures_total",
                "counter",
                "Requests for a certificate that came to nothing.",
                one(g.renewal_failures),
            );
            put(
                "sluice_gateway_renewal_only_sessions",
                "gauge",
                "Edges connected with an expired certificate, which may do nothing but renew it.",
                one(g.sessions_renewal_only),
            );
            put(
                "sluice_gateway_certificate_expires_seconds",
                "gauge",
                "When the gateway's own certificate expires, in seconds since 1970.",
                one(g.certificate_expires_unix_s),
            );
            put(
                "sluice_gateway_reload_failures_total",
                "counter",
                "Changed certificates or deny lists that could not be used.",
                one(g.reload_failures),
            );
        }
        text
    }
}

/// The labels of a range at which the ledger does not hold. Names come from stored rows, which may be damaged.
fn broken(hole: &Hole) -> (String, u64) {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels = format!(
        "{{wrong=\"{}\",tenant=\"{}\",stream=\"{}\",partition=\"{}\",first=\"{}\",last=\"{}\"}}",
        hole.wrong.as_str(),
        quoted(&hole.tenant),
        quoted(&hole.stream),
        hole.partition,
        hole.first,
        hole.last
    );
    (labels, hole.events)
}
