//! The certificate of the OTLP doors, exchanged while they stand open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sluice_edge::DoorTls;
use tokio::sync::watch;

/// In use now; without files the doors speak plain text.
#[derive(Clone)]
pub(super) struct Certificate {
    files: Option<(PathBuf, PathBuf)>,
    current: Option<watch::Sender<Arc<ServerConfig>>>,
}

impl Certificate {
    pub(super) fn open(cert: &Path, key: &Path) -> anyhow::Result<Self> {
        if cert.as_os_str().is_empty() {
            return Ok(Self {
                files: None,
                current: None,
            });
        }
        let config = load(cert, key).context("the certificate of the doors")?;
        Ok(Self {
            files: Some((cert.to_owned(), key.to_owned())),
            current: Some(watch::Sender::new(Arc::new(config))),
        })
    }

    pub(super) fn follow(&self) -> DoorTls {
        self.current.as_ref().map(watch::Sender::subscribe)
    }

    /// Reads the files again; what cannot be used leaves the last good pair in place.
    pub(super) fn look(&self) {
        if let (Some((cert, key)), Some(current)) = (&self.files, &self.current) {
            match load(cert, key) {
                Ok(config) => drop(current.send_replace(Arc::new(config))),
                Err(error) => tracing::error!("the certificate of the doors stays as it was: {error:#}"),
            }
        }
    }
}

fn load(cert: &Path, key: &Path) -> anyhow::Result<ServerConfig> {
    let unreadable = |path: &Path| format!("{} cannot be read as PEM", path.display());
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.with_context(|| unreadable(cert))?;
    ensure!(!chain.is_empty(), "{} holds no certificate", cert.display());
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| unreadable(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key do not make a server")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
