//! `sluice ingest replay`: rows made again, from the log or from cold.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use arrow::array::{AsArray, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sluice_ingest::IngestConfig;
use sluice_ingest::offline::Offline;
use sluice_ingest::replay::{Progress, Source, When, replay_cold, replay_hot};
use sluice_store::{Lake, Stores};

/// `sluice ingest replay`.
#[derive(clap::Args)]
#[command(
    after_help = "Ingest and queries may go on: cold changes hands in one step, hot in one for each partition, and the same twice changes nothing.\n\
    What is erased stays so. A log on the disk of one machine belongs to its ingest, which must not be running then; one in Kafka is shared.\n\
    The embedded hot store is made from the log at every start of ingest, so there is nothing to replay into it. Exit codes: 0 done, 1 not\n\
    (the message names the partitions of hot that were made again before; without one, nothing has changed), 3 refused."
)]
pub(crate) struct ReplayArgs {
    /// Settings of ingest
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What is made again
    #[arg(long, value_enum)]
    into: Into,
    /// Where its rows are taken from: hot can be made from cold when the log has forgotten them
    #[arg(long, value_enum, default_value_t = From::Log)]
    source: From,
    /// Records that ingest took in at this time and later, such as 2026-11-21T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: i64,
    /// And before this time; without it, all
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Into {
    Hot,
    Cold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    Log,
    Cold,
}

/// Microseconds since 1970 of a time as SQL writes it.
pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    let wrong = || "write a time such as 2026-11-21 or 2026-11-21T18:00:00Z".to_owned();
    let texts = StringArray::from(vec![text]);
    let kind = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let times = arrow::compute::cast(&texts, &kind).map_err(|_| wrong())?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    match times.iter().next().flatten() {
        Some(us) => Ok(us),
        None => Err(wrong()),
    }
}

/// The same as text.
pub(crate) fn show_time(us: i64) -> String {
    let times = TimestampMicrosecondArray::from(vec![us]).with_timezone("UTC");
    let text = arrow::compute::cast(&times, &DataType::Utf8);
    text.map_or_else(|_| us.to_string(), |text| text.as_string::<i32>().value(0).to_owned())
}

/// Tells how far it is, on stderr.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("replaying {bar:30} {pos} of {len} log records") {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn step(&self, done: u64, of: u64) {
        self.0.set_length(of);
        self.0.set_position(done);
        if self.0.is_hidden() {
            eprintln!("{done} of {of} log records");
        }
    }
}

pub(crate) async fn run(args: ReplayArgs) -> Result<ExitCode> {
    if (args.into, args.source) == (Into::Cold, From::Cold) {
        bail!("cold is made again from the log only");
    }
    let config = sluice_settings::load(&args.config, IngestConfig::from_toml)?;
    let when = When {
        from_us: args.from,
        to_us: args.to.unwrap_or(i64::MAX),
    };
    let lake = Lake::open(&config.lake, &config.s3.options()?).await?;
    let stores = Stores::open_in(&lake, config.hot.open()?).await?;
    let source = match args.source {
        From::Log => Source::Log,
        From::Cold => Source::Cold,
    };
    let offline = match source {
        Source::Log => Some(Offline::open(&config).await?),
        Source::Cold => None,
    };
    let bar = Bar::new();
    let done = match args.into {
        Into::Hot => replay_hot(offline.as_ref(), &stores, when, &bar).await,
        Into::Cold => {
            let offline = offline.as_ref().context("the log is not open")?;
            replay_cold(offline, &stores, when, &bar).await
        }
    };
    bar.0.finish_and_clear();
    if let Some(offline) = offline {
        offline.close().await;
    }
    let report = done?;
    if report.ranges.is_empty() {
        println!(
            "there is nothing of that time in {}",
            if args.into == Into::Hot { "hot" } else { "cold" }
        );
        return Ok(ExitCode::SUCCESS);
    }
    for range in &report.ranges {
        println!(
            "partition {}: offsets {} to {}",
            range.partition, range.first, range.last
        );
    }
    match report.files {
        Some(files) => println!(
            "{} rows were made again: {} files stand for {}",
            report.rows, files.files_after, files.files_before
        ),
        None => println!("{} rows were made again", report.rows),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_sql_reads_it_and_nonsense_is_refused() {
        assert_eq!(parse_time("1970-01-02"), Ok(86_400_000_000));
        assert_eq!(parse_time("1970-01-01T00:00:01Z"), Ok(1_000_000));
        assert_eq!(parse_time("1970-01-01T01:00:00+01:00"), Ok(0));
        for text in ["", "yesterday", "12"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
