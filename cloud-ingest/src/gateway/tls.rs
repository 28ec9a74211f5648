//! TLS of the gateway: version 1.3 only, a client certificate always, nothing that outlives a connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sluice_wire::session::frame;

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

/// The server's side of the handshake, from the files as they are now.
pub(super) fn server_crypto(
    certificate: &Path,
    key: &Path,
    client_ca: &Path,
) -> Result<Arc<QuicServerConfig>, TlsError> {
    let chain = certificates("certificate", certificate)?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|source| pem_error("key", key, source))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates("client authority", client_ca)? {
        roots.add(authority).map_err(|e| TlsError::Authorities(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| TlsError::Authorities(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key_der)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![frame::ALPN.to_vec()];
    // A resumed session is not asked for its certificate again, so a revoked one could come back.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Early data can be replayed by anyone who saw it.
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config)
        .map(Arc::new)
        .map_err(|e| TlsError::Pair(rustls::Error::General(e.to_string())))
}

/// Files whose change makes new handshakes use them.
#[derive(Debug)]
pub(super) struct Watched {
    files: Vec<PathBuf>,
    seen: Vec<Option<Vec<u8>>>,
}

impl Watched {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        let mut watched = Self {
            seen: Vec::new(),
            files,
        };
        watched.changed();
        watched
    }

    /// Whether any of the files differs from the last call. Contents are compared, as times may be coarse.
    pub(super) fn changed(&mut self) -> bool {
        let now: Vec<_> = self.files.iter().map(|f| std::fs::read(f).ok()).collect();
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
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
