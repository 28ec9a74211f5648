//! `sluice ingest --role otlp`: OTLP in the cloud, for many tenants by API key.
//!
//! For each tenant an edge node of its own runs in this process, without sockets, in `data_dir/otlp/<tenant>`; the doors here ask for the
//! key, and hand a request to the node of the key's tenant and to no other. Why a node for each tenant, and not one whose events carry a
//! tenant:
//!
//! * A stream belongs to one tenant (tenant, node and spool are its identity), and duplicates, order and the ledger hang on streams. A
//!   spool of many tenants would need all of that anew.
//! * What an edge promises holds as it is: "accepted" means synced in that tenant's journal, a full disk or a slow gateway of one tenant
//!   is none of another, a plugin keeps no state between tenants.
//! * A gateway believes certificates and nothing else. Each node shows one of its tenant, so this process can send for the tenants that
//!   somebody certified it for and for nobody else, and a revoked one ends that.
//!
//! The price is a journal and a spool for each tenant that sends; `otlp.max_tenants` bounds how many run at once. What an earlier life accepted
//! goes on its way beside them, a few tenants at a time, while the doors are open already. The tenant comes from the key alone:
//! headers and payloads that name one are not looked at.

mod admin;
mod door;
mod edges;
mod health;
mod metered;
mod place;
mod refused;
mod tls;
mod turns;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sluice_edge::{Door, DoorLimits, EdgeConfig, program};
use sluice_ingest::IngestConfig;
use sluice_ingest::gateway::SystemClock;
use sluice_ingest::tenants::Quotas;
use sluice_settings::ConfigError;
use sluice_tenants::Tenancy;
use tokio::signal::unix::Signal;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::door::Front;
use self::edges::{Edges, EdgesSettings, TENANT};
use self::refused::Refused;
use self::tls::Certificate;
use crate::running::RunArgs;

/// How often it is looked whether tenants, keys or the certificate changed, and the bytes of the day are saved.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Requests of one HTTP/2 connection.
const STREAMS: u32 = 64;
/// From the connection to the whole head of its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// Exporters send every 60 s at least.
const IDLE: Duration = Duration::from_secs(75);
/// When the process ends: how long requests at work may take.
const DOOR_DRAIN: Duration = Duration::from_secs(5);
/// Monitors are few.
const ADMIN_CONNECTIONS: usize = 32;
/// In the data folder.
const FOLDER: &str = "otlp";
const DAY_FILE: &str = "otlp-today.json";

pub(crate) async fn run(mut config: IngestConfig, args: RunArgs) -> anyhow::Result<ExitCode> {
    args.check_names(&["otlp-grpc", "otlp-http", "http"])?;
    let of_command = |name: &str, given: &mut String| {
        if let Some(address) = args.address(name) {
            *given = address.to_string();
        }
    };
    of_command("otlp-grpc", &mut config.otlp.grpc);
    of_command("otlp-http", &mut config.otlp.http);
    of_command("http", &mut config.admin.listen);
    // With what the command line says.
    config.check("")?;
    let (shutdown, hangups) = (program::shutdown_on_signal()?, program::hangups()?);
    let template = template(&config)?;
    let tenancy = Arc::new(Tenancy::open(&config.tenants.dir).context("the folder of tenants")?);
    let certificate = Certificate::open(&config.otlp.cert, &config.otlp.key)?;
    let quotas = Arc::new(Quotas::new(
        Some(Arc::clone(&tenancy)),
        config.tenants.gateways,
        Arc::new(SystemClock),
        Some(config.data_dir.join(DAY_FILE)),
    ));
    let settings = EdgesSettings {
        template,
        folder: config.data_dir.join(FOLDER),
        max_tenants: config.otlp.max_tenants,
    };
    let edges = Arc::new(Edges::open(settings, Arc::clone(&tenancy)));
    let front = Front {
        tenancy: Arc::clone(&tenancy),
        quotas: Arc::clone(&quotas),
        edges: Arc::clone(&edges),
        refused: Arc::new(Refused::default()),
    };
    let bound = bind(&config).await?;
    let listen: Vec<_> = bound.iter().map(|(name, door)| (*name, door.address())).collect();
    // What an earlier life accepted goes on its way, whoever sends now. It ends with the nodes.
    tokio::spawn(Arc::clone(&edges).keep());
    let stop_doors = CancellationToken::new();
    let mut doors = JoinSet::new();
    for (name, door) in bound {
        let limits = |connections| DoorLimits {
            connections,
            streams: STREAMS,
            first_request: FIRST_REQUEST,
            idle: IDLE,
        };
        let stop = stop_doors.clone();
        match name {
            "http" => doors.spawn(door.serve(admin::router(front.clone()), limits(ADMIN_CONNECTIONS), stop)),
            name => {
                let (router, tls) = (door::router(front.clone(), name), certificate.follow());
                doors.spawn(door.serve_tls(router, limits(config.otlp.max_connections), tls, stop))
            }
        };
    }
    if let Some(path) = &args.ready_file {
        program::write_ready_file(path, listen, None)?;
    }
    let following = tokio::spawn(follow(hangups, tenancy, certificate, Arc::clone(&quotas)));
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        Some(_) = doors.join_next() => Err(anyhow::anyhow!("a door ended by itself")),
    };
    following.abort();
    stop_doors.cancel();
    let closed = async { while doors.join_next().await.is_some() {} };
    if tokio::time::timeout(DOOR_DRAIN, closed).await.is_err() {
        tracing::warn!("connections did not end in time, they are cut");
        doors.shutdown().await;
    }
    // Only then: a request at work is still answered by its node.
    edges.stop().await;
    drop(tokio::task::spawn_blocking(move || quotas.save()).await);
    ended.map(|()| ExitCode::SUCCESS)
}

/// What every tenant's edge is made of.
fn template(config: &IngestConfig) -> anyhow::Result<EdgeConfig> {
    let refuse = |key: &str, message: &str, hint: &str| {
        Err(anyhow::Error::from(
            ConfigError::value("", key, message.to_owned()).with_hint(hint.to_owned()),
        ))
    };
    if config.otlp.edge.as_os_str().is_empty() {
        let hint = "write a file like deploy/config/edge.toml with gateways, certificate, key and ca in [link]";
        return refuse("otlp.edge", "is not set: nobody knows the way to the gateways", hint);
    }
    let template = EdgeConfig::load(&config.otlp.edge)?;
    if template.link.gateways.is_empty() {
        return refuse(
            "otlp.edge",
            "names a file without [link] gateways",
            "say where the gateways are",
        );
    }
    let link = &template.link;
    if [&link.certificate, &link.key]
        .iter()
        .any(|path| !path.to_string_lossy().contains(TENANT))
    {
        let message = "names a file whose [link] has one certificate or key for all tenants";
        return refuse(
            "otlp.edge",
            message,
            "write certificate = \"certificates/{tenant}.otlp.pem\", and key likewise",
        );
    }
    if template.source != Default::default() {
        let message = "names a file with sources, which would be read for every tenant";
        return refuse("otlp.edge", message, "read them with an edge of their tenant");
    }
    Ok(template)
}

async fn bind(config: &IngestConfig) -> anyhow::Result<Vec<(&'static str, Door)>> {
    let refuse = |key: &str, why: String| ConfigError::value("", key, why);
    let mut addresses: Vec<(&'static str, SocketAddr)> =
        config.otlp.addresses().map_err(|(key, why)| refuse(key, why))?;
    let admin = config
        .admin
        .address()
        .map_err(|why| refuse("admin.listen", why.to_owned()))?;
    addresses.extend(admin.map(|address| ("http", address)));
    let mut doors = Vec::new();
    for (name, address) in addresses {
        let door = Door::bind(name, address).await;
        doors.push((
            name,
            door.with_context(|| format!("cannot listen on {address} ({name})"))?,
        ));
    }
    Ok(doors)
}

/// Takes changed files into use, every few seconds and at SIGHUP.
async fn follow(mut hangups: Signal, tenancy: Arc<Tenancy>, certificate: Certificate, quotas: Arc<Quotas>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            _ = hangups.recv() => {}
        }
        match tenancy.look() {
            Ok(false) => {}
            Ok(true) => tracing::info!("tenants and keys read again"),
            Err(error) => tracing::error!("tenants and keys stay as they were: {:#}", anyhow::Error::from(error)),
        }
        certificate.look();
        let quotas = Arc::clone(&quotas);
        drop(tokio::task::spawn_blocking(move || quotas.save()).await);
    }
}
