//! The end of a run: every accepted event is in the tables once, as it was sent and in its order, or in a bucket that counts it; and the
//! run saw what it is for.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::Options;
use super::act::Stage;
use super::action::Who;
use super::plan::Scenario;
use super::world::MAX_BATCH_ROWS;
use crate::audit::Audit;
use crate::payload::Content;
use crate::process::Sql;
use crate::relay::Traffic;

/// For everything acknowledged to arrive.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(120);
/// The same where something was destroyed, so that the wait for it is in vain.
const DAMAGED_ARRIVAL_LIMIT: Duration = Duration::from_secs(40);
/// Fewer events prove nothing.
const ENOUGH_EVENTS: u64 = 1_000;

/// What happened, so that a run that shows nothing is told from one that does.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    pub kills: u64,
    pub crashes: u64,
    pub pauses: u64,
    pub jumps: u64,
    pub fills: u64,
    pub outages: u64,
    pub flips: Vec<String>,
    /// Connections of edges to the gateway.
    pub sessions: u64,
    /// Batches that were sent again.
    pub retransmits: u64,
    /// Times that the gateway asked to wait.
    pub retries_asked: u64,
    pub slowest_start: Duration,
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Judgement {
    pub audit: Audit,
    pub content: Content,
    pub seen: Seen,
    pub traffic: Traffic,
    /// Events of batches that the tables lack although their edge reported them: damage that nobody could count when it was read.
    pub gap_rows: u64,
    pub gaps: u64,
    /// Records of the log of which nobody can say any more whose they were: the ledger has a row for each.
    pub unreadable: u64,
    /// Events that the gateway took in on another day than this one, by its clock.
    pub displaced: u64,
    /// Empty when all is well.
    pub problems: Vec<String>,
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Damage is accounted for in another way than the audit does it.
        let audit = self.audit.to_string();
        let lines: Vec<&str> = audit.lines().collect();
        writeln!(f, "{}", lines[..lines.len().saturating_sub(1)].join("\n"))?;
        writeln!(
            f,
            "compared {} events by content and order: {} altered, {} out of order",
            self.content.compared, self.content.altered.count, self.content.disordered.count
        )?;
        for mistakes in [&self.content.altered, &self.content.disordered] {
            for example in &mistakes.examples {
                writeln!(f, "  {example}")?;
            }
        }
        let seen = &self.seen;
        writeln!(
            f,
            "seen: {} kills, {} crash points, {} pauses, {} clock jumps, {} full disks, {} flips, {} outages; {} sessions, {} batches sent \
             again, {} asked to wait; slowest start {:.1} s",
            seen.kills,
            seen.crashes,
            seen.pauses,
            seen.jumps,
            seen.fills,
            seen.flips.len(),
            seen.outages,
            seen.sessions,
            seen.retransmits,
            seen.retries_asked,
            seen.slowest_start.as_secs_f64()
        )?;
        for flip in &seen.flips {
            writeln!(f, "  {flip}")?;
        }
        write!(
            f,
            "link: {:?}; gaps {} ({} events)",
            self.traffic, self.gaps, self.gap_rows
        )
    }
}

pub(super) async fn judge(stage: &mut Stage, options: &Options) -> Result<Judgement> {
    let setup = options.scenario.setup(options.length, options.seed);
    let limit = match options.scenario {
        Scenario::Flips => DAMAGED_ARRIVAL_LIMIT,
        _ => ARRIVAL_LIMIT,
    };
    let cloud = stage.world.process(Who::Cloud)?;
    let sql = cloud.sql()?;
    let audit = Audit::run(
        cloud,
        &stage.oracle,
        |event| setup.sample.is_none_or(|rate| event.kept_at(rate)),
        limit,
    )
    .await?;
    let content = Content::read(&sql, stage.oracle.corpus(), &stage.oracle.requests()).await?;
    let (gaps, gap_rows) = gaps(&sql).await?;
    let unreadable = "SELECT count(*) FROM ledger WHERE tenant = '_unknown' AND bucket = 'accepted'";
    let unreadable = sql.ask(unreadable).await?.count()?;
    let displaced = "SELECT count(*) FROM events WHERE ingested_at > now() + INTERVAL '12 hours' OR ingested_at < now() - INTERVAL '12 hours'";
    let displaced = sql.ask(displaced).await?.count()?;
    stage.look().await;
    let mut judgement = Judgement {
        audit,
        content,
        seen: stage.seen.clone(),
        traffic: stage.world.relay.traffic(),
        gap_rows,
        gaps,
        unreadable,
        displaced,
        problems: Vec::new(),
    };
    judgement.problems = problems(&judgement, options.scenario);
    Ok(judgement)
}

async fn gaps(sql: &Sql) -> Result<(u64, u64)> {
    let answer = sql.ask("SELECT sum(gaps), sum(backlog_rows) FROM streams").await?;
    let value = |index: usize| {
        answer
            .rows
            .first()
            .and_then(|row| row.get(index)?.as_u64())
            .unwrap_or(0)
    };
    Ok((value(0), value(1)))
}

fn problems(judgement: &Judgement, scenario: Scenario) -> Vec<String> {
    let mut found = match scenario {
        Scenario::Flips => damage(judgement),
        _ => strict(judgement),
    };
    if !judgement.content.holds() {
        found.push(format!(
            "{} events altered, {} out of order",
            judgement.content.altered.count, judgement.content.disordered.count
        ));
    }
    found.extend(
        vacuous(judgement, scenario)
            .into_iter()
            .map(|what| format!("VACUOUS: {what}")),
    );
    found
}

/// Nothing was destroyed, so nothing may be missing.
fn strict(judgement: &Judgement) -> Vec<String> {
    let audit = &judgement.audit;
    let mut found = Vec::new();
    if !audit.holds() {
        found.push("what was accepted is not what the tables hold and the ledger counts".to_owned());
    }
    if audit.ledger.damaged > 0 || judgement.gaps > 0 || judgement.unreadable > 0 {
        found.push(format!(
            "{} events counted as damaged, {} gaps, {} unreadable records, though nothing was damaged",
            audit.ledger.damaged, judgement.gaps, judgement.unreadable
        ));
    }
    if judgement.content.compared != audit.rows {
        found.push(format!(
            "{} events compared, the table has {}",
            judgement.content.compared, audit.rows
        ));
    }
    found
}

/// What is missing was counted: by the ledger, as a gap of its stream whose events the edge had reported, or record by record where even
/// the heads of records are gone.
fn damage(judgement: &Judgement) -> Vec<String> {
    let (verdict, ledger) = (&judgement.audit.verdict, &judgement.audit.ledger);
    let mut found = Vec::new();
    for (what, mistakes) in [
        ("doubled", &verdict.duplicated),
        ("invented", &verdict.invented),
        ("stored though a plugin drops them", &verdict.too_many),
    ] {
        if mistakes.count > 0 {
            found.push(format!("{} events {what}", mistakes.count));
        }
    }
    if !ledger.balances() {
        found.push("the ledger does not balance".to_owned());
    }
    let counted = ledger.damaged + judgement.gap_rows;
    let told = counted + judgement.unreadable * MAX_BATCH_ROWS;
    if verdict.missing.count > told {
        found.push(format!(
            "{} events are missing, {counted} are counted as damaged or as gaps, and {} log records are unreadable",
            verdict.missing.count, judgement.unreadable
        ));
    }
    let in_doubt = verdict.sent_unknown;
    if counted > verdict.missing.count + in_doubt {
        found.push(format!(
            "{counted} events are counted as damaged or as gaps, {} are missing and {in_doubt} in doubt",
            verdict.missing.count
        ));
    }
    found
}

fn vacuous(judgement: &Judgement, scenario: Scenario) -> Vec<&'static str> {
    let (verdict, seen, traffic) = (&judgement.audit.verdict, &judgement.seen, &judgement.traffic);
    let duplicates = judgement.audit.ledger.duplicates;
    let mut missed = Vec::new();
    let mut wants = |is_so: bool, what: &'static str| {
        if !is_so {
            missed.push(what);
        }
    };
    wants(verdict.accepted >= ENOUGH_EVENTS, "too few events were accepted");
    match scenario {
        Scenario::CrashPoints => {
            wants(verdict.unknown_requests > 0, "no request was in flight at any crash");
            wants(duplicates > 0, "no batch came twice");
        }
        Scenario::Kills => {
            wants(verdict.unknown_requests > 0, "no request was in flight at any kill");
            wants(seen.sessions > 1, "no edge connected again");
            wants(duplicates > 0, "no batch came twice");
            wants(verdict.dropped > 0, "no plugin dropped anything");
        }
        Scenario::Pause => wants(seen.sessions > 1, "no pause ended a connection"),
        Scenario::Clock => {
            wants(seen.jumps >= 2, "no clock jumped there and back");
            wants(judgement.displaced > 0, "the gateway did not see its clock jump");
        }
        Scenario::Full => {
            wants(verdict.refused_requests > 0, "nothing was refused");
            wants(seen.retries_asked > 0, "the gateway never asked to wait");
        }
        Scenario::Flips => {
            wants(!seen.flips.is_empty(), "no bit was flipped");
            wants(judgement.audit.ledger.damaged > 0, "nothing was damaged");
        }
        Scenario::Relay => {
            wants(
                traffic.lost > 0 && traffic.repeated > 0 && traffic.late > 0,
                "the link was good",
            );
            wants(traffic.cut > 0 && traffic.rebinds > 0, "no outage, or no new port");
            wants(traffic.too_long > 0, "no packet was too long");
            wants(seen.sessions > 1, "no outage ended a connection");
        }
        Scenario::Mixed => {
            wants(seen.kills + seen.crashes + seen.pauses > 0, "no process was hit");
            wants(traffic.lost > 0, "the link was good");
            wants(seen.sessions > 1, "no edge connected again");
        }
    }
    missed
}
