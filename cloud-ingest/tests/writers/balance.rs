//! Cold is counted against its ledger all the time, and whoever watches is told where it does not hold.

use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use sluice_ingest::config::Role;
use sluice_store::OffsetRange;
use sluice_store::cold::Replacement;
use sluice_wire::ids::Partition;

use crate::{ROWS, World, batch, batch_of};

/// P3: a row that is gone from cold is an alarm that names its stream and offsets, until it is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_hole_in_cold_is_an_alarm_that_names_stream_and_range() {
    let mut world = World::new(&[Role::Cold], 1);
    world.config.cold.compact_every = Duration::from_millis(50);
    let batches: Vec<_> = (0..4)
        .flat_map(|seq| [(0, batch(0, seq, 10)), (0, batch_of("bolt", 0, seq, 10))])
        .collect();
    world.append(&batches).await;
    world.run().await;
    let stores = world.stores().await;
    let running = world.start().await;
    let whole = running.until(|status| status.ledger_checked == Some(8)).await;
    assert_eq!(whole.ledger_broken, []);
    assert!(
        whole.metrics().contains("sluice_ledger_broken 0\n"),
        "{}",
        whole.metrics()
    );

    // One row of each of two neighbours, of different streams, and all of another.
    let range = OffsetRange {
        partition: Partition::default(),
        first: 2,
        last: 4,
    };
    let rows = stores.whole_rows_of_cold(range).await.unwrap();
    let replace = async |rows: Vec<RecordBatch>| {
        let mut replacement = Replacement::new(vec![range]);
        stores.cold.add_to(&mut replacement, rows).await.unwrap();
        stores.cold.replace_with(replacement).await.unwrap();
    };
    let lost = rows.iter().map(|batch| {
        let offsets = batch.column_by_name("offset").unwrap();
        let offsets = offsets.as_primitive::<arrow::datatypes::Int64Type>();
        let numbers = batch.column_by_name("row").unwrap();
        let numbers = numbers.as_primitive::<arrow::datatypes::Int32Type>();
        let stays = (0..batch.num_rows()).map(|row| match offsets.value(row) {
            4 => numbers.value(row) < 0,
            _ => numbers.value(row) != 1,
        });
        let stays: arrow::array::BooleanArray = stays.collect::<Vec<_>>().into();
        arrow::compute::filter_record_batch(batch, &stays).unwrap()
    });
    replace(lost.collect()).await;
    let broken = running.until(|status| !status.ledger_broken.is_empty()).await;
    let text = broken.metrics();
    for (tenant, offset, events) in [("acme", 2, 1), ("bolt", 3, 1), ("acme", 4, ROWS)] {
        let stream = format!("{tenant}/site-0/{}", "01".repeat(16));
        let line = format!(
            "sluice_ledger_broken_events{{wrong=\"missing\",tenant=\"{tenant}\",stream=\"{stream}\",partition=\"0\",first=\"{offset}\",\
             last=\"{offset}\"}} {events}\n"
        );
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    assert!(text.contains("sluice_ledger_broken 3\n"), "{text}");
    replace(rows).await;
    running.until(|status| status.ledger_broken.is_empty()).await;
    running.end().await.unwrap();
}
