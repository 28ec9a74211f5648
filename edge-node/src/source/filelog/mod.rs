//! Files that grow: found by patterns, read event by event, followed through rotation. How far each was read travels with its
//! events into the journal, so an event is there once, whenever the process ends.

mod cut;
mod glob;
mod parse;
mod place;
mod scan;
mod tail;
mod tracked;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_wire::Signal;
use tokio_util::sync::CancellationToken;

use super::deliver::{Delivered, Delivery, deliver};
use super::event::EventLimits;
use super::host_name;
use super::stats::SourceStats;
use crate::config::compile;
use crate::config::{FileLog, Format, Multiline};
use crate::intake::Intake;
use crate::positions::Position;
use crate::sealer::blocking;
use crate::status::now_ns;
use cut::{Cutter, Grouping};
use glob::Pattern;
use parse::Parser;
use tail::{Collected, Noticed, Settings, Tailer};

/// One request holds no more, unless a single event does.
const REQUEST_ROWS: usize = 4096;
const REQUEST_BYTES: usize = 1 << 20;
/// Between attempts to begin where the disk does not take it.
const BEGIN_PAUSE: Duration = Duration::from_secs(1);

/// A `[[source.filelog]]`.
#[derive(Debug)]
pub(crate) struct FileLogSource {
    config: FileLog,
    grouping: Grouping,
    parser: Parser,
    stats: Arc<SourceStats>,
}

impl FileLogSource {
    /// The text tells what is wrong with the configuration, which is checked before.
    pub(crate) fn build(config: &FileLog) -> Result<(Self, Arc<SourceStats>), String> {
        let grouping = match &config.multiline {
            None => Grouping::Lines,
            Some(Multiline::Indented(_)) => Grouping::Indented,
            Some(Multiline::Start { start }) => Grouping::Start(compile(start)?),
        };
        let parser = match config.format {
            Format::None => Parser::None,
            Format::Json => Parser::Json,
            Format::Logfmt => Parser::Logfmt,
            Format::Regex => Parser::Regex(compile(config.pattern.as_deref().unwrap_or_default())?),
        };
        let stats = SourceStats::new(&config.name, "filelog");
        let source = Self {
            config: config.clone(),
            grouping,
            parser,
            stats: stats.clone(),
        };
        Ok((source, stats))
    }

    /// Reads until it is told to stop.
    pub(crate) async fn run(self, intake: Arc<Intake>, stop: CancellationToken) {
        let started = Instant::now();
        let Some(mut tailer) = self.begin(&intake, started, &stop).await else {
            return;
        };
        while !stop.is_cancelled() {
            let (back, collected) = blocking(move || {
                let collected = tailer.collect(started.elapsed(), now_ns());
                (tailer, collected)
            })
            .await;
            tailer = back;
            self.tell(tailer.noticed(started.elapsed()));
            let forgotten = tailer.forgotten();
            if !forgotten.is_empty() {
                intake.journal.positions().forget(&self.config.name, &forgotten);
            }
            match collected {
                Some(collected) => {
                    let delivery = self.delivery(collected);
                    if deliver(&intake, &self.stats, &delivery, None, &stop).await == Delivered::Stopped {
                        return;
                    }
                }
                None => {
                    tokio::select! {
                        () = tokio::time::sleep(self.config.poll_interval) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
    }

    /// From where it left off, or for the first time: then the places where it begins are on disk before anything is read, so that
    /// what is written while nobody reads is not taken for old.
    async fn begin(&self, intake: &Arc<Intake>, started: Instant, stop: &CancellationToken) -> Option<Tailer> {
        let positions = intake.journal.positions().clone();
        loop {
            let (settings, positions) = (self.settings(intake), positions.clone());
            let name = self.config.name.clone();
            let begun = blocking(move || {
                let known = positions.of(&name);
                let is_first = known.is_none();
                let tailer = Tailer::new(settings, known, started.elapsed());
                if is_first {
                    positions.begin(&name, tailer.places())?;
                }
                Ok::<_, std::io::Error>(tailer)
            });
            match begun.await {
                Ok(tailer) => return Some(tailer),
                Err(error) => self.stats.problem(Some(format!("positions cannot be saved: {error}"))),
            }
            tokio::select! {
                () = tokio::time::sleep(BEGIN_PAUSE) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    fn settings(&self, intake: &Intake) -> Settings {
        let config = &self.config;
        let limits = &intake.limits.decode;
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        let attributes = config.attributes.iter();
        Settings {
            include: patterns(&config.include),
            exclude: patterns(&config.exclude),
            start_at: config.start_at,
            cutter: Cutter {
                grouping: self.grouping.clone(),
                max_bytes: usize::try_from(config.max_event_bytes).unwrap_or(usize::MAX),
            },
            parser: self.parser.clone(),
            last_line_after: config.last_line_after,
            max_open: config.max_open_files,
            service: config.service.clone(),
            host: host_name(),
            attributes: attributes.map(|(k, v)| (k.clone(), v.clone())).collect(),
            event_limits: EventLimits {
                // Beside its own an event gets those of its file.
                max_attributes: limits.max_attributes.saturating_sub(config.attributes.len() + 4),
                max_depth: limits.max_depth,
            },
            max_rows: REQUEST_ROWS.min(limits.max_rows),
            max_bytes: REQUEST_BYTES.min(limits.max_bytes / 4),
        }
    }

    fn delivery(&self, collected: Collected) -> Delivery {
        let position = |(key, value)| Position {
            source: self.config.name.clone(),
            key,
            value,
        };
        Delivery {
            signal: Signal::Log,
            rows: collected.request.rows() as u64,
            body: collected.request.finish(),
            positions: collected.places.into_iter().map(position).collect(),
        }
    }

    fn tell(&self, noticed: Noticed) {
        let stats = &self.stats;
        stats.gauge("files", noticed.files);
        stats.gauge("unread_bytes", noticed.unread_bytes);
        stats.gauge("behind_ms", noticed.behind.as_millis() as u64);
        stats.add("rotated_in_place", noticed.truncated_files);
        stats.add("cut_events", noticed.cut);
        stats.add("unparsed_events", noticed.unparsed);
        stats.add("not_utf8_events", noticed.not_utf8);
        stats.refused("too_many_files", noticed.left_out);
        stats.problem(noticed.problem);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
