//! Chaos: real processes that are killed, stopped, set to a wrong time, put on full disks, given damaged files and a bad link, under an
//! observer that is never killed and counts every event through SQL afterwards.
//!
//! `plan` says what is done, as a pure function of a seed; `world` starts the processes; `act` does to them what the plan says; `judge`
//! compares. A run that did not see what it is for proves nothing and fails, too. `fleet` does the same to a fleet on real engines.

mod act;
mod action;
mod clock;
pub mod fleet;
mod flip;
mod judge;
mod plan;
mod processes;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use action::{Action, Step, Who};
pub use judge::{Judgement, Seen};
pub use plan::{Length, Scenario, UnknownScenario};
pub use processes::Processes;
pub use world::Programs;

use crate::corpus::Signal;
use crate::load::{self, ClientError, LoadOptions, LoadReport, Protocol, Target};
use crate::oracle::Oracle;
use act::Stage;
use world::{Built, World};

/// Small requests, so that many are answered between two faults and few events are in doubt at each.
const EVENTS_PER_REQUEST: usize = 20;
const IN_FLIGHT: usize = 4;
/// A request without an answer for so long counts as unknown.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// One run of one scenario.
#[derive(Clone, Debug)]
pub struct Options {
    pub programs: Programs,
    pub scenario: Scenario,
    pub seed: u64,
    pub length: Length,
    /// How many actions; as many as the length says if none.
    pub rounds: Option<usize>,
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// Everything was seen and everything is accounted for.
    Held(Box<Judgement>),
    /// A promise was broken, or the run shows nothing.
    Failed {
        problems: Vec<String>,
        schedule: Vec<String>,
        /// With all data and logs.
        folder: PathBuf,
        judgement: Option<Box<Judgement>>,
    },
    /// What this machine does not allow.
    Skipped(&'static str),
}

/// Runs one scenario; `tell` is told of every step.
pub async fn run(options: &Options, tell: &(dyn Fn(&str) + Send + Sync)) -> Result<Ended> {
    let folder = tempfile::Builder::new()
        .prefix(&format!("sluice-chaos-{}-", options.scenario.name()))
        .tempdir()?;
    let setup = options.scenario.setup(options.length, options.seed);
    let world = match World::build(&options.programs, &setup, folder.path()).await {
        Ok(Built::World(world)) => world,
        Ok(Built::Impossible(why)) => return Ok(Ended::Skipped(why)),
        Err(error) => {
            return Ok(Ended::Failed {
                problems: vec![format!("{error:#}")],
                schedule: Vec::new(),
                folder: folder.keep(),
                judgement: None,
            });
        }
    };
    let mut run = Run::start(options, *world).await?;
    let judged = run.through(options, tell).await;
    let (problems, judgement) = match judged {
        Ok(judgement) => (judgement.problems.clone(), Some(Box::new(judgement))),
        Err(error) => (vec![format!("{error:#}")], None),
    };
    match (problems.is_empty(), judgement) {
        (true, Some(judgement)) => Ok(Ended::Held(judgement)),
        (_, judgement) => {
            let schedule = std::mem::take(&mut run.schedule);
            // What lies on small disks goes with them, unless it is kept first.
            let kept = folder.keep();
            run.keep_disks(&kept);
            Ok(Ended::Failed {
                problems,
                schedule,
                folder: kept,
                judgement,
            })
        }
    }
}

/// Load, observer and processes while the plan is carried out.
struct Run {
    stage: Stage,
    stop: Arc<AtomicBool>,
    load: Option<tokio::task::JoinHandle<Result<LoadReport, ClientError>>>,
    schedule: Vec<String>,
    begun: Instant,
}

impl Run {
    async fn start(options: &Options, mut world: World) -> Result<Run> {
        let setup = options.scenario.setup(options.length, options.seed);
        let oracle = Arc::new(Oracle::new(options.seed));
        let stop = Arc::new(AtomicBool::new(false));
        let target = Target {
            timeout: ANSWER_LIMIT,
            ..Target::new(Protocol::Grpc, world.process(action::Who::Edge)?.url("otlp-grpc")?)
        };
        let load = tokio::spawn(load::run(
            LoadOptions {
                target,
                seed: options.seed,
                signals: Signal::ALL.to_vec(),
                first_request: 0,
                batch: EVENTS_PER_REQUEST,
                count: u64::MAX,
                until_accepted: true,
                rate: Some(setup.events_per_second),
                concurrency: IN_FLIGHT,
            },
            oracle.clone(),
            stop.clone(),
        ));
        Ok(Run {
            stage: Stage::new(world, oracle),
            stop,
            load: Some(load),
            schedule: Vec::new(),
            begun: Instant::now(),
        })
    }

    async fn through(&mut self, options: &Options, tell: &(dyn Fn(&str) + Send + Sync)) -> Result<Judgement> {
        let steps = options.scenario.plan(options.seed, options.length, options.rounds);
        let all = steps.len();
        for (number, step) in steps.into_iter().enumerate() {
            let line = format!(
                "{:>7.1} s  {}/{all}  {step}",
                self.begun.elapsed().as_secs_f64(),
                number + 1
            );
            tell(&line);
            self.schedule.push(line);
            self.stage
                .perform(&step)
                .await
                .with_context(|| format!("step {} of {all}: {step}", number + 1))?;
        }
        tell(&format!(
            "{:>7.1} s  waiting until all has arrived",
            self.begun.elapsed().as_secs_f64()
        ));
        self.stage.calm().await?;
        self.stop.store(true, Ordering::Relaxed);
        if let Some(load) = self.load.take() {
            load.await.context("the load ended")??;
        }
        self.stage.look().await;
        judge::judge(&mut self.stage, options).await
    }

    fn keep_disks(&mut self, folder: &Path) {
        self.stop.store(true, Ordering::Relaxed);
        self.stage.keep_disks(folder);
    }
}
