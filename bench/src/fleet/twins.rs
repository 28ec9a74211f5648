//! Hot and cold held against each other, row by row: both read as raw tables by an engine that nobody here wrote, with none of the
//! product's own readers in between.
//!
//! ClickHouse reads its own table and the lake's Parquet files; which of these count, the commits of the Delta log say. Every column of
//! a row, in the type that hot has it in, goes into one hash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Places;
use crate::engines::Engines;
use crate::oracle::Mistakes;

/// Columns of hot that only hot has: whose row it is, and not what it says.
const HOT_ONLY: [&str; 3] = ["gen", "drop_day", "batch_rows"];
/// Times that cold keeps as microseconds with the rest beside them.
const SPLIT_TIMES: [&str; 3] = ["time", "observed_time", "start_time"];

/// `(partition, offset, row)`.
type Place = (i64, u64, i64);

/// What the comparison found.
#[derive(Clone, Debug, Default)]
pub struct Twins {
    /// Rows in either table, ledger rows among them.
    pub hot_rows: u64,
    pub cold_rows: u64,
    /// Rows at offsets that both hold, and which are the same in both.
    pub alike: u64,
    /// Of those offsets, rows that one of them lacks, has twice, or has otherwise.
    pub differing: Mistakes,
    /// Generations of rows that hot holds, those that do not count included.
    pub generations: u64,
    /// Rows in hot that do not count, left behind by writers that were killed.
    pub dead_rows: u64,
    pub cold_files: u64,
}

impl Twins {
    pub fn agree(&self) -> bool {
        self.differing.count == 0
    }

    /// Reads both tables when nothing moves any more.
    pub async fn read(engines: &Engines, places: &Places) -> Result<Twins> {
        let database = &places.database;
        let columns = columns(engines, database).await?;
        let files = active_files(engines, places).await?;
        let hot = hashes(
            engines,
            &format!("`{database}`.`events_visible`"),
            "",
            &columns
                .iter()
                .map(|c| (c.name.as_str(), quoted(&c.name)))
                .collect::<Vec<_>>(),
        )
        .await
        .context("hot")?;
        let as_hot: Vec<(&str, String)> = columns.iter().map(|c| (c.name.as_str(), c.of_cold())).collect();
        let cold = hashes(
            engines,
            &bucket(
                engines,
                places,
                &format!("events/{}/*.parquet", folders(&files)?),
                "Parquet",
            )?,
            &format!("WHERE {}", one_of(&files)),
            &as_hot,
        )
        .await
        .context("cold")?;
        let mut twins = compare(&hot, &cold);
        twins.cold_files = files.len() as u64;
        let kept = format!(
            "SELECT uniqExact(gen), count() - (SELECT count() FROM `{database}`.`events_visible`) FROM `{database}`.`events`"
        );
        let kept = engines.clickhouse(&kept).await?.text();
        let mut numbers = kept.split_whitespace().map(str::parse::<u64>);
        twins.generations = numbers.next().context("no generations")??;
        twins.dead_rows = numbers.next().context("no dead rows")??;
        Ok(twins)
    }
}

impl fmt::Display for Twins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "hot and cold: {} and {} rows with the ledger's, {} alike by hash, {} differing",
            self.hot_rows, self.cold_rows, self.alike, self.differing.count
        )?;
        for example in &self.differing.examples {
            writeln!(f, "  {example}")?;
        }
        write!(
            f,
            "hot holds rows of {} generations, {} of them left behind by the killed and seen by nobody; cold has {} files",
            self.generations, self.dead_rows, self.cold_files
        )
    }
}

/// A column as hot has it.
struct Column {
    name: String,
    kind: String,
}

impl Column {
    /// The same value out of the columns of cold.
    fn of_cold(&self) -> String {
        let name = quoted(&self.name);
        if SPLIT_TIMES.contains(&self.name.as_str()) {
            let rest = quoted(&format!("{}_ns", self.name));
            return format!(
                "CAST(fromUnixTimestamp64Nano(toUnixTimestamp64Micro({name}) * 1000 + ifNull({rest}, 0), 'UTC'), '{}')",
                self.kind
            );
        }
        format!("CAST({name}, '{}')", self.kind)
    }
}

fn quoted(name: &str) -> String {
    format!("`{name}`")
}

async fn columns(engines: &Engines, database: &str) -> Result<Vec<Column>> {
    let statement = format!(
        "SELECT name, replaceAll(type, '''', '\\\\''') FROM system.columns WHERE database = '{database}' AND table = 'events' \
         ORDER BY name FORMAT TSVRaw"
    );
    let text = engines.clickhouse(&statement).await?.text();
    let split = text.lines().filter_map(|line| line.split_once('\t'));
    let columns: Vec<Column> = split
        .filter(|(name, _)| !HOT_ONLY.contains(name))
        .map(|(name, kind)| Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
        })
        .collect();
    ensure!(columns.len() > 50, "hot has only {} columns", columns.len());
    Ok(columns)
}

/// How often each row is there, and its hash.
type Hashes = BTreeMap<Place, Vec<u128>>;

async fn hashes(engines: &Engines, table: &str, condition: &str, columns: &[(&str, String)]) -> Result<Hashes> {
    let values: Vec<&str> = columns.iter().map(|(_, value)| value.as_str()).collect();
    let named = |wanted: &str| {
        let found = columns.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| value.as_str()).context("a column is missing")
    };
    let statement = format!(
        "SELECT {}, {}, {}, reinterpretAsUInt128(sipHash128(toJSONString(tuple({})))) FROM {table} {condition} FORMAT TSVRaw",
        named("partition")?,
        named("offset")?,
        named("row")?,
        values.join(", ")
    );
    let text = engines.clickhouse(&statement).await?.text();
    let mut found = Hashes::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let mut next = || {
            fields
                .next()
                .with_context(|| format!("a row of too few columns: {line}"))
        };
        let place = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
        found.entry(place).or_default().push(next()?.parse()?);
    }
    Ok(found)
}

/// Only offsets that both hold are compared: hot may have let go of the oldest, and either may lag.
fn compare(hot: &Hashes, cold: &Hashes) -> Twins {
    let mut twins = Twins {
        hot_rows: hot.values().map(|rows| rows.len() as u64).sum(),
        cold_rows: cold.values().map(|rows| rows.len() as u64).sum(),
        ..Twins::default()
    };
    let both = offsets(hot).into_iter().filter_map(|(partition, span)| {
        let other = offsets(cold).get(&partition).copied()?;
        Some((partition, (span.0.max(other.0), span.1.min(other.1))))
    });
    let both: BTreeMap<i64, (u64, u64)> = both.collect();
    let places: BTreeSet<Place> = hot.keys().chain(cold.keys()).copied().collect();
    for place in places {
        let is_in_both = both
            .get(&place.0)
            .is_some_and(|(first, last)| (*first..=*last).contains(&place.1));
        if !is_in_both {
            continue;
        }
        let (left, right) = (hot.get(&place), cold.get(&place));
        if left == right && left.is_some_and(|rows| rows.len() == 1) {
            twins.alike += 1;
        } else {
            twins
                .differing
                .add(&format!("{place:?}: {left:x?} in hot, {right:x?} in cold"));
        }
    }
    twins
}

fn offsets(rows: &Hashes) -> BTreeMap<i64, (u64, u64)> {
    let mut spans = BTreeMap::new();
    for (partition, offset, _) in rows.keys() {
        let span: &mut (u64, u64) = spans.entry(*partition).or_insert((*offset, *offset));
        *span = (span.0.min(*offset), span.1.max(*offset));
    }
    spans
}

fn bucket(engines: &Engines, places: &Places, path: &str, format: &str) -> Result<String> {
    Ok(format!(
        "s3('{}/{}/{}/{path}', '{}', '{}', '{format}')",
        engines.get("S3_ENDPOINT")?,
        engines.get("S3_BUCKET")?,
        places.name,
        engines.get("S3_ACCESS_KEY")?,
        engines.get("S3_SECRET_KEY")?
    ))
}

/// A line of a commit, as far as it matters here.
#[derive(Deserialize)]
struct Action {
    add: Option<Named>,
    remove: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    path: String,
}

/// The files that the newest version of the table consists of.
async fn active_files(engines: &Engines, places: &Places) -> Result<BTreeSet<String>> {
    // Every commit since the first is there: they are deleted weeks later only.
    let statement = format!(
        "SELECT _file, line FROM {} ORDER BY _file FORMAT JSONCompactEachRow",
        bucket(engines, places, "events/_delta_log/*.json", "LineAsString")?
    );
    let text = engines.clickhouse(&statement).await?.text();
    let mut files = BTreeSet::new();
    let mut commits: BTreeMap<String, Vec<Action>> = BTreeMap::new();
    for line in text.lines() {
        let (file, action): (String, String) = serde_json::from_str(line)?;
        commits.entry(file).or_default().push(serde_json::from_str(&action)?);
    }
    ensure!(!commits.is_empty(), "the Delta log has no commits");
    for (number, (file, actions)) in commits.into_iter().enumerate() {
        ensure!(
            file == format!("{number:020}.json"),
            "commit {number} of the Delta log is missing: {file}"
        );
        for action in actions {
            if let Some(removed) = action.remove {
                files.remove(&removed.path);
            }
            files.extend(action.add.map(|added| added.path));
        }
    }
    Ok(files)
}

/// The folders of these files, as a pattern: checkpoints of the Delta log are Parquet files, too, and have other columns.
fn folders(files: &BTreeSet<String>) -> Result<String> {
    let of = |path: &String| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let folders: Option<BTreeSet<String>> = files.iter().map(of).collect();
    let folders = folders.context("a file of cold lies in no folder of a day")?;
    Ok(format!("{{{}}}", folders.into_iter().collect::<Vec<_>>().join(",")))
}

/// A condition that only these files meet.
fn one_of(files: &BTreeSet<String>) -> String {
    let list: Vec<String> = files
        .iter()
        .filter_map(|path| path.rsplit('/').next())
        .map(|name| format!("'{name}'"))
        .collect();
    format!("_file IN ({})", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: &[(u64, i64, u128)]) -> Hashes {
        let mut rows = Hashes::new();
        for (offset, row, hash) in list {
            rows.entry((0, *offset, *row)).or_default().push(*hash);
        }
        rows
    }

    #[test]
    fn every_difference_at_offsets_that_both_hold_is_seen() {
        let cold = rows(&[(1, 0, 7), (2, -1, 8), (2, 0, 9), (3, 0, 10)]);
        let of = |hot: &[(u64, i64, u128)]| {
            let twins = compare(&rows(hot), &cold);
            (twins.alike, twins.differing.count)
        };
        // Hot has let go of the first offset, and is ahead by one.
        assert_eq!(of(&[(2, -1, 8), (2, 0, 9), (3, 0, 10), (4, 0, 11)]), (3, 0));
        assert_eq!(of(&[(2, -1, 8), (3, 0, 10)]), (2, 1), "a row is missing in hot");
        assert_eq!(
            of(&[(2, -1, 8), (2, 0, 9), (2, 1, 12), (3, 0, 10)]),
            (3, 1),
            "one too many"
        );
        assert_eq!(of(&[(2, -1, 8), (2, 0, 9), (2, 0, 9), (3, 0, 10)]), (2, 1), "twice");
        assert_eq!(of(&[(2, -1, 8), (2, 0, 99), (3, 0, 10)]), (2, 1), "another content");
    }
}
