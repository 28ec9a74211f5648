//! `sluice up`: edge, ingest and query in one process on embedded defaults.
//!
//! The parts talk as they do in a fleet: the edge sends its batches over QUIC with mutual TLS to the gateway beside it, and the query
//! layer reads what the writers wrote. What differs is that they share the stores in memory.

mod config;
mod identity;
mod node;

use std::path::PathBuf;
use std::process::ExitCode;

use sluice_edge::program;

use crate::running::{self, RunArgs};
pub(crate) use config::UpConfig;

/// Folder of everything that is kept, where nothing else is said; and that of the edge in it.
pub(crate) const UP_DATA: &str = "./sluice-data";
pub(crate) const EDGE_FOLDER: &str = "edge";

/// Flags of `sluice up`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  sluice up                              data in ./sluice-data\n  \
    sluice up --config sluice.toml         with plugins and settings of your own\n  \
    sluice up --listen otlp-grpc=127.0.0.1:0 --ready-file ready.json\n\n\
    Doors: otlp-grpc, otlp-http, http, link, flight, pg. Certificates, tenant and token are made on the first start."
)]
pub(crate) struct Args {
    /// Folder of everything that is kept
    #[arg(long, value_name = "DIR", default_value = UP_DATA)]
    data: PathBuf,
    /// Settings: tables [edge], [ingest], [query]; every key has a default (deploy/config/sluice.toml)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    running::start_logging();
    args.run
        .check_names(&["otlp-grpc", "otlp-http", "http", "link", "flight", "pg"])?;
    let config = match &args.config {
        Some(path) => UpConfig::load(path)?,
        None => UpConfig::default(),
    };
    let shutdown = program::shutdown_on_signal()?;
    node::run(&args.data, config, args.config.clone(), &args.run, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}
