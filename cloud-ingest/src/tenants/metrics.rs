//! What tenants used, for Prometheus.

use std::collections::BTreeMap;

use super::meter::TenantStatus;

/// Name, kind, help, and its values with their labels.
pub type Metric = (&'static str, &'static str, &'static str, Vec<(String, u64)>);

/// One series by tenant. A name of a tenant needs no escapes.
pub fn metrics(tenants: &BTreeMap<String, TenantStatus>) -> Vec<Metric> {
    let each = |value: fn(&TenantStatus) -> u64| {
        let labelled = |(name, status): (&String, &TenantStatus)| (format!("{{tenant=\"{name}\"}}"), value(status));
        tenants.iter().map(labelled).collect::<Vec<_>>()
    };
    let held = tenants.iter().flat_map(|(name, status)| {
        [
            ("events_per_second", status.held_events_per_second),
            ("bytes_per_second", status.held_bytes_per_second),
            ("bytes_per_day", status.held_bytes_per_day),
            ("memory", status.held_memory),
        ]
        .map(|(limit, count)| (format!("{{tenant=\"{name}\",limit=\"{limit}\"}}"), count))
    });
    vec![
        (
            "sluice_tenant_taken_total",
            "counter",
            "Batches taken of a tenant; at the OTLP door, requests.",
            each(|status| status.taken),
        ),
        (
            "sluice_tenant_events_total",
            "counter",
            "Events in them.",
            each(|status| status.events),
        ),
        (
            "sluice_tenant_bytes_total",
            "counter",
            "Bytes of them as they travel.",
            each(|status| status.bytes),
        ),
        (
            "sluice_tenant_bytes_today",
            "gauge",
            "The same since midnight, UTC.",
            each(|status| status.bytes_today),
        ),
        (
            "sluice_tenant_held_total",
            "counter",
            "Batches of a tenant that were told to come later, by the limit that it was over.",
            held.collect(),
        ),
        (
            "sluice_tenant_refused_total",
            "counter",
            "Batches that were decoded and not taken; at the OTLP door, requests.",
            each(|status| status.refused),
        ),
        (
            "sluice_tenant_refused_bytes_total",
            "counter",
            "Bytes of them, which count for bytes_per_second.",
            each(|status| status.refused_bytes),
        ),
    ]
}
