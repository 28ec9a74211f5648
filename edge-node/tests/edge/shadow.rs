//! A candidate beside a plugin of a running node.

use std::path::Path;
use std::time::Duration;

use arrow_array::RecordBatch;
use sluice_edge::config::ShadowEntry;
use sluice_runtime::ShadowReport;
use sluice_wire::Signal;

use crate::client::{PROTOBUF, http, post, request};
use crate::cloud::Cloud;
use crate::node::{TestNode, config, eventually};
use crate::plugins::plugin;

const REQUESTS: usize = 20;
const ROWS: usize = 5;

/// What is sealed of the requests, and what the candidate did.
fn run(shadow: Option<ShadowEntry>) -> (Vec<RecordBatch>, Cloud, Option<ShadowReport>) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let mut entry = plugin("s", "sample", "{ rate = 1.0 }");
    entry.shadow = shadow;
    config.plugin = vec![entry];
    // Everything is sealed as one batch when the node ends.
    config.seal.offline_age = Duration::from_secs(3600);
    let node = TestNode::start(config);
    let address = node.address("otlp-http");
    let report = || node.status.snapshot().plugins[0].shadow.clone();
    for n in 0..REQUESTS {
        let body = request(Signal::Span, &format!("{n:02}"), ROWS, "");
        let answer = node
            .runtime
            .block_on(async { post(&http(), address, "/v1/traces", PROTOBUF, body).await.unwrap() });
        assert_eq!(answer.status, 200);
        eventually("the candidate has seen its share", || {
            report().is_none_or(|report| report.waiting == 0)
        });
    }
    let report = report();
    let (spool, status) = (node.spool.clone(), node.status.clone());
    node.stop();
    let served = &status.snapshot().plugins[0];
    assert_eq!((served.rows_in, served.rows_out, served.faults), (100, 100, 0));
    let cloud = Cloud::of(&spool);
    (cloud.rows.iter().map(without_arrival).collect(), cloud, report)
}

/// The time of arrival differs between two runs, and nothing else may.
fn without_arrival(batch: &RecordBatch) -> RecordBatch {
    let names = batch.schema();
    let keep: Vec<usize> = (0..batch.num_columns())
        .filter(|column| names.field(*column).name() != "observed_time")
        .collect();
    batch.project(&keep).unwrap()
}

/// The same plugin with another configuration.
fn told(config: &str) -> ShadowEntry {
    ShadowEntry {
        version: None,
        path: None,
        unsigned: false,
        config: Some(toml::from_str(config).unwrap()),
        share: 0.5,
    }
}

#[test]
fn a_candidate_leaves_every_row_as_it_is_and_its_report_is_true() {
    let (alone, cloud, none) = run(None);
    assert_eq!((cloud.order.len(), none), (REQUESTS * ROWS, None));
    let (beside, with_candidate, report) = run(Some(told("rate = 0.0")));
    assert_eq!(alone, beside);
    assert_eq!(
        (&cloud.order, &cloud.counts),
        (&with_candidate.order, &with_candidate.counts)
    );
    let report = report.unwrap();
    assert_eq!((report.batches, report.rows, report.skipped), (10, 50, 0));
    assert_eq!((report.kept_by_current_only, report.kept_by_both), (50, 0));
    assert_eq!(report.dropped_by_candidate.values().sum::<u64>(), 50);
    assert!(report.dropped_by_current.is_empty() && report.cpu_ns_per_row_candidate > 0.0);
}

#[test]
fn p11_beside_a_mask_only_a_mask_runs_and_what_cannot_be_loaded_has_no_effect_either() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
    let shadow = |path| {
        Some(ShadowEntry {
            version: None,
            path: Some(path),
            unsigned: true,
            config: None,
            share: 1.0,
        })
    };
    let mut beside_mask = plugin("m", "faulty_mask", "{ mode = \"ok\" }");
    beside_mask.shadow = shadow(dist.join("faulty.wasm"));
    let mut beside_filter = plugin("f", "faulty", "{ mode = \"ok\" }");
    beside_filter.shadow = shadow(dir.path().join("nowhere.wasm"));
    config.plugin = vec![beside_mask, beside_filter];
    let node = TestNode::start(config);
    let status = node.status.snapshot();
    assert!(status.plugins.iter().all(|plugin| plugin.shadow.is_none()));
    let warnings = status.chain.warnings.join("\n");
    assert!(
        warnings.contains("only a mask can run") && warnings.contains("nowhere.wasm"),
        "{warnings}"
    );
    node.stop();
}
