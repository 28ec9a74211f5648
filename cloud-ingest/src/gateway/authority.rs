//! Whom a gateway asks for certificates of edges. It has no key to sign with, and is not believed by who has it: a request proves itself.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

/// An edge's request, as the gateway hands it on. LINK.md, section 7, says what the authority checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalRequest {
    /// In DER, the edge's own first: what the handshake verified.
    pub certificates: Vec<Bytes>,
    /// PKCS#10 in DER, for a new key.
    pub request: Bytes,
    /// By the key of the certificate, with this TLS signature scheme.
    pub scheme: u32,
    pub proof: Bytes,
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error("the authority refuses: {0}")]
    Refused(String),
    #[error("the authority wants it later: {0}")]
    Later(String),
    #[error("the authority cannot be asked: {0}")]
    Away(String),
}

/// Signs certificates, here or elsewhere.
#[async_trait]
pub trait Authority: fmt::Debug + Send + Sync + 'static {
    /// The new certificate in DER, and those between it and the authority.
    async fn renew(&self, request: RenewalRequest) -> Result<Vec<Bytes>, AuthorityError>;
}
