//! Whether an edge gets a new certificate, and which. The decision is pure: the time and what is remembered are arguments.
//!
//! Nothing is believed but the old certificate and what its key signed: neither the gateway that passed the request on, nor what the
//! request says of names.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use rcgen::{CertificateSigningRequestParams, PublicKey, PublicKeyData as _};
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use serde::{Deserialize, Serialize};
use sluice_ingest::gateway::{AuthorityError, PeerIdentity, RenewalRequest, identity_of};
use sluice_settings::units;
use sluice_wire::session::frame::renewal_message;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::book::{self, Entry};
use super::{CA_CERTIFICATE, EDGE_LIFE, Role, describe, issuer};

const HOUR_S: u64 = 3_600;
/// What clocks of remote sites may be off.
const LEEWAY_S: i64 = 300;
/// Types of keys that are certified, and the bytes of each.
const KEYS: [(&rcgen::SignatureAlgorithm, usize); 3] = [
    (&rcgen::PKCS_ECDSA_P256_SHA256, 65),
    (&rcgen::PKCS_ECDSA_P384_SHA384, 97),
    (&rcgen::PKCS_ED25519, 32),
];

/// What an operator decides of renewals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Policy {
    /// Of the certificates that edges get.
    #[serde(with = "units::duration")]
    pub(crate) life: Duration,
    /// How long after its end a certificate may still be renewed.
    #[serde(with = "units::duration")]
    pub(crate) grace: Duration,
    /// Of one edge.
    pub(crate) renewals_per_hour: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            life: EDGE_LIFE,
            grace: Duration::from_secs(90 * 86_400),
            renewals_per_hour: 12,
        }
    }
}

/// What an authority knows when it decides.
pub(super) struct Known<'a> {
    pub(super) authorities: &'a [CertificateDer<'static>],
    pub(super) issued: &'a [Entry],
    pub(super) denied: &'a HashSet<String>,
    pub(super) now_s: u64,
}

/// The edge that asks, and the key that it wants a certificate of.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) peer: PeerIdentity,
    pub(super) key: PublicKey,
}

/// Renews in an authority's folder. Blocks on the disk. `via` is who passed the request on, with its serial number where it showed a
/// certificate.
pub(super) fn renew(
    dir: &Path,
    policy: &Policy,
    request: &RenewalRequest,
    (via, via_serial): (&str, Option<&str>),
    now_s: u64,
) -> Result<Vec<Bytes>, AuthorityError> {
    let away = |error: anyhow::Error| AuthorityError::Away(format!("{error:#}"));
    let lock = book::Lock::take(dir).map_err(away)?;
    let denied = book::denied(dir).map_err(away)?;
    if via_serial.is_some_and(|serial| denied.contains(serial)) {
        return Err(AuthorityError::Refused(
            "the gateway's certificate is revoked".to_owned(),
        ));
    }
    let issued = book::list(dir).map_err(away)?;
    let authorities = authorities(dir).map_err(away)?;
    let known = Known {
        authorities: &authorities,
        issued: &issued,
        denied: &denied,
        now_s,
    };
    let granted = decide(policy, request, &known)?;
    let role = Role::Edge {
        tenant: granted.peer.tenant.clone(),
        node: granted.peer.node.clone(),
    };
    let sign = || -> anyhow::Result<_> {
        let (params, mut entry) = describe(&role, policy.life, now_s, &format!("renewal via {via}"))?;
        entry.replaces = Some(granted.peer.serial.clone());
        let certificate = params.signed_by(&granted.key, &issuer(dir)?)?;
        // Remembered first: a certificate that nobody knows of could not be revoked.
        lock.add(&entry)?;
        Ok((Bytes::copy_from_slice(certificate.der()), entry))
    };
    let (certificate, entry) = sign().map_err(away)?;
    tracing::info!(
        target: "sluice::ca",
        name = entry.name, serial = entry.serial, replaces = granted.peer.serial, via, not_after_unix_s = entry.not_after,
        "certificate issued"
    );
    Ok(vec![certificate])
}

pub(super) fn authorities(dir: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let path = dir.join(CA_CERTIFICATE);
    let read = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
    read.with_context(|| format!("cannot read {}", path.display()))
}

/// Whom the request is by and what it is for, if a certificate may be issued.
pub(super) fn decide(policy: &Policy, request: &RenewalRequest, known: &Known<'_>) -> Result<Granted, AuthorityError> {
    let refuse = |why: &str| AuthorityError::Refused(why.to_owned());
    let unreadable = || refuse("the certificate cannot be read");
    let chain: Vec<_> = request
        .certificates
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let (leaf, between) = chain.split_first().ok_or_else(unreadable)?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
    let validity = parsed.validity();
    let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let now = i64::try_from(known.now_s).unwrap_or(i64::MAX);
    let grace = i64::try_from(policy.grace.as_secs()).unwrap_or(i64::MAX);
    if now.saturating_sub(end) > grace {
        return Err(refuse(
            "the certificate is expired for longer than the grace: issue a new one",
        ));
    }
    // It is judged as of when it was valid.
    let leeway = if begin.saturating_sub(now) <= LEEWAY_S {
        begin
    } else {
        now
    };
    let at = now.max(leeway).min(end);
    verify(leaf, between, at, known.authorities)
        .map_err(|error| refuse(&format!("the certificate is not accepted: {error}")))?;
    let peer = identity_of(leaf).map_err(|error| refuse(&error.to_string()))?;
    let is_revoked = known
        .issued
        .iter()
        .any(|entry| entry.revoked && entry.serial == peer.serial);
    if is_revoked || known.denied.contains(&peer.serial) {
        return Err(refuse("the certificate is revoked"));
    }
    let old_key = &parsed.public_key().subject_public_key.data;
    if !is_signed(old_key, request) {
        return Err(refuse("the request is not signed by the key of the certificate"));
    }
    // Whatever else it says is not asked for.
    let asked = CertificateSigningRequestParams::from_der(&request.request.as_ref().into());
    let key = asked
        .map_err(|error| refuse(&format!("the request cannot be used: {error}")))?
        .public_key;
    let is_known = |(algorithm, bytes): &(&rcgen::SignatureAlgorithm, usize)| {
        key.algorithm() == *algorithm && key.der_bytes().len() == *bytes
    };
    if !KEYS.iter().any(is_known) {
        return Err(refuse("the new key is none of ECDSA P-256, ECDSA P-384, Ed25519"));
    }
    if key.der_bytes() == old_key.as_ref() {
        return Err(refuse("the new key is the old one"));
    }
    let name = format!("{}/{}", peer.tenant, peer.node);
    let recent = known.issued.iter().filter(|entry| {
        entry.name == name && entry.replaces.is_some() && entry.issued_at.saturating_add(HOUR_S) > known.now_s
    });
    if recent.count() >= policy.renewals_per_hour as usize {
        let why = format!("{name} was renewed {} times in the last hour", policy.renewals_per_hour);
        return Err(AuthorityError::Later(why));
    }
    Ok(Granted { peer, key })
}

/// Whether a certificate for clients comes from one of the authorities.
pub(super) fn verify(
    leaf: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    at_s: i64,
    authorities: &[CertificateDer<'static>],
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at_s).unwrap_or(0)));
    let verified = verifier.verify_client_cert(leaf, between, at);
    verified.map(drop).map_err(|error| error.to_string())
}

fn is_signed(public_key: &[u8], request: &RenewalRequest) -> bool {
    let Ok(scheme) = u16::try_from(request.scheme).map(SignatureScheme::from) else {
        return false;
    };
    let message = renewal_message(&request.request);
    let known = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let of_scheme = known.mapping.iter().filter(|(listed, _)| *listed == scheme);
    let mut algorithms = of_scheme.flat_map(|(_, algorithms)| algorithms.iter());
    algorithms.any(|algorithm| algorithm.verify_signature(public_key, &message, &request.proof).is_ok())
}

#[cfg(test)]
mod tests;
