//! Queries in text and prepared ones: what they will give, their tickets, and their rows.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{ActionCreatePreparedStatementResult, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::Stream;
use prost::Message;
use tonic::{Response, Status};

use super::caller::Caller;
use super::prepared::{Prepared, Statement};
use super::service::Sent;
use super::ticket::{Content, Number, Ticket};
use super::{AROUND, Door, answer, bind, failure};
use crate::engine::{Dialect, Question};
use crate::error::{Kind, QueryError};
use crate::shape::Shape;

impl Door {
    /// Where the rows of a query in text are, and what they are like.
    pub(super) async fn query_info(
        &self,
        caller: &Caller,
        sql: String,
        asked: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let shape = self.plan(caller, &sql).await?;
        if !shape.params.is_empty() {
            let message = format!("the query has {} parameters and no values for them", shape.params.len());
            return Err(failure::of_query(
                QueryError::new(Kind::BadRequest, message).hint("prepare it, and bind the values before it is run"),
            ));
        }
        let ticket = Ticket {
            number: rand::random(),
            content: Content::Query(sql),
        };
        info(&shape.schema, &ticket, caller, asked)
    }

    pub(super) fn prepared_info(
        &self,
        caller: &Caller,
        handle: &[u8],
        asked: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let (handle, statement) = self.find(caller, handle)?;
        let ticket = Ticket {
            number: rand::random(),
            content: Content::Prepared(handle.to_vec()),
        };
        info(&statement.shape.schema, &ticket, caller, asked)
    }

    /// The columns that a query would give.
    pub(super) async fn query_schema(&self, caller: &Caller, sql: &str) -> Result<SchemaRef, Status> {
        Ok(answer::schema(&self.plan(caller, sql).await?.schema))
    }

    pub(super) fn prepared_schema(&self, caller: &Caller, handle: &[u8]) -> Result<SchemaRef, Status> {
        Ok(answer::schema(&self.find(caller, handle)?.1.shape.schema))
    }

    /// The rows that a ticket stands for.
    pub(super) async fn fetch(&self, caller: &Caller, ticket: &[u8]) -> Result<Response<Sent<FlightData>>, Status> {
        let ticket = open(caller, ticket)?;
        match ticket.content {
            Content::Query(sql) => self.run(caller, sql, Vec::new(), Some(ticket.number)).await,
            Content::Prepared(handle) => self.run_prepared(caller, &handle, Some(ticket.number)).await,
        }
    }

    pub(super) async fn run_prepared(
        &self,
        caller: &Caller,
        handle: &[u8],
        number: Option<Number>,
    ) -> Result<Response<Sent<FlightData>>, Status> {
        let (_, statement) = self.find(caller, handle)?;
        let values = statement.values.map(|values| values.to_vec()).unwrap_or_default();
        if values.len() != statement.shape.params.len() {
            let message = format!(
                "the query has {} parameters and no values for them",
                statement.shape.params.len()
            );
            return Err(failure::malformed(&message));
        }
        self.run(caller, statement.sql.to_string(), values, number).await
    }

    pub(super) async fn prepare(
        &self,
        caller: &Caller,
        sql: String,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let shape = self.plan(caller, &sql).await?;
        let names = shape.params.iter().enumerate();
        let wanted: Vec<Field> = names
            .map(|(at, kind)| Field::new(format!("${}", at + 1), kind.clone(), true))
            .collect();
        let result = (
            ipc(&answer::schema(&shape.schema))?,
            ipc(&answer::schema(&Schema::new(wanted)))?,
        );
        let handle = rand::random();
        let statement = Statement {
            sql: sql.into(),
            shape: Arc::new(shape),
            values: None,
        };
        let kept = self.prepared().put(&caller.who, handle, statement, Instant::now());
        kept.map_err(failure::of_query)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: Bytes::copy_from_slice(&handle),
            dataset_schema: result.0,
            parameter_schema: result.1,
        })
    }

    /// Binds the values of a stream to a prepared statement.
    pub(super) async fn bind<S>(&self, caller: &Caller, handle: &[u8], stream: S) -> Result<(), Status>
    where
        S: Stream<Item = Result<FlightData, Status>> + Unpin + Send,
    {
        let (handle, mut statement) = self.find(caller, handle)?;
        let most = usize::try_from(self.engine.limits().max_request).unwrap_or(usize::MAX);
        let values = bind::values(stream, &statement.shape.params, most.saturating_add(AROUND)).await?;
        statement.values = Some(values.into());
        let kept = self.prepared().put(&caller.who, handle, statement, Instant::now());
        kept.map_err(failure::of_query)
    }

    pub(super) fn close(&self, caller: &Caller, handle: &[u8]) {
        self.prepared().close(&caller.who, handle);
    }

    /// Ends the answer that this place points at, if it is on its way.
    pub(super) fn cancel(&self, caller: &Caller, info: &FlightInfo) -> Result<(), Status> {
        if info.endpoint.is_empty() {
            return Err(failure::malformed("no query is named"));
        }
        let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
        let mut found = false;
        for ticket in tickets {
            let sealed = arrow_flight::sql::Any::decode(&*ticket.ticket)
                .ok()
                .and_then(|any| any.unpack::<TicketStatementQuery>().ok().flatten())
                .ok_or_else(|| failure::malformed("this ticket is not for a query"))?;
            found |= self.running.cancel(open(caller, &sealed.statement_handle)?.number);
        }
        match found {
            true => Ok(()),
            false => Err(failure::refused(Kind::NotFound, "this query is not running")),
        }
    }

    async fn plan(&self, caller: &Caller, sql: &str) -> Result<Shape, Status> {
        let shape = self
            .engine
            .shape(&caller.who, sql, Dialect::Ours, Vec::<Option<DataType>>::new())
            .await;
        shape.map_err(failure::of_query)
    }

    async fn run(
        &self,
        caller: &Caller,
        sql: String,
        params: Vec<ScalarValue>,
        number: Option<Number>,
    ) -> Result<Response<Sent<FlightData>>, Status> {
        let question = Question {
            sql,
            params,
            // a client that waits longer than a query may run gets what the limit says
            timeout: caller.timeout.map(|asked| asked.min(self.engine.limits().max_timeout)),
            max_rows: None,
            dialect: Dialect::Ours,
        };
        let guard = number.map(|number| self.running.begin(number));
        let asked = self.engine.ask(&caller.who, question);
        let answer = match &guard {
            None => asked.await,
            Some(guard) => tokio::select! {
                answer = asked => answer,
                () = guard.stop.cancelled() => return Err(failure::cancelled()),
            },
        };
        let answer = answer.map_err(failure::of_query)?;
        Ok(answer::response(Arc::clone(&self.engine), answer, guard))
    }

    fn find(&self, caller: &Caller, handle: &[u8]) -> Result<(super::prepared::Handle, Statement), Status> {
        let found = self.prepared().get(&caller.who, handle, Instant::now());
        found.map_err(failure::of_query)
    }

    fn prepared(&self) -> MutexGuard<'_, Prepared> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(caller: &Caller, ticket: &[u8]) -> Result<Ticket, Status> {
    Ticket::open(ticket, &caller.token).ok_or_else(|| {
        failure::of_query(
            QueryError::new(Kind::Forbidden, "this ticket was not issued to this token")
                .hint("ask for the query again with the token that fetches it"),
        )
    })
}

fn info(schema: &Schema, ticket: &Ticket, caller: &Caller, asked: FlightDescriptor) -> Result<FlightInfo, Status> {
    let ticket = TicketStatementQuery {
        statement_handle: ticket.seal(&caller.token).into(),
    };
    let endpoint = FlightEndpoint::new().with_ticket(arrow_flight::Ticket::new(ticket.as_any().encode_to_vec()));
    place(&answer::schema(schema), endpoint, asked)
}

/// Where rows with these columns are.
pub(super) fn place(schema: &Schema, endpoint: FlightEndpoint, asked: FlightDescriptor) -> Result<FlightInfo, Status> {
    let info = FlightInfo::new().with_endpoint(endpoint).with_descriptor(asked);
    info.try_with_schema(schema)
        .map_err(|error| failure::of_flight(error.into()))
}

pub(super) fn ipc(schema: &Schema) -> Result<Bytes, Status> {
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default()));
    message
        .map(|message| message.0)
        .map_err(|error| failure::of_flight(error.into()))
}
