//! `spool inspect`: what is in the data folder.

use std::fmt::Write as _;

use serde::Serialize;
use sluice_wal::Look;
use sluice_wire::counts::Counts;

use super::folder::{File, Folder, Found, batch, each};
use super::progress::Progress;
use super::{DataArgs, JOURNAL, Output, SPOOL, ToolError, show_bytes, show_time};
use crate::record;

/// Look into a data folder
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
    /// All of it, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    data: String,
    /// A node has the folder open, so numbers go on changing.
    running: bool,
    stream: Option<String>,
    generation: Option<u32>,
    epochs: Vec<EpochReport>,
    spool: SpoolReport,
    journal: Option<JournalReport>,
}

#[derive(Debug, Serialize)]
struct EpochReport {
    epoch: String,
    /// The batch with the sequence number 0.
    first_index: u64,
    generation: u32,
}

#[derive(Debug, Default, Serialize)]
struct SpoolReport {
    files: Vec<File>,
    bytes: u64,
    first: u64,
    next: u64,
    /// On disk, and of those the ones that the cloud does not have as far as the cursor tells.
    batches: u64,
    waiting: u64,
    rows: u64,
    waiting_rows: u64,
    waiting_bytes: u64,
    damaged: u64,
    /// Indices that the cloud has, from and behind the last.
    acknowledged: Vec<[u64; 2]>,
    /// Dropped to make room, and not told to the cloud yet.
    given_up: u64,
    oldest_waiting: Option<String>,
    newest: Option<String>,
    torn_bytes: u64,
}

#[derive(Debug, Default, Serialize)]
struct JournalReport {
    files: Vec<File>,
    bytes: u64,
    first: u64,
    next: u64,
    /// Positions below it are in the spool.
    covered: u64,
    unsealed_records: u64,
    unsealed_events: u64,
    damaged: u64,
    torn_bytes: u64,
}

pub(super) fn run(args: &Args, output: &mut Output<'_>) -> Result<u8, ToolError> {
    let folder = Folder::open(args.data.folder())?;
    let report = report(&folder, output)?;
    output.report(args.json, &report, show)?;
    Ok(0)
}

fn report(folder: &Folder, output: &mut Output<'_>) -> Result<Report, ToolError> {
    let identity = folder.identity.as_ref();
    let epochs = identity.map(|identity| {
        let epochs = identity.epochs().iter();
        epochs.map(|start| EpochReport {
            epoch: start.epoch.to_string(),
            first_index: start.first_index,
            generation: start.generation,
        })
    });
    let bytes = |look: &Look| look.reader.bytes_on_disk();
    let total = bytes(&folder.spool) + folder.journal.as_ref().map_or(0, bytes);
    let mut progress = Progress::new("reading", total);
    let spool = spool(folder, &mut progress, output)?;
    let journal = folder.journal.as_ref();
    let journal = journal
        .map(|look| self::journal(folder, look, &mut progress, output))
        .transpose()?;
    progress.end(output);
    Ok(Report {
        data: folder.data.display().to_string(),
        running: folder.is_running,
        stream: identity.map(|identity| identity.stream().to_string()),
        generation: identity.map(|identity| identity.generation()),
        epochs: epochs.into_iter().flatten().collect(),
        spool,
        journal,
    })
}

fn spool(folder: &Folder, progress: &mut Progress, output: &mut Output<'_>) -> Result<SpoolReport, ToolError> {
    let reader = &folder.spool.reader;
    let mut report = SpoolReport {
        files: reader.segments().into_iter().map(File::from).collect(),
        bytes: reader.bytes_on_disk(),
        first: reader.first(),
        next: reader.synced(),
        acknowledged: folder
            .saved
            .acked
            .iter()
            .map(|range| [range.start, range.end])
            .collect(),
        given_up: folder.given_up.len() as u64,
        torn_bytes: folder.spool.recovery.torn_bytes,
        ..SpoolReport::default()
    };
    let (mut oldest, mut newest) = (None, None);
    each(reader, &folder.data.join(SPOOL), progress, output, |index, found| {
        let bytes = match found {
            Found::Record(bytes) => bytes,
            Found::Damaged(_) => {
                report.damaged += 1;
                return Ok(());
            }
            Found::Gone => return Ok(()),
        };
        let Some((_, envelope)) = batch(&bytes) else {
            report.damaged += 1;
            return Ok(());
        };
        let (rows, sealed) = (u64::from(envelope.header.rows), envelope.header.sealed_at_ns);
        report.batches += 1;
        report.rows += rows;
        newest = newest.max(Some(sealed));
        if !folder.is_acknowledged(index) && folder.given_up.counts(index).is_none() {
            report.waiting += 1;
            report.waiting_rows += rows;
            report.waiting_bytes += envelope.bytes().len() as u64;
            oldest.get_or_insert(sealed);
        }
        Ok(())
    })?;
    report.oldest_waiting = oldest.and_then(show_time);
    report.newest = newest.and_then(show_time);
    Ok(report)
}

fn journal(
    folder: &Folder,
    look: &Look,
    progress: &mut Progress,
    output: &mut Output<'_>,
) -> Result<JournalReport, ToolError> {
    let reader = &look.reader;
    let covered = folder.covered();
    let mut report = JournalReport {
        files: reader.segments().into_iter().map(File::from).collect(),
        bytes: reader.bytes_on_disk(),
        first: reader.first(),
        next: reader.synced(),
        covered,
        torn_bytes: look.recovery.torn_bytes,
        ..JournalReport::default()
    };
    let mut counts = Counts::default();
    each(reader, &folder.data.join(JOURNAL), progress, output, |index, found| {
        if index < covered {
            return Ok(());
        }
        match found {
            Found::Record(bytes) => match record::decode(&bytes) {
                Ok((head, _)) => {
                    report.unsealed_records += 1;
                    counts.merge(&head.counts);
                }
                Err(_) => report.damaged += 1,
            },
            Found::Damaged(_) => report.damaged += 1,
            Found::Gone => {}
        }
        Ok(())
    })?;
    report.unsealed_events = counts.accepted;
    Ok(report)
}

fn show(report: &Report) -> String {
    let mut out = String::new();
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<14} {text}");
    };
    line("data", report.data.clone());
    let state = if report.running {
        "a node has it open"
    } else {
        "no node has it open"
    };
    line("node", state.to_owned());
    line("stream", or_none(&report.stream));
    for epoch in &report.epochs {
        let text = format!(
            "{} from index {}, log generation {}",
            epoch.epoch, epoch.first_index, epoch.generation
        );
        line("epoch", text);
    }
    let spool = &report.spool;
    line(
        "spool",
        format!(
            "{} batches, {} rows, {} in {} files, indices {}..{}",
            spool.batches,
            spool.rows,
            show_bytes(spool.bytes),
            spool.files.len(),
            spool.first,
            spool.next
        ),
    );
    line(
        "waiting",
        format!(
            "{} batches, {} rows, {}, oldest sealed {}",
            spool.waiting,
            spool.waiting_rows,
            show_bytes(spool.waiting_bytes),
            or_none(&spool.oldest_waiting)
        ),
    );
    let ranges: Vec<String> = spool
        .acknowledged
        .iter()
        .map(|[from, to]| format!("{from}..{to}"))
        .collect();
    line(
        "acknowledged",
        if ranges.is_empty() {
            "-".to_owned()
        } else {
            ranges.join(" ")
        },
    );
    if spool.given_up > 0 {
        line(
            "given up",
            format!("{} batches, not told to the cloud yet", spool.given_up),
        );
    }
    if let Some(journal) = &report.journal {
        line(
            "journal",
            format!(
                "{} in {} files, indices {}..{}, in the spool below {}",
                show_bytes(journal.bytes),
                journal.files.len(),
                journal.first,
                journal.next,
                journal.covered
            ),
        );
        let text = format!(
            "{} records, {} events",
            journal.unsealed_records, journal.unsealed_events
        );
        line("not sealed", text);
    }
    let (damaged, torn) = match &report.journal {
        Some(journal) => (spool.damaged + journal.damaged, spool.torn_bytes + journal.torn_bytes),
        None => (spool.damaged, spool.torn_bytes),
    };
    if damaged > 0 {
        line("damaged", format!("{damaged} records; `spool verify` names them"));
    }
    if torn > 0 {
        line(
            "torn",
            format!("{torn} bytes behind the last commit, which nobody was told of"),
        );
    }
    for file in &spool.files {
        line(
            "spool file",
            format!(
                "{}  {}..{}  {}",
                file.name,
                file.first,
                file.end,
                show_bytes(file.bytes)
            ),
        );
    }
    for file in report.journal.iter().flat_map(|journal| &journal.files) {
        line(
            "journal file",
            format!(
                "{}  {}..{}  {}",
                file.name,
                file.first,
                file.end,
                show_bytes(file.bytes)
            ),
        );
    }
    out
}
