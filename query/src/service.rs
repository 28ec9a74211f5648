//! Composition of the query role: `build` binds and checks everything and starts nothing, `run` serves and drains.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_settings::ConfigError;
use sluice_store::Tables;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::config::QueryConfig;
use crate::engine::Engine;
use crate::functions::Plugins;
use crate::memory::Room;
use crate::scale::{PeerError, Workers};
use crate::status::{NoStatus, StatusSource};
use crate::tls::{Tls, TlsError};
use crate::tokens::Tokens;
use crate::{flight, listener, pg};

/// How long answers that have begun may go on after the end was announced.
const DRAIN: Duration = Duration::from_secs(20);
/// How often it is looked whether the folder of tenants changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The query role, bound and not yet serving.
#[derive(Debug)]
pub struct QueryService {
    listener: TcpListener,
    address: SocketAddr,
    pg: TcpListener,
    pg_address: SocketAddr,
    flight: TcpListener,
    flight_address: SocketAddr,
    tls: Option<Tls>,
    engine: Arc<Engine>,
    tokens: Tokens,
    status: Status,
    more: axum::Router,
}

struct Status(Arc<dyn StatusSource>);

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Status")
    }
}

/// Why the query role did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("configuration")]
    Config(#[from] ConfigError),
    #[error(
        "listening on {address} without TLS would show tokens and answers to the network; \
         name a certificate in [tls], listen on loopback, or set `insecure = true`"
    )]
    Insecure { address: SocketAddr },
    #[error("{door} cannot listen on {address}")]
    Bind {
        door: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the certificate of the doors")]
    Tls(#[from] TlsError),
    #[error("{} cannot be used to spill to (`limits.spill_dir`)", path.display())]
    Spill { path: PathBuf, source: io::Error },
    #[error("the threads that compute answers cannot be started")]
    Threads(#[source] io::Error),
    #[error("workers")]
    Workers(#[from] PeerError),
}

/// Why a running query role stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
}

impl QueryService {
    /// Binds, reads the certificate, prepares the engine.
    pub async fn build(config: QueryConfig, tables: Tables, tokens: Tokens) -> Result<QueryService, BuildError> {
        config.check("")?;
        for address in [config.listen, config.pg, config.flight] {
            if !address.ip().is_loopback() && config.tls.is_none() && !config.insecure {
                return Err(BuildError::Insecure { address });
            }
        }
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        let (listener, address) = bind("the HTTP API", config.listen).await?;
        let (pg, pg_address) = bind("the door for clients of Postgres", config.pg).await?;
        let (flight, flight_address) = bind("the door for clients of Flight SQL", config.flight).await?;
        Room::clear(&config.limits).map_err(|source| BuildError::Spill {
            path: config.limits.spill_dir.clone(),
            source,
        })?;
        let workers = Workers::open(&config.scale, config.insecure, config.limits.max_scan)?;
        let engine = Engine::start(tables, config.limits, &config.cache, workers.map(Arc::new));
        let engine = Arc::new(engine.map_err(BuildError::Threads)?);
        Ok(QueryService {
            listener,
            address,
            pg,
            pg_address,
            flight,
            flight_address,
            tls,
            engine,
            tokens,
            status: Status(Arc::new(NoStatus)),
            more: axum::Router::new(),
        })
    }

    /// What `/v1/status`, `/metrics` and `/readyz` say beside the query role's own.
    #[must_use]
    pub fn with_status(mut self, status: Arc<dyn StatusSource>) -> QueryService {
        self.status = Status(status);
        self
    }

    /// How plugins are run over rows, for `apply`. Without it there is no such function.
    #[must_use]
    pub fn with_plugins(mut self, plugins: Arc<dyn Plugins>) -> QueryService {
        if let Some(engine) = Arc::get_mut(&mut self.engine) {
            engine.set_plugins(plugins);
        }
        self
    }

    /// Addresses of other roles in the same process, at the same door. They check for themselves who asks.
    #[must_use]
    pub fn with_routes(mut self, routes: axum::Router) -> QueryService {
        self.more = routes;
        self
    }

    /// Every address that is bound, by name.
    pub fn listen(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![
            ("http", self.address),
            ("pg", self.pg_address),
            ("flight", self.flight_address),
        ]
    }

    /// Serves until `shutdown`, then ends what has begun. SIGHUP reads tokens and certificate again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let mut hangups = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
        let connections = self.engine.limits().connections;
        let app = api::router(Arc::new(Api {
            engine: Arc::clone(&self.engine),
            tokens: self.tokens.clone(),
            status: self.status.0,
            open_metrics: self.address.ip().is_loopback(),
        }))
        .merge(self.more);
        let http = listener::serve(
            self.listener,
            self.tls.clone(),
            app,
            connections,
            DRAIN,
            shutdown.clone(),
        );
        let flight = listener::serve(
            self.flight,
            self.tls.clone(),
            flight::router(Arc::clone(&self.engine), self.tokens.clone()),
            connections,
            DRAIN,
            shutdown.clone(),
        );
        let postgres = pg::serve(
            self.pg,
            self.tls.clone(),
            self.engine,
            self.tokens.clone(),
            DRAIN,
            shutdown,
        );
        let serving = futures::future::join3(http, postgres, flight);
        tokio::pin!(serving);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = &mut serving => return Ok(()),
                _ = looks.tick() => look_at_tenants(&self.tokens),
                Some(()) = hangups.recv() => reload(&self.tokens, self.tls.as_ref()),
            }
        }
    }
}

pub(crate) async fn bind(door: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), BuildError> {
    let failed = |source| BuildError::Bind { door, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn look_at_tenants(tokens: &Tokens) {
    match tokens.look_at_tenants() {
        Ok(false) => {}
        Ok(true) => tracing::info!("tenants read again"),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "tenants stay as they were");
        }
    }
}

fn reload(tokens: &Tokens, tls: Option<&Tls>) {
    look_at_tenants(tokens);
    match tokens.reload() {
        Ok(count) => tracing::info!(count, "tokens read again"),
        Err(error) => tracing::error!(%error, "tokens stay as they were"),
    }
    if let Some(Err(error)) = tls.map(Tls::reload) {
        tracing::error!(%error, "certificate stays as it was");
    }
}
