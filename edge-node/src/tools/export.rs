//! `spool export`: the batches of a spool as files that other programs read.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampNanosecondType;
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_ipc::writer::FileWriter;
use clap::ValueEnum;
use sluice_wire::Signal;
use sluice_wire::envelope::Envelope;
use sluice_wire::events::{self, Origin};
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;
use sluice_wire::otlp::{encode_rows, protobuf_to_json};

use super::folder::{Folder, Found, batch, each};
use super::progress::Progress;
use super::{DATA_REFUSED, DataArgs, Output, SPOOL, ToolError, show_bytes};

/// A file that has grown to this size is closed.
const FILE_BYTES: u64 = 256 << 20;
/// Rows of one line: small enough for the limits of any door.
const LINE_ROWS: usize = 1000;

/// Take events out of a spool
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Arrow files hold the columns of the table `events`; `offset` is the index in the spool. Each line of an OTLP file is a\n\
    request that POST /v1/logs, /v1/traces or /v1/metrics takes as application/json, ours and any other.\n\
    Exit code 4: some batches are damaged and left out."
)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the files; made if needed
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[arg(long, value_enum, default_value_t = Format::Arrow)]
    format: Format,
    /// Only events of this time and later, such as 2026-11-21 or 2026-11-21T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<i64>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<i64>,
    /// Only this signal
    #[arg(long, value_enum)]
    signal: Option<SignalArg>,
    /// Only batches that the cloud does not have, as far as the node noted it
    #[arg(long)]
    waiting: bool,
    /// With OTLP: quarantined events, too, which look like all others there
    #[arg(long)]
    quarantined: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Arrow IPC files
    Arrow,
    /// OTLP as JSON lines
    Otlp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SignalArg {
    Log,
    Span,
    Metric,
}

impl SignalArg {
    fn signal(self) -> Signal {
        match self {
            Self::Log => Signal::Log,
            Self::Span => Signal::Span,
            Self::Metric => Signal::Metric,
        }
    }
}

fn parse_time(text: &str) -> Result<i64, String> {
    let parsed = arrow_cast::parse::string_to_timestamp_nanos(text);
    parsed.map_err(|_| "write a time such as 2026-11-21 or 2026-11-21T18:00:00Z".to_owned())
}

#[derive(Debug, Default)]
struct Tally {
    batches: u64,
    rows: u64,
    quarantined: u64,
    damaged: u64,
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, output: &mut Output<'_>) -> Result<u8, ToolError> {
    let folder = Folder::open(args.data.folder())?;
    fs::create_dir_all(&args.to).map_err(ToolError::write(&args.to))?;
    let mut sink = Sink::new(args);
    let mut tally = Tally::default();
    let mut progress = Progress::new("exporting", folder.spool.reader.bytes_on_disk());
    each(
        &folder.spool.reader,
        &folder.data.join(SPOOL),
        &mut progress,
        output,
        |index, found| {
            let settled = folder.is_acknowledged(index) || folder.given_up.counts(index).is_some();
            let bytes = match found {
                _ if args.waiting && settled => return Ok(()),
                Found::Record(bytes) => bytes,
                Found::Damaged(_) => {
                    tally.damaged += 1;
                    return Ok(());
                }
                Found::Gone => return Ok(()),
            };
            let Some(rows) = rows(&bytes, index) else {
                tally.damaged += 1;
                return Ok(());
            };
            match rows {
                Some(rows) => sink.write(index, &rows, &mut tally),
                None => Ok(()),
            }
        },
    )?;
    progress.end(output);
    sink.finish(&mut tally)?;
    tell(args, &tally, output).map_err(ToolError::Output)?;
    Ok(if tally.damaged > 0 { DATA_REFUSED } else { 0 })
}

fn tell(args: &Args, tally: &Tally, output: &mut Output<'_>) -> std::io::Result<()> {
    for file in &tally.files {
        let bytes = fs::metadata(file).map_or(0, |meta| meta.len());
        writeln!(output.out, "{}  {}", file.display(), show_bytes(bytes))?;
    }
    writeln!(output.out, "{} events of {} batches", tally.rows, tally.batches)?;
    if tally.quarantined > 0 && args.format == Format::Otlp && !args.quarantined {
        writeln!(
            output.out,
            "{} quarantined events are left out; --quarantined takes them along",
            tally.quarantined
        )?;
    }
    if tally.damaged > 0 {
        writeln!(
            output.out,
            "{} batches are damaged and left out; `spool verify` names them",
            tally.damaged
        )?;
    }
    Ok(())
}

/// The rows of a record with the columns of the table; the inner `None` if it has none, the outer if it cannot be read.
fn rows(bytes: &bytes::Bytes, index: u64) -> Option<Option<RecordBatch>> {
    let (_, envelope) = batch(bytes)?;
    let Some(rows) = envelope.rows(&IpcLimits::default()).ok()? else {
        return Some(None);
    };
    Some(Some(events::fold(&rows, &origin(&envelope, index)).ok()?))
}

/// It has no place in a log yet; the spool is where it comes from.
fn origin(envelope: &Envelope, index: u64) -> Origin<'_> {
    let header = &envelope.header;
    Origin {
        id: &header.id,
        partition: Partition {
            generation: header.generation,
            index: 0,
        },
        offset: index,
        ingested_at_us: i64::try_from(header.sealed_at_ns / 1000).unwrap_or(i64::MAX),
    }
}

/// The files that are written to.
struct Sink<'a> {
    args: &'a Args,
    arrow: Option<ArrowFile>,
    lines: [Option<LineFile>; 3],
    /// Files begun, by kind.
    begun: [u32; 4],
}

struct ArrowFile {
    path: PathBuf,
    writer: FileWriter<BufWriter<File>>,
    bytes: u64,
}

struct LineFile {
    path: PathBuf,
    writer: BufWriter<File>,
    bytes: u64,
}

impl<'a> Sink<'a> {
    fn new(args: &'a Args) -> Self {
        Self {
            args,
            arrow: None,
            lines: [None, None, None],
            begun: [0; 4],
        }
    }

    fn write(&mut self, index: u64, rows: &RecordBatch, tally: &mut Tally) -> Result<(), ToolError> {
        let bad = |what: String| ToolError::Rows { index, what };
        let rows = self.wanted(rows, tally).map_err(|e| bad(e.to_string()))?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        tally.batches += 1;
        tally.rows += rows.num_rows() as u64;
        if self.args.format == Format::Arrow {
            return self.write_arrow(index, &rows, tally);
        }
        for signal in [Signal::Log, Signal::Span, Signal::Metric] {
            for from in (0..rows.num_rows()).step_by(LINE_ROWS) {
                let part = rows.slice(from, LINE_ROWS.min(rows.num_rows() - from));
                let request = encode_rows(signal, &part).map_err(|e| bad(e.to_string()))?;
                if !request.is_empty() {
                    let line = protobuf_to_json(signal, &request).map_err(|e| bad(e.to_string()))?;
                    self.write_line(signal, &line, tally)?;
                }
            }
        }
        Ok(())
    }

    fn wanted(&self, rows: &RecordBatch, tally: &mut Tally) -> Result<RecordBatch, arrow_schema::ArrowError> {
        let text = |name: &str| rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
        let time = rows
            .column_by_name("time")
            .and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>());
        let (signal, quarantined) = (text("signal"), text("quarantined_by"));
        let wanted = |row: usize| {
            let is_due = time.is_none_or(|time| {
                let at = time.value(row);
                self.args.from.is_none_or(|from| at >= from) && self.args.until.is_none_or(|until| at < until)
            });
            let is_signal = self
                .args
                .signal
                .is_none_or(|wanted| signal.is_some_and(|signal| signal.value(row) == wanted.signal().as_str()));
            is_due && is_signal
        };
        let is_quarantined = |row: usize| quarantined.is_some_and(|by| by.is_valid(row));
        let keep_quarantined = self.args.quarantined || self.args.format == Format::Arrow;
        let mask: BooleanArray = (0..rows.num_rows())
            .map(|row| {
                let wanted = wanted(row);
                tally.quarantined += u64::from(wanted && is_quarantined(row));
                Some(wanted && (keep_quarantined || !is_quarantined(row)))
            })
            .collect();
        arrow_select::filter::filter_record_batch(rows, &mask)
    }

    fn write_arrow(&mut self, index: u64, rows: &RecordBatch, tally: &mut Tally) -> Result<(), ToolError> {
        let bad = |e: arrow_schema::ArrowError| ToolError::Rows {
            index,
            what: e.to_string(),
        };
        let file = match &mut self.arrow {
            Some(file) => file,
            none => {
                let (path, file) = begin(&self.args.to, "events", "arrow", &mut self.begun[3])?;
                let writer = FileWriter::try_new(BufWriter::new(file), &rows.schema()).map_err(bad)?;
                none.insert(ArrowFile { path, writer, bytes: 0 })
            }
        };
        file.writer.write(rows).map_err(bad)?;
        file.bytes += rows.get_array_memory_size() as u64;
        if file.bytes >= FILE_BYTES {
            self.end_arrow(tally)?;
        }
        Ok(())
    }

    fn write_line(&mut self, signal: Signal, line: &[u8], tally: &mut Tally) -> Result<(), ToolError> {
        let name = ["logs", "traces", "metrics"][signal as usize];
        let place = &mut self.lines[signal as usize];
        let file = match place {
            Some(file) => file,
            none => {
                let (path, file) = begin(&self.args.to, name, "jsonl", &mut self.begun[signal as usize])?;
                none.insert(LineFile {
                    path,
                    writer: BufWriter::new(file),
                    bytes: 0,
                })
            }
        };
        let written = file.writer.write_all(line).and_then(|()| file.writer.write_all(b"\n"));
        written.map_err(ToolError::write(&file.path))?;
        file.bytes += line.len() as u64 + 1;
        if file.bytes >= FILE_BYTES {
            end_lines(&mut self.lines[signal as usize], tally)?;
        }
        Ok(())
    }

    fn end_arrow(&mut self, tally: &mut Tally) -> Result<(), ToolError> {
        let Some(ArrowFile { path, writer, .. }) = self.arrow.take() else {
            return Ok(());
        };
        let done = writer.into_inner().map_err(std::io::Error::other);
        let done = done.and_then(|file| file.into_inner().map_err(|e| e.into_error()));
        done.and_then(|file| file.sync_all()).map_err(ToolError::write(&path))?;
        tally.files.push(path);
        Ok(())
    }

    fn finish(mut self, tally: &mut Tally) -> Result<(), ToolError> {
        self.end_arrow(tally)?;
        self.lines.iter_mut().try_for_each(|place| end_lines(place, tally))
    }
}

fn end_lines(place: &mut Option<LineFile>, tally: &mut Tally) -> Result<(), ToolError> {
    let Some(LineFile { path, writer, .. }) = place.take() else {
        return Ok(());
    };
    let done = writer.into_inner().map_err(|e| e.into_error());
    done.and_then(|file| file.sync_all()).map_err(ToolError::write(&path))?;
    tally.files.push(path);
    Ok(())
}

/// A new file; what is there is never written over.
fn begin(to: &Path, name: &str, ending: &str, begun: &mut u32) -> Result<(PathBuf, File), ToolError> {
    *begun += 1;
    let path = to.join(format!("{name}-{begun:05}.{ending}"));
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => Ok((path, file)),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(ToolError::Exists(path)),
        Err(source) => Err(ToolError::Write { path, source }),
    }
}
