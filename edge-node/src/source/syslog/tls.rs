//! What a door with TLS shows and asks for. Its files are read again when they change, so that certificates are replaced without a
//! restart; files that cannot be used change nothing.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsDoor;
use crate::sealer::blocking;
use crate::source::stats::SourceStats;

pub(super) struct Tls {
    door: TlsDoor,
    current: Mutex<(Stamps, TlsAcceptor)>,
}

/// When each file was last changed, and how large it is.
type Stamps = Vec<Option<(SystemTime, u64)>>;

impl Tls {
    pub(super) fn load(door: &TlsDoor) -> io::Result<Self> {
        Ok(Self {
            current: Mutex::new((stamps(door), acceptor(door)?)),
            door: door.clone(),
        })
    }

    /// Shakes hands with whoever has connected.
    pub(super) async fn accept(&self, stream: TcpStream, stats: &SourceStats) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = self.current(stats).await;
        acceptor.accept(stream).await
    }

    async fn current(&self, stats: &SourceStats) -> TlsAcceptor {
        let mut current = self.current.lock().await;
        let (door, seen) = (self.door.clone(), current.0.clone());
        let renewed = blocking(move || {
            let now = stamps(&door);
            (now != seen).then(|| (now, acceptor(&door)))
        });
        match renewed.await {
            None => {}
            Some((now, Ok(acceptor))) => {
                tracing::info!(source = stats.name(), "certificates are read again");
                *current = (now, acceptor);
                stats.problem(None);
            }
            Some((_, Err(error))) => stats.problem(Some(format!("certificates stay as they were: {error}"))),
        }
        current.1.clone()
    }
}

fn stamps(door: &TlsDoor) -> Stamps {
    let stamp = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    let files = [Some(&door.certificate), Some(&door.key), door.client_ca.as_ref()];
    files.into_iter().flatten().map(|path| stamp(path)).collect()
}

fn acceptor(door: &TlsDoor) -> io::Result<TlsAcceptor> {
    let bad = |what: &str, path: &Path, error: &dyn std::fmt::Display| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{what} {}: {error}", path.display()),
        )
    };
    let certificates = |what: &str, path: &Path| -> io::Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| bad(what, path, &error))
    };
    let chain = certificates("certificate", &door.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&door.key).map_err(|error| bad("key", &door.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match &door.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("client_ca", path)? {
                roots.add(authority).map_err(|error| bad("client_ca", path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| bad("client_ca", path, &error))?)
        }
    };
    let config = builder
        .with_single_cert(chain, key)
        .map_err(|error| bad("certificate", &door.certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
