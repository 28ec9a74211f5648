//! `sluice ca serve`: the authority's door. HTTPS with certificates of both sides; LINK.md, section 7, says what is spoken.
//!
//! Only gateways with a certificate of this authority get in, but that keeps idlers out and no more: a request counts by what the old key
//! of an edge signed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use http::StatusCode;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use serde::{Deserialize, Serialize};
use sluice_ingest::gateway::{AuthorityError, RenewalRequest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::CaConfig;
use super::{LocalAuthority, Role, describe, issuer, policy};

pub(super) const MAX_BODY_BYTES: usize = 128 << 10;
const MAX_CONNECTIONS: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A gateway makes a connection for each request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Of the door's own certificate, whose key never leaves the process.
const OWN_LIFE: Duration = Duration::from_secs(14 * 86_400);
/// How often it is looked at whether that is old. The authorities' certificates are read again with it.
const OWN_CHECK: Duration = Duration::from_secs(3_600);

/// A request as JSON; DER in hex.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) certificates: Vec<String>,
    pub(super) request: String,
    pub(super) scheme: u32,
    pub(super) proof: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) certificates: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) reason: String,
}

/// Who came through the door.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Visitor {
    name: String,
    serial: String,
}

/// A bound door.
pub(super) struct Door {
    listener: TcpListener,
    address: SocketAddr,
    config: CaConfig,
}

impl Door {
    pub(super) async fn bind(config: CaConfig) -> Result<Self> {
        let listener = TcpListener::bind(config.listen);
        let listener = listener
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        // What is wrong with the folder is told now.
        acceptor(&config, address)?;
        Ok(Self {
            listener,
            address,
            config,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`.
    pub(super) async fn serve(self, shutdown: CancellationToken) -> Result<()> {
        let authority = LocalAuthority::new(self.config.dir.clone(), self.config.policy.clone());
        let router = router(authority);
        let mut tls = acceptor(&self.config, self.address)?;
        let mut renew = tokio::time::interval(OWN_CHECK);
        renew.tick().await;
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let (stream, from) = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                _ = renew.tick() => {
                    match acceptor(&self.config, self.address) {
                        Ok(fresh) => tls = fresh,
                        Err(error) => tracing::error!("the door's certificate stays as it is: {error:#}"),
                    }
                    let (dir, policy) = (self.config.dir.clone(), self.config.policy.clone());
                    let forgotten = tokio::task::spawn_blocking(move || super::forget_old(&dir, &policy)).await;
                    if let Ok(Err(error)) = forgotten {
                        tracing::error!("old certificates are not forgotten: {error:#}");
                    }
                    continue;
                }
                () = shutdown.cancelled() => break,
            };
            // Beyond the limit a connection is closed at once: the gateway comes again.
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                continue;
            };
            let (tls, router) = (tls.clone(), router.clone());
            connections.spawn(async move {
                let _slot = slot;
                let served = tokio::time::timeout(CONNECTION_TIMEOUT, serve_one(stream, tls, router));
                if let Ok(Err(error)) = served.await {
                    tracing::warn!(%from, "connection refused: {error:#}");
                }
            });
        }
        connections.close();
        // What is signed just now is told still.
        drop(tokio::time::timeout(Duration::from_secs(5), connections.wait()).await);
        Ok(())
    }
}

async fn serve_one(stream: TcpStream, tls: TlsAcceptor, router: Router) -> Result<()> {
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream))
        .await
        .context("no handshake")??;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let visitor = visitor(shown.context("no certificate")?)?;
    let service = TowerToHyperService::new(router.layer(Extension(visitor)));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    served.await.context("broken off")
}

/// A gateway's certificate has hosts; an edge's does not get anybody in here.
fn visitor(der: &CertificateDer<'_>) -> Result<Visitor> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| anyhow::anyhow!("certificate cannot be read"))?;
    let names = certificate.subject_alternative_name()?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let is_host = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
    anyhow::ensure!(
        !names.is_empty() && names.iter().all(is_host),
        "the certificate is not a gateway's"
    );
    let host = names.iter().find_map(|name| match name {
        GeneralName::DNSName(host) => Some((*host).to_owned()),
        _ => None,
    });
    let serial = hex::encode(certificate.raw_serial());
    Ok(Visitor {
        name: host.unwrap_or_else(|| format!("gateway {serial}")),
        serial: serial.trim_start_matches('0').to_owned(),
    })
}

fn router(authority: LocalAuthority) -> Router {
    Router::new()
        .route("/v1/renew", post(renew))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(authority)
}

async fn renew(
    State(authority): State<LocalAuthority>,
    Extension(visitor): Extension<Visitor>,
    Json(ask): Json<Ask>,
) -> Result<Json<Answer>, (StatusCode, Json<Refusal>)> {
    let refuse = |status, reason: String| (status, Json(Refusal { reason }));
    let bytes = |text: &str| hex::decode(text).map(Bytes::from);
    let read = || -> Result<RenewalRequest, hex::FromHexError> {
        Ok(RenewalRequest {
            certificates: ask
                .certificates
                .iter()
                .map(|der| bytes(der))
                .collect::<Result<_, _>>()?,
            request: bytes(&ask.request)?,
            scheme: ask.scheme,
            proof: bytes(&ask.proof)?,
        })
    };
    let request = read().map_err(|error| refuse(StatusCode::BAD_REQUEST, format!("not hex: {error}")))?;
    let via = (visitor.name.clone(), Some(visitor.serial.clone()));
    match authority.renew_via(request, via).await {
        Ok(certificates) => Ok(Json(Answer {
            certificates: certificates.iter().map(hex::encode).collect(),
        })),
        Err(error) => {
            tracing::warn!(target: "sluice::ca", via = visitor.name, %error, "certificate not issued");
            let (status, reason) = match error {
                AuthorityError::Refused(reason) => (StatusCode::FORBIDDEN, reason),
                AuthorityError::Later(reason) => (StatusCode::TOO_MANY_REQUESTS, reason),
                AuthorityError::Away(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
            };
            Err(refuse(status, reason))
        }
    }
}

/// TLS with a certificate made just now.
fn acceptor(config: &CaConfig, address: SocketAddr) -> Result<TlsAcceptor> {
    let mut hosts = config.hosts.clone();
    if !address.ip().is_unspecified() {
        hosts.push(address.ip().to_string());
    }
    anyhow::ensure!(
        !hosts.is_empty(),
        "hosts: by which names do gateways call the authority?"
    );
    let (params, _) = describe(&Role::Gateway { hosts }, OWN_LIFE, super::now()?, "")?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer(&config.dir)?)?;
    let mut roots = RootCertStore::empty();
    for authority in policy::authorities(&config.dir)? {
        roots.add(authority)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)?;
    // A resumed session is not asked for its certificate again.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(tls)))
}
