//! `spool verify`: every checksum, every hash, every batch.

use std::io;
use std::path::Path;

use serde::Serialize;
use sluice_wal::{Look, cursor};
use sluice_wire::envelope::Envelope;
use sluice_wire::layout::{self, IpcLimits};

use super::folder::{Folder, Found, each};
use super::progress::Progress;
use super::{DATA_REFUSED, DataArgs, JOURNAL, Output, SPOOL, ToolError};
use crate::record as journal_record;
use crate::spool::{CURSOR_FILE, GIVEN_UP_FILE, IDENTITY_FILE, record};

/// Check a data folder
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
    running: bool,
    /// Records that are whole.
    batches: u64,
    journal_records: u64,
    bytes: u64,
    damaged: Vec<Damage>,
}

/// One damaged place.
#[derive(Debug, Serialize)]
struct Damage {
    file: String,
    /// Of a log.
    index: Option<u64>,
    /// The batch that it was.
    batch: Option<String>,
    what: String,
    /// Nobody needs it any more: the cloud has the batch, or the spool has the record.
    harmless: bool,
}

pub(super) fn run(args: &Args, output: &mut Output<'_>) -> Result<u8, ToolError> {
    let folder = Folder::open(args.data.folder())?;
    let report = report(&folder, output)?;
    output.report(args.json, &report, show)?;
    Ok(if report.damaged.is_empty() { 0 } else { DATA_REFUSED })
}

fn report(folder: &Folder, output: &mut Output<'_>) -> Result<Report, ToolError> {
    let size = |look: &Look| look.reader.bytes_on_disk();
    let bytes = size(&folder.spool) + folder.journal.as_ref().map_or(0, size);
    let mut report = Report {
        data: folder.data.display().to_string(),
        running: folder.is_running,
        batches: 0,
        journal_records: 0,
        bytes,
        damaged: Vec::new(),
    };
    for name in [IDENTITY_FILE, CURSOR_FILE, GIVEN_UP_FILE] {
        small_file(&folder.data, name, &mut report.damaged);
    }
    let mut progress = Progress::new("checking", bytes);
    spool(folder, &mut report, &mut progress, output)?;
    if let Some(look) = &folder.journal {
        journal(folder, look, &mut report, &mut progress, output)?;
    }
    progress.end(output);
    Ok(report)
}

fn small_file(data: &Path, name: &str, damaged: &mut Vec<Damage>) {
    let what = match cursor::load(&data.join(name)) {
        Ok(Some(bytes)) if name == IDENTITY_FILE => match serde_json::from_slice::<serde_json::Value>(&bytes) {
            Ok(_) => return,
            Err(error) => error.to_string(),
        },
        Ok(_) => return,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => error.to_string(),
    };
    damaged.push(Damage {
        file: name.to_owned(),
        index: None,
        batch: None,
        what,
        // It is made again from what the batches say, or batches are sent once more.
        harmless: name != GIVEN_UP_FILE,
    });
}

/// The file of a log that should hold an index.
fn file_of(log: &str, look: &Look, index: u64) -> String {
    let files = look.reader.segments();
    let file = files.iter().find(|file| (file.first..file.end).contains(&index));
    file.map_or_else(|| log.to_owned(), |file| format!("{log}/{}", file.name))
}

/// Indices that no file holds.
fn gaps(log: &str, look: &Look, harmless: impl Fn(u64) -> bool, damaged: &mut Vec<Damage>) {
    for gap in &look.recovery.gaps {
        damaged.push(Damage {
            file: log.to_owned(),
            index: Some(gap.start),
            batch: None,
            what: format!("indices {}..{} are missing", gap.start, gap.end),
            harmless: gap.clone().all(&harmless),
        });
    }
}

fn spool(
    folder: &Folder,
    report: &mut Report,
    progress: &mut Progress,
    output: &mut Output<'_>,
) -> Result<(), ToolError> {
    let look = &folder.spool;
    let is_settled = |index| folder.is_acknowledged(index) || folder.given_up.counts(index).is_some();
    gaps(SPOOL, look, is_settled, &mut report.damaged);
    each(
        &look.reader,
        &folder.data.join(SPOOL),
        progress,
        output,
        |index, found| {
            let what = match found {
                Found::Record(bytes) => match check_batch(folder, index, &bytes) {
                    Ok(()) => {
                        report.batches += 1;
                        return Ok(());
                    }
                    Err(what) => what,
                },
                Found::Damaged(what) => what,
                Found::Gone => return Ok(()),
            };
            if look.recovery.gaps.iter().any(|gap| gap.contains(&index)) {
                return Ok(());
            }
            let id = folder.identity.as_ref().and_then(|identity| identity.batch_id(index));
            report.damaged.push(Damage {
                file: file_of(SPOOL, look, index),
                index: Some(index),
                batch: id.map(|id| id.to_string()),
                what,
                harmless: is_settled(index),
            });
            Ok(())
        },
    )
}

fn check_batch(folder: &Folder, index: u64, bytes: &bytes::Bytes) -> Result<(), String> {
    let (_, envelope) = record::decode(bytes).ok_or("record is malformed")?;
    let envelope = Envelope::parse(envelope).map_err(|e| e.to_string())?;
    envelope.rows(&IpcLimits::default()).map_err(|e| e.to_string())?;
    let expected = folder.identity.as_ref().and_then(|identity| identity.batch_id(index));
    match expected {
        Some(id) if id != envelope.header.id => Err(format!("is batch {}, {id} should stand here", envelope.header.id)),
        _ => Ok(()),
    }
}

fn journal(
    folder: &Folder,
    look: &Look,
    report: &mut Report,
    progress: &mut Progress,
    output: &mut Output<'_>,
) -> Result<(), ToolError> {
    let covered = folder.covered();
    gaps(JOURNAL, look, |index| index < covered, &mut report.damaged);
    each(
        &look.reader,
        &folder.data.join(JOURNAL),
        progress,
        output,
        |index, found| {
            let what = match found {
                Found::Record(bytes) => match check_record(&bytes) {
                    Ok(()) => {
                        report.journal_records += 1;
                        return Ok(());
                    }
                    Err(what) => what,
                },
                Found::Damaged(what) => what,
                Found::Gone => return Ok(()),
            };
            if look.recovery.gaps.iter().any(|gap| gap.contains(&index)) {
                return Ok(());
            }
            report.damaged.push(Damage {
                file: file_of(JOURNAL, look, index),
                index: Some(index),
                batch: None,
                what,
                harmless: index < covered,
            });
            Ok(())
        },
    )
}

fn check_record(bytes: &[u8]) -> Result<(), String> {
    let (head, ipc) = journal_record::decode(bytes).map_err(|e| e.to_string())?;
    if !head.counts.balances() {
        return Err("counts do not balance".to_owned());
    }
    if ipc.is_empty() {
        return Ok(());
    }
    let rows = layout::from_ipc(ipc, &IpcLimits::default()).map_err(|e| e.to_string())?;
    let expected = head.counts.stored + head.counts.quarantined;
    match rows.num_rows() as u64 {
        found if found == expected => Ok(()),
        found => Err(format!("holds {found} rows, its counts say {expected}")),
    }
}

fn show(report: &Report) -> String {
    let mut out = String::new();
    for damage in &report.damaged {
        let index = damage.index.map(|index| format!(" index {index}")).unwrap_or_default();
        let batch = damage.batch.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
        let harmless = if damage.harmless {
            "; nobody needs it any more"
        } else {
            ""
        };
        out.push_str(&format!(
            "damaged  {}{index}{batch}: {}{harmless}\n",
            damage.file, damage.what
        ));
    }
    let lost = report.damaged.iter().filter(|damage| !damage.harmless).count();
    out.push_str(&format!(
        "{} batches and {} journal records are whole; {} places are damaged, {lost} of them with something that is needed\n",
        report.batches,
        report.journal_records,
        report.damaged.len()
    ));
    out
}
