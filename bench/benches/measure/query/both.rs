//! Questions about all rows, of both tiers through us, beside one ClickHouse table that holds the same rows.

use std::path::Path;
use std::time::Instant;

use sluice_bench::engines::Engines;
use sluice_store::hot::clickhouse::ClickHouseConfig;
use sluice_store::{ClickHouseHot, Stores};

use super::data::Rows;
use super::questions::{ALL, Dialect};
use super::{Compared, Door, median_of, milliseconds, no_answers};
use crate::Line;

/// Records of the log that one statement copies.
const COPIED: u64 = 2_500;
/// What the files of cold have in two columns.
const IN_TWO: [&str; 3] = ["time", "observed_time", "start_time"];

pub(super) async fn against_clickhouse(
    engines: &Engines,
    database: &str,
    stores: &Stores,
    lake: &Path,
    (cold, hot): (Rows, Rows),
) -> Vec<Line> {
    let all = format!("{database}_all");
    copy(engines, database, &all, lake, (cold, hot)).await;
    let door = Door::open(stores.clone(), no_answers()).await;
    let rows = cold.and(hot);
    let mut compared = Compared::default();
    for question in ALL {
        let ours = question.text(Dialect::Sluice, rows.span(), rows);
        let theirs = question.text(Dialect::ClickHouse { database: &all }, rows.span(), rows);
        let ours = median_of(async || door.ask(&ours).await.1).await;
        let theirs = median_of(async || {
            let begun = Instant::now();
            engines.clickhouse(&theirs).await.unwrap();
            milliseconds(begun)
        });
        compared.add(&question, ours, theirs.await);
    }
    compared.lines("both tiers", "one ClickHouse table", rows, |ours, theirs| {
        ours <= theirs
    })
}

/// One table of the same kind as hot's with the rows of both.
async fn copy(engines: &Engines, database: &str, all: &str, lake: &Path, (cold, hot): (Rows, Rows)) {
    let config = ClickHouseConfig {
        url: engines.get("CLICKHOUSE_URL").unwrap().to_owned(),
        database: all.to_owned(),
        ..ClickHouseConfig::default()
    };
    ClickHouseHot::new(&config).unwrap().migrate(false).await.unwrap();
    let columns = format!(
        "SELECT name FROM system.columns WHERE database = '{all}' AND table = 'events' AND default_kind = '' ORDER BY position FORMAT TSV"
    );
    let columns = engines.clickhouse(&columns).await.unwrap().text();
    let columns: Vec<&str> = columns.lines().collect();
    let names = columns
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    let stored = columns.iter().map(|name| match *name {
        "gen" => "1".to_owned(),
        "drop_day" => "toDate('2026-01-01')".to_owned(),
        "batch_rows" => "0".to_owned(),
        name if IN_TWO.contains(&name) => {
            format!("fromUnixTimestamp64Nano(toUnixTimestamp64Micro({name}) * 1000 + ifNull({name}_ns, 0), 'UTC')")
        }
        name => format!("`{name}`"),
    });
    let stored = stored.collect::<Vec<_>>().join(", ");
    let files = format!("deltaLakeLocal('{}')", lake.join("events").display());
    let tiers = [
        (cold, stored, files),
        (hot, names.clone(), format!("`{database}`.`events`")),
    ];
    for (rows, values, from) in tiers {
        for first in (rows.records()).step_by(COPIED as usize) {
            let after = (first + COPIED).min(rows.records().end);
            let statement = format!(
                "INSERT INTO `{all}`.`events` ({names}) SELECT {values} FROM {from} WHERE `offset` >= {first} AND `offset` < {after}"
            );
            engines.clickhouse(&statement).await.unwrap();
        }
    }
    let counted = format!("SELECT count() FROM `{all}`.`events` WHERE signal <> '_batch' FORMAT TSV");
    let counted = engines.clickhouse(&counted).await.unwrap().text();
    assert_eq!(counted.trim(), (cold.count() + hot.count()).to_string());
}
