//! TLS of the uplink: version 1.3 only, our certificate always shown, nothing kept from one connection to the next.

use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sluice_wire::ids::{IdError, NodeId, TenantId};
use sluice_wire::session::frame;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} {path} cannot be read")]
    Pem {
        what: &'static str,
        path: String,
        source: rustls::pki_types::pem::Error,
    },
    #[error("{what} {path} holds no certificate that can be used")]
    Unusable { what: &'static str, path: String },
    #[error("certificate and key cannot be used together or at all")]
    Pair(#[source] rustls::Error),
    #[error("certificate {path} does not carry exactly one name of the form sluice://<tenant>/<node>")]
    Name { path: String },
    #[error("certificate carries a bad name")]
    Id(#[from] IdError),
}

/// The client's side of the handshake, from the files as they are now.
pub(super) fn client_crypto(certificate: &Path, key: &Path, ca: &Path) -> Result<Arc<QuicClientConfig>, TlsError> {
    let chain = certificates("certificate", certificate)?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|source| pem_error("key", key, source))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates("authority", ca)? {
        roots.add(authority).map_err(|_| unusable("authority", ca))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key_der)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![frame::ALPN.to_vec()];
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    QuicClientConfig::try_from(config)
        .map(Arc::new)
        .map_err(|e| TlsError::Pair(rustls::Error::General(e.to_string())))
}

/// The tenant and the node that a certificate file speaks for: what a gateway will hold us to.
pub fn certificate_identity(path: &Path) -> Result<(TenantId, NodeId), TlsError> {
    let chain = certificates("certificate", path)?;
    let first = chain.first().ok_or_else(|| unusable("certificate", path))?;
    let (_, certificate) = X509Certificate::from_der(first).map_err(|_| unusable("certificate", path))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| unusable("certificate", path))?;
    let name_error = || TlsError::Name {
        path: path.display().to_string(),
    };
    let [GeneralName::URI(uri)] = names.map_or(&[][..], |n| &n.value.general_names) else {
        return Err(name_error());
    };
    let (tenant, node) = uri
        .strip_prefix("sluice://")
        .and_then(|p| p.split_once('/'))
        .ok_or_else(name_error)?;
    Ok((TenantId::new(tenant)?, NodeId::new(node)?))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let list = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| pem_error(what, path, source))?;
    if list.is_empty() {
        return Err(unusable(what, path));
    }
    Ok(list)
}

fn unusable(what: &'static str, path: &Path) -> TlsError {
    TlsError::Unusable {
        what,
        path: path.display().to_string(),
    }
}

fn pem_error(what: &'static str, path: &Path, source: rustls::pki_types::pem::Error) -> TlsError {
    TlsError::Pem {
        what,
        path: path.display().to_string(),
        source,
    }
}
