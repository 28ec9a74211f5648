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

use super::clock::WallClock;

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
    #[error("certificate {path} is of {found}, this node is {expected}")]
    OtherNode {
        path: String,
        found: String,
        expected: String,
    },
    #[error("certificate carries a bad name")]
    Id(#[from] IdError),
}

/// What a certificate says of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) tenant: TenantId,
    pub(super) node: NodeId,
    /// Lower-case hex.
    pub(super) serial: String,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// A certificate with those between it and its authority, and its key.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) facts: Facts,
}

/// From the bytes of two PEM files, which may be one.
pub(super) fn pair(certificate: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<Pair, TlsError> {
    let chain = certificates("certificate", certificate.0, certificate.1)?;
    let facts = facts(chain.first(), certificate.0)?;
    let key = PrivateKeyDer::from_pem_slice(key.1).map_err(|source| pem_error("key", key.0, source))?;
    Ok(Pair { chain, key, facts })
}

/// The client's side of the handshake; an error, too, where the key is not that of the certificate.
pub(super) fn client_crypto(
    pair: &Pair,
    ca: (&Path, &[u8]),
    clock: &WallClock,
) -> Result<Arc<QuicClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("authority", ca.0, ca.1)? {
        roots.add(authority).map_err(|_| unusable("authority", ca.0))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::clone(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_root_certificates(roots)
        .with_client_auth_cert(pair.chain.clone(), pair.key.clone_key())
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
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| pem_error("certificate", path, source))?;
    facts(chain.first(), path).map(|facts| (facts.tenant, facts.node))
}

/// `path` is where it comes from, for whoever has to look at it.
pub(super) fn facts(der: Option<&CertificateDer<'_>>, path: &Path) -> Result<Facts, TlsError> {
    let unusable = || unusable("certificate", path);
    let (_, certificate) = X509Certificate::from_der(der.ok_or_else(unusable)?).map_err(|_| unusable())?;
    let names = certificate.subject_alternative_name().map_err(|_| unusable())?;
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
    let validity = certificate.validity();
    Ok(Facts {
        tenant: TenantId::new(tenant)?,
        node: NodeId::new(node)?,
        serial: hex::encode(certificate.raw_serial()),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}

fn certificates(what: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let list = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
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

pub(super) fn pem_error(what: &'static str, path: &Path, source: rustls::pki_types::pem::Error) -> TlsError {
    TlsError::Pem {
        what,
        path: path.display().to_string(),
        source,
    }
}
