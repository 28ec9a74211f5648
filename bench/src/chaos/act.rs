//! Does to the processes what a step says, and waits until the events flow again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::action::{Action, Files, Flip, LEAST_PACKET, Step, Who};
use super::flip;
use super::judge::Seen;
use super::world::World;
use crate::oracle::Oracle;
use crate::process::StartError;
use crate::relay::Weather;
use rustix::process::Signal;

/// For anything that happens by itself; far above what it takes, because machines that test are busy.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(40);
/// Events that are acknowledged after an action before it counts as survived.
const AFTERWARDS: u64 = 100;
/// Events that only the edge has when a bit of its files flips: several sealed batches and a journal.
const HELD_BACK: u64 = 3_000;
/// Events in the log that the cold table does not have when a bit of the log flips.
const AHEAD_OF_COLD: u64 = 4_000;

/// The world, and who watches it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) oracle: Arc<Oracle>,
    pub(super) seen: Seen,
    /// What the edge that runs now has counted when it was looked at last; a new one begins at nothing.
    counted: Counted,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    sessions: u64,
    retransmits: u64,
    retries_asked: u64,
    acked: u64,
}

impl Stage {
    pub(super) fn new(world: World, oracle: Arc<Oracle>) -> Stage {
        Stage {
            world,
            oracle,
            seen: Seen::default(),
            counted: Counted::default(),
        }
    }

    pub(super) async fn perform(&mut self, step: &Step) -> Result<()> {
        self.acknowledged(step.after_events).await?;
        tokio::time::sleep(Duration::from_millis(step.then_ms)).await;
        self.look().await;
        match step.action {
            Action::Kill(who) => self.kill(who).await?,
            Action::KillAll => {
                for who in Who::PAIR {
                    self.world.kill(who)?;
                    self.seen.kills += 1;
                }
                for who in Who::PAIR {
                    self.begin_again(who).await?;
                }
            }
            Action::CrashAt { who, point, passage } => self.crash(who, point, passage).await?,
            Action::Pause { who, ms } => self.pause(who, ms).await?,
            Action::Clock { who, seconds } => {
                self.world.set_clock(who, seconds)?;
                self.seen.jumps += 1;
            }
            Action::Fill { who, hold_ms, kill } => self.fill(who, hold_ms, kill).await?,
            Action::Flip(flip) => self.flip(flip).await?,
            Action::Outage { ms, kill } => {
                self.world.relay.cut(true);
                tokio::time::sleep(Duration::from_millis(ms / 2)).await;
                if let Some(who) = kill {
                    self.kill(who).await?;
                }
                tokio::time::sleep(Duration::from_millis(ms / 2)).await;
                self.world.relay.cut(false);
                self.seen.outages += 1;
            }
            Action::Rebind => self.world.relay.rebind().await?,
            Action::Away { engine, .. } => bail!("there is no {engine} in this world"),
            Action::Narrow => self.world.relay.change(Weather {
                largest: LEAST_PACKET,
                ..self.world.relay.weather()
            }),
        }
        self.acknowledged(AFTERWARDS).await.context("after the step")?;
        self.carried().await.context("after the step")
    }

    /// Nothing is done any more and everything runs: clocks are right, the link is as it was.
    pub(super) async fn calm(&mut self) -> Result<()> {
        for who in Who::PAIR {
            if !self.world.process(who)?.is_alive() {
                bail!("{who} has ended by itself:\n{}", self.world.process(who)?.log_tail());
            }
        }
        Ok(())
    }

    /// Adds what the edge counted since it was looked at last.
    pub(super) async fn look(&mut self) {
        // An edge that cannot say so now says so later.
        let Ok(status) = self.world.edge_status().await else {
            return;
        };
        let at = |name: &str| {
            status
                .pointer(&format!("/link/{name}"))
                .and_then(Value::as_u64)
                .unwrap_or(0)
        };
        let now = Counted {
            sessions: at("sessions"),
            retransmits: at("retransmits"),
            retries_asked: at("retries_asked"),
            acked: at("acked"),
        };
        let before = self.counted;
        self.seen.sessions += now.sessions.saturating_sub(before.sessions);
        self.seen.retransmits += now.retransmits.saturating_sub(before.retransmits);
        self.seen.retries_asked += now.retries_asked.saturating_sub(before.retries_asked);
        self.counted = now;
    }

    async fn kill(&mut self, who: Who) -> Result<()> {
        self.world.kill(who)?;
        self.seen.kills += 1;
        self.begin_again(who).await
    }

    /// Starts a process that is gone.
    async fn begin_again(&mut self, who: Who) -> Result<()> {
        let begun = Instant::now();
        self.world.start(who).await?;
        self.seen.slowest_start = self.seen.slowest_start.max(begun.elapsed());
        if who == Who::Edge {
            self.counted = Counted::default();
        }
        Ok(())
    }

    async fn crash(&mut self, who: Who, point: &str, passage: u32) -> Result<()> {
        self.world.kill(who)?;
        match self.world.start_with(who, Some(format!("{point}:{passage}"))).await {
            Ok(()) => {
                let ended = self.world.process(who)?.ended(PATIENCE).await?;
                ended.with_context(|| format!("{who} never came to {point}:{passage}"))?;
            }
            Err(StartError::Ended { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.seen.crashes += 1;
        self.begin_again(who).await
    }

    async fn pause(&mut self, who: Who, ms: u64) -> Result<()> {
        self.world.process(who)?.signal(Signal::STOP)?;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.world.process(who)?.signal(Signal::CONT)?;
        self.seen.pauses += 1;
        Ok(())
    }

    async fn fill(&mut self, who: Who, hold_ms: u64, kill: bool) -> Result<()> {
        let refused = self.oracle.refused_requests();
        self.look().await;
        let asked = self.seen.retries_asked;
        let begun = Instant::now();
        loop {
            // Whoever deletes makes room: it is taken, too, as others would.
            self.world.disk(who)?.fill()?;
            self.look().await;
            let felt = match who {
                Who::Edge => self.oracle.refused_requests() > refused,
                _ => self.seen.retries_asked > asked,
            };
            if felt {
                break;
            }
            if begun.elapsed() > PATIENCE {
                bail!("{who} never said that its disk is full");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        if kill {
            self.kill(who).await.context("on a full disk")?;
        }
        tokio::time::sleep(Duration::from_millis(hold_ms)).await;
        let alive = self.world.process(who)?.is_alive();
        self.world.disk(who)?.free()?;
        if !alive {
            bail!(
                "{who} ended when its disk was full:\n{}",
                self.world.process(who)?.log_tail()
            );
        }
        self.seen.fills += 1;
        Ok(())
    }

    async fn flip(&mut self, wanted: Flip) -> Result<()> {
        let who = wanted.file.owner();
        match who {
            Who::Edge => {
                self.world.relay.cut(true);
                self.acknowledged(HELD_BACK).await?;
            }
            _ => {
                self.acknowledged(AHEAD_OF_COLD).await?;
                self.carried().await?;
            }
        }
        self.world.kill(who)?;
        self.seen.kills += 1;
        let files = self.world.files(wanted.file)?;
        let flipped = flip::damage(&files, wanted.region, wanted.place, wanted.file == Files::Log)?;
        self.seen.flips.extend(flipped.map(|flipped| flipped.to_string()));
        let started = self.begin_again(who).await;
        started.with_context(|| format!("after {}", self.seen.flips.last().map_or("", String::as_str)))?;
        self.world.relay.cut(false);
        Ok(())
    }

    /// Waits until so many more events are acknowledged to the sender.
    async fn acknowledged(&mut self, events: u64) -> Result<()> {
        let goal = self.oracle.acknowledged_events() + events;
        let begun = Instant::now();
        while self.oracle.acknowledged_events() < goal {
            self.patient(begun, "no events are acknowledged")?;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Waits until the gateway has acknowledged a batch to the edge that runs now.
    async fn carried(&mut self) -> Result<()> {
        self.look().await;
        let (before, begun) = (self.counted.acked, Instant::now());
        while self.counted.acked <= before {
            self.patient(begun, "the gateway acknowledges no batches")?;
            tokio::time::sleep(LOOK_AGAIN).await;
            self.look().await;
        }
        Ok(())
    }

    fn patient(&mut self, begun: Instant, what: &str) -> Result<()> {
        for who in Who::PAIR {
            let process = self.world.process(who)?;
            if !process.is_alive() {
                bail!("{what}, because {who} has ended:\n{}", process.log_tail());
            }
        }
        if begun.elapsed() > PATIENCE {
            bail!("{what} for {} s", PATIENCE.as_secs());
        }
        Ok(())
    }

    pub(super) fn keep_disks(&mut self, folder: &Path) {
        for who in Who::PAIR {
            drop(self.world.kill(who));
            if self.world.disk(who).is_ok() {
                let from = folder.join(who.to_string());
                let to = folder.join(format!("{who}-disk"));
                let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
                drop(copied);
            }
        }
    }
}
