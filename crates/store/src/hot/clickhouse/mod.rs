//! Hot on a ClickHouse server: many processes write, each row carries the generation of its writer, and only rows of the generation
//! that the seam records name count. TABLES.md describes the table.
//!
//! An insert is one block for all partitions of a writer and becomes one part, so it is there whole or not at all.

mod audit;
mod client;
mod config;
mod decode;
mod encode;
mod keep;
mod limits;
mod numbered;
mod parts;
mod replay;
mod schema;
mod visible;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_wire::ids::Partition;

pub use self::audit::Audit;
pub use self::client::ClickHouseError;
use self::client::Client;
pub(crate) use self::client::{ArrowAnswer, Statement};
pub use self::config::{ClickHouseConfig, ConfigError};
pub(crate) use self::decode::rows as fit_rows;
pub use self::keep::Day;
pub(crate) use self::limits::Exceeded;
pub use self::limits::StatementLimits;
pub(crate) use self::parts::{Parts, Split};
pub use self::schema::MigrateError;
pub(crate) use self::schema::WORDS_OF_BODY;
use self::schema::{ENDS, Engine, TABLE, VIEW};
use super::{HotError, HotPin, HotRows, PinnedRows, Tail};
use crate::rows::{self, OffsetRange, RowsError};
use crate::seam::{Claim, SeamRecord};

/// For questions about the tables.
const META_WITHIN: Duration = Duration::from_secs(10);
/// For what changes the tables.
const MIGRATE_WITHIN: Duration = Duration::from_secs(120);
/// A query waits for the ends of the partitions no longer than this.
const PIN_WITHIN: Duration = Duration::from_secs(5);
const INSERT_WITHIN: Duration = Duration::from_secs(120);
/// After there were too many parts to tell them apart, queries do not try again for so long.
const MANY_PARTS_REST: Duration = Duration::from_secs(60);
/// After a server could not be reached, queries do not try again for so long.
const REST: Duration = Duration::from_secs(2);
/// An insert shall become one part, however large it is.
const ONE_BLOCK: u64 = 1 << 40;
/// Errors after which nothing can have been stored: they come before the first row is written.
const NOTHING_STORED: &[u32] = &[
    UNKNOWN_SETTING,
    202, // TOO_MANY_SIMULTANEOUS_QUERIES
    252, // TOO_MANY_PARTS
    243, // NOT_ENOUGH_SPACE
    497, // ACCESS_DENIED
    516, // AUTHENTICATION_FAILED
];

const UNKNOWN_SETTING: u32 = 115;
/// Of a statement in pieces; the server takes 256 KiB, and so many words.
const MAX_PIECES_BYTES: usize = 96 << 10;

/// The table on one server. Clones share it.
#[derive(Clone)]
pub struct ClickHouseHot {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    config: ClickHouseConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What this process writes.
    owned: BTreeMap<Partition, Owned>,
    /// The latest day of dropping that was given to rows.
    last_day: i32,
    bytes: u64,
    rests_until: Option<(Instant, String)>,
    /// Whether the server knows the setting that lets a statement in pieces see one moment; `None`: not asked yet.
    shows_one_moment: Option<bool>,
    /// Until then there are too many parts to tell them apart.
    many_parts_until: Option<Instant>,
    /// Whether the projection `held` is there for all parts, and until when that need not be asked again.
    has_held: Option<(Instant, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Owned {
    claim: Claim,
    next: u64,
}

/// What the server holds of one generation of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    partition: Partition,
    generation: u64,
    first: u64,
    last: u64,
    rows: u64,
    ledger_rows: u64,
    /// What the ledger rows say that the others are.
    batch_rows: u64,
    /// Rows that a plugin's fault kept out of the table `events`, if that was asked.
    set_aside: Option<u64>,
}

impl std::fmt::Debug for ClickHouseHot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHouseHot")
            .field("client", &self.shared.client)
            .finish_non_exhaustive()
    }
}

impl ClickHouseHot {
    /// Reads the secrets and connects to nothing yet.
    pub fn new(config: &ClickHouseConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            shared: Arc::new(Shared {
                client: Client::new(config)?,
                config: config.clone(),
                state: Mutex::default(),
            }),
        })
    }

    /// Server and database, for people who read seam records.
    pub fn endpoint(&self) -> String {
        let (address, database) = (self.shared.client.address(), self.shared.client.database());
        format!("{}{database}", address.as_str())
    }

    /// There may be other copies of the table, of which one lags behind another.
    pub(crate) fn is_replicated(&self) -> bool {
        !self.shared.config.replicated_path.is_empty()
    }

    /// Brings the tables up to date, or only says how. Returns the statements.
    pub async fn migrate(&self, dry_run: bool) -> Result<Vec<String>, MigrateError> {
        let engine = Engine {
            replicated_path: &self.shared.config.replicated_path,
        };
        schema::migrate(&self.shared.client, engine, dry_run).await
    }

    /// To be asked before writing: whether the tables are those of this program, and which day their newest rows have.
    pub async fn prepare(&self) -> Result<(), MigrateError> {
        schema::check(&self.shared.client).await?;
        let newest = format!("SELECT toUInt16(max(`drop_day`)) FROM `{TABLE}`");
        let rows = self.shared.client.run(Statement::new(newest), META_WITHIN).await?;
        let day: i32 = rows.first().and_then(|row| row.first()?.parse().ok()).unwrap_or(0);
        let mut state = self.lock();
        state.last_day = state.last_day.max(day);
        Ok(())
    }

    pub(super) fn claim(&self, partition: Partition, claim: Claim) {
        let owned = Owned {
            claim,
            next: claim.from,
        };
        self.lock().owned.insert(partition, owned);
    }

    /// This process writes the partition no more.
    pub fn release(&self, partition: Partition) {
        self.lock().owned.remove(&partition);
    }

    pub(super) fn claimed(&self, partition: Partition) -> Option<(u64, u64)> {
        let state = self.lock();
        state.owned.get(&partition).map(|owned| (owned.claim.from, owned.next))
    }

    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.lock().owned.keys().copied().collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    pub(super) async fn insert(&self, slices: &[HotRows]) -> Result<(), HotError> {
        let (generations, last_day) = self.check_slices(slices)?;
        let rows = slices.to_vec();
        // It takes as long as copying all of it does: nothing else of this thread's should wait so long.
        let block = tokio::task::spawn_blocking(move || {
            let generation = |partition: Partition| generations.get(&partition).copied().unwrap_or(0);
            encode::block(&rows, generation, last_day)
        });
        let block = block.await.map_err(|error| RowsError::Arrow(error.to_string()))??;
        self.send(block).await?;
        let mut state = self.lock();
        for slice in slices {
            if let Some(owned) = state.owned.get_mut(&slice.range.partition) {
                owned.next = slice.range.last + 1;
            }
        }
        Ok(())
    }

    /// One insert, which is one part.
    async fn send(&self, block: Option<encode::Block>) -> Result<(), HotError> {
        if let Some(block) = block {
            let columns: Vec<String> = block.columns.iter().map(|name| format!("`{name}`")).collect();
            let text = format!("INSERT INTO `{TABLE}` ({}) FORMAT ArrowStream", columns.join(","));
            let statement = Statement::new(text)
                .with("async_insert", 0)
                .with("insert_deduplicate", 0)
                .with("max_insert_threads", 1)
                .with("max_insert_block_size", ONE_BLOCK)
                .with("min_insert_block_size_rows", ONE_BLOCK)
                .with("min_insert_block_size_bytes", ONE_BLOCK)
                .with("max_partitions_per_insert_block", 1)
                .with("throw_on_max_partitions_per_insert_block", 1)
                .with("exclude_materialize_skip_indexes_on_insert", schema::INDEXES_OF_MERGES);
            let sent = self.shared.client.insert(statement, block.body, INSERT_WITHIN).await;
            sent.map_err(outcome)?;
            let mut state = self.lock();
            state.last_day = state.last_day.max(block.day);
        }
        Ok(())
    }

    /// The generation of each partition, and the day that no row goes below.
    fn check_slices(&self, slices: &[HotRows]) -> Result<(BTreeMap<Partition, u64>, i32), HotError> {
        let state = self.lock();
        let mut next: BTreeMap<Partition, Owned> = BTreeMap::new();
        for slice in slices {
            let OffsetRange { partition, first, last } = slice.range;
            if last < first {
                return Err(HotError::EmptyRange { partition, first, last });
            }
            slice
                .rows
                .iter()
                .try_for_each(|batch| rows::check(batch, &[slice.range]))?;
            let owned = match next.get(&partition).or(state.owned.get(&partition)) {
                Some(owned) => *owned,
                None => return Err(HotError::NotClaimed { partition }),
            };
            if owned.next != first {
                return Err(HotError::NotContiguous {
                    partition,
                    expected: owned.next,
                    first,
                });
            }
            next.insert(
                partition,
                Owned {
                    next: last + 1,
                    ..owned
                },
            );
        }
        let generations = next
            .iter()
            .map(|(partition, owned)| (*partition, owned.claim.generation));
        Ok((generations.collect(), state.last_day))
    }

    /// H of every partition that the records know. A server that does not answer holds nothing for the moment.
    pub(super) async fn pin(&self, seam: &BTreeMap<Partition, SeamRecord>) -> HotPin {
        let unreachable = |why: String| HotPin {
            unreachable: Some(why),
            ..HotPin::default()
        };
        let rest = self.lock().rests_until.clone();
        if let Some((until, why)) = rest
            && Instant::now() < until
        {
            return unreachable(why);
        }
        let (held, parts) = match self.held_for_query(seam).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "hot does not answer; queries read cold alone");
                self.lock().rests_until = Some((Instant::now() + REST, error.to_string()));
                return unreachable(error.to_string());
            }
        };
        self.lock().rests_until = None;
        let tails = seam.iter().map(|(partition, record)| {
            let high = record.high(&highest(&held, *partition));
            let first = record.spans().first().map_or(0, |span| span.first);
            let low = high.and_then(|_| first.checked_sub(1));
            (*partition, Tail { low, high })
        });
        HotPin {
            tails: tails.collect(),
            rows: PinnedRows::Server {
                hot: self.clone(),
                seam: Arc::new(seam.clone()),
                parts: Arc::new(parts),
            },
            unreachable: None,
        }
    }

    /// What the server holds, and what of it lies in which part where that helps.
    async fn held_for_query(
        &self,
        seam: &BTreeMap<Partition, SeamRecord>,
    ) -> Result<(Vec<Held>, Parts), ClickHouseError> {
        let are_many = self.lock().many_parts_until.is_some_and(|until| Instant::now() < until);
        let until = Instant::now() + PIN_WITHIN;
        let left = || until.saturating_duration_since(Instant::now());
        if !are_many && self.shows_one_moment(left()).await? {
            if let Some(found) = self.held_in_parts(left()).await? {
                return Ok(found);
            }
            self.lock().many_parts_until = Some(Instant::now() + MANY_PARTS_REST);
        }
        Ok((self.held(seam, left()).await?, Parts::default()))
    }

    /// What the server holds of the generations that decide anything.
    async fn held(
        &self,
        seam: &BTreeMap<Partition, SeamRecord>,
        within: Duration,
    ) -> Result<Vec<Held>, ClickHouseError> {
        let wanted = seam.iter().filter_map(|(partition, record)| {
            let generations: BTreeSet<String> = record.spans().iter().map(|s| s.generation.to_string()).collect();
            let list = generations.into_iter().collect::<Vec<_>>().join(",");
            (!list.is_empty()).then(|| format!("`partition` = {} AND `gen` IN ({list})", partition.as_i64()))
        });
        let wanted = visible::any(wanted);
        if wanted == "0" {
            return Ok(Vec::new());
        }
        self.held_where(&wanted, within).await
    }

    async fn held_where(&self, condition: &str, within: Duration) -> Result<Vec<Held>, ClickHouseError> {
        let text =
            format!("SELECT `partition`, `gen`, {ENDS} FROM `{TABLE}` WHERE {condition} GROUP BY `partition`, `gen`");
        let rows = self.shared.client.run(Statement::new(text), within).await?;
        rows.iter().map(|row| parse_held(row)).collect()
    }

    /// Begins a query of rows, or of what is computed of them.
    pub(crate) async fn select(
        &self,
        asked: Asked,
        limits: Option<&StatementLimits>,
    ) -> Result<ArrowAnswer, ClickHouseError> {
        let in_pieces = asked.in_pieces();
        let is_one = in_pieces.is_none();
        let mut statement = Statement::new(in_pieces.unwrap_or_else(|| asked.in_one()));
        if !is_one {
            statement = parts::at_one_moment(statement);
        }
        if asked.has_long_rows() {
            statement = statement.with("max_block_size", LONG_ROWS_AT_ONCE);
        }
        if let Some(limits) = limits {
            statement = limits.bind(statement);
        }
        statement.parameters = asked.parameters;
        let answer = self.shared.client.query(statement).await;
        if let Err(ClickHouseError::Refused {
            code: Some(UNKNOWN_SETTING),
            ..
        }) = &answer
        {
            // It is an older server than it was.
            self.lock().shows_one_moment = None;
        }
        answer
    }

    /// Lets people who read the server directly see the rows that count, as these records say.
    pub async fn show(&self, seam: &BTreeMap<Partition, SeamRecord>) -> Result<(), ClickHouseError> {
        let schema = sluice_wire::events::schema();
        let columns: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| format!("`{}`", field.name()))
            .collect();
        let text = format!(
            "CREATE OR REPLACE VIEW `{VIEW}` AS SELECT {} FROM `{TABLE}` WHERE {}",
            columns.join(", "),
            visible::everywhere(seam)
        );
        self.shared
            .client
            .run(Statement::new(text), META_WITHIN)
            .await
            .map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything can fail.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is asked of the table. Texts of people are in the parameters alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Which rows count, by partition, generation and offset.
    pub(crate) places: String,
    /// The parts that need no such look.
    pub(crate) parts: Split,
    /// Names, or what is computed.
    pub(crate) columns: Vec<String>,
    pub(crate) conditions: Vec<String>,
    /// Without the rows that were set aside.
    pub(crate) leaves_out_set_aside: bool,
    pub(crate) groups: Vec<String>,
    /// What is computed of a group may be as long as the group.
    pub(crate) has_long_states: bool,
    pub(crate) order: Vec<String>,
    pub(crate) limit: Option<usize>,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Asked {
    /// Where some parts count as a whole, groups and first rows come once of those and once of the others: whoever asks puts them together.
    /// `None`: there are none, or it would be too long.
    fn in_pieces(&self) -> Option<String> {
        let fits = |text: &String| text.len() <= MAX_PIECES_BYTES;
        let tells_clean = self.leaves_out_set_aside && !self.parts.clean.is_empty();
        let pieces = tells_clean.then(|| self.pieces(true)).flatten().filter(fits);
        pieces.or_else(|| self.pieces(false).filter(fits))
    }

    /// `tells_clean`: parts in which nothing was set aside are a piece of their own.
    fn pieces(&self, tells_clean: bool) -> Option<String> {
        let listed = |names: &[&String]| {
            let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
            quoted.join(",")
        };
        let Split { whole, clean, without } = &self.parts;
        let (clean, whole): (Vec<&String>, Vec<&String>) = match tells_clean {
            true => (clean.iter().collect(), whole.iter().collect()),
            false => (Vec::new(), clean.iter().chain(whole).collect()),
        };
        let known: Vec<&String> = clean.iter().chain(&whole).copied().chain(without).collect();
        if known.is_empty() {
            return None;
        }
        let mut pieces = Vec::new();
        for (names, leaves_out) in [(clean, false), (whole, self.leaves_out_set_aside)] {
            if !names.is_empty() {
                pieces.push(self.of(&format!("`_part` IN ({})", listed(&names)), leaves_out));
            }
        }
        let others = format!("`_part` NOT IN ({}) AND {}", listed(&known), self.places);
        pieces.push(self.of(&others, self.leaves_out_set_aside));
        let text = match pieces.as_slice() {
            [others] => others.clone(),
            pieces => {
                let all = format!("({})", pieces.join(") UNION ALL ("));
                match self.limit.filter(|_| self.order.is_empty()) {
                    Some(limit) => format!("SELECT * FROM ({all}) LIMIT {limit}"),
                    None => all,
                }
            }
        };
        Some(text)
    }

    /// One statement on all rows that count.
    fn in_one(&self) -> String {
        self.of(&self.places, self.leaves_out_set_aside)
    }

    /// The statement on the rows of some places.
    fn of(&self, places: &str, leaves_out_set_aside: bool) -> String {
        let shown = match self.columns.is_empty() {
            // Only how many there are.
            true => "toUInt8(1)".to_owned(),
            false => self.columns.join(", "),
        };
        let mut text = format!("SELECT {shown} FROM `{TABLE}` WHERE {places}");
        for condition in &self.conditions {
            text.push_str(&format!(" AND {condition}"));
        }
        if leaves_out_set_aside {
            text.push_str(" AND `quarantined_by` IS NULL");
        }
        for (word, list) in [("GROUP BY", &self.groups), ("ORDER BY", &self.order)] {
            if !list.is_empty() {
                text.push_str(&format!(" {word} {}", list.join(", ")));
            }
        }
        if let Some(limit) = self.limit {
            text.push_str(&format!(" LIMIT {limit}"));
        }
        text
    }

    /// Blocks of what is sorted or grouped are counted in rows alone, those that are read in bytes too.
    fn has_long_rows(&self) -> bool {
        let are_many = self.limit.is_none_or(|limit| limit as u64 > LONG_ROWS_AT_ONCE);
        self.has_long_states || !self.order.is_empty() && are_many
    }
}

/// Rows of one batch of an answer where they may be long.
const LONG_ROWS_AT_ONCE: u64 = 8192;

/// Seam conditions for a scan: rows of a partition that count at these offsets.
pub(crate) fn rows_between(partition: Partition, record: &SeamRecord, first: u64, last: u64) -> Option<String> {
    visible::between(partition, record, first, last)
}

/// Either of some conditions.
pub(crate) fn any_of(conditions: impl Iterator<Item = String>) -> String {
    visible::any(conditions)
}

/// A text as a parameter: each way into a server unescapes parameters in its own way, and hexadecimal has nothing to unescape.
pub(crate) fn text_parameter(name: &str, text: &str) -> (String, (String, String)) {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    (format!("unhex({{{name}:String}})"), (name.to_owned(), hex))
}

fn outcome(error: ClickHouseError) -> HotError {
    let reason = error.to_string();
    match error {
        ClickHouseError::Unreachable(_) => HotError::Busy { reason },
        ClickHouseError::Refused { code: Some(code), .. } if NOTHING_STORED.contains(&code) => {
            HotError::Busy { reason }
        }
        _ => HotError::Unknown { reason },
    }
}

fn highest(held: &[Held], partition: Partition) -> BTreeMap<u64, u64> {
    let of = held.iter().filter(|held| held.partition == partition);
    of.map(|held| (held.generation, held.last)).collect()
}

fn parse_held(row: &[String]) -> Result<Held, ClickHouseError> {
    let number = |at: usize| row.get(at).and_then(|text| text.parse::<u64>().ok());
    let partition = row.first().and_then(|text| Partition::from_i64(text.parse().ok()?));
    let held = || {
        Some(Held {
            partition: partition?,
            generation: number(1)?,
            first: number(2)?,
            last: number(3)?,
            rows: number(4)?,
            ledger_rows: number(5)?,
            batch_rows: number(6)?,
            set_aside: None,
        })
    };
    held().ok_or_else(|| ClickHouseError::Answer(format!("{row:?} are no ends of a generation")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_while_the_statement_stays_short() {
        let names = |count: usize| (0..count).map(|n| format!("20260101_{n}_{n}_0")).collect();
        let mut asked = Asked {
            places: "(`partition` = 0)".to_owned(),
            limit: Some(3),
            ..Asked::default()
        };
        assert_eq!(asked.in_pieces(), None);
        asked.parts.without = names(1);
        let one = asked.in_pieces().unwrap();
        assert!(!one.contains("UNION") && one.ends_with("LIMIT 3"), "{one}");
        asked.parts.whole = names(2);
        let both = asked.in_pieces().unwrap();
        assert!(
            both.starts_with("SELECT * FROM ((SELECT") && both.ends_with(" LIMIT 3"),
            "{both}"
        );
        asked.parts.clean = vec!["20260101_9_9_0".to_owned()];
        let hides = |asked: &Asked| {
            asked
                .in_pieces()
                .unwrap()
                .split("UNION ALL")
                .map(|piece| piece.contains("quarantined_by"))
                .collect()
        };
        let none: Vec<bool> = hides(&asked);
        assert_eq!(none, [false, false]);
        asked.leaves_out_set_aside = true;
        let all_but_clean: Vec<bool> = hides(&asked);
        assert_eq!(all_but_clean, [false, true, true]);
        asked.conditions = vec!["1".repeat(MAX_PIECES_BYTES / 2)];
        assert_eq!(asked.in_pieces(), None);
    }
}
