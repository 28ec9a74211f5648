//! Answers the messages of a client: the simple protocol, in which a message is text, and the extended one, in which a query is first
//! prepared, then bound to its parameters, then run. Both end in the one engine.

use std::fmt::Debug;
use std::ops::DerefMut;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use async_trait::async_trait;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use datafusion_postgres::arrow_pg::datatypes::into_pg_type;
use datafusion_postgres::pgwire::api::portal::{Format, Portal, PortalExecutionState};
use datafusion_postgres::pgwire::api::query::{
    ExtendedQueryHandler, SimpleQueryHandler, send_execution_response, send_partial_query_response,
    send_query_response, send_ready_for_query,
};
use datafusion_postgres::pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::stmt::{QueryParser, StoredStatement};
use datafusion_postgres::pgwire::api::store::{Entry, PortalStore};
use datafusion_postgres::pgwire::api::{
    ClientInfo, ClientPortalStore, ConnectionHandle, DEFAULT_NAME, PgWireConnectionState, Type,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Execute, Parse, ParseComplete, Sync as SyncMessage,
    TARGET_TYPE_BYTE_PORTAL, TARGET_TYPE_BYTE_STATEMENT,
};
use datafusion_postgres::pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use datafusion_postgres::pgwire::messages::simplequery::Query;
use futures::{Sink, SinkExt};

use super::command::{self, Command};
use super::session::{Name, Outcome, Session};
use super::{Door, failure, rows};
use crate::engine::{Dialect, Question};
use crate::shape::Shape;

/// A statement that was read, and planned if it is a query.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    sql: Arc<str>,
    command: Command,
    shape: Option<Shape>,
}

pub(super) struct Handler {
    door: Arc<Door>,
    parser: Arc<Parser>,
}

/// Plans a query for its parameters and columns.
pub(super) struct Parser {
    door: Arc<Door>,
}

impl Handler {
    pub(super) fn new(door: Arc<Door>) -> Handler {
        let parser = Arc::new(Parser {
            door: Arc::clone(&door),
        });
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
                Some(value) => Ok(Response::Query(shown(name, &value, format)?)),
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
    async fn text<C>(&self, client: &mut C, text: &str) -> PgWireResult<()>
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
    async fn portal<C>(&self, client: &mut C, portal: &Portal<Prepared>, max_rows: usize) -> PgWireResult<()>
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

    async fn bound<C>(&self, client: &mut C, portal: &Portal<Prepared>) -> PgWireResult<Response>
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

fn session<C: ClientInfo>(client: &C) -> PgWireResult<Arc<Session>> {
    let session = client.session_extensions().get::<Session>();
    session.ok_or_else(|| failure::fatal("28000", "a token comes first", None))
}

/// By which a request to cancel finds what this connection runs.
fn handle<C: ClientInfo>(client: &C) -> Option<Arc<ConnectionHandle>> {
    let handle = client.session_extensions().get::<Arc<ConnectionHandle>>()?;
    Some(Arc::clone(&handle))
}

/// After an error a transaction takes nothing but its end.
fn usable<C: ClientInfo>(client: &C, command: &Command) -> PgWireResult<()> {
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
async fn cancellable<F>(handle: Option<Arc<ConnectionHandle>>, work: F) -> PgWireResult<()>
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

/// One value under its name.
fn shown(name: &str, value: &str, format: &Format) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(vec![shown_field(name, format.format_for(0))]);
    let mut encoder = DataRowEncoder::new(Arc::clone(&fields));
    encoder.encode_field(&Some(value))?;
    let row = encoder.take_row();
    let mut response = QueryResponse::new(fields, futures::stream::iter([Ok(row)]));
    response.set_command_tag("SHOW");
    Ok(response)
}

fn shown_field(name: &str, format: FieldFormat) -> FieldInfo {
    FieldInfo::new(name.to_owned(), None, None, Type::TEXT, format)
}

fn parameters(portal: &Portal<Prepared>, shape: &Shape) -> PgWireResult<Vec<ScalarValue>> {
    if portal.parameters.len() != shape.params.len() {
        let message = format!(
            "the query has {} parameters, and {} were given",
            shape.params.len(),
            portal.parameters.len()
        );
        return Err(failure::refused("08P01", &message));
    }
    let types: Vec<Type> = shape.params.iter().map(wire_type).collect();
    let wanted: Vec<Option<&DataType>> = shape.params.iter().map(Some).collect();
    let types: Vec<Option<&Type>> = types.iter().map(Some).collect();
    let values = deserialize_parameters_with_server_types(portal, &wanted, &types).map_err(|error| match error {
        PgWireError::UserError(info) => PgWireError::UserError(info),
        other => failure::refused("22P02", &format!("a parameter cannot be read: {other}")),
    })?;
    match values {
        ParamValues::List(values) => Ok(values.into_iter().map(|value| value.value).collect()),
        ParamValues::Map(_) => Err(failure::refused("0A000", "parameters are $1, $2, …")),
    }
}

fn wire_type(kind: &DataType) -> Type {
    match into_pg_type(kind) {
        Ok(kind) if kind != Type::UNKNOWN => kind,
        _ => Type::TEXT,
    }
}

/// What a client calls its parameter's type in our types; `None`: it leaves that to us, or it is a type that has no one counterpart.
fn declared(kind: &Option<Type>) -> Option<DataType> {
    Some(match kind.clone()? {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::TEXT | Type::VARCHAR => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => return None,
    })
}

#[async_trait]
impl SimpleQueryHandler for Handler {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        session(client)?;
        client.set_state(PgWireConnectionState::QueryInProgress);
        let handle = handle(client);
        cancellable(handle, self.text(client, &query.query)).await?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        let status = client.transaction_status();
        send_ready_for_query(client, status).await
    }

    /// Not used: a text is answered statement by statement above.
    async fn do_query<C>(&self, _: &mut C, _: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(failure::refused("XX000", "a text is answered statement by statement"))
    }
}

#[async_trait]
impl ExtendedQueryHandler for Handler {
    type Statement = Prepared;
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Parser> {
        Arc::clone(&self.parser)
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        if !session(client)?.name(Name::Statement, name) {
            return Err(failure::refused(
                "54000",
                "too many prepared statements and portals: close some",
            ));
        }
        match StoredStatement::parse(client, &message, self.query_parser()).await? {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(name),
        }
        client
            .feed(PgWireBackendMessage::ParseComplete(ParseComplete::new()))
            .await?;
        Ok(())
    }

    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statement = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = message.portal_name.as_deref().unwrap_or(DEFAULT_NAME);
        if !session(client)?.name(Name::Portal, portal) {
            return Err(failure::refused(
                "54000",
                "too many prepared statements and portals: close some",
            ));
        }
        let prepared = match client.portal_store().get_statement(statement) {
            Some(Entry::Value(prepared)) => Some(prepared),
            Some(Entry::Empty) => None,
            None => return Err(PgWireError::StatementNotFound(statement.to_owned())),
        };
        let columns = match prepared.as_ref().map(|prepared| &prepared.statement) {
            Some(Prepared { shape: Some(shape), .. }) => shape.schema.fields().len(),
            Some(Prepared {
                command: Command::Show { .. },
                ..
            }) => 1,
            _ => 0,
        };
        let fits = |codes: &[i16], of: usize| codes.len() <= 1 || codes.len() == of;
        if !fits(&message.result_column_format_codes, columns)
            || !fits(&message.parameter_format_codes, message.parameters.len())
        {
            return Err(failure::refused("08P01", "there are more or fewer formats than values"));
        }
        match prepared {
            Some(prepared) => {
                let bound = Portal::try_new(&message, prepared)?;
                client.portal_store().put_portal(Arc::new(bound));
            }
            None => client.portal_store().put_empty_portal(portal),
        }
        client
            .feed(PgWireBackendMessage::BindComplete(BindComplete::new()))
            .await?;
        Ok(())
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        session(client)?;
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let max_rows = usize::try_from(message.max_rows).unwrap_or(0);
        match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => {
                client.set_state(PgWireConnectionState::QueryInProgress);
                let handle = handle(client);
                cancellable(handle, self.portal(client, &portal, max_rows)).await?;
                client.set_state(PgWireConnectionState::ReadyForQuery);
            }
            Some(Entry::Empty) => {
                client
                    .feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()))
                    .await?;
            }
            None => return Err(PgWireError::PortalNotFound(name.to_owned())),
        }
        Ok(())
    }

    async fn on_sync<C>(&self, client: &mut C, _: SyncMessage) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // Portals end with their transaction, and with them the queries that they hold.
        if client.transaction_status() != TransactionStatus::Transaction {
            client.portal_store().clear_portals();
            session(client)?.forget_portals();
        }
        let status = client.transaction_status();
        send_ready_for_query(client, status).await
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let session = session(client)?;
        match message.target_type {
            TARGET_TYPE_BYTE_STATEMENT => {
                client.portal_store().rm_statement(name);
                session.forget(Name::Statement, name);
            }
            TARGET_TYPE_BYTE_PORTAL => {
                client.portal_store().rm_portal(name);
                session.forget(Name::Portal, name);
            }
            _ => {}
        }
        client
            .feed(PgWireBackendMessage::CloseComplete(CloseComplete::new()))
            .await?;
        Ok(())
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, _: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.bound(client, portal).await
    }
}

#[async_trait]
impl QueryParser for Parser {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let session = session(client)?;
        let sql = match command::split(sql).as_slice() {
            [] => return Ok(None),
            // the text as it came, so that places in it are right
            [_] => sql.trim_end().trim_end_matches(';'),
            _ => {
                return Err(failure::refused(
                    "42601",
                    "cannot insert multiple commands into a prepared statement",
                ));
            }
        };
        let command = command::of(sql);
        usable(client, &command)?;
        let shape = match command {
            Command::Query => {
                let declared = types.iter().map(declared).collect();
                let shape = self
                    .door
                    .engine
                    .shape(&session.who, sql, Dialect::Postgres, declared)
                    .await;
                Some(shape.map_err(|error| failure::of_query(error, sql, ""))?)
            }
            _ => None,
        };
        Ok(Some(Prepared {
            sql: sql.into(),
            command,
            shape,
        }))
    }

    fn get_parameter_types(&self, prepared: &Prepared) -> PgWireResult<Vec<Type>> {
        let shape = prepared.shape.as_ref();
        Ok(shape.map_or_else(Vec::new, |shape| shape.params.iter().map(wire_type).collect()))
    }

    fn get_result_schema(&self, prepared: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        let format = format.unwrap_or(&Format::UnifiedText);
        match (&prepared.shape, &prepared.command) {
            (Some(shape), _) => rows::fields(&shape.schema, format),
            (None, Command::Show { name }) => Ok(vec![shown_field(name, format.format_for(0))]),
            _ => Ok(Vec::new()),
        }
    }
}
