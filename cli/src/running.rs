//! What every long-running role has in common: addresses from the command line, the ready file, logging, and ending in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Flags of every long-running role.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct RunArgs {
    /// Listen elsewhere, such as `otlp-grpc=127.0.0.1:0`; may be given several times
    #[arg(long, value_name = "NAME=ADDR", value_parser = parse_listen)]
    pub(crate) listen: Vec<(String, SocketAddr)>,
    /// Write every bound address to this file, as JSON, once the role can serve
    #[arg(long, value_name = "PATH")]
    pub(crate) ready_file: Option<PathBuf>,
}

fn parse_listen(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not NAME=ADDR, such as otlp-grpc=127.0.0.1:4317"))?;
    let address = address
        .parse()
        .map_err(|_| format!("{address:?} is not an address, such as 127.0.0.1:4317"))?;
    Ok((name.to_owned(), address))
}

impl RunArgs {
    /// The address asked for a door, if one was.
    pub(crate) fn address(&self, name: &str) -> Option<SocketAddr> {
        self.listen
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, address)| *address)
    }

    /// Refuses names that the role does not have.
    pub(crate) fn check_names(&self, known: &[&str]) -> anyhow::Result<()> {
        for (name, _) in &self.listen {
            if !known.contains(&name.as_str()) {
                bail!(
                    "--listen {name}=…: there is no such door here; there are {}",
                    known.join(", ")
                );
            }
        }
        Ok(())
    }
}

/// Writes the ready file whole or not at all, so that whoever waits for it never reads half of it.
pub(crate) fn write_ready_file(
    path: &Path,
    listen: &BTreeMap<String, SocketAddr>,
    token_file: Option<&Path>,
) -> anyhow::Result<()> {
    let listen: BTreeMap<_, _> = listen
        .iter()
        .map(|(name, address)| (name, address.to_string()))
        .collect();
    let mut ready = json!({ "listen": listen, "pid": std::process::id() });
    if let Some(file) = token_file {
        ready["token_file"] = json!(file.display().to_string());
    }
    let staged = path.with_extension(format!("new{}", std::process::id()));
    std::fs::write(&staged, format!("{ready:#}\n"))
        .and_then(|()| std::fs::rename(&staged, path))
        .with_context(|| format!("cannot write the ready file {}", path.display()))
}

/// Cancelled by the first SIGTERM or SIGINT; the second one ends the process at once, which loses nothing that was accepted.
pub(crate) fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let drain = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            if first {
                tracing::info!("draining; a second signal leaves at once");
                drain.cancel();
            }
        }
        std::process::exit(1);
    });
    Ok(token)
}

/// Log lines go to stderr: plain text for people, JSON with `SLUICE_LOG_FORMAT=json`; `SLUICE_LOG` filters, as in `info,sluice_edge=debug`.
pub(crate) fn start_logging() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    // The table library tells of every snapshot it reads; whoever wants that names it.
    let wanted = std::env::var("SLUICE_LOG").unwrap_or_else(|_| "warn".to_owned());
    let filter = EnvFilter::try_new(format!("buoyant_kernel=warn,{wanted}")).unwrap_or_else(|_| EnvFilter::new("warn"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour);
    let started = if std::env::var("SLUICE_LOG_FORMAT").is_ok_and(|format| format == "json") {
        lines.json().try_init()
    } else {
        lines.try_init()
    };
    // A second initialisation only happens when a role runs inside a test; the first one stays.
    drop(started);
}
