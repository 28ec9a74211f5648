//! The fleet as a world of its own: every process of it is killed and stopped by a seed, and every engine that it stands on goes away and
//! comes back, while events come in at its edges. Then every event is counted, and hot and cold are held against each other.

mod judge;
mod plan;
mod stage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use judge::FleetJudgement;
pub use plan::plan;

use super::Programs;
use crate::engines::Engines;
use crate::fleet::{Fleet, Shape};
use crate::load::Observer;
use crate::oracle::Oracle;
use stage::FleetStage;

const EVENTS_PER_REQUEST: usize = 100;
/// All edges together: what two cores carry beside three engines.
const EVENTS_PER_SECOND: f64 = 3_000.0;
/// Share of the traces that the edges keep, so that the ledger has something to balance.
pub const SAMPLE: f64 = 0.8;

/// Cold stays behind hot for as long as a killed hot writer needs to come back: one that finds cold ahead leaves everything to it, and then
/// there is less to hold against each other.
const COMMIT_EVERY: Duration = Duration::from_secs(10);

/// One run.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    pub programs: Programs,
    /// To be acknowledged at least.
    pub events: u64,
    pub seed: u64,
    /// Rounds of blows: in each of them every process is killed once and every engine goes away once.
    pub rounds: usize,
}

/// A fleet that went through it all, and what was found.
#[derive(Debug)]
pub struct FleetRun {
    pub fleet: Fleet,
    pub oracle: Arc<Oracle>,
    pub judgement: FleetJudgement,
}

/// Runs a fleet below `folder` through the plan of a seed; `tell` is told of every step.
pub async fn run(
    options: &FleetOptions,
    engines: &Engines,
    folder: &std::path::Path,
    tell: &(dyn Fn(&str) + Send + Sync),
) -> Result<FleetRun> {
    let begun = Instant::now();
    let shape = Shape {
        sample: Some(SAMPLE),
        commit_every: COMMIT_EVERY,
        ..Shape::default()
    };
    let fleet = Fleet::start(&options.programs, engines, &shape, folder).await?;
    tell(&format!(
        "{} processes are up after {:.1} s: {}",
        fleet.processes.names().count(),
        begun.elapsed().as_secs_f64(),
        fleet
            .processes
            .names()
            .map(|part| part.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    ));
    let oracle = Arc::new(Oracle::new(options.seed));
    let stop = Arc::new(AtomicBool::new(false));
    let observer = Arc::clone(&oracle) as Arc<dyn Observer>;
    let loads = fleet.load(options.seed, EVENTS_PER_SECOND, EVENTS_PER_REQUEST, &observer, &stop)?;

    let mut stage = FleetStage::new(fleet, engines, Arc::clone(&oracle), options.events, tell);
    let done = stage.through(&plan(options.seed, options.events, options.rounds)).await;
    stop.store(true, Ordering::Relaxed);
    done?;
    for load in loads {
        load.await.context("the load ended")??;
    }
    stage.arrived().await?;
    let judgement = judge::judge(&mut stage, options).await?;
    Ok(FleetRun {
        fleet: stage.fleet,
        oracle,
        judgement,
    })
}
