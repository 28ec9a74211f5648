//! The way to a worker: TLS that is ours, HTTP/2 above it, and what may be on the way at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint, Uri};
use url::{Host, Url};

use super::peers::{PLACES, PeerError};
use crate::config::ScaleConfig;

/// Of a connection for each part: what it is, and its rows.
const STREAMS: usize = 2;
const CONNECT: Duration = Duration::from_secs(2);
/// A connection with work on it that is silent for both together is lost.
const PING_EVERY: Duration = Duration::from_secs(5);
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// What may be on the way of one stream, and of all together: parts that nobody reads must leave room for those that somebody does.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const _: () = assert!(CONNECTION_WINDOW as usize >= (PLACES + 1) * STREAMS * STREAM_WINDOW as usize);

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

pub(super) fn connector(config: &ScaleConfig, worker: &str) -> Result<TlsConnector, PeerError> {
    let path = &config.ca;
    if path.as_os_str().is_empty() {
        return Err(PeerError::NoAuthority {
            worker: worker.to_owned(),
        });
    }
    let unreadable = |source| PeerError::Authority {
        path: path.clone(),
        source,
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    if roots.is_empty() {
        return Err(PeerError::Empty { path: path.clone() });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

/// Connects when it is first used, and again when it broke. It lives on the threads that call this, not on those that compute.
pub(super) fn channel(worker: &str, url: &Url, tls: Option<TlsConnector>) -> Result<Channel, PeerError> {
    let no_address = || PeerError::Address {
        worker: worker.to_owned(),
    };
    let host = url.host().ok_or_else(no_address)?.to_owned();
    let port = url.port_or_known_default().ok_or_else(no_address)?;
    let dial = match host {
        // Without the brackets that it has in an address.
        Host::Ipv6(ip) => ip.to_string(),
        host => host.to_string(),
    };
    let name = ServerName::try_from(dial.clone()).map_err(|source| PeerError::Name {
        worker: worker.to_owned(),
        source,
    })?;
    // TLS is ours, so the library is told of plain HTTP/2.
    let plain = format!("http://{}:{port}", url.host_str().unwrap_or_default());
    let endpoint = Endpoint::from_shared(plain)
        .map_err(|_| no_address())?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let connect = move |_: Uri| {
        let (name, dial, tls) = (name.clone(), dial.clone(), tls.clone());
        async move {
            let stream = TcpStream::connect((dial.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(match tls {
                Some(tls) => Either::Left(tls.connect(name, stream).await?),
                None => Either::Right(stream),
            }))
        }
    };
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
}
