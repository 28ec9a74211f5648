//! What an operator types to look into the data folder of an edge and to take events out of it: `sluice spool …` and
//! `sluice-edge spool …`. Nothing in the folder is changed, so a node may run beside it.

mod export;
mod folder;
mod inspect;
mod progress;
mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use sluice_wal::WalError;

use crate::config::EdgeConfig;
use crate::identity::IdentityError;

/// Something is damaged, or is of a newer format.
const DATA_REFUSED: u8 = 4;

/// Look into the data folder of an edge, check it, take events out of it
#[derive(Debug, Subcommand)]
pub enum SpoolCommand {
    /// What is there: files, epochs, batches, what is acknowledged, what waits
    Inspect(inspect::Args),
    /// Check every checksum and every batch; exit code 4 if something is damaged
    Verify(verify::Args),
    /// Write the batches to files: Arrow, or OTLP as JSON lines that any door takes
    Export(export::Args),
}

/// Which folder.
#[derive(Clone, Debug, clap::Args)]
pub struct DataArgs {
    /// The node's data folder, or that of a `sluice up`
    #[arg(long, value_name = "DIR", env = "SLUICE_DATA")]
    data: Option<PathBuf>,
}

impl DataArgs {
    fn folder(&self) -> PathBuf {
        let data = self.data.clone().unwrap_or_else(|| EdgeConfig::default().data_dir);
        // The edge of a whole node lives one level deeper.
        let inner = data.join("edge");
        if !data.join(SPOOL).is_dir() && inner.join(SPOOL).is_dir() {
            inner
        } else {
            data
        }
    }
}

const SPOOL: &str = "spool";
const JOURNAL: &str = "journal";

/// Where a command writes.
#[expect(missing_debug_implementations, reason = "what is written to need not have one")]
pub struct Output<'a> {
    /// What was asked for.
    pub out: &'a mut (dyn Write + Send),
    /// How far it is, and what one should know beside it.
    pub notes: &'a mut (dyn Write + Send),
    /// Whether a person watches the notes: then progress is one line that changes.
    pub is_watched: bool,
}

impl Output<'_> {
    /// All of a report for scripts, or what people want to see of it.
    fn report<T: serde::Serialize>(
        &mut self,
        json: bool,
        report: &T,
        show: impl Fn(&T) -> String,
    ) -> Result<(), ToolError> {
        let text = match json {
            true => format!("{:#}\n", serde_json::json!(report)),
            false => show(report),
        };
        self.out.write_all(text.as_bytes()).map_err(ToolError::Output)
    }
}

/// Why a command ended without doing what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("there is no spool in {}: name the data folder of an edge with --data", .0.display())]
    NoSpool(PathBuf),
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("log in {}", .path.display())]
    Log {
        path: PathBuf,
        #[source]
        source: WalError,
    },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is there already: name a folder for new files with --to", .0.display())]
    Exists(PathBuf),
    #[error("rows of batch {index} cannot be written: {what}")]
    Rows { index: u64, what: String },
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
}

impl ToolError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Log {
                source: WalError::Corrupt { .. },
                ..
            }
            | Self::Identity(IdentityError::Newer { .. }) => DATA_REFUSED,
            _ => 1,
        }
    }

    fn read(path: &Path) -> impl FnOnce(io::Error) -> ToolError {
        let path = path.to_owned();
        move |source| ToolError::Read { path, source }
    }

    fn write(path: &Path) -> impl FnOnce(io::Error) -> ToolError {
        let path = path.to_owned();
        move |source| ToolError::Write { path, source }
    }
}

/// Runs a command and tells the exit code. Blocks.
pub fn run(command: &SpoolCommand, output: &mut Output<'_>) -> Result<u8, ToolError> {
    match command {
        SpoolCommand::Inspect(args) => inspect::run(args, output),
        SpoolCommand::Verify(args) => verify::run(args, output),
        SpoolCommand::Export(args) => export::run(args, output),
    }
}

/// A time for people: RFC 3339.
fn show_time(ns: u64) -> Option<String> {
    let time = arrow_array::temporal_conversions::timestamp_ns_to_datetime(i64::try_from(ns).ok()?)?;
    Some(format!("{time:?}Z"))
}

/// A size for people.
fn show_bytes(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes >> shift > 0);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(unit, shift)| format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
    )
}
