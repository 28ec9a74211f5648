//! The standard plugins as components: what their fixtures expect, natively tested in their own workspace, holds in the sandbox too.
//! The same fixtures go through components that were released before and are kept: they must run for ever.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_schema::DataType;
use sluice_plugin_fixture::{Actual, Fixture, Layout, batch, rows};
use sluice_runtime::{Call, Chain, Hints, OnFault, Plugin, PluginConfig, TableSource};
use sluice_wire::Signal;

use crate::common::{component, entry, host};

/// Fixtures that a standard plugin has at least, so that an empty folder is no success.
const LEAST: usize = 4;

#[test]
fn standard_plugins_do_in_the_sandbox_what_their_fixtures_say() {
    for name in ["sample", "mask", "enrich", "filter", "cardinality"] {
        let folder = root().join("../plugins").join(name).join("fixtures");
        check_all(name, &component(name), &folder, LEAST);
    }
}

#[test]
fn components_of_contract_1_0_that_were_released_keep_running() {
    let golden = root().join("tests/golden/1.0.0");
    for name in ["filter", "cardinality", "enrich"] {
        let component = fs::read(golden.join(format!("{name}.wasm"))).unwrap();
        check_all(name, &component, &golden.join(name), 1);
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn check_all(name: &str, component: &[u8], folder: &Path, least: usize) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    assert!(files.len() >= least, "{}: {} fixtures", folder.display(), files.len());
    // As long as a plugin lives, its machine code does, and is not made anew for the next fixture.
    let mut alive = Vec::new();
    for file in files {
        let fixture = Fixture::parse(&fs::read_to_string(&file).unwrap()).unwrap();
        for layout in [Layout::Plain, Layout::Dictionary] {
            // State outlives plugins; of each run it is another tenant's.
            let tenant = format!("{}-{layout:?}", file.display());
            let differences = fixture
                .expect
                .differences(&run(name, component, &fixture, layout, &tenant, &mut alive));
            assert!(
                differences.is_empty(),
                "{} ({layout:?}): {differences:#?}",
                file.display()
            );
        }
    }
}

fn run(
    name: &str,
    component: &[u8],
    fixture: &Fixture,
    layout: Layout,
    tenant: &str,
    alive: &mut Vec<Arc<Plugin>>,
) -> Actual {
    let folder = tempfile::tempdir().unwrap();
    let tables = fixture.tables.iter().map(|(table, content)| {
        let path = folder.path().join(format!("{table}.csv"));
        fs::write(&path, content.csv()).unwrap();
        TableSource {
            name: table.clone(),
            path,
            key: None,
        }
    });
    let mut config = PluginConfig {
        on_fault: Some(OnFault::Quarantine),
        ..entry(name, component.to_vec(), fixture.config.clone())
    };
    config.grants.tables = tables.collect();
    let failed = |error: String| Actual {
        error: Some(error),
        ..Actual::default()
    };
    let plugin = match host().load(config) {
        Ok(plugin) => plugin,
        Err(error) => return failed(error.to_string()),
    };
    alive.push(plugin.clone());
    let given = batch(&fixture.rows, &fixture.defaults(), layout).unwrap();
    let signal = match fixture.signal.as_str() {
        "span" => Signal::Span,
        "metric" => Signal::Metric,
        _ => Signal::Log,
    };
    let call = Call {
        hints: Hints {
            share: fixture.share,
            row_bytes: fixture.row_bytes,
        },
        ..Call::new(signal, u64::try_from(fixture.now).unwrap(), tenant)
    };
    let outcome = match Chain::new(vec![plugin.clone()]).run(given, &call) {
        Ok(outcome) => outcome,
        Err(refused) => return failed(refused.fault),
    };
    if let Some(fault) = plugin.stats().last_fault {
        return failed(fault);
    }
    let mut drops = BTreeMap::new();
    for dropped in outcome.dropped {
        *drops.entry(dropped.reason).or_insert(0) += dropped.rows;
    }
    let (stayed, quarantined) = apart(&outcome.batch);
    Actual {
        rows: rows(&stayed).unwrap(),
        drops,
        quarantined,
        error: None,
    }
}

/// The rows that stayed, and those that were set aside by reason.
fn apart(all: &RecordBatch) -> (RecordBatch, BTreeMap<String, u64>) {
    let Some(reasons) = all.column_by_name("quarantine_reason") else {
        return (all.clone(), BTreeMap::new());
    };
    let reasons = arrow_cast::cast(reasons, &DataType::Utf8).unwrap();
    let reasons = reasons.as_string::<i32>();
    let mut quarantined = BTreeMap::new();
    for reason in reasons.iter().flatten() {
        *quarantined.entry(reason.to_owned()).or_insert(0) += 1;
    }
    let stays: BooleanArray = (0..reasons.len()).map(|row| Some(reasons.is_null(row))).collect();
    let stayed = arrow_select::filter::filter_record_batch(all, &stays).unwrap();
    let shown: Vec<usize> = (0..stayed.num_columns())
        .filter(|column| !stayed.schema_ref().field(*column).name().starts_with("quarantine"))
        .collect();
    (stayed.project(&shown).unwrap(), quarantined)
}
