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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use sluice_edge::Door;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_util::sync::CancellationToken;

    fn write_pair(dir: &Path) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }

    /// What a client gets that believes this certificate and no other.
    async fn ask(at: std::net::SocketAddr, believes: &CertificateDer<'static>) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(believes.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(at).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn p13_keys_travel_encrypted_and_a_new_certificate_is_shown_while_the_door_stands_open() {
        let dir = tempfile::tempdir().unwrap();
        let first = write_pair(dir.path());
        let certificate = Certificate::open(&dir.path().join("cert.pem"), &dir.path().join("key.pem")).unwrap();
        let door = Door::bind("otlp-http", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let (at, stop) = (door.address(), CancellationToken::new());
        let router = Router::new().route("/", get(|| async { "hello" }));
        let limits = sluice_edge::DoorLimits {
            connections: 4,
            streams: 4,
            first_request: super::super::FIRST_REQUEST,
            idle: super::super::IDLE,
        };
        let serving = tokio::spawn(door.serve_tls(router, limits, certificate.follow(), stop.clone()));
        assert!(ask(at, &first).await.unwrap().ends_with("hello"));
        // Nothing is answered in plain text.
        let mut plain = TcpStream::connect(at).await.unwrap();
        plain
            .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        drop(plain.read_to_end(&mut answer).await);
        assert!(!String::from_utf8_lossy(&answer).contains("hello"));

        let second = write_pair(dir.path());
        certificate.look();
        assert!(ask(at, &second).await.unwrap().ends_with("hello"));
        assert!(ask(at, &first).await.is_err());
        std::fs::write(dir.path().join("key.pem"), "no key").unwrap();
        certificate.look();
        assert!(
            ask(at, &second).await.unwrap().ends_with("hello"),
            "the last good pair stays"
        );
        stop.cancel();
        serving.await.unwrap();
    }
}
