//! The door for clients of Arrow Flight SQL: ADBC, JDBC, pyarrow, notebooks. Rows travel as Arrow record batches over gRPC, and the same
//! engine answers as at the other doors.
//!
//! `service` takes the calls of the protocol apart; `caller` says who calls; `statement` is a query in text, `prepared` keeps those that
//! were prepared and `bind` reads their parameters; `ticket` is what a client shows to fetch an answer, `answer` its rows, `running` how
//! it is cancelled; `metadata` tells what there is to ask; `failure` is an error as gRPC says it.

mod answer;
mod bind;
mod caller;
mod failure;
mod metadata;
mod prepared;
mod running;
mod service;
mod statement;
mod ticket;

use std::sync::{Arc, Mutex};

use arrow_flight::flight_service_server::FlightServiceServer;
use tonic::service::Routes;

use self::prepared::Prepared;
use self::running::Running;
use crate::engine::Engine;
use crate::tokens::Tokens;

/// Bytes of a message beyond those of the largest query: its name, its seal, its type.
const AROUND: usize = 64 << 10;

/// What the clients of this door share.
pub(crate) struct Door {
    engine: Arc<Engine>,
    tokens: Tokens,
    prepared: Mutex<Prepared>,
    running: Running,
}

/// The calls of the protocol, to be served like any other HTTP/2.
pub(crate) fn router(engine: Arc<Engine>, tokens: Tokens) -> axum::Router {
    let most = usize::try_from(engine.limits().max_request).unwrap_or(usize::MAX);
    let door = Arc::new(Door {
        engine,
        tokens,
        prepared: Mutex::default(),
        running: Running::default(),
    });
    let server =
        FlightServiceServer::new(service::Service(door)).max_decoding_message_size(most.saturating_add(AROUND));
    Routes::new(server).into_axum_router()
}
