//! What a gateway reads again while it runs: its certificate, the authorities of edges, the deny list, the tenants. Whatever is wrong with
//! changed files, the last good ones stay in use.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn::{IdleTimeout, ServerConfig, TransportConfig, VarInt};
use sluice_settings::readable::span;
use sluice_tenants::Snapshot;
use tokio::sync::watch;
use tracing::{info, warn};

use super::clock::unix_s;
use super::config::{GatewayConfig, GatewayError};
use super::deny::DenyList;
use super::status::{Counters, add};
use super::tls::{self, TlsError};
use super::trust::{GraceVerifier, Trust};

/// What the transport may buffer of a peer that was not welcomed yet, or for which no larger window is left.
const SMALL_WINDOW_BYTES: u32 = 128 << 10;

/// The files of a gateway, and what was made of them last.
#[derive(Debug)]
pub(super) struct Reload {
    config: GatewayConfig,
    tls: Watched,
    deny: Watched,
    trust: watch::Sender<Trust>,
    counters: Arc<Counters>,
    /// What changed could not be used at the last look: perhaps half of it was written.
    is_suspect: bool,
    /// Between which times the own certificate is valid, in seconds since 1970, and whether it was near its end at the last look.
    own: (i64, i64),
    is_old: bool,
}

/// The last sixth of a life is near its end.
const OLD_SHARE: i64 = 6;

/// What new handshakes are served with.
struct Made {
    server: ServerConfig,
    verifier: Arc<GraceVerifier>,
    own: (i64, i64),
}

impl Reload {
    /// Reads everything; here what is wrong is an error.
    pub(super) fn open(config: &GatewayConfig, counters: Arc<Counters>) -> Result<(Self, ServerConfig), GatewayError> {
        let deny = match &config.deny_list {
            Some(path) => DenyList::load(path)?,
            None => DenyList::default(),
        };
        counters.revoked_serials.store(deny.len() as u64, Ordering::Relaxed);
        let files = vec![config.certificate.clone(), config.key.clone(), config.client_ca.clone()];
        // Looked at before they are read: what changes between the two is read again.
        let (tls, deny_file) = (
            Watched::new(files),
            Watched::new(config.deny_list.iter().cloned().collect()),
        );
        let Made { server, verifier, own } = server_config(config, &counters)?;
        let trust = Trust {
            verifier,
            authorities: 0,
            deny: Arc::new(deny),
            tenants: config.tenants.as_ref().map(|tenancy| tenancy.current()),
            clock: Arc::clone(&config.clock),
        };
        if let Some(tenants) = &trust.tenants {
            note_served(&counters, tenants);
        }
        let reload = Self {
            config: config.clone(),
            tls,
            deny: deny_file,
            trust: watch::Sender::new(trust),
            counters,
            is_suspect: false,
            own,
            is_old: false,
        };
        Ok((reload, server))
    }

    /// Follows whom the gateway believes.
    pub(super) fn trust(&self) -> watch::Receiver<Trust> {
        self.trust.subscribe()
    }

    /// Takes changed files into use. What new handshakes shall be served with, if that is something else now.
    pub(super) fn look(&mut self) -> Option<ServerConfig> {
        if self.deny.changed() {
            self.look_at_deny_list();
        }
        self.look_at_tenants();
        self.look_at_age();
        let was_suspect = std::mem::take(&mut self.is_suspect);
        if !self.tls.changed() && !was_suspect {
            return None;
        }
        match server_config(&self.config, &self.counters) {
            Ok(Made { server, verifier, own }) => {
                self.own = own;
                info!("certificates read again");
                self.counters.set_problem("certificates", None);
                self.trust.send_modify(|trust| {
                    trust.verifier = verifier;
                    trust.authorities += 1;
                });
                Some(server)
            }
            Err(_) if !was_suspect => {
                self.is_suspect = true;
                None
            }
            Err(error) => {
                self.tell("certificates", "changed certificates are not used", &error);
                None
            }
        }
    }

    /// Tells when the gateway's own certificate is near its end: nobody renews it but an operator.
    fn look_at_age(&mut self) {
        let (begin, end) = self.own;
        let left = end.saturating_sub(unix_s(&self.config.clock));
        let is_old = left < end.saturating_sub(begin) / OLD_SHARE;
        let problem = is_old.then(|| {
            let left = span(u64::try_from(left).unwrap_or(0).saturating_mul(1_000));
            format!("the gateway's certificate expires in {left}: put a new one in its place")
        });
        if is_old && !self.is_old {
            warn!(problem, "certificate is old");
        }
        self.is_old = is_old;
        self.counters.set_problem("age", problem);
    }

    fn look_at_deny_list(&mut self) {
        let Some(path) = &self.config.deny_list else {
            return;
        };
        match DenyList::load(path) {
            Ok(list) => {
                info!(revoked = list.len(), "deny list read again");
                self.counters
                    .revoked_serials
                    .store(list.len() as u64, Ordering::Relaxed);
                self.counters.set_problem("deny list", None);
                self.trust.send_modify(|trust| trust.deny = Arc::new(list));
            }
            Err(error) => self.tell("deny list", "changed deny list is not used", &error),
        }
    }

    fn look_at_tenants(&self) {
        let Some(tenancy) = &self.config.tenants else {
            return;
        };
        match tenancy.look() {
            Ok(false) => {}
            Ok(true) => {
                let now = tenancy.current();
                info!(tenants = now.tenants.len(), "tenants read again");
                note_served(&self.counters, &now);
                self.counters.set_problem("tenants", None);
                self.trust.send_modify(|trust| trust.tenants = Some(now));
            }
            Err(error) => self.tell("tenants", "changed tenants are not used", &error),
        }
    }

    fn tell(&self, which: &'static str, what: &str, error: &(dyn std::error::Error + 'static)) {
        add(&self.counters.reload_failures, 1);
        let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
        warn!(%error, cause, "{what}, the last good one stays");
        let text = format!("{what}, the last good one stays: {error}{cause}");
        self.counters.set_problem(which, Some(text));
    }
}

fn note_served(counters: &Counters, now: &Snapshot) {
    let served = now.tenants.iter().filter(|(id, _)| now.tenants.admit(id).is_ok());
    counters.tenants_served.store(served.count() as u64, Ordering::Relaxed);
}

fn server_config(config: &GatewayConfig, counters: &Counters) -> Result<Made, TlsError> {
    // Without somebody to ask, grace would let an expired certificate in for nothing.
    let grace = config.authority.as_ref().map_or(Duration::ZERO, |_| config.grace);
    let made = tls::server_crypto(
        &config.certificate,
        &config.key,
        &config.client_ca,
        grace,
        &config.clock,
    )?;
    let not_after = u64::try_from(made.not_after).unwrap_or(0);
    counters.certificate_expires_unix_s.store(not_after, Ordering::Relaxed);
    let mut server = ServerConfig::with_crypto(made.crypto);
    server.transport_config(Arc::new(transport(config)));
    // Packets of connections that were not looked at yet: 1024 first flights are 16 MiB at most.
    server
        .max_incoming(1024)
        .incoming_buffer_size(16 << 10)
        .incoming_buffer_size_total(16 << 20);
    Ok(Made {
        server,
        verifier: made.verifier,
        own: (made.not_before, made.not_after),
    })
}

fn transport(config: &GatewayConfig) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = u32::try_from(config.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(config.max_in_flight))
        .receive_window(VarInt::from_u32(SMALL_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(config.session_window_bytes.max(SMALL_WINDOW_BYTES)))
        // Only frames go this way.
        .send_window(256 << 10)
        .datagram_receive_buffer_size(None)
        .initial_mtu(1200);
    transport
}

/// Files that are compared with what they were.
#[derive(Debug)]
struct Watched {
    files: Vec<PathBuf>,
    seen: Vec<Option<Vec<u8>>>,
}

impl Watched {
    fn new(files: Vec<PathBuf>) -> Self {
        let mut watched = Self {
            seen: Vec::new(),
            files,
        };
        watched.changed();
        watched
    }

    /// Whether any of the files differs from the last call. Contents are compared, as times may be coarse.
    fn changed(&mut self) -> bool {
        let now: Vec<_> = self.files.iter().map(|f| std::fs::read(f).ok()).collect();
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}
