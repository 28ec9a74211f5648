//! TLS of the gateway: version 1.3 only, a client certificate always, nothing that outlives a connection.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sluice_wire::session::frame;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::clock::WallClock;
use super::trust::GraceVerifier;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} {path} cannot be read")]
    Pem {
        what: &'static str,
        path: String,
        source: rustls::pki_types::pem::Error,
    },
    #[error("{what} {path} holds no certificate")]
    Empty { what: &'static str, path: String },
    #[error("certificate and key cannot be used together or at all")]
    Pair(#[source] rustls::Error),
    #[error("authorities for client certificates cannot be used: {0}")]
    Authorities(String),
}

/// The server's side of the handshake.
pub(super) struct ServerCrypto {
    pub(super) crypto: Arc<QuicServerConfig>,
    pub(super) verifier: Arc<GraceVerifier>,
    /// Of the certificate that is shown, in seconds since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// From the files as they are now.
pub(super) fn server_crypto(
    certificate: &Path,
    key: &Path,
    client_ca: &Path,
    grace: Duration,
    clock: &WallClock,
) -> Result<ServerCrypto, TlsError> {
    let chain = certificates("certificate", certificate)?;
    let (not_before, not_after) = chain.first().map_or((0, 0), |first| validity(first));
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|source| pem_error("key", key, source))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates("client authority", client_ca)? {
        roots.add(authority).map_err(|e| TlsError::Authorities(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| TlsError::Authorities(e.to_string()))?;
    let verifier = Arc::new(GraceVerifier { inner, grace });
    let mut config = ServerConfig::builder_with_details(provider, Arc::clone(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_client_cert_verifier(Arc::clone(&verifier) as _)
        .with_single_cert(chain, key_der)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![frame::ALPN.to_vec()];
    // A resumed session is not asked for its certificate again, so a revoked one could come back.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Early data can be replayed by anyone who saw it.
    config.max_early_data_size = 0;
    let crypto =
        QuicServerConfig::try_from(config).map_err(|e| TlsError::Pair(rustls::Error::General(e.to_string())))?;
    Ok(ServerCrypto {
        crypto: Arc::new(crypto),
        verifier,
        not_before,
        not_after,
    })
}

fn validity(der: &[u8]) -> (i64, i64) {
    X509Certificate::from_der(der).map_or((0, 0), |(_, certificate)| {
        let validity = certificate.validity();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    })
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let list = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| pem_error(what, path, source))?;
    if list.is_empty() {
        return Err(TlsError::Empty {
            what,
            path: path.display().to_string(),
        });
    }
    Ok(list)
}

fn pem_error(what: &'static str, path: &Path, source: rustls::pki_types::pem::Error) -> TlsError {
    TlsError::Pem {
        what,
        path: path.display().to_string(),
        source,
    }
}
