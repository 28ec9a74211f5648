//! Whom a gateway believes as of now: authorities, the deny list, dates with grace and leeway.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sluice_tenants::Snapshot;
use sluice_wire::session::frame::RefusedCode;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::clock::{WallClock, unix_s};
use super::deny::DenyList;
use super::identity::PeerIdentity;

/// A certificate that begins so much later passes, as clocks of remote sites differ.
const LEEWAY: Duration = Duration::from_secs(5 * 60);

/// What was read last of the files that say who may connect.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    pub(super) verifier: Arc<GraceVerifier>,
    /// Another number where the authorities may be others.
    pub(super) authorities: u64,
    pub(super) deny: Arc<DenyList>,
    /// Without a folder of tenants every tenant is served that a certificate names.
    pub(super) tenants: Option<Arc<Snapshot>>,
    pub(super) clock: WallClock,
}

/// What a peer may do whose certificate is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    /// Its certificate is expired: it may get a new one.
    RenewalOnly,
}

/// Why a peer may not speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) code: RefusedCode,
    pub(super) reason: &'static str,
    pub(super) why: Why,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Certificate,
    /// The certificate is good; its tenant is not served.
    Tenant,
}

impl Objection {
    pub(super) const EXPIRED: Self = Self {
        code: RefusedCode::Identity,
        reason: "certificate is expired",
        why: Why::Certificate,
    };
    pub(super) const REVOKED: Self = Self {
        code: RefusedCode::Revoked,
        reason: "certificate is revoked",
        why: Why::Certificate,
    };
    pub(super) const STRANGER: Self = Self {
        code: RefusedCode::Identity,
        reason: "certificate comes from an authority that is trusted no more",
        why: Why::Certificate,
    };
}

impl Trust {
    /// Of a peer whose chain was verified. A revoked certificate has no grace.
    pub(super) fn standing(&self, peer: &PeerIdentity) -> Result<Standing, Objection> {
        if self.deny.contains(&peer.serial) {
            return Err(Objection::REVOKED);
        }
        if let Some(Err(reason)) = self.tenants.as_ref().map(|now| now.tenants.admit(&peer.tenant)) {
            return Err(Objection {
                code: RefusedCode::Identity,
                reason,
                why: Why::Tenant,
            });
        }
        let late = unix_s(&self.clock).saturating_sub(peer.not_after);
        match late {
            ..=0 => Ok(Standing::Good),
            late if late <= seconds(self.verifier.grace) => Ok(Standing::RenewalOnly),
            _ => Err(Objection::EXPIRED),
        }
    }

    /// Whether a chain would pass a handshake now.
    pub(super) fn verifies(&self, chain: &[CertificateDer<'static>]) -> bool {
        let (Some((first, rest)), Some(now)) = (chain.split_first(), self.clock.current_time()) else {
            return false;
        };
        self.verifier.verify_client_cert(first, rest, now).is_ok()
    }
}

/// Verifies what edges show. One whose time is over by no more than the grace, or begins within the leeway, is judged as of then.
#[derive(Debug)]
pub(super) struct GraceVerifier {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    /// Zero: none.
    pub(super) grace: Duration,
}

impl ClientCertVerifier for GraceVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let at = judged_at(end_entity, now, self.grace);
        self.inner.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The moment as of which a certificate is judged.
fn judged_at(der: &[u8], now: UnixTime, grace: Duration) -> UnixTime {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return now;
    };
    let validity = certificate.validity();
    let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let at = moment(begin, end, i64::try_from(now.as_secs()).unwrap_or(i64::MAX), grace);
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at).unwrap_or(0)))
}

fn moment(begin: i64, end: i64, now: i64, grace: Duration) -> i64 {
    if now > end && now - end <= seconds(grace) {
        end
    } else if now < begin && begin - now <= seconds(LEEWAY) {
        begin
    } else {
        now
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p14_grace_and_leeway_end_where_they_are_said_to() {
        let of = |now: i64, grace: u64| moment(1_000, 9_000, now, Duration::from_secs(grace));
        for (now, grace, judged) in [
            (5_000, 100, 5_000),
            (9_000, 100, 9_000),
            (9_001, 100, 9_000),
            (9_100, 100, 9_000),
            (9_101, 100, 9_101),
            (9_001, 0, 9_001),
            (999, 100, 1_000),
            (700, 100, 1_000),
            (699, 100, 699),
        ] {
            assert_eq!(of(now, grace), judged, "at {now} with {grace} s");
        }
    }
}
