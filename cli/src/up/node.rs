//! The composition of `sluice up`: what is built in which order, and in which order it ends.
//!
//! Built from the stores outwards, so that every part finds what it needs; ended in the direction in which data flows, so that what
//! was accepted goes as far as it can before the process leaves. What does not is on disk and goes on at the next start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sluice_edge::{EdgeNode, StatusHandle, program};
use sluice_ingest::IngestService;
use sluice_query::QueryService;
use sluice_store::{Lake, Stores, Tables, TablesOptions};
use tokio::signal::unix::Signal;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::UpConfig;
use super::identity::{self, Identity};
use crate::applying::LocalPlugins;
use crate::ca::LocalAuthority;
use crate::reports::NodeReports;
use crate::roles::open_caches;
use crate::running::RunArgs;

/// Where `sluice sql` and `sluice status` look for a running node.
const READY_FILE: &str = "ready.json";
/// Between two attempts to write it on a disk without room.
const READY_FILE_RETRY: Duration = Duration::from_secs(5);

/// The parts, bound and not yet running.
struct Parts {
    edge: EdgeNode,
    ingest: IngestService,
    query: QueryService,
    reports: NodeReports,
    listen: BTreeMap<String, SocketAddr>,
}

pub(super) async fn run(
    data: &Path,
    config: UpConfig,
    file: Option<PathBuf>,
    args: &RunArgs,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(data).with_context(|| format!("cannot make the data folder {}", data.display()))?;
    // Absolute, so that the ready file means the same from everywhere.
    let hangups = program::hangups()?;
    let data = std::fs::canonicalize(data).with_context(|| format!("data folder {}", data.display()))?;
    let ready_file = data.join(READY_FILE);
    let policy = config.ca.clone();
    let identity = Identity::open(&data, policy.life)?;
    let stop_keeping = CancellationToken::new();
    let authority = identity.authority.clone();
    let token_file = identity.token_file.clone();
    let parts = Box::pin(build(&data, config, args, identity)).await?;
    let listen = parts.listen.clone();
    let gateway_looks = parts.ingest.look_again();
    let keeping = identity::keep(data.clone(), authority, policy, gateway_looks, stop_keeping.clone());
    let keeping = tokio::spawn(keeping);
    let following = tokio::spawn(follow(hangups, file, parts.edge.status(), parts.ingest.look_again()));
    let (own, doors) = (ready_file.clone(), listen.clone());
    let mut telling = None;
    let ended = Box::pin(serve(parts, shutdown, || {
        telling = tell_where(own, &doors, &token_file);
        if let Some(path) = &args.ready_file {
            write_ready_file(path, &doors, &token_file)?;
        }
        announce(&data, &listen);
        Ok(())
    }))
    .await;
    following.abort();
    stop_keeping.cancel();
    drop(keeping.await);
    if let Some(telling) = telling {
        telling.abort();
    }
    // Only a file of our own: another process may have begun meanwhile.
    let ours = std::fs::read_to_string(&ready_file)
        .is_ok_and(|text| text.contains(&format!("\"pid\": {}", std::process::id())));
    if ours {
        drop(std::fs::remove_file(&ready_file));
    }
    ended
}

fn write_ready_file(
    path: &Path,
    listen: &BTreeMap<String, SocketAddr>,
    token_file: &Path,
) -> Result<(), program::ProgramError> {
    let doors = listen.iter().map(|(name, address)| (name.as_str(), *address));
    program::write_ready_file(path, doors, Some(token_file))
}

/// Writes the file that `sluice sql` looks for. A node whose disk is full starts all the same, because only a node that runs makes room:
/// then it is tried again.
fn tell_where(path: PathBuf, listen: &BTreeMap<String, SocketAddr>, token_file: &Path) -> Option<JoinHandle<()>> {
    let error = anyhow::Error::new(write_ready_file(&path, listen, token_file).err()?);
    tracing::warn!(
        error = format!("{error:#}"),
        "until there is room `sluice sql` and `sluice status` need --url and --token-file"
    );
    // What an earlier process wrote names another one.
    drop(std::fs::remove_file(&path));
    let (listen, token_file) = (listen.clone(), token_file.to_owned());
    Some(tokio::spawn(async move {
        while write_ready_file(&path, &listen, &token_file).is_err() {
            tokio::time::sleep(READY_FILE_RETRY).await;
        }
    }))
}

/// Reads the plugins and sources of the configuration again on SIGHUP, and whether the tap is open. What cannot be loaded changes nothing.
async fn follow(mut hangups: Signal, file: Option<PathBuf>, edge: StatusHandle, gateway: Option<Arc<Notify>>) {
    while hangups.recv().await.is_some() {
        edge.look_at_certificates();
        if let Some(gateway) = &gateway {
            gateway.notify_one();
        }
        let Some(file) = &file else {
            tracing::warn!("SIGHUP: there is no configuration to read again; start with --config FILE");
            continue;
        };
        match UpConfig::load(file) {
            // A refusal is told by whoever is asked for it.
            Ok(config) => drop(edge.reload(&config.edge).await),
            Err(error) => tracing::error!(%error, "configuration refused, nothing changed"),
        }
    }
}

async fn build(data: &Path, mut config: UpConfig, args: &RunArgs, identity: Identity) -> anyhow::Result<Parts> {
    config.ingest.data_dir = data.to_owned();
    // Data are in the data folder, but for a lake in a bucket.
    if !config.ingest.lake.contains("://") {
        config.ingest.lake = data.join("lake").display().to_string();
    }
    config.ingest.gateway.listen = args.address("link").unwrap_or(config.ingest.gateway.listen);
    config.ingest.gateway.certificate = identity.gateway.certificate.clone();
    config.ingest.gateway.key = identity.gateway.key.clone();
    config.ingest.gateway.ca = identity.gateway.ca.clone();
    config.ingest.gateway.deny_list = identity.deny_list.clone();
    let lake = Lake::open(&config.ingest.lake, &config.ingest.s3.options()?).await?;
    let stores = Stores::open_in(&lake, config.ingest.hot.open()?).await?;
    let authority = Arc::new(LocalAuthority::new(identity.authority.clone(), config.ca));
    let ingest = IngestService::build_with(config.ingest, stores.clone(), Some(authority))?;
    let link = ingest
        .listen()
        .iter()
        .find(|(name, _)| *name == "link")
        .map(|(_, address)| *address);

    config.edge.data_dir = data.join(super::EDGE_FOLDER);
    config.edge.listen.http = String::new();
    for name in ["otlp-grpc", "otlp-http"] {
        if let Some(address) = args.address(name) {
            config.edge.listen.set(name, &address.to_string())?;
        }
    }
    let link = link.context("the gateway has no address")?;
    config.edge.link.gateways = vec![link.to_string()];
    config.edge.link.server_name = identity::GATEWAY.to_owned();
    config.edge.link.certificate = identity.edge.certificate.clone();
    config.edge.link.key = identity.edge.key.clone();
    config.edge.link.ca = identity.edge.ca.clone();
    let plugins = LocalPlugins::new(
        config.edge.data_dir.join("plugins"),
        config.edge.packages.strict_revocations,
    );
    let edge = EdgeNode::build(config.edge).await?;

    config.query.listen = args.address("http").unwrap_or(config.query.listen);
    config.query.pg = args.address("pg").unwrap_or(config.query.pg);
    config.query.flight = args.address("flight").unwrap_or(config.query.flight);
    let caches = open_caches(&config.query.cache)?;
    let tables = Tables::with_caches(stores, ingest.log_ends(), TablesOptions::default(), caches);
    tables.watch(&ingest.partitions());
    let reports = NodeReports::new(Some(edge.status()), Some(ingest.status()));
    let tokens = match config.query.tenants.as_os_str().is_empty() {
        true => identity.tokens,
        false => identity.tokens.with_tenants(&config.query.tenants)?,
    };
    let query = QueryService::build(config.query, tables, tokens)
        .await?
        .with_status(reports.source())
        .with_plugins(plugins)
        .with_routes(edge.tap_routes());

    let doors = edge.listen().into_iter().chain(ingest.listen()).chain(query.listen());
    let listen = doors.map(|(name, address)| (name.to_owned(), address)).collect();
    Ok(Parts {
        edge,
        ingest,
        query,
        reports,
        listen,
    })
}

async fn serve(
    parts: Parts,
    shutdown: CancellationToken,
    ready: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Parts {
        edge,
        ingest,
        query,
        reports,
        ..
    } = parts;
    let (stop_ingest, stop_query) = (CancellationToken::new(), CancellationToken::new());
    let stop_edge = shutdown.child_token();
    let edge_status = edge.status();
    let mut query = tokio::spawn(query.run(stop_query.clone()));
    let mut ingest = tokio::spawn(ingest.run(stop_ingest.clone()));
    let mut edge = tokio::spawn(edge.run(stop_edge.clone()));
    let reporting = tokio::spawn(reports.keep(stop_query.clone()));

    let mut failed = tokio::select! {
        serving = edge_status.serving() => serving.then(ready).transpose().err(),
        () = shutdown.cancelled() => None,
    };
    if failed.is_none() {
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = &mut edge => failed = Some(ended_early("the edge", ended)),
            ended = &mut ingest => failed = Some(ended_early("ingest", ended)),
            ended = &mut query => failed = Some(ended_early("the query layer", ended)),
        }
    }
    stop_edge.cancel();
    finish(edge, &mut failed, "the edge").await;
    stop_ingest.cancel();
    finish(ingest, &mut failed, "ingest").await;
    stop_query.cancel();
    finish(query, &mut failed, "the query layer").await;
    drop(reporting.await);
    failed.map_or(Ok(()), Err)
}

type Ended<E> = Result<Result<(), E>, tokio::task::JoinError>;

/// A part that ends before it was told to is a failure even when it names none.
fn ended_early<E: std::error::Error + Send + Sync + 'static>(what: &str, ended: Ended<E>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("{what} ended by itself"),
        Ok(Err(error)) => anyhow::Error::new(error).context(format!("{what} failed")),
        Err(error) => anyhow::Error::new(error).context(format!("{what} failed")),
    }
}

async fn finish<E: std::error::Error + Send + Sync + 'static>(
    part: JoinHandle<Result<(), E>>,
    failed: &mut Option<anyhow::Error>,
    what: &str,
) {
    // The one that ended first was awaited already.
    if part.is_finished() && failed.is_some() {
        return;
    }
    match part.await {
        Ok(Ok(())) => {}
        other => {
            failed.get_or_insert(ended_early(what, other));
        }
    }
}

fn announce(data: &Path, listen: &BTreeMap<String, SocketAddr>) {
    let at = |name: &str| listen.get(name).map_or_else(|| "-".to_owned(), ToString::to_string);
    println!("sluice is up  (data in {})", data.display());
    println!("  send OTLP      grpc {}   http {}", at("otlp-grpc"), at("otlp-http"));
    println!("  link           {} (udp)   HTTP API {}", at("link"), at("http"));
    println!(
        "  Postgres       {}   (database sluice, the password is the token)",
        at("pg")
    );
    println!(
        "  Flight SQL     grpc://{}   (the token as bearer, or as password)",
        at("flight")
    );
    let elsewhere = if data.ends_with("sluice-data") {
        String::new()
    } else {
        format!("--data {} ", data.display())
    };
    println!(
        "  ask            sluice sql {elsewhere}\"SELECT time, service, body FROM logs ORDER BY time DESC LIMIT 10\""
    );
    println!("  look           sluice status {elsewhere}");
}
