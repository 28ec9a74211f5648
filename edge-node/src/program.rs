//! What a process that runs an edge node does around it: log lines, signals, the ready file. `sluice-edge run` and `sluice edge`
//! are this; the other long-running roles share its parts.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::EdgeConfig;
use crate::node::{EdgeError, EdgeNode};
use crate::status::StatusHandle;

/// Why the process around a node failed.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error(transparent)]
    Node(#[from] EdgeError),
    #[error("signals cannot be received")]
    Signals(#[source] std::io::Error),
    #[error("the ready file {path} cannot be written")]
    ReadyFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl ProgramError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Node(error) => error.exit_code(),
            Self::Signals(_) | Self::ReadyFile { .. } => 1,
        }
    }
}

/// Runs a node until a signal ends it. SIGHUP reads `path` again and takes over the plugin chain, the sources and whether the tap is open;
/// the link looks at its certificates.
pub async fn run(config: EdgeConfig, path: Option<PathBuf>, ready_file: Option<PathBuf>) -> Result<(), ProgramError> {
    let (shutdown, hangups) = (shutdown_on_signal()?, hangups()?);
    // As the file has it, without what the command line says instead.
    let written = path.as_deref().and_then(|path| EdgeConfig::load(path).ok());
    let node = EdgeNode::build(config).await?;
    let (listen, status) = (node.listen(), node.status());
    let reload = tokio::spawn(reload_on_hangup(hangups, status.clone(), path, written));
    let ready = async {
        if status.serving().await {
            for (door, address) in &listen {
                tracing::info!(door, %address, "listening");
            }
            if let Some(file) = &ready_file {
                write_ready_file(file, listen.iter().copied(), None)?;
            }
        }
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = node.run(shutdown) => ended.map_err(ProgramError::from),
        failed = ready => failed,
    };
    reload.abort();
    ended
}

/// Cancelled by the first SIGTERM or ctrl-c; the second one ends the process at once, which loses nothing that was accepted.
pub fn shutdown_on_signal() -> Result<CancellationToken, ProgramError> {
    let on = |kind| signal(kind).map_err(ProgramError::Signals);
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let drain = shutdown.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if first {
                tracing::info!("draining; a second signal leaves at once");
                drain.cancel();
            }
        }
        std::process::exit(1);
    });
    Ok(shutdown)
}

/// SIGHUP from now on, also where the process was started with the signal ignored (`nohup`). To be asked for before anything that
/// takes its time, such as compiling plugins: one that comes meanwhile is kept, and does not end the process.
pub fn hangups() -> Result<Signal, ProgramError> {
    signal(SignalKind::hangup()).map_err(ProgramError::Signals)
}

async fn reload_on_hangup(
    mut hangups: Signal,
    status: StatusHandle,
    path: Option<PathBuf>,
    written: Option<EdgeConfig>,
) {
    while hangups.recv().await.is_some() {
        status.look_at_certificates();
        let Some(path) = &path else {
            tracing::warn!(
                "SIGHUP: there is no configuration to read again, as the process was started without a file"
            );
            continue;
        };
        match EdgeConfig::load(path) {
            Ok(config) => {
                let keys = written
                    .as_ref()
                    .map(|written| needs_start(written, &config))
                    .unwrap_or_default();
                if !keys.is_empty() {
                    tracing::warn!(
                        "SIGHUP takes over plugins, sources, the tap and certificate files; the next start takes over {}",
                        keys.join(", ")
                    );
                }
                // A refusal is told by whoever is asked for it.
                drop(status.reload(&config).await);
            }
            Err(error) => tracing::error!(%error, "configuration refused, nothing changed"),
        }
    }
}

/// The keys that differ and that a running node does not take over.
fn needs_start(written: &EdgeConfig, now: &EdgeConfig) -> Vec<String> {
    let all = |config: &EdgeConfig| {
        let settings = sluice_settings::explain(config, "").into_iter();
        settings.filter(|setting| {
            let taken_over = ["plugin", "source", "admin.tap"];
            !taken_over.iter().any(|key| {
                setting
                    .key
                    .strip_prefix(key)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        })
    };
    let before: BTreeMap<String, String> = all(written).map(|setting| (setting.key, setting.value)).collect();
    all(now)
        .filter(|setting| before.get(&setting.key) != Some(&setting.value))
        .map(|setting| setting.key)
        .collect()
}

/// Every bound address, as JSON, written whole or not at all, so that whoever waits for the file never reads half of it.
pub fn write_ready_file<'a>(
    path: &Path,
    listen: impl IntoIterator<Item = (&'a str, SocketAddr)>,
    token_file: Option<&Path>,
) -> Result<(), ProgramError> {
    let listen: serde_json::Map<String, serde_json::Value> = listen
        .into_iter()
        .map(|(name, address)| (name.to_owned(), address.to_string().into()))
        .collect();
    let mut ready = serde_json::json!({ "listen": listen, "pid": std::process::id() });
    if let Some(file) = token_file {
        ready["token_file"] = file.display().to_string().into();
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new{}", std::process::id()));
    std::fs::write(&beside, format!("{ready:#}\n"))
        .and_then(|()| std::fs::rename(&beside, path))
        .inspect_err(|_| drop(std::fs::remove_file(&beside)))
        .map_err(|source| ProgramError::ReadyFile {
            path: path.to_owned(),
            source,
        })
}

/// Log lines go to stderr: plain text for people, JSON with `SLUICE_LOG_FORMAT=json`; `SLUICE_LOG` filters, as in
/// `info,sluice_edge=debug`, and `default` stands for it when it is not set. `quiet` goes before it: libraries that tell too much.
pub fn start_logging(quiet: &str, default: &str) {
    use tracing_subscriber::EnvFilter;
    let wanted = std::env::var("SLUICE_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(format!("{quiet},{wanted}")).unwrap_or_else(|_| EnvFilter::new(default));
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
