//! The composition of an edge: what is built and bound before anything starts.

mod keeper;
mod running;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use sluice_runtime::Compiler;
use sluice_wal::{Wal, WalError};
use sluice_wire::ids::{NodeId, TenantId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chain::{ChainError, Keeper, KeeperOptions};
use crate::config::{ConfigError, EdgeConfig};
use crate::identity::IdentityError;
use crate::journal;
use crate::link::{LinkError, TlsError, Uplink, certificate_identity};
use crate::otlp::OtlpRoutes;
use crate::positions::Positions;
use crate::recovery::RecoveryError;
use crate::sealer::blocking;
use crate::serve::Door;
use crate::source::at_work::{Built, SourceRefused};
use crate::source::stats::Sources;
use crate::spool::{Spool, SpoolError, SpoolOptions, is_full};
use crate::status::{Phase, Recovered, State, StatusHandle, StatusShared};
use crate::tap::{TapDoor, TokenError};
use running::Running;

/// A node that holds its sockets and files and does nothing until it is run.
#[derive(Debug)]
pub struct EdgeNode {
    config: EdgeConfig,
    spool: Arc<Spool>,
    journal: Wal,
    plugins: Arc<Keeper>,
    tap: TapDoor,
    doors: Vec<Door>,
    sources: Built,
    positions: Arc<Positions>,
    uplink: Option<Uplink>,
    status: StatusHandle,
    routes: watch::Sender<Option<OtlpRoutes>>,
}

/// What a program chooses for its node, beside what its operator writes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeOptions {
    /// What compiles plugins.
    pub compiler: Compiler,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            compiler: Compiler::this_program(),
        }
    }
}

/// Why a node cannot be built or had to end.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    #[error("certificate of the link")]
    Certificate(#[from] TlsError),
    #[error("link")]
    Link(#[from] LinkError),
    #[error("plugin chain")]
    Chain(#[from] ChainError),
    #[error("token of the administrator")]
    Token(#[from] TokenError),
    #[error("cannot listen on {address} ({name})")]
    Bind {
        name: &'static str,
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("source {name}")]
    Source {
        name: String,
        #[source]
        source: std::io::Error,
    },
    #[error("positions of sources in the data folder")]
    Positions(#[source] std::io::Error),
    #[error("data folder {path}")]
    DataDir {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("spool of the data folder")]
    Spool(#[from] SpoolError),
    #[error("journal of the data folder")]
    Journal(#[source] WalError),
    #[error("recovery")]
    Recovery(#[from] RecoveryError),
    #[error("a part of the node failed: {0}")]
    Part(String),
}

impl From<SourceRefused> for EdgeError {
    fn from(SourceRefused { name, source }: SourceRefused) -> Self {
        Self::Source { name, source }
    }
}

impl EdgeError {
    /// The exit code of a process that ends with it: 3 configuration refused, 4 data on disk refused, 1 anything else.
    pub fn exit_code(&self) -> u8 {
        let refused = |e: &WalError| matches!(e, WalError::Locked | WalError::Corrupt { .. });
        match self {
            Self::Config(_) | Self::Certificate(_) | Self::Link(_) | Self::Chain(_) | Self::Token(_) => 3,
            Self::Source { source, .. } if source.kind() == std::io::ErrorKind::InvalidInput => 3,
            Self::Positions(_) => 4,
            Self::Journal(e) | Self::Spool(SpoolError::Log(e)) if refused(e) => 4,
            Self::Spool(SpoolError::Identity(IdentityError::Newer { .. } | IdentityError::OtherNode { .. })) => 4,
            Self::Recovery(RecoveryError::Newer { .. }) => 4,
            _ => 1,
        }
    }
}

impl EdgeNode {
    /// Checks everything, opens the data folder, binds the sockets, compiles the plugins. Starts nothing.
    pub async fn build(config: EdgeConfig) -> Result<EdgeNode, EdgeError> {
        Self::build_with(config, NodeOptions::default()).await
    }

    /// The same for a program that cannot be its own compiler of plugins.
    pub async fn build_with(config: EdgeConfig, options: NodeOptions) -> Result<EdgeNode, EdgeError> {
        config.check("")?;
        let (tenant, node) = names(&config)?;
        let doors = bind(&config).await?;
        let sources = Built::of(&config.source).await?;
        let plugins = Arc::new(Keeper::new(KeeperOptions {
            folder: config.data_dir.join("plugins"),
            compiler: options.compiler,
            cache: true,
            strict_revocations: config.packages.strict_revocations,
        }));
        let (keeper, entries) = (plugins.clone(), config.plugin.clone());
        blocking(move || keeper.set(&entries)).await?;
        let settings = config.clone();
        let Folder {
            spool,
            journal,
            positions,
            recovered,
            full,
        } = blocking(move || open(&settings, &tenant, &node)).await?;
        let spool = Arc::new(spool);
        let tap = TapDoor::default();
        tap.set(config.admin.tap, &config.data_dir)?;
        let uplink = match config.link.resolve(&config.data_dir) {
            Some(link) => {
                let (epoch, generation) = spool.epoch();
                let stream = spool.stream().clone();
                Some(Uplink::build(
                    link,
                    stream,
                    epoch,
                    generation,
                    spool.clone(),
                    spool.clone(),
                )?)
            }
            None => None,
        };
        let shared = StatusShared {
            started: Instant::now(),
            counters: Arc::default(),
            sources: Arc::new(Sources::new(sources.stats())),
            spool: spool.clone(),
            plugins: plugins.clone(),
            tap: tap.clone(),
            link: uplink.as_ref().map(Uplink::status),
            look_again: uplink.as_ref().map(Uplink::look_again),
            max_bytes: config.spool.max_bytes,
            on_full: config.spool.on_full,
            data_dir: config.data_dir.clone(),
            deciding: Default::default(),
            dropping: Default::default(),
            source_settings: watch::Sender::new(config.source.clone()),
            phase: watch::Sender::new(Phase::Starting),
            state: State {
                recovered,
                ..State::default()
            }
            .into(),
        };
        if full {
            shared.counters.note_full();
        }
        let status = StatusHandle {
            shared: Arc::new(shared),
        };
        Ok(EdgeNode {
            config,
            spool,
            journal,
            plugins,
            tap,
            doors,
            sources,
            positions: Arc::new(positions),
            uplink,
            status,
            routes: watch::Sender::new(None),
        })
    }

    /// Its OTLP doors without sockets, once it is running: for a process that knows by itself who sends.
    pub fn otlp_routes(&self) -> watch::Receiver<Option<OtlpRoutes>> {
        self.routes.subscribe()
    }

    /// Name and bound address of every door.
    pub fn listen(&self) -> Vec<(&'static str, SocketAddr)> {
        self.doors.iter().map(|door| (door.name, door.address())).collect()
    }

    /// `GET /v1/tap`, for a process that has one HTTP door for several roles.
    pub fn tap_routes(&self) -> axum::Router {
        axum::Router::new().route(
            "/v1/tap",
            axum::routing::get(crate::tap::page).with_state(self.tap.clone()),
        )
    }

    pub fn status(&self) -> StatusHandle {
        self.status.clone()
    }

    /// The spool, as an uplink sees it: for a process that carries batches in its own way.
    pub fn spool(&self) -> Arc<Spool> {
        self.spool.clone()
    }

    /// Serves until `shutdown`, then drains: requests at work are answered, everything accepted is sealed, and what the
    /// gateway takes within `link.drain` is acknowledged. Fails when the disk cannot be trusted any more.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), EdgeError> {
        let status = self.status.clone();
        let result = Box::pin(Running::start_and_serve(self, shutdown)).await;
        status.shared.state_mut().journal = None;
        if result.is_err() {
            status.set_phase(Phase::Failed);
        }
        result
    }
}

/// Who this node is: what its certificate says, if it has one.
fn names(config: &EdgeConfig) -> Result<(TenantId, NodeId), EdgeError> {
    let bad = |key: &str, e: sluice_wire::ids::IdError| ConfigError::value("", key, e.to_string());
    let given = |text: &str, default: &str| {
        if text.is_empty() {
            default.to_owned()
        } else {
            text.to_owned()
        }
    };
    if config.link.gateways.is_empty() {
        let tenant = TenantId::new(&given(&config.tenant, "default")).map_err(|e| bad("tenant", e))?;
        let node = NodeId::new(&given(&config.node, "edge")).map_err(|e| bad("node", e))?;
        return Ok((tenant, node));
    }
    // While the configured file is being replaced, what was renewed says the same.
    let renewed = config.link.renewed_file(&config.data_dir);
    let (tenant, node) = certificate_identity(&config.link.certificate).or_else(|error| {
        renewed
            .map_or(Err(()), |path| certificate_identity(&path).map_err(drop))
            .map_err(|()| error)
    })?;
    for (key, text, name) in [
        ("tenant", &config.tenant, tenant.as_str()),
        ("node", &config.node, node.as_str()),
    ] {
        if !text.is_empty() && text != name {
            let message = format!("{text:?} is not what the link's certificate says, {name:?}");
            return Err(ConfigError::value("", key, message).with_hint("leave it out").into());
        }
    }
    Ok((tenant, node))
}

async fn bind(config: &EdgeConfig) -> Result<Vec<Door>, EdgeError> {
    let mut doors = Vec::new();
    for (name, address) in config.listen.entries() {
        let Ok(socket) = address.parse() else {
            continue;
        };
        let fail = |source| EdgeError::Bind {
            name,
            address: address.to_owned(),
            source,
        };
        doors.push(Door::bind(name, socket).await.map_err(fail)?);
    }
    Ok(doors)
}

/// What the data folder holds.
struct Folder {
    spool: Spool,
    journal: Wal,
    positions: Positions,
    recovered: Recovered,
    /// Without room to write.
    full: bool,
}

fn open(config: &EdgeConfig, tenant: &TenantId, node: &NodeId) -> Result<Folder, EdgeError> {
    let dir = &config.data_dir;
    match std::fs::create_dir_all(dir) {
        // It is made when there is room.
        Err(source) if !is_full(&source) => {
            return Err(EdgeError::DataDir {
                path: dir.display().to_string(),
                source,
            });
        }
        _ => {}
    }
    let options = SpoolOptions {
        data_dir: dir.clone(),
        max_bytes: config.spool.max_bytes,
        ballast: config.spool.ballast,
        zstd_level: config.seal.zstd_level,
        max_batch_bytes: config.seal.max_batch_bytes,
    };
    let (spool, opened) = Spool::open(options, tenant, node)?;
    let journal_options = journal::options(config.spool.max_bytes, config.spool.ballast);
    let segment_bytes = journal_options.segment_bytes;
    let (mut journal, found) = Wal::open_marked(&dir.join("journal"), journal_options).map_err(EdgeError::Journal)?;
    spool.raise_covered(journal::noted(&found.note).max(opened.covered));
    // A journal that lost its end must not give positions that the spool already speaks of to other records.
    if journal.next() < spool.covered() {
        journal.skip_to(spool.covered()).map_err(EdgeError::Journal)?;
    }
    let recovered = Recovered {
        torn_bytes: opened.torn_bytes + found.torn_bytes,
        damaged_batches: opened.damaged,
        identity_rebuilt: opened.identity_rebuilt,
        ..Recovered::default()
    };
    let full = opened.full || !journal.has_room();
    let positions = Positions::load(&dir.join("positions"), segment_bytes).map_err(EdgeError::Positions)?;
    Ok(Folder {
        spool,
        journal,
        positions,
        recovered,
        full,
    })
}
