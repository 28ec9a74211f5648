//! Tests of plugins without Wasm: rows in, rows out.
//!
//! ```
//! # use sluice_plugin::prelude::*;
//! # #[sluice_plugin(kind = filter, reads = ["severity", "service"])]
//! # fn keep(row: Row) -> bool { row.severity() >= WARN || row.service() == "checkout" }
//! # fn main() {
//! use sluice_plugin::testing::{Tester, json};
//!
//! let mut keep = Tester::<Keep>::new(json!({})).unwrap();
//! let after = keep.run(json!([
//!     {"body": "hello", "severity": 9},
//!     {"body": "help", "severity": 17},
//! ]));
//! assert_eq!(after.rows.len(), 1);
//! assert_eq!(after.drops["filtered"], 1);
//! # }
//! ```
//!
//! [`check_fixtures`] does it for every file of a folder (FIXTURES.md of this crate). The code takes the same way as in the
//! host: only the declared columns are handed over, as Arrow IPC, and what comes back is checked.

mod apply;
mod bench;
mod host;

use std::fs;
use std::path::Path;

use arrow_array::RecordBatch;
use serde_json::Value;
pub use serde_json::json;
pub use sluice_plugin_fixture::{
    Actual, Defaults, Fixture, Layout, Row, Table, batch as batch_of_rows, rows as rows_of_batch,
};

pub use bench::{BENCH_ROWS, Rate, bench};
pub use host::Host;

use crate::{Batch, Context, Hints, Outcome, Plugin, Signal, glue};

/// A plugin that has been given its configuration.
#[derive(Debug)]
pub struct Tester<P> {
    plugin: P,
    pub context: Context,
    pub layout: Layout,
}

impl<P: Plugin> Tester<P> {
    /// The error is that of the configuration or of `init`.
    pub fn new(config: Value) -> Result<Self, String> {
        Ok(Tester {
            plugin: glue::init::<P>(&config.to_string())?,
            context: Context::default(),
            layout: Layout::Plain,
        })
    }

    /// Sets the time of the batch and of the clock, in nanoseconds since 1970.
    pub fn at(&mut self, now: u64) -> &mut Self {
        self.context.now = now;
        Host::set_clock(now / 1_000_000);
        self
    }

    /// What the plugin makes of these rows. Panics if they are no rows; an error of the plugin is in the answer.
    pub fn run(&mut self, rows: Value) -> Actual {
        self.run_batch(&self.batch(rows))
    }

    /// A batch of rows, with the time and signal of the context where a row has none.
    pub fn batch(&self, rows: Value) -> RecordBatch {
        let defaults = Defaults {
            signal: signal_name(self.context.signal).to_owned(),
            time: self.context.now as i64,
        };
        match batch(rows, &defaults, self.layout) {
            Ok(batch) => batch,
            Err(what) => panic!("{what}"),
        }
    }

    /// What the plugin makes of a whole batch, of which it sees the columns that it declared.
    pub fn run_batch(&mut self, batch: &RecordBatch) -> Actual {
        match self
            .outcome(batch)
            .and_then(|outcome| apply::apply::<P>(batch, &outcome))
        {
            Ok(actual) => actual,
            Err(error) => Actual {
                error: Some(error),
                ..Actual::default()
            },
        }
    }

    /// The answer itself.
    pub fn outcome(&mut self, batch: &RecordBatch) -> Result<Outcome, String> {
        let handed_over = self.hand_over(batch)?;
        let outcome = self.plugin.process(&handed_over, &self.context)?;
        outcome.check_reads(&handed_over, &glue::reads(&self.plugin))?;
        Ok(outcome)
    }

    /// The columns of a batch that the plugin needs with its configuration, as the host hands them over.
    pub fn hand_over(&self, batch: &RecordBatch) -> Result<Batch, String> {
        part(batch, &glue::reads(&self.plugin))
    }
}

fn part(batch: &RecordBatch, reads: &[String]) -> Result<Batch, String> {
    let fields = batch.schema_ref().fields();
    let declared: Vec<usize> = (0..fields.len())
        .filter(|place| crate::names::declared(reads, fields[*place].name()))
        .collect();
    let part = batch.project(&declared).map_err(|e| e.to_string())?;
    Batch::decode(crate::ipc::write(part.schema_ref(), part.columns(), part.num_rows())?)
}

/// A batch of rows given as JSON.
pub fn batch(rows: Value, defaults: &Defaults, layout: Layout) -> Result<RecordBatch, String> {
    let Value::Array(rows) = rows else {
        return Err("write an array of rows".to_owned());
    };
    let rows: Vec<Row> = rows
        .into_iter()
        .map(|row| match row {
            Value::Object(row) => Ok(row),
            other => Err(format!("{other} is no row")),
        })
        .collect::<Result<_, _>>()?;
    sluice_plugin_fixture::batch(&rows, defaults, layout)
}

/// Runs a plugin over every `*.json` of a folder, relative to the plugin's own, in each layout that a batch may have. Panics with
/// all that differs, and if there is no fixture at all.
pub fn check_fixtures<P: Plugin>(folder: impl AsRef<Path>) {
    let folder = folder.as_ref();
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}: no fixture", folder.display());
    let mut differences = Vec::new();
    for file in &files {
        let json = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let fixture = match Fixture::parse(&json) {
            Ok(fixture) => fixture,
            Err(what) => {
                differences.push(format!("{}: {what}", file.display()));
                continue;
            }
        };
        for layout in [Layout::Plain, Layout::Dictionary] {
            let found = check::<P>(&fixture, layout);
            differences.extend(
                found
                    .iter()
                    .map(|what| format!("{} ({layout:?}): {what}", file.display())),
            );
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What differs from what a fixture expects.
pub fn check<P: Plugin>(fixture: &Fixture, layout: Layout) -> Vec<String> {
    Host::reset();
    Host::set_clock(fixture.now.max(0) as u64 / 1_000_000);
    for (name, table) in &fixture.tables {
        Host::set_table(name, table);
    }
    let batch = match sluice_plugin_fixture::batch(&fixture.rows, &fixture.defaults(), layout) {
        Ok(batch) => batch,
        Err(what) => return vec![what],
    };
    let actual = match Tester::<P>::new(fixture.config.clone()) {
        Err(error) => Actual {
            error: Some(error),
            ..Actual::default()
        },
        Ok(mut tester) => {
            tester.context.signal = match fixture.signal.as_str() {
                "span" => Signal::Span,
                "metric" => Signal::Metric,
                _ => Signal::Log,
            };
            tester.context.now = fixture.now.max(0) as u64;
            tester.context.hints = Hints {
                share: fixture.share,
                row_bytes: fixture.row_bytes,
            };
            tester.run_batch(&batch)
        }
    };
    fixture.expect.differences(&actual)
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Log => "log",
        Signal::Span => "span",
        Signal::Metric => "metric",
    }
}
