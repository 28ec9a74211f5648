//! `sluice ingest retention`: how long rows are kept, by which time, and the word of a person when that time is not believed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use sluice_ingest::IngestConfig;
use sluice_store::erase::{AgeClock, MAX_JUMP_US};
use sluice_store::{EmbeddedHot, Lake, Stores};

use crate::replay::show_time;

/// `sluice ingest retention`.
#[derive(clap::Args)]
#[command(
    after_help = "Rows, files and records of the log that are deleted for their age are deleted by a time that ingest remembers in the lake. It moves\n\
    with time, and follows a clock that steps to the front by up to 4 days; one that steps further, ahead by a year, say, would delete\n\
    everything, so it is not believed and nothing is deleted by it (sluice_retention_clock_ahead_seconds is above 0 then). Set the clock right.\n\
    If it is right, because ingest rested for so long, say so with --trust-clock: the clock of this machine then counts from the next turn of\n\
    the cold writer on (cold.compact_every)."
)]
pub(crate) struct RetentionArgs {
    /// Settings of ingest, which say where the lake is
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Believe the clock of this machine: what is too old by it is deleted for good
    #[arg(long)]
    trust_clock: bool,
}

pub(crate) async fn run(args: RetentionArgs) -> Result<ExitCode> {
    let config = sluice_settings::load(&args.config, IngestConfig::from_toml)?;
    let lake = Lake::open(&config.lake, &config.s3.options()?).await?;
    let stores = Stores::open_in(&lake, EmbeddedHot::new(0).into()).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    if args.trust_clock {
        stores.save_age_clock(&AgeClock::trusted(now_us)).await?;
        println!("{} is believed", show_time(now_us));
        return Ok(ExitCode::SUCCESS);
    }
    let retention = stores.retention().await?;
    let show = |keep_us: i64| match keep_us {
        0 => "for ever".to_owned(),
        keep => format!("for {:.1} days", keep as f64 / 86_400e6),
    };
    println!("rows are kept {}", show(retention.keep_us));
    for (tenant, keep_us) in &retention.tenants {
        println!("rows of {tenant} are kept {}", show(*keep_us));
    }
    match stores.age_clock().await? {
        None => println!("nothing was deleted for its age yet"),
        Some(clock) => {
            println!("it was last {} by the time that is believed", show_time(clock.at_us));
            let ahead = now_us.saturating_sub(clock.at_us);
            if ahead > MAX_JUMP_US {
                let days = ahead as f64 / 86_400e6;
                println!(
                    "the clock of this machine is {days:.1} days ahead of it; if that is right, say --trust-clock"
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
