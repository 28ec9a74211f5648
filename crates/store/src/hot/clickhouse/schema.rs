//! The table in ClickHouse, and how it comes to be: numbered migrations, each applied once.

use arrow::datatypes::{DataType, Field, TimeUnit};

use super::client::{ClickHouseError, Client, Statement};
use super::{META_WITHIN, MIGRATE_WITHIN};

/// Where the rows are.
pub(super) const TABLE: &str = "events";
/// The rows that count, for people who read the server directly.
pub(super) const VIEW: &str = "events_visible";
const MIGRATIONS_TABLE: &str = "sluice_migrations";

/// Columns beside those of the table `events`; TABLES.md describes them.
pub(super) const GENERATION: &str = "gen";
pub(super) const DROP_DAY: &str = "drop_day";
pub(super) const BATCH_ROWS: &str = "batch_rows";

/// What the projection `ends` keeps for each day, partition and generation, and what is asked of it.
pub(super) const ENDS: &str = "min(`offset`), max(`offset`), count(), countIf(`row` = -1), sum(`batch_rows`)";
/// What the projection `held` keeps besides.
pub(super) const SET_ASIDE: &str = "countIf(`quarantined_by` IS NOT NULL)";

/// What an insert does not build, as it takes the server much of its time: parts have these from the first merge on, and are read without
/// until then. `by_word` is one of earlier programs' tables.
pub(super) const INDEXES_OF_MERGES: &str = "by_attr_key,by_attr_value,by_word,by_words";

/// What the index `by_words` has the words of: they are of ASCII, in lower case, and all else stands between words.
pub(crate) const WORDS_OF_BODY: &str = "replaceRegexpAll(lower(ifNull(`body`, '')), '[^ -~]', ' ')";

/// Few different texts in one column.
const FEW_TEXTS: &[&str] = &[
    "tenant",
    "node",
    "signal",
    "service",
    "host",
    "severity_text",
    "body_type",
    "kind",
    "status",
    "unit",
    "metric_type",
    "temporality",
    "scope_name",
    "scope_version",
    "scope_schema_url",
    "resource_schema_url",
    "quarantined_by",
    "quarantine_reason",
    "ai_system",
    "ai_model",
    "ai_operation",
    "stream",
    "epoch",
];
/// What a sorted or counted column is made small with.
const RISING: &[&str] = &[
    "time",
    "observed_time",
    "start_time",
    "seq",
    "partition",
    "offset",
    "row",
    "ingested_at",
];
/// Not null in any row.
const ALWAYS: &[&str] = &["tenant", "signal", "time", "partition", "offset", "row"];

/// Why the tables could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Server(#[from] ClickHouseError),
    #[error(
        "the tables in ClickHouse have version {found}, this program knows versions up to {known}: use a newer program"
    )]
    Newer { found: u32, known: u32 },
    #[error(
        "the tables in ClickHouse have version {found}, this program needs {known}: run `sluice ingest migrate`, or set \
         hot.clickhouse.migrate = true"
    )]
    Older { found: u32, known: u32 },
}

/// One step from a version to the next. A released step never changes.
#[derive(Debug)]
struct Migration {
    version: u32,
    name: &'static str,
    statements: fn(&Engine<'_>) -> Vec<String>,
}

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "the table of events",
    statements: |engine| vec![events(engine)],
}];

/// What kind of table it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Engine<'a> {
    pub(super) replicated_path: &'a str,
}

impl Engine<'_> {
    fn named(&self, table: &str) -> String {
        match self.replicated_path {
            "" => "MergeTree".to_owned(),
            path => format!("ReplicatedMergeTree('{path}/{table}', '{{replica}}')"),
        }
    }

    /// Duplicates are ours to tell; the server's own way loses rows that only look alike.
    fn no_deduplication(&self) -> &'static str {
        match self.replicated_path {
            "" => "non_replicated_deduplication_window = 0",
            _ => "replicated_deduplication_window = 0",
        }
    }
}

fn known() -> u32 {
    MIGRATIONS.last().map_or(0, |newest| newest.version)
}

/// Applies what is missing, or says what it would apply. Returns the statements.
pub(super) async fn migrate(client: &Client, engine: Engine<'_>, dry_run: bool) -> Result<Vec<String>, MigrateError> {
    let database = client.database();
    let begin = [
        format!("CREATE DATABASE IF NOT EXISTS `{database}`"),
        format!(
            "CREATE TABLE IF NOT EXISTS `{database}`.`{MIGRATIONS_TABLE}` (`version` UInt32, `name` String, `at` DateTime('UTC') DEFAULT now())\n\
             ENGINE = {} ORDER BY `version`",
            engine.named(MIGRATIONS_TABLE)
        ),
    ];
    let server = client.without_database();
    let found = version(client).await?;
    if found > known() {
        return Err(MigrateError::Newer { found, known: known() });
    }
    let mut done = Vec::new();
    if found == 0 {
        for text in begin {
            if !dry_run {
                server.run(Statement::new(&text), MIGRATE_WITHIN).await?;
            }
            done.push(text);
        }
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        let note = format!(
            "INSERT INTO `{MIGRATIONS_TABLE}` (`version`, `name`) VALUES ({}, '{}')",
            migration.version, migration.name
        );
        for text in (migration.statements)(&engine).into_iter().chain([note]) {
            if !dry_run {
                client
                    .run(Statement::new(&text).with("async_insert", 0), MIGRATE_WITHIN)
                    .await?;
            }
            done.push(text);
        }
        if !dry_run {
            tracing::info!(
                version = migration.version,
                name = migration.name,
                "tables in ClickHouse brought up to date"
            );
        }
    }
    for addition in [Addition::Held, Addition::Words] {
        match addition.add(client, engine, dry_run).await {
            Ok(added) => done.extend(added),
            Err(ClickHouseError::Refused { message, .. }) => {
                tracing::warn!(
                    message,
                    "the table in ClickHouse could not be given its {}; queries are right, and slower",
                    addition.name()
                );
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// What queries are faster with. No version of the tables, as programs that do not know it go on, and those that do can work without.
#[derive(Clone, Copy, Debug)]
enum Addition {
    Held,
    Words,
}

impl Addition {
    fn name(self) -> &'static str {
        match self {
            Addition::Held => "projection `held`",
            Addition::Words => "index `by_words`",
        }
    }

    async fn add(self, client: &Client, engine: Engine<'_>, dry_run: bool) -> Result<Vec<String>, ClickHouseError> {
        let (server, database) = (client.without_database(), client.database());
        let added = match self {
            Addition::Held => held(&server, database).await?,
            Addition::Words => words(&server, database).await?,
        };
        // The server does it in its own time, and not after the merges that are under way. A replica takes one change after the other.
        let alter_sync = u64::from(!engine.replicated_path.is_empty());
        if !dry_run {
            for text in &added {
                let statement = Statement::new(text)
                    .with("mutations_sync", 0)
                    .with("alter_sync", alter_sync);
                server.run(statement, MIGRATE_WITHIN).await?;
            }
        }
        Ok(added)
    }
}

async fn held(server: &Client, database: &str) -> Result<Vec<String>, ClickHouseError> {
    let table = format!("database = '{database}' AND table = '{TABLE}'");
    let [projections, parts_without, under_way] = counts(
        server,
        [
            format!("system.projections WHERE {table} AND name = 'held'"),
            format!("system.parts WHERE {table} AND active AND NOT has(projections, 'held')"),
            format!("system.mutations WHERE {table} AND NOT is_done AND command LIKE '%MATERIALIZE PROJECTION%held%'"),
        ],
    )
    .await?;
    let mut added = Vec::new();
    if projections == 0 {
        added.push(format!(
            "ALTER TABLE `{database}`.`{TABLE}` ADD PROJECTION IF NOT EXISTS `held` (SELECT `{DROP_DAY}`, `partition`, `{GENERATION}`, {ENDS}, \
             {SET_ASIDE} GROUP BY `{DROP_DAY}`, `partition`, `{GENERATION}`)"
        ));
    }
    if parts_without != 0 && under_way == 0 {
        added.push(format!(
            "ALTER TABLE `{database}`.`{TABLE}` MATERIALIZE PROJECTION `held`"
        ));
    }
    Ok(added)
}

/// Parts get the index with their next merge. An earlier one, which no query asked, goes.
async fn words(server: &Client, database: &str) -> Result<Vec<String>, ClickHouseError> {
    let index = |name: &str| {
        format!("system.data_skipping_indices WHERE database = '{database}' AND table = '{TABLE}' AND name = '{name}'")
    };
    let [there, earlier] = counts(server, [index("by_words"), index("by_word")]).await?;
    let mut added = Vec::new();
    if there == 0 {
        added.push(format!(
            "ALTER TABLE `{database}`.`{TABLE}` ADD INDEX IF NOT EXISTS `by_words` {WORDS_OF_BODY} \
             TYPE text(tokenizer = 'splitByNonAlpha')"
        ));
    }
    if earlier != 0 {
        added.push(format!(
            "ALTER TABLE `{database}`.`{TABLE}` DROP INDEX IF EXISTS `by_word`"
        ));
    }
    Ok(added)
}

/// How many rows there are of each, all at one moment.
async fn counts<const N: usize>(server: &Client, of: [String; N]) -> Result<[u64; N], ClickHouseError> {
    let each = of.map(|rows| format!("(SELECT count() FROM {rows})"));
    let rows = server
        .run(Statement::new(format!("SELECT {}", each.join(", "))), META_WITHIN)
        .await?;
    let found: Vec<u64> = rows.iter().flatten().filter_map(|cell| cell.parse().ok()).collect();
    found
        .try_into()
        .map_err(|_| ClickHouseError::Answer(format!("{rows:?} are not the {N} counts that were asked for")))
}

/// Refuses tables of another version than this program's.
pub(super) async fn check(client: &Client) -> Result<(), MigrateError> {
    let (found, known) = (version(client).await?, known());
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Err(MigrateError::Older { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(MigrateError::Newer { found, known }),
    }
}

/// 0: there are no tables yet.
async fn version(client: &Client) -> Result<u32, ClickHouseError> {
    let database = client.database();
    let tables =
        format!("SELECT count() FROM system.tables WHERE database = '{database}' AND name = '{MIGRATIONS_TABLE}'");
    let server = client.without_database();
    if number(&server.run(Statement::new(tables), META_WITHIN).await?)? == 0 {
        return Ok(0);
    }
    let newest = format!("SELECT max(`version`) FROM `{database}`.`{MIGRATIONS_TABLE}`");
    let rows = server.run(Statement::new(newest), META_WITHIN).await?;
    u32::try_from(number(&rows)?).map_err(|_| ClickHouseError::Answer("a version beyond all bounds".to_owned()))
}

fn number(rows: &[Vec<String>]) -> Result<u64, ClickHouseError> {
    let cell = rows.first().and_then(|row| row.first());
    cell.and_then(|text| text.parse().ok())
        .ok_or_else(|| ClickHouseError::Answer(format!("{cell:?} is not the number that was asked for")))
}

fn events(engine: &Engine<'_>) -> String {
    let mut lines: Vec<String> = sluice_wire::events::schema()
        .fields()
        .iter()
        .map(|field| column(field))
        .collect();
    lines.extend([
        format!("`{GENERATION}` UInt64 CODEC(Delta(8), ZSTD(1))"),
        format!("`{DROP_DAY}` Date CODEC(ZSTD(1))"),
        format!("`{BATCH_ROWS}` UInt32 CODEC(ZSTD(1))"),
        "INDEX `by_time` `time` TYPE minmax GRANULARITY 1".to_owned(),
        "INDEX `by_offset` `offset` TYPE minmax GRANULARITY 1".to_owned(),
        "INDEX `by_trace` `trace_id` TYPE bloom_filter(0.001) GRANULARITY 1".to_owned(),
        "INDEX `by_attr_key` mapKeys(`attrs`) TYPE bloom_filter(0.01) GRANULARITY 1".to_owned(),
        "INDEX `by_attr_value` mapValues(`attrs`) TYPE bloom_filter(0.01) GRANULARITY 1".to_owned(),
        format!(
            "PROJECTION `ends` (SELECT `{DROP_DAY}`, `partition`, `{GENERATION}`, {ENDS} GROUP BY `{DROP_DAY}`, `partition`, `{GENERATION}`)"
        ),
    ]);
    format!(
        "CREATE TABLE IF NOT EXISTS `{TABLE}` (\n    {}\n)\nENGINE = {}\nPARTITION BY `{DROP_DAY}`\n\
         ORDER BY (`tenant`, `signal`, `service`, `time`)\n\
         SETTINGS allow_nullable_key = 1, fsync_after_insert = 1, fsync_part_directory = 1, {}, \
         deduplicate_merge_projection_mode = 'rebuild', lightweight_mutation_projection_mode = 'rebuild', \
         map_serialization_version = 'with_buckets'",
        lines.join(",\n    "),
        engine.named(TABLE),
        engine.no_deduplication()
    )
}

/// Whether the server keeps a text column as numbers of a list of texts.
pub(super) fn has_few_texts(column: &str) -> bool {
    FEW_TEXTS.contains(&column)
}

fn column(field: &Field) -> String {
    let name = field.name().as_str();
    let has_nulls = !ALWAYS.contains(&name);
    let plain = plain_type(field.data_type());
    let few = has_few_texts(name);
    let kind = match (few, has_nulls) {
        _ if field.data_type().is_nested() => plain,
        (true, true) => format!("LowCardinality(Nullable({plain}))"),
        (true, false) => format!("LowCardinality({plain})"),
        (false, true) => format!("Nullable({plain})"),
        (false, false) => plain,
    };
    let codec = if RISING.contains(&name) {
        "Delta, ZSTD(1)"
    } else {
        "ZSTD(1)"
    };
    format!("`{name}` {kind} CODEC({codec})")
}

/// Every type of the table has one in ClickHouse that holds the same values; TABLES.md names the two exceptions.
fn plain_type(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "Bool".to_owned(),
        DataType::Int32 => "Int32".to_owned(),
        DataType::Int64 => "Int64".to_owned(),
        DataType::UInt32 => "UInt32".to_owned(),
        DataType::UInt64 => "UInt64".to_owned(),
        DataType::Float64 => "Float64".to_owned(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => "DateTime64(9, 'UTC')".to_owned(),
        DataType::Timestamp(..) => "DateTime64(6, 'UTC')".to_owned(),
        DataType::List(item) => format!("Array({})", plain_type(item.data_type())),
        DataType::Map(..) => "Map(LowCardinality(String), String)".to_owned(),
        _ => "String".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A column of a type that ClickHouse would store as text by accident must not come to be.
    #[test]
    fn every_column_of_events_has_a_type_of_its_own() {
        for field in sluice_wire::events::schema().fields() {
            let is_text = field.data_type() == &DataType::Utf8;
            assert!(
                is_text || !plain_type(field.data_type()).contains("String") || field.data_type().is_nested(),
                "{field}"
            );
        }
        let names: Vec<_> = sluice_wire::events::schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        for name in FEW_TEXTS.iter().chain(RISING).chain(ALWAYS) {
            assert!(names.iter().any(|n| n == name), "{name} is no column");
        }
    }

    #[test]
    fn a_replicated_table_names_its_place_and_replica() {
        let text = events(&Engine {
            replicated_path: "/clickhouse/tables/{shard}/sluice",
        });
        assert!(
            text.contains("ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/sluice/events', '{replica}')"),
            "{text}"
        );
        assert!(text.contains(" replicated_deduplication_window = 0"), "{text}");
    }
}
