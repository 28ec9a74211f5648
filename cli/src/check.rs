//! `sluice check`: what a configuration file means, or what is wrong with it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use sluice_edge::EdgeConfig;
use sluice_ingest::IngestConfig;
use sluice_query::QueryConfig;
use sluice_settings::{ConfigError, Setting};

use crate::up::UpConfig;

/// Check a configuration file.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 the file is fine, 1 it is not; the message says the file, the line and what to do."
)]
pub(crate) struct Args {
    file: PathBuf,
    /// Whose configuration it is; by default what its tables say
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    Up,
    Edge,
    Ingest,
    Query,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let role = args.role.unwrap_or_else(|| guess(&args.file));
    let settings = match sluice_settings::load(&args.file, |text| explain(role, text)) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    if args.json {
        println!("{:#}", serde_json::to_value(&settings)?);
        return Ok(ExitCode::SUCCESS);
    }
    for setting in settings {
        println!("{:<40} = {:<28} # {}", setting.key, setting.value, setting.origin);
    }
    Ok(ExitCode::SUCCESS)
}

/// By the tables that only one role has; an unreadable file is reported by whoever reads it next.
fn guess(file: &Path) -> RoleArg {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let table: toml::Table = toml::from_str(&text).unwrap_or_default();
    let has = |keys: &[&str]| keys.iter().any(|key| table.contains_key(*key));
    if has(&["edge", "ingest", "query"]) {
        RoleArg::Up
    } else if has(&["roles", "lake", "gateway", "log", "hot", "cold"]) {
        RoleArg::Ingest
    } else if has(&["tokens", "limits", "tls"]) {
        RoleArg::Query
    } else {
        RoleArg::Edge
    }
}

/// Every key with its value and who gave it.
fn explain(role: RoleArg, text: &str) -> Result<Vec<Setting>, ConfigError> {
    Ok(match role {
        RoleArg::Up => sluice_settings::explain(&UpConfig::from_toml(text)?, text),
        RoleArg::Edge => sluice_settings::explain(&EdgeConfig::from_toml(text)?, text),
        RoleArg::Ingest => sluice_settings::explain(&IngestConfig::from_toml(text)?, text),
        RoleArg::Query => sluice_settings::explain(&QueryConfig::from_toml(text)?, text),
    })
}
