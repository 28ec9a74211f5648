//! What happens to a request before its tenant's node sees it: who sends, may it, and is there something left of its limits.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::BodyExt;
use sluice_edge::otlp::{OtlpDoor, TurnedAway};
use sluice_ingest::tenants::Quotas;
use sluice_tenants::{KeyRefusal, Scope, Tenancy};
use sluice_wire::ids::TenantId;
use tower::ServiceExt;

use super::edges::Edges;
use super::metered::metered;
use super::refused::{Refused, Why};

/// An HTTP/1 sender reads our answer only after its body is sent, so what is refused is read this far, and thrown away.
const DISCARD_BYTES: usize = 8 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// More than a node takes is refused by it, whatever was announced.
const MAX_ANNOUNCED: u64 = 64 << 20;
/// A node that does not come up asks for patience.
const LATER: Duration = Duration::from_secs(5);

/// What both doors share.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) tenancy: Arc<Tenancy>,
    pub(super) quotas: Arc<Quotas>,
    pub(super) edges: Arc<Edges>,
    pub(super) refused: Arc<Refused>,
}

/// `name` is `otlp-grpc` or `otlp-http`.
pub(super) fn router(front: Front, name: &str) -> Router {
    let door = match name {
        "otlp-grpc" => OtlpDoor::Grpc,
        _ => OtlpDoor::Http,
    };
    // In a task of its own: whoever goes away before the answer is charged for what was taken all the same.
    let handle = move |State(front): State<Front>, request| async move {
        let handled = tokio::spawn(front.handle(door, request)).await;
        handled.unwrap_or_else(|error| {
            tracing::error!(%error, "a request made its task fail");
            TurnedAway::Unavailable(LATER).answer(door, "the request could not be processed")
        })
    };
    Router::new().fallback(handle).with_state(front)
}

impl Front {
    async fn handle(self, door: OtlpDoor, request: Request<Body>) -> Response<Body> {
        let tenant = match self.authenticate(request.headers()) {
            Ok(tenant) => tenant,
            Err(why) => {
                let away = match why {
                    Why::Key(KeyRefusal::Scope | KeyRefusal::Tenant, _) => TurnedAway::Forbidden,
                    _ => TurnedAway::Unauthenticated,
                };
                let message = why.message();
                self.refused.note(why);
                discard(request.into_body()).await;
                return away.answer(door, &message);
            }
        };
        let announced = announced(request.headers());
        let charge = match self.quotas.ask(&tenant, announced) {
            Ok(charge) => charge,
            Err(over) => {
                self.refused.note(Why::Over(over.limit));
                discard(request.into_body()).await;
                return TurnedAway::OverQuota(over.wait).answer(door, &over.to_string());
            }
        };
        let routes = match self.edges.routes(&tenant).await {
            Ok(routes) => routes,
            Err(problem) => {
                self.refused.note(Why::NoNode(tenant));
                discard(request.into_body()).await;
                return TurnedAway::Unavailable(LATER).answer(door, &problem);
            }
        };
        let router = match door {
            OtlpDoor::Grpc => routes.grpc,
            OtlpDoor::Http => routes.http,
        };
        let (request, cost) = metered(request, charge);
        let Ok(response) = router.oneshot(request).await;
        match cost.settle(&response) {
            Ok(()) => response,
            Err(over) => {
                self.refused.note(Why::Over(over.limit));
                TurnedAway::OverQuota(over.wait).answer(door, &over.to_string())
            }
        }
    }

    /// The tenant comes from the key. Whatever else names one is not looked at.
    fn authenticate(&self, headers: &HeaderMap) -> Result<TenantId, Why> {
        let key = key_of(headers).ok_or(Why::NoKey)?;
        // A clock before 1970 makes every key that expires an expired one.
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(u64::MAX, |now| now.as_secs());
        let now = self.tenancy.current();
        match now.identify(key, Scope::Write, now_s) {
            Ok((_, tenant)) => Ok(tenant.clone()),
            // Only who has the key itself is told from whom; a made-up one names nobody.
            Err(refusal) => {
                let id = (refusal != KeyRefusal::Unknown).then(|| key.split('_').nth(1).unwrap_or_default().to_owned());
                Err(Why::Key(refusal, id))
            }
        }
    }
}

/// One key, in one of two headers; two of them are none.
fn key_of(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get_all(header::AUTHORIZATION).iter().map(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let plain = headers
        .get_all("x-api-key")
        .iter()
        .map(|value| value.to_str().ok().map(str::trim));
    let mut given = bearer.chain(plain);
    match (given.next(), given.next()) {
        (Some(key), None) => key,
        _ => None,
    }
}

fn announced(headers: &HeaderMap) -> u64 {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    length.unwrap_or(0).min(MAX_ANNOUNCED)
}

/// Reads on and throws away, within bounds.
pub(super) async fn discard(mut body: Body) {
    let reading = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await
            && seen < DISCARD_BYTES
        {
            seen += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Whoever is slower has lost its answer.
    drop(tokio::time::timeout(DISCARD_TIMEOUT, reading).await);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn p13_a_key_is_taken_from_one_header_and_from_nowhere_else() {
        let of = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            key_of(&map).map(str::to_owned)
        };
        assert_eq!(of(&[("authorization", "Bearer a")]).as_deref(), Some("a"));
        assert_eq!(of(&[("authorization", "bearer  a ")]).as_deref(), Some("a"));
        assert_eq!(of(&[("x-api-key", "a")]).as_deref(), Some("a"));
        assert_eq!(
            of(&[("x-api-key", "a"), ("x-scope-orgid", "beta")]).as_deref(),
            Some("a")
        );
        for none in [
            &[][..],
            &[("authorization", "a")],
            &[("authorization", "Basic a")],
            &[("x-scope-orgid", "acme")],
            &[("x-api-key", "a"), ("x-api-key", "b")],
            &[("x-api-key", "a"), ("authorization", "Bearer a")],
        ] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
