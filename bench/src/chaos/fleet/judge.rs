//! The end of a fleet's run: every accepted event is stored once or counted as dropped, as it was sent and in its order; hot and cold hold
//! the same rows; and everything was hit.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::Result;

use super::super::judge::Seen;
use super::plan::PARTS;
use super::stage::FleetStage;
use super::{FleetOptions, SAMPLE};
use crate::audit::Audit;
use crate::engines::Engine;
use crate::fleet::{Part, Twins, edge_of};
use crate::oracle::Request;
use crate::payload::Content;

/// Everything has arrived before: this is for the answers to say so.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Of so many rows of cold one must be in hot as well. What hot has let go of because cold was ahead is not held against anything.
const ENOUGH_OF_BOTH: u64 = 10;

/// What a run of a fleet showed.
#[derive(Clone, Debug)]
pub struct FleetJudgement {
    pub audit: Audit,
    /// Of each edge, because events of different edges have no order.
    pub content: BTreeMap<u8, Content>,
    pub twins: Twins,
    pub seen: Seen,
    pub hits: BTreeMap<Part, u64>,
    pub absences: BTreeMap<Engine, u64>,
    /// Empty when all is well.
    pub problems: Vec<String>,
}

impl fmt::Display for FleetJudgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.audit)?;
        for (edge, content) in &self.content {
            writeln!(
                f,
                "edge {edge}: {} events compared by content and order, {} altered, {} out of order",
                content.compared, content.altered.count, content.disordered.count
            )?;
            for example in content.altered.examples.iter().chain(&content.disordered.examples) {
                writeln!(f, "  {example}")?;
            }
        }
        writeln!(f, "{}", self.twins)?;
        let hits = self.hits.iter().map(|(part, n)| format!("{part} {n}"));
        let absences = self.absences.iter().map(|(engine, n)| format!("{engine} {n}"));
        write!(
            f,
            "killed: {}\nkilled and started again: {}\nstood still: {}; died between two steps of theirs: {}; slowest start {:.1} s",
            hits.collect::<Vec<_>>().join(", "),
            absences.collect::<Vec<_>>().join(", "),
            self.seen.pauses,
            self.seen.crashes,
            self.seen.slowest_start.as_secs_f64()
        )?;
        for problem in &self.problems {
            write!(f, "\nPROBLEM: {problem}")?;
        }
        Ok(())
    }
}

pub(super) async fn judge(stage: &mut FleetStage<'_>, options: &FleetOptions) -> Result<FleetJudgement> {
    let sql = stage.fleet.sql()?;
    stage.say("counting every event");
    let audit = Audit::of(&sql, &stage.oracle, |event| event.kept_at(SAMPLE), SETTLE_LIMIT).await?;
    stage.say("comparing what every event says");
    let mut of_edges: BTreeMap<u8, Vec<Request>> = BTreeMap::new();
    for request in stage.oracle.requests() {
        of_edges.entry(edge_of(request.k)).or_default().push(request);
    }
    let lists: Vec<&[Request]> = of_edges.values().map(Vec::as_slice).collect();
    let contents = Content::read_each(&sql, stage.oracle.corpus(), &lists).await?;
    stage.say("holding hot against cold");
    let twins = Twins::read(stage.engines, &stage.fleet.places).await?;
    let mut judgement = FleetJudgement {
        audit,
        content: of_edges.into_keys().zip(contents).collect(),
        twins,
        seen: stage.seen.clone(),
        hits: stage.hits.clone(),
        absences: stage.absences.clone(),
        problems: Vec::new(),
    };
    judgement.problems = problems(&judgement, options);
    Ok(judgement)
}

fn problems(judgement: &FleetJudgement, options: &FleetOptions) -> Vec<String> {
    let (audit, twins) = (&judgement.audit, &judgement.twins);
    let mut found = Vec::new();
    let mut wants = |is_so: bool, what: String| {
        if !is_so {
            found.push(what);
        }
    };
    wants(
        audit.holds(),
        "what was accepted is not what the tables hold and the ledger counts".to_owned(),
    );
    wants(
        audit.ledger.damaged == 0 && audit.ledger.quarantined == 0,
        "the ledger counts damaged or quarantined events, though nothing was damaged".to_owned(),
    );
    wants(
        judgement.content.values().all(Content::holds),
        "events are altered or out of order".to_owned(),
    );
    let compared: u64 = judgement.content.values().map(|content| content.compared).sum();
    wants(
        compared == audit.rows,
        format!("{compared} events compared, the table has {}", audit.rows),
    );
    wants(
        twins.agree(),
        format!("hot and cold differ in {} rows", twins.differing.count),
    );
    // A run that shows nothing fails, too.
    wants(
        audit.verdict.accepted >= options.events,
        format!("VACUOUS: only {} events were accepted", audit.verdict.accepted),
    );
    wants(
        twins.alike > 0 && twins.cold_rows > audit.rows && twins.hot_rows > 0,
        "VACUOUS: one of the stores holds nothing".to_owned(),
    );
    wants(
        twins.alike >= twins.cold_rows / ENOUGH_OF_BOTH,
        format!(
            "VACUOUS: only {} of {} rows were in both stores",
            twins.alike, twins.cold_rows
        ),
    );
    wants(
        audit.ledger.dropped_in_all() > 0,
        "VACUOUS: no plugin dropped anything".to_owned(),
    );
    wants(audit.ledger.duplicates > 0, "VACUOUS: no batch came twice".to_owned());
    wants(
        audit.verdict.unknown_requests > 0,
        "VACUOUS: no request was in flight at any kill".to_owned(),
    );
    for part in PARTS {
        let hit = judgement.hits.contains_key(&part);
        wants(hit, format!("VACUOUS: {part} was never killed"));
    }
    for engine in Engine::ALL {
        let was_away = judgement.absences.contains_key(&engine);
        wants(was_away, format!("VACUOUS: {engine} was never away"));
    }
    found
}
