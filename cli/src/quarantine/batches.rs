//! Whole batches that ingest set aside: what there is, and putting it through the log again.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;
use sluice_ingest::IngestConfig;
use sluice_ingest::offline::{Offline, list_quarantine};
use sluice_ingest::quarantine::{Kept, Listing, Resubmitted, resubmit};
use sluice_store::{EmbeddedHot, Lake, Stores};
use sluice_wire::layout::IpcLimits;

use crate::replay::show_time;
use crate::sql::plain;

pub(super) async fn list(config: &Path, json: bool) -> Result<ExitCode> {
    let config = sluice_settings::load(config, IngestConfig::from_toml)?;
    let listing = list_quarantine(&config).await?;
    match json {
        true => println!(
            "{:#}",
            json!({ "batches": listing.batches, "unreadable": listing.unreadable })
        ),
        false => print!("{}", show(&listing)),
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each batch, and one for why.
fn show(listing: &Listing) -> String {
    if listing.batches.is_empty() && listing.unreadable.is_empty() {
        return "no batch is set aside\n".to_owned();
    }
    let line = |kept: &Kept| {
        let events = kept
            .events
            .map_or_else(|| "unknown events".to_owned(), |events| format!("{events} events"));
        let since = show_time(kept.first_seen_us);
        let became = match &kept.resubmitted_as {
            Some(id) => format!("\n          resubmitted as {}", plain(id)),
            None => String::new(),
        };
        let place = kept
            .place
            .as_ref()
            .map(|place| format!(" in the log at {place},"))
            .unwrap_or_default();
        format!(
            "{:>8}  {} epoch {} seq {},{place} {events}, {} bytes, first seen {}, {} times\n          {}{became}\n",
            kept.offset,
            plain(&kept.stream),
            kept.epoch,
            kept.seq,
            kept.bytes,
            since,
            kept.times,
            plain(&kept.reason),
        )
    };
    let lines = listing.batches.iter().map(line);
    let lost = listing
        .unreadable
        .iter()
        .map(|what| format!("unreadable: {}\n", plain(what)));
    lines.chain(lost).collect()
}

/// Puts those that were not resubmitted yet through the log, at most `limit` of them.
pub(super) async fn put_back(config: &Path, limit: u64, dry_run: bool) -> Result<ExitCode> {
    let config = sluice_settings::load(config, IngestConfig::from_toml)?;
    let offline = Offline::open(&config).await?;
    let quarantine = offline.quarantine();
    let listing = quarantine.list().await?;
    let wanted: Vec<&Kept> = listing
        .batches
        .iter()
        .filter(|kept| kept.resubmitted_as.is_none())
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .collect();
    if dry_run {
        println!("{} batches would be put through the log again", wanted.len());
        offline.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    let lake = Lake::open(&config.lake, &config.s3.options()?).await?;
    let stores = Stores::open_in(&lake, EmbeddedHot::new(0).into()).await?;
    let log = offline.log();
    let progress = ProgressBar::new(wanted.len() as u64);
    progress.set_draw_target(ProgressDrawTarget::stderr());
    let (mut done, mut refused) = (0u64, Vec::new());
    for kept in wanted {
        let now_us = now_us();
        let erased = stores.hidden(now_us).await?;
        let became = resubmit(&quarantine, &log, kept, &IpcLimits::default(), now_us, &erased).await?;
        match became {
            Resubmitted::Done { .. } => done += 1,
            Resubmitted::Refused { why } => refused.push((kept, why)),
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    offline.close().await;
    println!("{done} batches are in the log again");
    for (kept, why) in &refused {
        eprintln!(
            "{} {}/{}/{} stays: {}",
            kept.offset,
            plain(&kept.stream),
            kept.epoch,
            kept.seq,
            plain(why)
        );
    }
    if !refused.is_empty() {
        bail!("{} batches were not put through the log", refused.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
