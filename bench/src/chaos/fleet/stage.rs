//! Does to the fleet what a step says, tells of it, and waits for what must happen by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::super::action::{Action, Step, Who};
use super::super::judge::Seen;
use crate::engines::{Engine, Engines};
use crate::fleet::{Fleet, Part};
use crate::oracle::Oracle;
use crate::process::StartError;

/// For anything that happens by itself; far above what it takes, because machines that test are busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// For all that was acknowledged to be in both stores.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(300);
/// For a process to come to a point that it need not come to.
const POINT_LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often somebody who watches is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// A query that takes longer is not waited for, where only a number to show is wanted.
const GLANCE: Duration = Duration::from_secs(5);
/// Events that are acknowledged after a step before it counts as survived.
const AFTERWARDS: u64 = 200;

pub(super) struct FleetStage<'a> {
    pub(super) fleet: Fleet,
    pub(super) engines: &'a Engines,
    pub(super) oracle: Arc<Oracle>,
    pub(super) seen: Seen,
    pub(super) hits: BTreeMap<Part, u64>,
    pub(super) absences: BTreeMap<Engine, u64>,
    events: u64,
    /// Acknowledged events at which the next step is due.
    due: u64,
    begun: Instant,
    told: Instant,
    tell: &'a (dyn Fn(&str) + Send + Sync),
}

impl<'a> FleetStage<'a> {
    pub(super) fn new(
        fleet: Fleet,
        engines: &'a Engines,
        oracle: Arc<Oracle>,
        events: u64,
        tell: &'a (dyn Fn(&str) + Send + Sync),
    ) -> FleetStage<'a> {
        let now = Instant::now();
        FleetStage {
            fleet,
            engines,
            oracle,
            seen: Seen::default(),
            hits: BTreeMap::new(),
            absences: BTreeMap::new(),
            events,
            due: 0,
            begun: now,
            told: now,
            tell,
        }
    }

    /// Every step, and then until enough events are acknowledged.
    pub(super) async fn through(&mut self, steps: &[Step]) -> Result<()> {
        let all = steps.len();
        for (number, step) in steps.iter().enumerate() {
            self.due += step.after_events;
            self.acknowledged(self.due).await?;
            tokio::time::sleep(Duration::from_millis(step.then_ms)).await;
            self.say(&format!("{:>2}/{all}  {}", number + 1, step.action));
            let performed = self.perform(step.action).await;
            performed.with_context(|| format!("step {} of {all}: {}", number + 1, step.action))?;
            let survived = self.oracle.acknowledged_events() + AFTERWARDS;
            let survived = self.acknowledged(survived).await;
            survived.with_context(|| format!("after step {} of {all}: {}", number + 1, step.action))?;
        }
        self.acknowledged(self.events).await
    }

    async fn perform(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Kill(Who::Of(part)) => self.kill(part).await,
            Action::CrashAt {
                who: Who::Of(part),
                point,
                passage,
            } => self.crash(part, point, passage).await,
            Action::Pause { who: Who::Of(part), ms } => {
                self.fleet.processes.process(part)?.signal(Signal::STOP)?;
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.fleet.processes.process(part)?.signal(Signal::CONT)?;
                self.seen.pauses += 1;
                Ok(())
            }
            Action::Away { engine, ms, kill } => {
                self.engines.kill(engine).await?;
                *self.absences.entry(engine).or_default() += 1;
                let killed = match kill {
                    Some(Who::Of(part)) => {
                        tokio::time::sleep(Duration::from_millis(ms / 2)).await;
                        self.fleet.processes.kill(part)?;
                        self.hit(part);
                        Some(part)
                    }
                    _ => None,
                };
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.engines.start_again(engine).await?;
                match killed {
                    Some(part) => self.fleet.processes.start(part).await,
                    None => Ok(()),
                }
            }
            other => bail!("nothing of the kind is done to a fleet: {other}"),
        }
    }

    async fn kill(&mut self, part: Part) -> Result<()> {
        self.fleet.processes.kill(part)?;
        self.hit(part);
        let begun = Instant::now();
        self.fleet.processes.start(part).await?;
        self.seen.slowest_start = self.seen.slowest_start.max(begun.elapsed());
        Ok(())
    }

    async fn crash(&mut self, part: Part, point: &str, passage: u32) -> Result<()> {
        self.fleet.processes.kill(part)?;
        let at = format!("{point}:{passage}");
        match self.fleet.processes.start_with(part, Some(at.clone())).await {
            Ok(()) => {
                let ended = self.fleet.processes.process_mut(part)?.ended(POINT_LIMIT).await?;
                if ended.is_none() {
                    // Its partitions may be with others, or its edges at another gateway: then it is killed where it stands.
                    self.say(&format!("       {part} never came to {at}"));
                    self.fleet.processes.kill(part)?;
                } else {
                    self.seen.crashes += 1;
                }
            }
            Err(StartError::Ended { .. }) => self.seen.crashes += 1,
            Err(error) => return Err(error.into()),
        }
        self.hit(part);
        self.fleet.processes.start(part).await
    }

    fn hit(&mut self, part: Part) {
        self.seen.kills += 1;
        *self.hits.entry(part).or_default() += 1;
    }

    /// Waits until so many events are acknowledged to their senders.
    async fn acknowledged(&mut self, goal: u64) -> Result<()> {
        let mut last = (self.oracle.acknowledged_events(), Instant::now());
        while last.0 < goal {
            self.fleet.all_run()?;
            if last.1.elapsed() > PATIENCE {
                bail!("no events are acknowledged for {} s", PATIENCE.as_secs());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            self.glance().await;
            let now = self.oracle.acknowledged_events();
            if now > last.0 {
                last = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Waits until both stores hold everything.
    pub(super) async fn arrived(&mut self) -> Result<()> {
        self.say("every blow is dealt; waiting until all has arrived");
        self.fleet.arrive(self.engines, ARRIVAL_LIMIT).await
    }

    /// Now and then, how far it is.
    async fn glance(&mut self) {
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        let acknowledged = self.oracle.acknowledged_events();
        let stored = match self.fleet.sql() {
            Ok(sql) => {
                // The ledger says it without a look at the rows.
                let asked =
                    sql.ask("SELECT sum(\"rows\") FROM ledger WHERE bucket = 'stored' AND outcome <> 'duplicate'");
                let answer = tokio::time::timeout(GLANCE, asked).await.ok().and_then(Result::ok);
                answer.and_then(|answer| answer.count().ok())
            }
            Err(_) => None,
        };
        let stored = stored.map_or("queries wait".to_owned(), |n| format!("{} stored", grouped(n)));
        self.say(&format!(
            "       {} of {} acknowledged, {stored}",
            grouped(acknowledged),
            grouped(self.events)
        ));
        self.told = Instant::now();
    }

    pub(super) fn say(&mut self, words: &str) {
        (self.tell)(&format!("{:>7.1} s  {words}", self.begun.elapsed().as_secs_f64()));
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn digits_stand_in_groups_of_three() {
        let shown = [0, 999, 1_000, 500_000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "500,000", "1,234,567"]);
    }
}
