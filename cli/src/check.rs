//! `sluice check`: what a configuration file means, or what is wrong with it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use sluice_edge::{EdgeConfig, NodeOptions, PluginCheck, check_plugins};
use sluice_ingest::IngestConfig;
use sluice_query::QueryConfig;
use sluice_settings::{ConfigError, Setting};

use crate::ca::config::CaConfig;
use crate::up::{EDGE_FOLDER, UP_DATA, UpConfig};

/// Check a configuration file, and the plugins in it as a start would load them.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 the role starts with it, 1 the file has a mistake, 3 a plugin in it is refused; the message says the file,\n\
    the line or the plugin, and what to do."
)]
pub(crate) struct Args {
    file: PathBuf,
    /// Whose configuration it is; by default what its tables say
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// Where installed packages are looked for; by default in the data folder that the file names, or in ./sluice-data for `up`
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a start ends with when its configuration is refused.
const CONFIG_REFUSED: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    Up,
    Edge,
    Ingest,
    Query,
    Ca,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let role = args.role.unwrap_or_else(|| guess(&args.file));
    let explained = sluice_settings::load(&args.file, |text| explain(role, text));
    let (settings, edge) = match explained.and_then(|settings| Ok((settings, edge(role, &args)?))) {
        Ok(both) => both,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let plugins = edge.map_or_else(Vec::new, |edge| check_plugins(&edge, &NodeOptions::default()));
    if args.json {
        println!("{:#}", PluginCheck::beside(&settings, &plugins));
    } else {
        for setting in settings {
            println!("{:<40} = {:<28} # {}", setting.key, setting.value, setting.origin);
        }
        for plugin in plugins.iter().filter(|plugin| plugin.refused.is_none()) {
            println!("# {plugin}");
        }
    }
    let mut code = ExitCode::SUCCESS;
    for plugin in plugins.iter().filter(|plugin| plugin.refused.is_some()) {
        eprintln!("error: {}: {plugin}", args.file.display());
        code = ExitCode::from(CONFIG_REFUSED);
    }
    Ok(code)
}

/// The edge in it, if it has one, as it would start.
fn edge(role: RoleArg, args: &Args) -> Result<Option<EdgeConfig>, ConfigError> {
    let (mut edge, data) = match role {
        RoleArg::Edge => (EdgeConfig::load(&args.file)?, args.data.clone()),
        RoleArg::Up => {
            let data = args.data.clone().unwrap_or_else(|| PathBuf::from(UP_DATA));
            (UpConfig::load(&args.file)?.edge, Some(data.join(EDGE_FOLDER)))
        }
        RoleArg::Ingest | RoleArg::Query | RoleArg::Ca => return Ok(None),
    };
    edge.data_dir = data.unwrap_or(edge.data_dir);
    Ok(Some(edge))
}

/// By the tables that only one role has; an unreadable file is reported by whoever reads it next.
fn guess(file: &Path) -> RoleArg {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let table: toml::Table = toml::from_str(&text).unwrap_or_default();
    let has = |keys: &[&str]| keys.iter().any(|key| table.contains_key(*key));
    if has(&["edge", "ingest", "query"]) {
        RoleArg::Up
    } else if has(&["roles", "lake", "gateway", "otlp", "log", "hot", "cold"]) {
        RoleArg::Ingest
    } else if has(&["policy", "hosts", "dir"]) {
        RoleArg::Ca
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
        RoleArg::Ca => sluice_settings::explain(&CaConfig::from_toml(text)?, text),
        RoleArg::Query => sluice_settings::explain(&QueryConfig::from_toml(text)?, text),
    })
}
