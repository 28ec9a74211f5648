//! Counters as `/metrics` shows them, of a query node and of a worker.

use std::fmt::Write;

use axum::response::{IntoResponse, Response};
use http::header;
use sluice_store::Reads;

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, kind, what it means, value.
pub(crate) type Total = (&'static str, &'static str, &'static str, u64);

pub(crate) fn write(text: &mut String, totals: impl IntoIterator<Item = Total>) {
    for (name, kind, help, value) in totals {
        // writing to a String cannot fail
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
}

pub(crate) fn page(text: String) -> Response {
    ([(header::CONTENT_TYPE, PROMETHEUS)], text).into_response()
}

/// What everybody who reads cold files says of it.
pub(crate) fn of_reads(reads: &Reads) -> [Total; 4] {
    [
        (
            "sluice_query_lake_reads_total",
            "counter",
            "Reads of cold files in the lake.",
            reads.lake_reads,
        ),
        (
            "sluice_query_lake_bytes_total",
            "counter",
            "Bytes of cold files that the lake gave.",
            reads.lake_bytes,
        ),
        (
            "sluice_query_disk_hit_bytes_total",
            "counter",
            "Bytes of cold files that were on this machine's disk.",
            reads.disk_hit_bytes,
        ),
        (
            "sluice_query_footers",
            "gauge",
            "Cold files whose parsed footers are in memory.",
            reads.footers,
        ),
    ]
}
