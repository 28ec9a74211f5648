//! The door for clients of Postgres: psql, drivers, dashboards. It speaks their protocol and asks the same engine as the other doors.
//!
//! `connection` serves one client; `startup` lets it in; `protocol` takes its messages, `handler` answers them
//! and `prepared` is a statement that came ahead of its values; `session` is what it has set; `command` tells
//! queries from talk about the session; `rows` and `failure` are answers and errors as Postgres has them.
//!
//! The password is the token, in clear text over TLS or loopback: only hashes of tokens are kept here, and SCRAM would need more.

mod capped;
mod command;
mod connection;
mod failure;
mod handler;
mod prepared;
mod protocol;
mod rows;
mod session;
mod startup;
mod wellformed;

pub(crate) use rows::is_json;

use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::api::{ConnectionManager, RandomPidSecretKeyGenerator};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::listener;
use crate::tls::Tls;
use crate::tokens::Tokens;

/// What the clients of this door share.
pub(crate) struct Door {
    engine: Arc<Engine>,
    tokens: Tokens,
    /// Where there is a certificate, no token is taken in clear text.
    needs_tls: bool,
    /// Where a request to cancel finds the query that it means.
    running: Arc<ConnectionManager>,
    keys: RandomPidSecretKeyGenerator,
}

/// Serves until told to stop, then until the last answer is out or `drain` is over.
pub(crate) async fn serve(
    socket: TcpListener,
    tls: Option<Tls>,
    engine: Arc<Engine>,
    tokens: Tokens,
    drain: Duration,
    shutdown: CancellationToken,
) {
    let connections = engine.limits().connections;
    let door = Arc::new(Door {
        engine,
        tokens,
        needs_tls: tls.is_some(),
        running: Arc::new(ConnectionManager::new()),
        keys: RandomPidSecretKeyGenerator::default(),
    });
    let stop = shutdown.clone();
    listener::accept(socket, connections, drain, shutdown, move |stream| {
        connection::serve(stream, tls.clone(), Arc::clone(&door), stop.clone())
    })
    .await;
}
