//! The body of a request, whose bytes count as they come: who does not say how much there will be passes no limit by that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use sluice_edge::otlp::Accepted;
use sluice_ingest::tenants::{Charge, Over};

use super::door::discard;

/// What a request costs, shared with its body.
pub(super) struct Metered(Arc<Mutex<Cost>>);

struct Cost {
    charge: Charge,
    read: u64,
    /// Why the body was ended.
    over: Option<Over>,
}

/// The same request; its body ends with an error where its tenant is over a limit.
pub(super) fn metered(request: Request<Body>, charge: Charge) -> (Request<Body>, Metered) {
    let cost = Arc::new(Mutex::new(Cost {
        charge,
        read: 0,
        over: None,
    }));
    let shared = Arc::clone(&cost);
    let request = request.map(|body| {
        let frames = stream::try_unfold((body, shared), |(mut body, cost)| async move {
            let Some(frame) = body.frame().await.transpose()? else {
                return Ok(None);
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let come = lock(&cost).come(bytes as u64);
            if let Err(over) = come {
                discard(body).await;
                return Err(axum::Error::new(over));
            }
            Ok(Some((frame, (body, cost))))
        });
        Body::new(StreamBody::new(frames))
    });
    (request, Metered(cost))
}

impl Metered {
    /// Settles what it cost. An error: the answer is that its tenant is over a limit.
    pub(super) fn settle(&self, response: &Response<Body>) -> Result<(), Over> {
        let mut cost = lock(&self.0);
        let read = cost.read;
        if let Some(Accepted(events)) = response.extensions().get() {
            cost.charge.took(*events);
            cost.charge.bytes(read);
            cost.charge.keep();
            return Ok(());
        }
        if let Some(over) = cost.over.take() {
            return Err(over);
        }
        // To look at it was work.
        if is_senders_fault(response) {
            cost.charge.bytes(read);
            cost.charge.refused(false);
        }
        Ok(())
    }
}

impl Cost {
    fn come(&mut self, bytes: u64) -> Result<(), Over> {
        self.read = self.read.saturating_add(bytes);
        let come = self.charge.come(self.read);
        self.over = come.clone().err();
        come
    }
}

/// Whether an answer says that the request is nothing that could be taken, now or later.
fn is_senders_fault(response: &Response<Body>) -> bool {
    const INVALID_ARGUMENT: &str = "3";
    matches!(
        response.status(),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE
    ) || response
        .headers()
        .get("grpc-status")
        .is_some_and(|status| status == INVALID_ARGUMENT)
}

fn lock(cost: &Arc<Mutex<Cost>>) -> MutexGuard<'_, Cost> {
    // Each change is complete before anything can fail.
    cost.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sluice_ingest::gateway::SystemClock;
    use sluice_ingest::tenants::Quotas;
    use sluice_tenants::{Folder, Tenancy, Tenant};
    use sluice_wire::ids::TenantId;
    use std::time::Duration;

    const CHUNK: usize = 64 << 10;

    /// A door at which `acme` may send 1 MiB, and then one byte in a second.
    fn quotas() -> (Arc<Quotas>, TenantId) {
        let dir = tempfile::tempdir().unwrap();
        let (folder, acme) = (Folder::lock(dir.path()).unwrap(), TenantId::new("acme").unwrap());
        let mut tenants = folder.tenants().unwrap();
        let limits = Tenant {
            bytes_per_second: 1_024,
            burst: Duration::from_secs(1_024),
            ..Tenant::default()
        };
        tenants.insert(acme.clone(), limits);
        folder.save_tenants(&tenants).unwrap();
        let tenancy = Tenancy::open(dir.path()).unwrap();
        (
            Arc::new(Quotas::new(Some(Arc::new(tenancy)), 1, Arc::new(SystemClock), None)),
            acme,
        )
    }

    /// A request without a length, of so many chunks.
    fn request(chunks: usize) -> Request<Body> {
        let chunks = (0..chunks).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![0; CHUNK])));
        Request::new(Body::from_stream(stream::iter(chunks)))
    }

    /// P15: a hundred requests at once that do not say how long they are: a few come through, the others are told to come later, and what
    /// came of those is not held against their tenant.
    #[tokio::test]
    async fn p15_bodies_of_unknown_length_pass_no_limit() {
        let (quotas, acme) = quotas();
        let mut bodies: Vec<_> = (0..100)
            .map(|_| metered(request(8), quotas.ask(&acme, 0).unwrap()))
            .map(|(request, cost)| (request.into_body(), cost, 0))
            .collect();
        let (mut whole, mut ended) = (0, 0);
        while !bodies.is_empty() {
            let mut left = Vec::new();
            for (mut body, cost, frames) in bodies {
                match body.frame().await {
                    Some(Ok(_)) => left.push((body, cost, frames + 1)),
                    Some(Err(_)) => {
                        let over = cost.settle(&Response::new(Body::empty())).unwrap_err();
                        assert!(over.wait > Duration::ZERO);
                        ended += 1;
                    }
                    None => {
                        assert_eq!(frames, 8);
                        let mut taken = Response::new(Body::empty());
                        taken.extensions_mut().insert(Accepted(5));
                        cost.settle(&taken).unwrap();
                        whole += 1;
                    }
                }
            }
            bodies = left;
        }
        // The burst is two of them.
        assert!((2..=3).contains(&whole) && whole + ended == 100, "{whole} of 100");
        let status = &quotas.status()["acme"];
        assert_eq!(
            (status.bytes, status.taken, status.events),
            (whole * 8 * CHUNK as u64, whole, whole * 5)
        );
        assert_eq!(status.held_bytes_per_second, ended);
    }

    /// P15: whoever sends what nobody can read pays for the looking.
    #[tokio::test]
    async fn p15_what_cannot_be_read_is_paid_for() {
        let (quotas, acme) = quotas();
        let send = async |answer: Response<Body>| {
            let (request, cost) = metered(request(4), quotas.ask(&acme, 0).unwrap());
            request.into_body().collect().await.unwrap();
            cost.settle(&answer).unwrap();
        };
        let answer = |status: u16| Response::builder().status(status);
        for _ in 0..10 {
            send(answer(503).body(Body::empty()).unwrap()).await;
        }
        assert_eq!(quotas.status()["acme"].refused, 0, "what nobody looked at is free");
        for _ in 0..2 {
            send(answer(400).body(Body::empty()).unwrap()).await;
            send(answer(200).header("grpc-status", "3").body(Body::empty()).unwrap()).await;
        }
        // The burst is four of them; while a little is left, one more.
        send(answer(413).body(Body::empty()).unwrap()).await;
        let status = &quotas.status()["acme"];
        assert_eq!(
            (status.taken, status.refused, status.refused_bytes),
            (0, 5, 20 * CHUNK as u64)
        );
        assert!(quotas.ask(&acme, 0).is_err(), "the rate is used up");
    }
}
