//! Who a peer is, from the certificate that the handshake verified.

use sluice_wire::ids::{IdError, NodeId, TenantId};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::deny::canonical_serial;

/// What a certificate says of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub tenant: TenantId,
    pub node: NodeId,
    /// Lower-case hex without leading zeros.
    pub serial: String,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// Why a certificate names nobody.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("peer shows no certificate")]
    Missing,
    #[error("certificate cannot be read")]
    Unreadable,
    #[error("certificate is not for clients: its extended key usage lacks clientAuth")]
    Usage,
    #[error("certificate has {0} alternative names, exactly one is wanted: the URI sluice://<tenant>/<node>")]
    Names(usize),
    #[error("alternative name of the certificate is not a URI sluice://<tenant>/<node>")]
    Form,
    #[error("alternative name of the certificate holds a bad name")]
    Id(#[from] IdError),
}

/// The identity in a certificate whose chain and dates were verified already.
pub fn identity_of(der: &[u8]) -> Result<PeerIdentity, IdentityError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
    // The verifier lets a certificate pass that states no usage at all.
    let usage = certificate
        .extended_key_usage()
        .map_err(|_| IdentityError::Unreadable)?;
    if !usage.is_some_and(|u| u.value.client_auth) {
        return Err(IdentityError::Usage);
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Unreadable)?;
    let names = names.map_or(&[][..], |n| &n.value.general_names);
    let [name] = names else {
        return Err(IdentityError::Names(names.len()));
    };
    let GeneralName::URI(uri) = name else {
        return Err(IdentityError::Form);
    };
    let path = uri.strip_prefix("sluice://").ok_or(IdentityError::Form)?;
    let (tenant, node) = path.split_once('/').ok_or(IdentityError::Form)?;
    Ok(PeerIdentity {
        tenant: TenantId::new(tenant)?,
        node: NodeId::new(node)?,
        serial: canonical_serial(&hex::encode(certificate.raw_serial())).ok_or(IdentityError::Unreadable)?,
        not_after: certificate.validity().not_after.timestamp(),
    })
}
