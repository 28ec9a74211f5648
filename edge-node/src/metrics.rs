//! The status in the text format of Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sluice_runtime::{PluginStats, ShadowReport, Standing};

use crate::link::LaneStatus;
use crate::source::stats::SourceStatus;
use crate::status::EdgeStatus;

/// One page of metrics.
pub(crate) fn render(status: &EdgeStatus) -> String {
    let mut page = Page(String::with_capacity(4096));
    page.events(status);
    page.sources(status);
    page.disk(status);
    page.link(status);
    page.plugins(status);
    page.0
}

impl EdgeStatus {
    /// In the text format of Prometheus, for a process that has a door of its own.
    pub fn metrics(&self) -> String {
        render(self)
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let list: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escape(v))).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", list.join(","));
    }

    fn events(&mut self, s: &EdgeStatus) {
        self.head(
            "sluice_edge_accepted_total",
            "counter",
            "Events that senders were told are safe.",
        );
        for (signal, n) in [
            ("log", s.accepted.log),
            ("span", s.accepted.span),
            ("metric", s.accepted.metric),
        ] {
            self.labelled("sluice_edge_accepted_total", &[("signal", signal)], n as f64);
        }
        self.one(
            "sluice_edge_requests_total",
            "counter",
            "Requests answered with success.",
            s.requests,
        );
        self.one(
            "sluice_edge_rejected_rows_total",
            "counter",
            "Rows left out of accepted requests.",
            s.rejected_rows,
        );
        self.head("sluice_edge_refused_requests_total", "counter", "Requests turned away.");
        for (reason, n) in &s.refused {
            self.labelled("sluice_edge_refused_requests_total", &[("reason", reason)], *n as f64);
        }
        self.head(
            "sluice_edge_dropped_total",
            "counter",
            "Accepted events that a plugin dropped.",
        );
        for d in &s.dropped {
            let labels = [("plugin", d.plugin.as_str()), ("reason", d.reason.as_str())];
            self.labelled("sluice_edge_dropped_total", &labels, d.rows as f64);
        }
        self.one(
            "sluice_edge_quarantined_total",
            "counter",
            "Accepted events set aside.",
            s.quarantined,
        );
        self.one(
            "sluice_edge_damaged_total",
            "counter",
            "Accepted events lost to damage of the disk.",
            s.damaged,
        );
    }

    fn sources(&mut self, s: &EdgeStatus) {
        let name = "sluice_edge_source_accepted_total";
        self.head(name, "counter", "Events that a source brought and that are safe.");
        for source in &s.sources {
            self.labelled(name, &of_source(source), source.accepted as f64);
        }
        let name = "sluice_edge_source_refused_total";
        self.head(name, "counter", "What a source turned away, by reason.");
        for source in &s.sources {
            for (reason, many) in &source.refused {
                let labels = [
                    ("source", source.name.as_str()),
                    ("kind", source.kind),
                    ("reason", reason),
                ];
                self.labelled(name, &labels, *many as f64);
            }
        }
        let name = "sluice_edge_source_problem";
        self.head(name, "gauge", "1 while an operator should look at a source.");
        for source in &s.sources {
            self.labelled(name, &of_source(source), f64::from(u8::from(source.problem.is_some())));
        }
        self.details(&s.sources, "gauge", "", |source| &source.gauges);
        self.details(&s.sources, "counter", "_total", |source| &source.counters);
    }

    /// What is peculiar to kinds of sources, each under a name of its own.
    fn details(
        &mut self,
        sources: &[SourceStatus],
        kind: &str,
        suffix: &str,
        of: fn(&SourceStatus) -> &BTreeMap<&'static str, u64>,
    ) {
        let names: BTreeSet<&str> = sources.iter().flat_map(|source| of(source).keys().copied()).collect();
        for detail in names {
            let name = format!("sluice_edge_source_{detail}{suffix}");
            self.head(&name, kind, "Peculiar to a kind of source.");
            for source in sources {
                if let Some(value) = of(source).get(detail) {
                    self.labelled(&name, &of_source(source), *value as f64);
                }
            }
        }
    }

    fn disk(&mut self, s: &EdgeStatus) {
        self.one(
            "sluice_edge_journal_bytes",
            "gauge",
            "Size of the journal.",
            s.journal.bytes,
        );
        self.one(
            "sluice_edge_unsealed_bytes",
            "gauge",
            "Accepted rows not in the spool yet.",
            s.journal.unsealed_bytes,
        );
        self.one("sluice_edge_spool_bytes", "gauge", "Size of the spool.", s.spool.bytes);
        self.one(
            "sluice_edge_spool_max_bytes",
            "gauge",
            "Cap of journal and spool.",
            s.spool.max_bytes,
        );
        self.one(
            "sluice_edge_spool_batches",
            "gauge",
            "Batches not acknowledged.",
            s.spool.batches,
        );
        self.one(
            "sluice_edge_sealed_batches_total",
            "counter",
            "Batches sealed.",
            s.sealed_batches,
        );
        self.one(
            "sluice_edge_acknowledged_total",
            "counter",
            "Batches acknowledged.",
            s.spool.acked,
        );
        self.one(
            "sluice_edge_tombstones_total",
            "counter",
            "Batches the gateway can never store.",
            s.spool.tombstoned,
        );
        self.one(
            "sluice_edge_given_up_batches",
            "gauge",
            "Batches dropped to make room, of which the cloud was not told yet.",
            s.spool.given_up,
        );
        self.one(
            "sluice_edge_disk_full",
            "gauge",
            "1 while the disk is full.",
            s.disk_full.into(),
        );
    }

    fn link(&mut self, s: &EdgeStatus) {
        let Some(link) = &s.link else { return };
        self.one(
            "sluice_edge_link_up",
            "gauge",
            "1 while a gateway answers.",
            link.connected.into(),
        );
        self.one(
            "sluice_edge_link_in_flight",
            "gauge",
            "Batches on their way.",
            link.in_flight as u64,
        );
        self.one(
            "sluice_edge_link_held",
            "gauge",
            "Batches that no gateway takes now, such as those larger than its log allows.",
            link.held as u64,
        );
        for (name, kind, help, value) in LANE_SERIES {
            let name = format!("sluice_edge_link_lane_{name}");
            self.head(&name, kind, help);
            for (lane, status) in [("live", &link.lanes.live), ("backlog", &link.lanes.backlog)] {
                self.labelled(&name, &[("lane", lane)], value(status));
            }
        }
        self.one(
            "sluice_edge_link_sessions_total",
            "counter",
            "Times that a gateway welcomed this node.",
            link.sessions,
        );
        self.one(
            "sluice_edge_link_rests_asked_total",
            "counter",
            "Times that a gateway asked to wait.",
            link.retries_asked,
        );
        if let Some(path) = &link.path {
            let rtt = link.rtt_ms.unwrap_or(path.least_rtt_ms) / 1000.0;
            for (name, kind, help, value) in [
                ("rtt_seconds", "gauge", "Round trip to the gateway.", rtt),
                (
                    "least_rtt_seconds",
                    "gauge",
                    "Round trip of the empty link.",
                    path.least_rtt_ms / 1000.0,
                ),
                (
                    "bytes_per_second",
                    "gauge",
                    "What the link was seen to carry lately.",
                    path.bytes_per_second.unwrap_or(0) as f64,
                ),
                (
                    "packets_sent",
                    "gauge",
                    "Packets of this connection.",
                    path.sent_packets as f64,
                ),
                (
                    "packets_lost",
                    "gauge",
                    "Packets of this connection that were lost on the way.",
                    path.lost_packets as f64,
                ),
            ] {
                let name = format!("sluice_edge_link_{name}");
                self.head(&name, kind, help);
                self.labelled(&name, &[("gateway", &link.gateway)], value);
            }
        }
        if let Some(budget) = &link.budget {
            self.one(
                "sluice_edge_link_budget_used_bytes",
                "gauge",
                "Bytes of today, in UTC, that count against the budget of the link.",
                budget.used_today,
            );
            if let Some(left) = budget.left_today {
                self.one(
                    "sluice_edge_link_budget_left_bytes",
                    "gauge",
                    "Bytes of today's budget that are left.",
                    left,
                );
            }
        }
        self.one(
            "sluice_edge_link_sent_bytes_total",
            "counter",
            "Bytes of batches sent.",
            link.sent_bytes,
        );
        self.one(
            "sluice_edge_link_retransmits_total",
            "counter",
            "Batches sent again.",
            link.retransmits,
        );
        self.one(
            "sluice_edge_link_alarm",
            "gauge",
            "1 while a gateway refuses or holds.",
            link.alarm.is_some().into(),
        );
        if let Some(certificate) = &link.certificate {
            self.one(
                "sluice_edge_certificate_expires_seconds",
                "gauge",
                "When the certificate of the link expires, in seconds since 1970.",
                certificate.not_after_unix_s,
            );
            self.one(
                "sluice_edge_certificate_problem",
                "gauge",
                "1 while the certificate of the link is due and not renewed, or files of it are not used.",
                (certificate.problem.is_some() || certificate.files_problem.is_some()).into(),
            );
            self.one(
                "sluice_edge_certificate_renewals_total",
                "counter",
                "Certificates that came over the link.",
                certificate.renewals,
            );
            self.one(
                "sluice_edge_certificate_renewal_failures_total",
                "counter",
                "Requests for a certificate that came to nothing.",
                certificate.renewal_failures,
            );
        }
    }

    fn plugins(&mut self, s: &EdgeStatus) {
        // A candidate may be the same version with another configuration; it has series of its own.
        let plugins = || s.plugins.iter().filter(|plugin| plugin.state != Standing::Shadow);
        for (name, kind, help, value) in PLUGIN_SERIES {
            let name = format!("sluice_edge_plugin_{name}");
            self.head(&name, kind, help);
            for plugin in plugins() {
                self.labelled(&name, &of_plugin(plugin), value(plugin));
            }
        }
        let name = "sluice_edge_plugin_dropped_total";
        self.head(name, "counter", "Events that a version of a plugin dropped.");
        for plugin in plugins() {
            for (reason, rows) in &plugin.dropped {
                let [plugin, version] = of_plugin(plugin);
                self.labelled(name, &[plugin, version, ("reason", reason)], *rows as f64);
            }
        }
        self.one(
            "sluice_edge_plugin_chain_refused",
            "gauge",
            "1 while the chain that was asked for last could not be loaded.",
            s.chain.refused.is_some().into(),
        );
        self.one(
            "sluice_edge_plugin_warnings",
            "gauge",
            "Warnings about the chain; the status page has their text.",
            s.chain.warnings.len() as u64,
        );
        self.shadows(s);
    }

    /// The version is the candidate's.
    fn shadows(&mut self, s: &EdgeStatus) {
        let shadows = || {
            let with_shadow = |plugin| -> Option<(&PluginStats, &ShadowReport)> {
                let plugin: &PluginStats = plugin;
                Some((plugin, plugin.shadow.as_ref()?))
            };
            s.plugins.iter().filter_map(with_shadow)
        };
        for (name, help, value) in SHADOW_SERIES {
            let name = format!("sluice_edge_plugin_shadow_{name}");
            self.head(&name, "counter", help);
            for (plugin, shadow) in shadows() {
                let labels = [("plugin", plugin.name.as_str()), ("version", shadow.version.as_str())];
                self.labelled(&name, &labels, value(shadow));
            }
        }
        let name = "sluice_edge_plugin_shadow_rows_total";
        self.head(name, "counter", "Rows compared, by who would keep them.");
        for (plugin, shadow) in shadows() {
            for (kept, rows) in [
                ("both", shadow.kept_by_both),
                ("current", shadow.kept_by_current_only),
                ("candidate", shadow.kept_by_candidate_only),
                ("neither", shadow.kept_by_neither),
            ] {
                let labels = [
                    ("plugin", plugin.name.as_str()),
                    ("version", shadow.version.as_str()),
                    ("kept_by", kept),
                ];
                self.labelled(name, &labels, rows as f64);
            }
        }
    }
}

fn of_source(source: &SourceStatus) -> [(&'static str, &str); 2] {
    [("source", &source.name), ("kind", source.kind)]
}

fn of_plugin(plugin: &PluginStats) -> [(&'static str, &str); 2] {
    [("plugin", &plugin.name), ("version", &plugin.version)]
}

/// What a series shows of something.
type Value<T> = fn(&T) -> f64;

/// Of each version of each plugin.
const PLUGIN_SERIES: [(&str, &str, &str, Value<PluginStats>); 15] = [
    ("batches_total", "counter", "Batches that a plugin served.", |p| {
        p.batches as f64
    }),
    ("rows_total", "counter", "Rows given to a plugin.", |p| p.rows_in as f64),
    ("rows_out_total", "counter", "Rows that a plugin let pass.", |p| {
        p.rows_out as f64
    }),
    ("quarantined_total", "counter", "Rows that a plugin set aside.", |p| {
        p.quarantined as f64
    }),
    ("refused_total", "counter", "Events that a mask refused.", |p| {
        p.refused as f64
    }),
    ("faults_total", "counter", "Failures of a plugin.", |p| p.faults as f64),
    (
        "restarts_total",
        "counter",
        "Calls that failed on a used instance and were tried again on a fresh one.",
        |p| p.restarts as f64,
    ),
    (
        "rescued_total",
        "counter",
        "Batches that the version before served, because this one failed.",
        |p| p.rescued as f64,
    ),
    ("cpu_seconds_total", "counter", "CPU time of a plugin.", |p| {
        p.cpu_ns as f64 / 1e9
    }),
    (
        "log_lines_cut_total",
        "counter",
        "Lines of a plugin's log that were over its limit.",
        |p| p.log_lines_cut as f64,
    ),
    ("memory_bytes", "gauge", "Memory of the largest instance so far.", |p| {
        p.memory_bytes as f64
    }),
    (
        "enabled",
        "gauge",
        "0 while a plugin is switched off or replaced.",
        |p| f64::from(u8::from(p.enabled)),
    ),
    (
        "breaker_open",
        "gauge",
        "1 while a plugin is not called because it failed too often.",
        |p| f64::from(u8::from(p.breaker != "closed")),
    ),
    ("on_probation", "gauge", "1 while the version before stands by.", |p| {
        f64::from(u8::from(p.state == Standing::Probation))
    }),
    (
        "rolled_back",
        "gauge",
        "1 where a newer version failed and this one serves again.",
        |p| f64::from(u8::from(p.rolled_back_from.is_some())),
    ),
];

/// Of each lane.
const LANE_SERIES: [(&str, &str, &str, Value<LaneStatus>); 5] = [
    ("batches", "gauge", "Batches that are not acknowledged.", |l| {
        l.batches as f64
    }),
    ("bytes", "gauge", "About how many bytes they are on disk.", |l| {
        l.bytes as f64
    }),
    ("in_flight", "gauge", "Batches on their way.", |l| l.in_flight as f64),
    (
        "resting",
        "gauge",
        "1 while the gateway asked this lane to wait.",
        |l| f64::from(u8::from(l.rests)),
    ),
    (
        "sent_bytes_total",
        "counter",
        "Bytes of batches given to the transport.",
        |l| l.sent_bytes as f64,
    ),
];

/// Of each candidate.
const SHADOW_SERIES: [(&str, &str, Value<ShadowReport>); 6] = [
    ("batches_total", "Batches compared with a candidate.", |s| {
        s.batches as f64
    }),
    ("skipped_total", "Batches that a busy candidate was not given.", |s| {
        s.skipped as f64
    }),
    ("rows_different_total", "Rows kept by both that differ.", |s| {
        s.rows_different as f64
    }),
    ("faults_total", "Failures of a candidate.", |s| {
        s.faults_candidate as f64
    }),
    ("cpu_seconds_total", "CPU time of a candidate.", |s| {
        s.cpu_ns_candidate as f64 / 1e9
    }),
    (
        "current_cpu_seconds_total",
        "CPU time of the version that serves, for the same batches.",
        |s| s.cpu_ns_current as f64 / 1e9,
    ),
];

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
