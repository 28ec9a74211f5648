//! The status in the text format of Prometheus.

use std::fmt::Write as _;

use crate::status::EdgeStatus;

/// One page of metrics.
pub(crate) fn render(status: &EdgeStatus) -> String {
    let mut page = Page(String::with_capacity(4096));
    page.events(status);
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

type PluginValue = fn(&sluice_runtime::PluginStats) -> f64;

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
    }

    fn plugins(&mut self, s: &EdgeStatus) {
        let series: [(&str, &str, PluginValue); 4] = [
            ("sluice_edge_plugin_rows_total", "Rows given to a plugin.", |p| {
                p.rows_in as f64
            }),
            ("sluice_edge_plugin_faults_total", "Failures of a plugin.", |p| {
                p.faults as f64
            }),
            ("sluice_edge_plugin_cpu_seconds_total", "CPU time of a plugin.", |p| {
                p.cpu_ns as f64 / 1e9
            }),
            ("sluice_edge_plugin_refused_total", "Events that a mask refused.", |p| {
                p.refused as f64
            }),
        ];
        for (name, help, value) in series {
            self.head(name, "counter", help);
            for plugin in &s.plugins {
                self.labelled(
                    name,
                    &[("plugin", &plugin.name), ("version", &plugin.version)],
                    value(plugin),
                );
            }
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
