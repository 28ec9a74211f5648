//! The uplink as the node sees it: built, watched, run.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use sluice_wire::ids::{Epoch, StreamId};
use sluice_wire::session::ClientOptions;
use sluice_wire::session::client::Phase;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::config::{LinkConfig, LinkError};
use super::connect;
use super::credentials::{Files, Fingerprint, Loaded};
use super::driver::{Driver, millis};
use super::reading;
use super::socket::Socket;
use super::status::{LinkStatus, phase_name};
use super::{AckSink, BatchSource};

/// A bound uplink that does nothing until it is run.
pub struct Uplink {
    pub(super) config: Arc<LinkConfig>,
    pub(super) options: ClientOptions,
    pub(super) source: Arc<dyn BatchSource>,
    pub(super) sink: Arc<dyn AckSink>,
    /// Follows the end of the spool.
    pub(super) changed: watch::Receiver<u64>,
    /// What was sealed last of what the spool held when the node was built.
    pub(super) fresh: Range<u64>,
    pub(super) socket: Socket,
    pub(super) look_again: Arc<Notify>,
    /// What the certificate files gave when the node was built.
    pub(super) loaded: (Fingerprint, Loaded),
    pub(super) status: watch::Sender<LinkStatus>,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Uplink {
    /// Binds a socket and checks the certificates. Needs a running tokio runtime. `generation` is the log's generation
    /// that the epoch began in, 0 if no gateway has named one yet.
    pub fn build(
        config: LinkConfig,
        stream: StreamId,
        epoch: Epoch,
        generation: u32,
        source: Arc<dyn BatchSource>,
        sink: Arc<dyn AckSink>,
    ) -> Result<Uplink, LinkError> {
        if config.gateways.is_empty() {
            return Err(LinkError::NoGateway);
        }
        if let Some(bad) = config.gateways.iter().find(|g| connect::split(g).is_none()) {
            return Err(LinkError::Gateway(bad.clone()));
        }
        let files = Files::read(&config);
        let loaded = files.load(&config, &stream.tenant, &stream.node)?;
        if let Some(problem) = &loaded.problem {
            tracing::warn!(problem, "some certificate files are not used");
        }
        let options = ClientOptions {
            generation,
            agent: concat!("sluice-edge/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_in_flight: config.max_in_flight,
            max_in_flight_bytes: config.max_in_flight_bytes,
            policy: config.policy,
            gateways: config.gateways.len() as u32,
            retry_ms: (millis(config.retry.0), millis(config.retry.1)),
            connect_timeout_ms: millis(config.connect_timeout),
            ack_timeout_ms: millis(config.ack_timeout),
            renews: config.renewed.is_some(),
            ..ClientOptions::new(stream, epoch)
        };
        let status = LinkStatus {
            phase: phase_name(Phase::Waiting),
            ..LinkStatus::default()
        };
        let (status, _) = watch::channel(status);
        let changed = source.changed();
        let end = *changed.borrow();
        let fresh = reading::first_fresh(source.as_ref(), end, config.live_for)..end;
        Ok(Uplink {
            config: Arc::new(config),
            options,
            changed,
            fresh,
            source,
            sink,
            socket: Socket::bind()?,
            look_again: Arc::default(),
            loaded: (files.fingerprint(), loaded),
            status,
        })
    }

    /// Follows the link; keeps its last value after the uplink ended.
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.subscribe()
    }

    /// Makes the uplink look at its certificates at once.
    pub fn look_again(&self) -> Arc<Notify> {
        Arc::clone(&self.look_again)
    }

    /// Carries batches until `shutdown`. What is not acknowledged then stays in the spool.
    pub async fn run(self, shutdown: CancellationToken) {
        let endpoint = self.socket.endpoint.clone();
        Box::pin(Driver::new(self).run(shutdown)).await;
        endpoint.close(VarInt::from_u32(0), b"edge is leaving");
        // The close is announced once; a gateway that misses it notices the silence.
        let _ = tokio::time::timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
    }
}
