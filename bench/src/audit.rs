//! What a running node says it holds, read through SQL as anyone would, and held against the oracle.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::corpus::{Expected, Signal};
use crate::oracle::{Oracle, Verdict};
use crate::process::{HttpError, Process, Sql};

/// As a query node is shipped.
const ROWS_OF_AN_ANSWER: u64 = 1_000_000;

/// Between two looks at a pipeline that is on its way to rest.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Looks in a row that must be the same before the pipeline counts as at rest: well above the freshness target of 1 s.
const SAME_LOOKS: u32 = 12;

/// Events by what the ledger says became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    pub accepted: u64,
    pub stored: u64,
    pub quarantined: u64,
    pub damaged: u64,
    /// By `plugin: reason`.
    pub dropped: BTreeMap<String, u64>,
    /// Batches that came again and were recognised.
    pub duplicates: u64,
}

impl Ledger {
    pub async fn read(sql: &Sql) -> Result<Ledger, HttpError> {
        let mut ledger = Ledger::default();
        // `rows` may be a keyword to some parsers; quoted it is a column to all.
        let question = "SELECT bucket, plugin, reason, sum(\"rows\") FROM ledger \
                        WHERE outcome <> 'duplicate' GROUP BY bucket, plugin, reason";
        for row in sql.ask(question).await?.rows {
            let text = |index: usize| row.get(index).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
            let rows = row.get(3).and_then(|v| v.as_u64()).unwrap_or(0);
            match text(0).as_str() {
                "accepted" => ledger.accepted += rows,
                "stored" => ledger.stored += rows,
                "quarantined" => ledger.quarantined += rows,
                "damaged" => ledger.damaged += rows,
                "dropped" => *ledger.dropped.entry(format!("{}: {}", text(1), text(2))).or_default() += rows,
                _ => {}
            }
        }
        let duplicates = sql.ask("SELECT sum(duplicates) FROM streams").await?;
        ledger.duplicates = duplicates.count()?;
        Ok(ledger)
    }

    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// P3, over all batches.
    pub fn balances(&self) -> bool {
        self.accepted == self.stored + self.dropped_in_all() + self.quarantined + self.damaged
    }
}

/// The whole comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    pub verdict: Verdict,
    pub ledger: Ledger,
    /// Rows that `events` returns.
    pub rows: u64,
    /// Why the ledger and the oracle disagree, sentence by sentence.
    pub disagreements: Vec<String>,
}

impl Audit {
    /// Waits until everything acknowledged has arrived and nothing moves any more (at most `limit`), then compares.
    pub async fn run(
        process: &Process,
        oracle: &Oracle,
        keeps: impl Fn(&Expected) -> bool,
        limit: Duration,
    ) -> Result<Audit, HttpError> {
        Audit::of(&process.sql()?, oracle, keeps, limit).await
    }

    /// The same by any door. One that does not know where the log ends has to show all that was acknowledged, and then no more.
    pub async fn of(
        sql: &Sql,
        oracle: &Oracle,
        keeps: impl Fn(&Expected) -> bool,
        limit: Duration,
    ) -> Result<Audit, HttpError> {
        let accepted = oracle.acknowledged_events();
        settle(sql, accepted, limit).await?;
        let stored = stored_ids(sql).await?;
        let ledger = Ledger::read(sql).await?;
        let verdict = oracle.judge(&stored, keeps);
        let rows = stored.values().sum();
        let disagreements = disagreements(&verdict, &ledger, rows);
        Ok(Audit {
            verdict,
            ledger,
            rows,
            disagreements,
        })
    }

    pub fn holds(&self) -> bool {
        self.verdict.holds() && self.disagreements.is_empty()
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.verdict)?;
        writeln!(
            f,
            "ledger: accepted {} = stored {} + dropped {} + quarantined {} + damaged {}   (batches seen again and suppressed: {})",
            self.ledger.accepted,
            self.ledger.stored,
            self.ledger.dropped_in_all(),
            self.ledger.quarantined,
            self.ledger.damaged,
            self.ledger.duplicates
        )?;
        for (reason, rows) in &self.ledger.dropped {
            writeln!(f, "  dropped by {reason}: {rows}")?;
        }
        for sentence in &self.disagreements {
            writeln!(f, "DISAGREEMENT: {sentence}")?;
        }
        f.write_str(if self.holds() {
            "every accepted event is accounted for, once"
        } else {
            "THE PROMISE DOES NOT HOLD"
        })
    }
}

/// How often each id is in `events`.
pub async fn stored_ids(sql: &Sql) -> Result<HashMap<String, u64>, HttpError> {
    #[derive(Deserialize)]
    struct Row {
        id: Option<String>,
        n: u64,
    }
    let mut ids = HashMap::new();
    for signal in Signal::ALL {
        let of_signal = format!("FROM events WHERE signal = '{signal}'");
        let rows = sql.ask(&format!("SELECT count(*) {of_signal}")).await?.count()?;
        for part in parts(rows) {
            let question =
                format!("SELECT attrs['evt.id'] AS id, count(*) AS n {of_signal} AND {part} GROUP BY attrs['evt.id']");
            let answer = sql.send(&question, "application/x-ndjson").await?;
            for line in answer.text().lines().filter(|line| !line.is_empty()) {
                let row: Row = serde_json::from_str(line).map_err(|error| HttpError::Shape {
                    what: format!("{error} in {line}"),
                })?;
                if let Some(id) = row.id {
                    *ids.entry(id).or_default() += row.n;
                }
            }
        }
    }
    Ok(ids)
}

/// Conditions that together hold for every event that has an id, each for once: one answer has a limited number of rows.
fn parts(rows: u64) -> Vec<String> {
    if rows <= ROWS_OF_AN_ANSWER / 2 {
        return vec!["true".to_owned()];
    }
    let ends = (0..10).map(|digit| format!("right(attrs['evt.id'], 1) = '{digit}'"));
    ends.chain(std::iter::once(
        "right(attrs['evt.id'], 1) NOT IN ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')".to_owned(),
    ))
    .collect()
}

/// Waits until the ledger counts at least `accepted` events and has not changed for a while. Runs into the limit quietly:
/// the comparison that follows says what is missing.
async fn settle(sql: &Sql, accepted: u64, limit: Duration) -> Result<(), HttpError> {
    let started = Instant::now();
    let mut last = (0, 0);
    let mut same = 0;
    while started.elapsed() < limit {
        let answer = sql
            .ask("SELECT sum(\"rows\"), count(*) FROM ledger WHERE bucket = 'accepted' AND outcome NOT IN ('duplicate', 'report')")
            .await;
        // Right after a start a node may not be able to answer yet.
        if let Ok(answer) = answer {
            let value = |index: usize| {
                answer
                    .rows
                    .first()
                    .and_then(|row| row.get(index)?.as_u64())
                    .unwrap_or(0)
            };
            let now = (value(0), value(1));
            same = if now == last && (answer.is_complete() || !answer.knows_the_end()) {
                same + 1
            } else {
                0
            };
            last = now;
            if last.0 >= accepted && same >= SAME_LOOKS {
                break;
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

fn disagreements(verdict: &Verdict, ledger: &Ledger, rows: u64) -> Vec<String> {
    let mut found = Vec::new();
    if !ledger.balances() {
        found.push("the ledger does not balance".to_owned());
    }
    let at_least = verdict.accepted + verdict.seen_unknown;
    let at_most = verdict.accepted + verdict.sent_unknown;
    if !(at_least..=at_most).contains(&ledger.accepted) {
        found.push(format!(
            "the ledger counts {} accepted events, the oracle between {at_least} and {at_most}",
            ledger.accepted
        ));
    }
    if ledger.stored != rows {
        found.push(format!(
            "the ledger counts {} stored events, the table has {rows}",
            ledger.stored
        ));
    }
    if ledger.dropped_in_all() < verdict.dropped {
        found.push(format!(
            "the ledger counts {} dropped events, the oracle at least {}",
            ledger.dropped_in_all(),
            verdict.dropped
        ));
    }
    found
}
