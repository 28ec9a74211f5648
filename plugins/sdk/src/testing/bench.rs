//! How fast a plugin is without Wasm: what `cargo bench` of the plugins prints.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use serde_json::Value;

use super::{Layout, Tester};
use crate::{Outcome, Plugin};

/// Rows of a batch: as many as the edge sends in one.
pub const BENCH_ROWS: usize = 8192;
/// Batches of which the fastest counts: the others waited for the processor.
const ROUNDS: usize = 200;

/// Time that a plugin takes for a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub rows: usize,
    pub time: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rows) = (self.time.as_secs_f64(), self.rows);
        let rate = rows as f64 / seconds / 1e6;
        write!(f, "{rate:.1} M rows/s, {:.0} µs for {rows} rows", seconds * 1e6)
    }
}

impl<P: Plugin> Tester<P> {
    /// The fastest of many times over the same batch. `right` sees each answer: a plugin that does nothing is fast. Panics where
    /// the plugin fails or an answer is not right.
    pub fn rate(&mut self, batch: &RecordBatch, right: impl Fn(&Outcome) -> bool) -> Rate {
        let batch = match self.hand_over(batch) {
            Ok(batch) => batch,
            Err(what) => panic!("the batch cannot be handed over: {what}"),
        };
        let mut time = Duration::MAX;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let outcome = self.plugin.process(black_box(&batch), &self.context);
            time = time.min(start.elapsed());
            match black_box(outcome) {
                Ok(outcome) => assert!(right(&outcome), "not the answer that was to be measured"),
                Err(what) => panic!("{what}"),
            }
        }
        Rate {
            rows: batch.rows(),
            time,
        }
    }
}

/// Prints the rate of a plugin with a configuration over rows that `row` makes of their numbers.
pub fn bench<P: Plugin>(what: &str, config: Value, row: impl Fn(usize) -> Value, right: impl Fn(&Outcome) -> bool) {
    let mut tester = match Tester::<P>::new(config) {
        Ok(tester) => tester,
        Err(what) => panic!("{what}"),
    };
    tester.layout = Layout::Dictionary;
    let batch = tester.batch((0..BENCH_ROWS).map(row).collect());
    println!("{what}: {}", tester.rate(&batch, right));
}
