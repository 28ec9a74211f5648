//! What a function of rows costs beside the same over columns, without Wasm: `cargo bench -p sluice-plugin`.

use sluice_plugin::Plugin;
use sluice_plugin::testing::{bench, json};

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
    run::<rows::Keep>("rows: severity or service");
    run::<columns::Keep>("columns: the same");
    run::<attribute::Failed>("rows: one attribute");
}

fn run<P: Plugin>(what: &str) {
    let row = |n: usize| {
        json!({"severity": if n.is_multiple_of(50) { 17 } else { 9 }, "service": format!("service-{}", n % 40),
               "attrs": {"status": if n.is_multiple_of(70) { 503 } else { 200 }}})
    };
    bench::<P>(what, json!({}), row, |outcome| outcome.selection().is_some());
}
