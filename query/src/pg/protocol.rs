//! The messages of the protocol: the simple one, in which a message is text, and the extended one, in which a query is first prepared,
//! then bound to its parameters, then run. `handler` answers them.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::portal::Portal;
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler, send_ready_for_query};
use datafusion_postgres::pgwire::api::results::Response;
use datafusion_postgres::pgwire::api::stmt::StoredStatement;
use datafusion_postgres::pgwire::api::store::{Entry, PortalStore};
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Execute, Parse, ParseComplete, Sync as SyncMessage,
    TARGET_TYPE_BYTE_PORTAL, TARGET_TYPE_BYTE_STATEMENT,
};
use datafusion_postgres::pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use datafusion_postgres::pgwire::messages::simplequery::Query;
use futures::{Sink, SinkExt};

use super::failure;
use super::handler::{Handler, cancellable, handle, session};
use super::prepared::{Parser, Prepared};
use super::session::{Kept, MAX_NAMES, Name};

/// Takes note of a name that a client gives, if there is room for it. `true`: it is a new one.
fn keep_name<C: ClientInfo>(client: &C, kind: Name, name: &str) -> PgWireResult<bool> {
    match session(client)?.name(kind, name) {
        Kept::New => Ok(true),
        Kept::Known => Ok(false),
        Kept::NoRoom => {
            let message = format!(
                "this connection has {MAX_NAMES} prepared statements and portals, which is as many as it may: close some"
            );
            Err(failure::refused("54000", &message))
        }
    }
}

/// A name of what could not be made is free again.
fn free_name<C: ClientInfo>(client: &C, new: bool, kind: Name, name: &str) -> PgWireResult<()> {
    if new {
        session(client)?.forget(kind, name);
    }
    Ok(())
}

/// What a client binds must be what the statement takes.
fn fits(message: &Bind, prepared: Option<&Prepared>) -> PgWireResult<()> {
    let given = message.parameters.len();
    let taken = prepared
        .and_then(|p| p.shape.as_ref())
        .map_or(0, |shape| shape.params.len());
    if given != taken {
        let message = format!("the query has {taken} parameters, and {given} were given");
        return Err(failure::refused("08P01", &message));
    }
    let columns = prepared.map_or(0, Prepared::columns);
    let fits = |codes: &[i16], of: usize| codes.len() <= 1 || codes.len() == of;
    match fits(&message.result_column_format_codes, columns) && fits(&message.parameter_format_codes, given) {
        true => Ok(()),
        false => Err(failure::refused("08P01", "there are more or fewer formats than values")),
    }
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
        let new = keep_name(client, Name::Statement, name)?;
        match StoredStatement::parse(client, &message, self.query_parser()).await {
            Ok(Some(statement)) => client.portal_store().put_statement(Arc::new(statement)),
            Ok(None) => client.portal_store().put_empty_statement(name),
            Err(error) => {
                free_name(client, new, Name::Statement, name)?;
                return Err(error);
            }
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
        let prepared = match client.portal_store().get_statement(statement) {
            Some(Entry::Value(prepared)) => Some(prepared),
            Some(Entry::Empty) => None,
            None => {
                let message = format!("prepared statement \"{statement}\" does not exist");
                return Err(failure::refused("26000", &message));
            }
        };
        fits(&message, prepared.as_ref().map(|prepared| &prepared.statement))?;
        keep_name(client, Name::Portal, portal)?;
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
            None => {
                let message = format!("portal \"{name}\" does not exist");
                return Err(failure::refused("34000", &message));
            }
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
