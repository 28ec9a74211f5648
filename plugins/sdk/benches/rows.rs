//! What a function of rows costs beside the same over columns, without Wasm: `cargo bench -p sluice-plugin`.

use std::hint::black_box;
use std::time::Instant;

use sluice_plugin::testing::{Layout, Tester, hand_over, json};
use sluice_plugin::{Batch, Context, Plugin};

const ROWS: usize = 8192;
const ROUNDS: u32 = 300;

mod rows {
    use sluice_plugin::prelude::*;

    #[sluice_plugin(kind = filter, reads = ["severity", "service"])]
    pub(super) fn keep(row: Row<'_>) -> bool {
        row.severity() >= WARN || row.service() == "service-7"
    }
}

mod attribute {
    use sluice_plugin::prelude::*;

    #[sluice_plugin(kind = filter, reads = ["attrs.status"])]
    pub(super) fn failed(row: Row<'_>) -> bool {
        row.attr("status") >= 500
    }
}

mod columns {
    use sluice_plugin::prelude::*;

    pub(super) struct Keep;

    impl Plugin for Keep {
        type Config = NoConfig;
        fn describe() -> Description {
            Description::new("keep", "0.1.0", Kind::Filter).reads(["severity", "service"])
        }
        fn init(_: NoConfig) -> Result<Self, String> {
            Ok(Keep)
        }
        fn process(&mut self, batch: &Batch, _: &Context) -> Result<Outcome, String> {
            let severity = batch.ints("severity")?;
            let service = batch.text("resource:s:service.name")?;
            Ok(Outcome::keep_rows(batch.rows(), "filtered", |row| {
                severity.get(row).unwrap_or(0) >= 13 || service.get(row) == Some("service-7")
            }))
        }
    }
}

fn main() {
    bench::<rows::Keep>("rows: severity or service");
    bench::<columns::Keep>("columns: the same");
    bench::<attribute::Failed>("rows: one attribute");
}

fn bench<P: Plugin>(what: &str) {
    let row = |n: usize| {
        json!({"severity": if n.is_multiple_of(50) { 17 } else { 9 }, "service": format!("service-{}", n % 40),
               "attrs": {"status": if n.is_multiple_of(70) { 503 } else { 200 }}})
    };
    let mut tester = match Tester::<P>::new(json!({})) {
        Ok(tester) => tester,
        Err(what) => panic!("{what}"),
    };
    tester.layout = Layout::Dictionary;
    let batch: Result<Batch, String> = hand_over::<P>(&tester.batch((0..ROWS).map(row).collect()));
    let (Ok(batch), Ok(config)) = (batch, sluice_plugin::serde_json::from_str("{}")) else {
        panic!("the batch cannot be handed over");
    };
    let Ok(mut plugin) = P::init(config) else {
        panic!("the configuration is wrong");
    };
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let outcome = plugin.process(black_box(&batch), &Context::default());
        best = best.min(start.elapsed().as_secs_f64());
        assert!(black_box(outcome).is_ok_and(|outcome| outcome.selection().is_some()));
    }
    println!(
        "{what}: {:.1} M rows/s, {:.0} µs for {ROWS} rows",
        ROWS as f64 / best / 1e6,
        best * 1e6
    );
}
