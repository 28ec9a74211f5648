//! The way of a request for a certificate through a session: asked of the authority, and what comes back looked at.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use sluice_wire::session::frame::{Renew, Renewed};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::authority::{Authority, AuthorityError, RenewalRequest};
use super::identity::{PeerIdentity, identity_of};

/// What the authority may take for its answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// So many requests of one session are passed on at once, and later one for each time that an overloaded gateway lets edges wait.
const ASKS_AT_ONCE: u32 = 5;

pub(super) type Answer = Result<Vec<Bytes>, AuthorityError>;

/// Whether the next request of a session is passed on.
pub(super) fn may_ask(asked: u32, since: Duration, retry_after: Duration) -> bool {
    let more = since.as_millis() / retry_after.as_millis().max(1);
    u128::from(asked) < more + u128::from(ASKS_AT_ONCE)
}

pub(super) fn too_often() -> Answer {
    Err(AuthorityError::Later("this session asks too often".to_owned()))
}

/// Asks the authority, unless too many are asked already.
pub(super) fn ask(
    authority: Option<Arc<dyn Authority>>,
    at_once: &Arc<Semaphore>,
    chain: &[CertificateDer<'static>],
    Renew { request, scheme, proof }: Renew,
) -> impl Future<Output = Answer> + Send + use<> {
    let permit = Arc::clone(at_once).try_acquire_owned();
    let request = RenewalRequest {
        certificates: chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
        request,
        scheme,
        proof,
    };
    async move {
        let authority = authority.ok_or_else(|| AuthorityError::Away("none is configured".to_owned()))?;
        let _permit = permit.map_err(|_| AuthorityError::Later("many ask at once".to_owned()))?;
        let silence = |_| AuthorityError::Away(format!("no answer in {} s", PATIENCE.as_secs()));
        timeout(PATIENCE, authority.renew(request)).await.map_err(silence)?
    }
}

/// The answer, if it is a certificate of this very peer, and its serial number.
pub(super) fn check(answer: Answer, peer: &PeerIdentity) -> Result<(Renewed, String), AuthorityError> {
    let certificates = answer?;
    let refuse = |what: String| AuthorityError::Refused(format!("its answer is not used: {what}"));
    let first = certificates
        .first()
        .ok_or_else(|| refuse("no certificate".to_owned()))?;
    let identity = identity_of(first).map_err(|error| refuse(error.to_string()))?;
    if (&identity.tenant, &identity.node) != (&peer.tenant, &peer.node) {
        return Err(refuse(format!("it is for {}/{}", identity.tenant, identity.node)));
    }
    Ok((Renewed { certificates }, identity.serial))
}

/// How long the edge shall wait before it asks again, where an overloaded gateway lets it wait for `retry_after` (1 s): 15 s while the
/// authority is away, half a minute where many ask, an hour where a person has to do something.
pub(super) fn rest(error: &AuthorityError, retry_after: Duration) -> Duration {
    match error {
        AuthorityError::Refused(_) => retry_after * 3600,
        AuthorityError::Later(_) => retry_after * 30,
        AuthorityError::Away(_) => retry_after * 15,
    }
}

pub(super) async fn pending_or(renewing: &mut Option<BoxFuture<'static, Answer>>) -> Answer {
    match renewing {
        Some(renewing) => renewing.await,
        None => futures::future::pending().await,
    }
}
