//! Answers what clients ask: statements of a text, and portals. Both end in the one engine.

use std::fmt::Debug;
use std::ops::DerefMut;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion_postgres::pgwire::api::portal::{Format, Portal, PortalExecutionState};
use datafusion_postgres::pgwire::api::query::{
    send_execution_response, send_partial_query_response, send_query_response,
};
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::api::{ClientInfo, ConnectionHandle};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use futures::{Sink, SinkExt};

use super::command::{self, Command};
use super::prepared::{Parser, Prepared, parameters};
use super::session::{Outcome, Session};
use super::{Door, failure, rows};
use crate::engine::{Dialect, Question};

pub(super) struct Handler {
    door: Arc<Door>,
    pub(super) parser: Arc<Parser>,
}

impl Handler {
    pub(super) fn new(door: Arc<Door>) -> Handler {
        let parser = Arc::new(Parser::new(Arc::clone(&door)));
        Handler { door, parser }
    }

    /// One statement that is a query: its answer, after a word on what the answer lacks.
    async fn query<C>(&self, client: &mut C, asked: Asked<'_>) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let session = session(client)?;
        let question = Question {
            sql: asked.sql.to_owned(),
            params: asked.params,
            timeout: session.statement_timeout(),
            max_rows: None,
            dialect: Dialect::Postgres,
        };
        let answer = self.door.engine.ask(&session.who, question).await;
        let answer = answer.map_err(|error| failure::of_query(error, asked.sql, asked.before))?;
        if answer.from_stores
            && let Some(notice) = failure::incomplete(&answer.completeness)
        {
            client.feed(PgWireBackendMessage::NoticeResponse(notice)).await?;
        }
        let engine = Arc::clone(&self.door.engine);
        Ok(Response::Query(rows::response(
            engine,
            answer,
            asked.format,
            asked.sql,
        )?))
    }

    /// What is said about the session.
    async fn talk<C>(&self, client: &mut C, command: &Command, format: &Format) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let session = session(client)?;
        let done = |tag: &str| Ok(Response::Execution(Tag::new(tag)));
        match command {
            Command::Query => Err(failure::refused("XX000", "a query is not about the session")),
            Command::Set { name, value } => match session.set(name, value, self.door.engine.limits().max_timeout) {
                Outcome::Done => done("SET"),
                Outcome::Told(message) => {
                    let notice = PgWireBackendMessage::NoticeResponse(failure::warning(&message));
                    client.feed(notice).await?;
                    done("SET")
                }
                Outcome::Refused(code, message) => Err(failure::refused(code, &message)),
            },
            Command::Reset { name } => {
                session.reset(name);
                done("RESET")
            }
            Command::Show { name } => match session.show(name) {
                Some(value) => Ok(Response::Query(rows::one(name, &value, format)?)),
                None => {
                    let message = format!("unrecognized configuration parameter \"{name}\"");
                    Err(failure::refused("42704", &message))
                }
            },
            Command::Begin => Ok(Response::TransactionStart(Tag::new("BEGIN"))),
            // what failed was undone: there was nothing to undo
            Command::Commit if client.transaction_status() == TransactionStatus::Error => {
                Ok(Response::TransactionEnd(Tag::new("ROLLBACK")))
            }
            Command::Commit => Ok(Response::TransactionEnd(Tag::new("COMMIT"))),
            Command::Rollback => Ok(Response::TransactionEnd(Tag::new("ROLLBACK"))),
            Command::RollbackTo => Ok(Response::TransactionStart(Tag::new("ROLLBACK"))),
            Command::Accepted(tag) => done(tag),
        }
    }

    /// The statements of one text, one after the other.
    pub(super) async fn text<C>(&self, client: &mut C, text: &str) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = command::split(text);
        if statements.is_empty() {
            let nothing = PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new());
            client.feed(nothing).await?;
        }
        for (before, sql) in statements {
            let command = command::of(sql);
            usable(client, &command)?;
            let response = match &command {
                Command::Query => {
                    let asked = Asked {
                        sql,
                        before,
                        params: Vec::new(),
                        format: &Format::UnifiedText,
                    };
                    self.query(client, asked).await?
                }
                other => self.talk(client, other, &Format::UnifiedText).await?,
            };
            match response {
                Response::Query(rows) => send_query_response(client, rows, true).await?,
                other => end(client, other).await?,
            }
        }
        Ok(())
    }

    /// Runs a portal, or goes on where it was left.
    pub(super) async fn portal<C>(&self, client: &mut C, portal: &Portal<Prepared>, max_rows: usize) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let state = portal.state();
        let mut state = state.lock().await;
        if matches!(*state, PortalExecutionState::Initial) {
            match self.bound(client, portal).await? {
                Response::Query(rows) => *state = PortalExecutionState::Suspended(rows),
                other => {
                    *state = PortalExecutionState::Finished;
                    return end(client, other).await;
                }
            }
        }
        let suspended = match state.deref_mut() {
            PortalExecutionState::Suspended(rows) => send_partial_query_response(client, rows, max_rows).await?,
            _ => {
                send_execution_response(client, Tag::new("SELECT").with_rows(0)).await?;
                false
            }
        };
        if !suspended {
            *state = PortalExecutionState::Finished;
        }
        Ok(())
    }

    pub(super) async fn bound<C>(&self, client: &mut C, portal: &Portal<Prepared>) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        usable(client, &prepared.command)?;
        let Some(shape) = &prepared.shape else {
            return self.talk(client, &prepared.command, &portal.result_column_format).await;
        };
        let asked = Asked {
            sql: &prepared.sql,
            before: "",
            params: parameters(portal, shape)?,
            format: &portal.result_column_format,
        };
        self.query(client, asked).await
    }
}

/// A query with everything that it needs to run.
struct Asked<'a> {
    sql: &'a str,
    /// What of the client's text stands before it.
    before: &'a str,
    params: Vec<ScalarValue>,
    format: &'a Format,
}

pub(super) fn session<C: ClientInfo>(client: &C) -> PgWireResult<Arc<Session>> {
    let session = client.session_extensions().get::<Session>();
    session.ok_or_else(|| failure::fatal("28000", "a token comes first", None))
}

/// By which a request to cancel finds what this connection runs.
pub(super) fn handle<C: ClientInfo>(client: &C) -> Option<Arc<ConnectionHandle>> {
    let handle = client.session_extensions().get::<Arc<ConnectionHandle>>()?;
    Some(Arc::clone(&handle))
}

/// After an error a transaction takes nothing but its end.
pub(super) fn usable<C: ClientInfo>(client: &C, command: &Command) -> PgWireResult<()> {
    let ends = matches!(command, Command::Commit | Command::Rollback | Command::RollbackTo);
    if client.transaction_status() == TransactionStatus::Error && !ends {
        let message = "current transaction is aborted, commands ignored until end of transaction block";
        return Err(failure::refused("25P02", message));
    }
    Ok(())
}

/// Says that a statement without rows is done.
async fn end<C>(client: &mut C, response: Response) -> PgWireResult<()>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let (tag, status) = match response {
        Response::TransactionStart(tag) => (tag, TransactionStatus::Transaction),
        Response::TransactionEnd(tag) => (tag, TransactionStatus::Idle),
        Response::Execution(tag) => (tag, client.transaction_status()),
        _ => return Err(failure::refused("XX000", "a statement had no end")),
    };
    client.set_transaction_status(status);
    send_execution_response(client, tag).await
}

/// Runs until done, or until the client says on another connection that it does not want it any more.
pub(super) async fn cancellable<F>(handle: Option<Arc<ConnectionHandle>>, work: F) -> PgWireResult<()>
where
    F: Future<Output = PgWireResult<()>>,
{
    let Some(handle) = handle else {
        return work.await;
    };
    let cancelled = handle.start_query().await;
    tokio::select! {
        done = work => done,
        Ok(()) = cancelled => Err(failure::refused("57014", "canceling statement due to user request")),
    }
}
