//! One client from its first byte to its last. A query ends with its client: whoever hangs up frees what it held.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::api::cancel::DefaultCancelHandler;
use datafusion_postgres::pgwire::api::{ClientInfo, NoopHandler, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use datafusion_postgres::pgwire::messages::PgWireFrontendMessage;
use datafusion_postgres::pgwire::tokio::server::{
    MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message,
};
use futures::StreamExt;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, FramedParts};
use tokio_util::sync::CancellationToken;

use super::Door;
use super::capped::{Capped, Frames};
use super::failure;
use super::handler::Handler;
use super::prepared::Prepared;
use super::startup::Startup;
use crate::tls::Tls;

/// A client that has not said who it is by then is let go.
const WITHIN: Duration = Duration::from_secs(15);
/// A message that has begun and does not go on for so long will not end.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of a message beyond those of the largest query: its name, its parameters' types.
const AROUND: u64 = 64 << 10;

type Socket = Framed<Capped<MaybeTls>, PgWireMessageServerCodec<Prepared>>;

pub(super) async fn serve(stream: TcpStream, tls: Option<Tls>, door: Arc<Door>, shutdown: CancellationToken) {
    let (stream, gone) = match watched(stream) {
        Ok(pair) => pair,
        Err(error) => return tracing::debug!(%error, "connection ended early"),
    };
    tokio::select! {
        ended = talk(stream, tls, door, shutdown) => if let Err(error) = ended {
            tracing::debug!(%error, "connection ended early");
        },
        () = hung_up(gone) => {}
    }
}

/// The stream, and a second handle that sees it end while a query runs and nobody reads.
fn watched(stream: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    let stream = stream.into_std()?;
    let gone = TcpStream::from_std(stream.try_clone()?)?;
    Ok((TcpStream::from_std(stream)?, gone))
}

async fn hung_up(stream: TcpStream) {
    loop {
        match stream.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_read_closed() => return,
            // Readable: the other handle's to read. Saying that it would block waits for the next change.
            Ok(_) => drop(stream.try_io(Interest::READABLE, || -> io::Result<()> {
                Err(io::ErrorKind::WouldBlock.into())
            })),
            Err(_) => return,
        }
    }
}

async fn talk(stream: TcpStream, tls: Option<Tls>, door: Arc<Door>, shutdown: CancellationToken) -> io::Result<()> {
    let most = door.engine.limits().max_request.saturating_add(AROUND);
    let acceptor = tls.map(|tls| tls.acceptor_for(b"postgresql"));
    let begun = tokio::time::Instant::now();
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the client did not say who it is in time");
    let negotiated = tokio::time::timeout_at(begun + WITHIN, negotiate_tls(stream, acceptor)).await;
    let Some(socket) = negotiated.map_err(|_| late())?? else {
        return Ok(());
    };
    let mut socket = capped(socket, most)?;
    let startup = Arc::new(Startup(Arc::clone(&door)));
    let handler = Arc::new(Handler::new(Arc::clone(&door)));
    let cancel = Arc::new(DefaultCancelHandler::new(Arc::clone(&door.running)));
    let copy = Arc::new(NoopHandler);
    loop {
        let entering = matches!(
            socket.state(),
            PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress
        );
        let message = tokio::select! {
            message = socket.next() => message,
            () = tokio::time::sleep_until(begun + WITHIN), if entering => {
                let late = failure::fatal("57014", "canceling authentication due to timeout", None);
                return process_error(&mut socket, late, false).await;
            }
            () = shutdown.cancelled() => {
                return process_error(&mut socket, failure::fatal("57P01", "this node is going down", None), false).await;
            }
        };
        let message = match message {
            None | Some(Ok(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
            Some(Ok(message)) => message,
            Some(Err(error)) => return unreadable(&mut socket, error).await,
        };
        let cancels = matches!(message, PgWireFrontendMessage::CancelRequest(_));
        let extended = message.is_extended_query();
        let done = process_message(
            message,
            &mut socket,
            Arc::clone(&startup),
            Arc::clone(&handler),
            Arc::clone(&handler),
            Arc::clone(&copy),
            Arc::clone(&cancel),
        )
        .await;
        match done {
            Ok(()) => {}
            Err(PgWireError::IoError(error)) => return Err(error),
            Err(error) if entering => {
                tracing::debug!(%error, "a client was not let in");
                process_error(&mut socket, error, false).await?;
                return Ok(());
            }
            Err(error) => {
                let error = ErrorInfo::from(error);
                let fatal = error.is_fatal();
                process_error(&mut socket, PgWireError::UserError(Box::new(error)), extended).await?;
                if fatal {
                    return Ok(());
                }
            }
        }
        if cancels {
            return Ok(());
        }
    }
}

/// Says why a connection ends whose bytes are no message that we take: where the next one begins is not known then.
async fn unreadable(socket: &mut Socket, error: PgWireError) -> io::Result<()> {
    let code = match &error {
        PgWireError::IoError(error) => match error.kind() {
            io::ErrorKind::InvalidData => "54000",
            io::ErrorKind::InvalidInput => "08P01",
            io::ErrorKind::TimedOut => "08006",
            _ => return Err(io::Error::new(error.kind(), error.to_string())),
        },
        _ => "08P01",
    };
    let hint = (code == "54000").then_some("a larger `limits.max_request` takes longer messages");
    process_error(socket, failure::fatal(code, &error.to_string(), hint), false).await
}

/// The same connection with its messages bounded; what was read of the first one already is counted.
fn capped(socket: Framed<MaybeTls, PgWireMessageServerCodec<Prepared>>, most: u64) -> io::Result<Socket> {
    let old = socket.into_parts();
    let mut frames = Frames::new(most);
    frames.follow(&old.read_buf)?;
    let mut parts = FramedParts::new(Capped::new(old.io, frames, SILENCE), old.codec);
    parts.read_buf = old.read_buf;
    parts.write_buf = old.write_buf;
    Ok(Framed::from_parts(parts))
}
