//! The calls of Arrow Flight, each of which begins with who calls. What would change something is refused by name.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, Command, DoPutPreparedStatementResult, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, Empty, FlightData,
    FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, PutResult,
    Result as Done, SchemaResult, Ticket,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use super::failure::{malformed, read_only, refused};
use super::{Door, answer, failure, metadata, statement};
use crate::error::Kind;

/// What a call answers with piece by piece.
pub(super) type Sent<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a client puts comes within this time.
const PUT_WITHIN: Duration = Duration::from_secs(30);
/// What is done by name here, and what it takes.
const ACTIONS: [(&str, &str); 4] = [
    ("CreatePreparedStatement", "plans a query and keeps it under a handle"),
    ("ClosePreparedStatement", "forgets a prepared statement"),
    ("CancelFlightInfo", "ends a query whose rows are being fetched"),
    ("CancelQuery", "the same, as older clients ask for it"),
];
/// `CANCEL_RESULT_CANCELLED` of `FlightSql.proto`, which the library does not name.
const CANCELLED: i32 = 1;
/// Actions of the protocol that change something.
const WRITES: [&str; 4] = ["BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint"];

pub(super) struct Service(pub(super) Arc<Door>);

impl Service {
    fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        Caller::of(metadata, &self.0.tokens).map_err(failure::of_query)
    }

    async fn info(&self, caller: &Caller, asked: FlightDescriptor) -> Result<FlightInfo, Status> {
        let command = command(&asked.cmd)?;
        match &command {
            Command::CommandStatementQuery(query) => {
                in_no_transaction(query.transaction_id.as_ref())?;
                self.0.query_info(caller, query.query.clone(), asked).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.0
                    .prepared_info(caller, &query.prepared_statement_handle.clone(), asked)
            }
            other => match metadata::schema(other)? {
                Some(schema) => {
                    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(asked.cmd.clone()));
                    statement::place(&schema, endpoint, asked)
                }
                None => Err(not_a_query(other)),
            },
        }
    }
}

impl Service {
    async fn put(
        &self,
        caller: &Caller,
        mut stream: Streaming<FlightData>,
    ) -> Result<Response<Sent<PutResult>>, Status> {
        let first = stream.message().await?.ok_or_else(|| malformed("nothing was put"))?;
        let descriptor = first.flight_descriptor.as_ref();
        let descriptor = descriptor.ok_or_else(|| malformed("what was put does not say what it is"))?;
        match command(&descriptor.cmd)? {
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                let whole = futures::stream::iter([Ok(first)]).chain(stream);
                self.0.bind(caller, &handle, whole).await?;
                let result = DoPutPreparedStatementResult {
                    prepared_statement_handle: Some(handle),
                };
                Ok(Response::new(one(PutResult {
                    app_metadata: result.encode_to_vec().into(),
                })))
            }
            Command::Unknown(_) => Err(malformed("what was put is nothing that Flight SQL knows")),
            _ => Err(read_only()),
        }
    }
}

#[async_trait]
impl FlightService for Service {
    type HandshakeStream = Sent<HandshakeResponse>;
    type ListFlightsStream = Sent<FlightInfo>;
    type DoGetStream = Sent<FlightData>;
    type DoPutStream = Sent<PutResult>;
    type DoExchangeStream = Sent<FlightData>;
    type DoActionStream = Sent<Done>;
    type ListActionsStream = Sent<ActionType>;

    /// Basic credentials become the bearer token that they hold.
    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let caller = self.caller(request.metadata())?;
        let answer = HandshakeResponse {
            protocol_version: 0,
            payload: Bytes::from(caller.token.clone()),
        };
        let mut response = Response::new(one(answer));
        let bearer = MetadataValue::try_from(format!("Bearer {}", caller.token));
        let bearer = bearer.map_err(|_| malformed("the token cannot stand in a header"))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    /// Nothing is kept ready here: every answer is made when it is asked for.
    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.caller(request.metadata())?;
        Ok(Response::new(futures::stream::empty().boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let caller = self.caller(request.metadata())?;
        self.info(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let caller = self.caller(request.metadata())?;
        let info = self.info(&caller, request.into_inner()).await?;
        Ok(Response::new(PollInfo {
            info: Some(info),
            flight_descriptor: None,
            progress: Some(1.0),
            expiration_time: None,
        }))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let caller = self.caller(request.metadata())?;
        let schema = match command(&request.get_ref().cmd)? {
            Command::CommandStatementQuery(query) => self.0.query_schema(&caller, &query.query).await?,
            Command::CommandPreparedStatementQuery(query) => {
                self.0.prepared_schema(&caller, &query.prepared_statement_handle)?
            }
            other => metadata::schema(&other)?.ok_or_else(|| not_a_query(&other))?,
        };
        Ok(Response::new(SchemaResult {
            schema: statement::ipc(&schema)?,
        }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let caller = self.caller(request.metadata())?;
        match command(&request.get_ref().ticket)? {
            Command::TicketStatementQuery(ticket) => self.0.fetch(&caller, &ticket.statement_handle).await,
            Command::CommandPreparedStatementQuery(query) => {
                self.0
                    .run_prepared(&caller, &query.prepared_statement_handle, None)
                    .await
            }
            other => {
                let refusal = not_a_query(&other);
                let rows = metadata::rows(&self.0, &caller.who, other).await?;
                rows.map(answer::made).ok_or(refusal)
            }
        }
    }

    /// Parameters of a prepared statement; everything else that is put would change something.
    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = self.caller(request.metadata())?;
        let put = self.put(&caller, request.into_inner());
        let done = tokio::time::timeout(PUT_WITHIN, put).await;
        done.unwrap_or_else(|_| Err(malformed("what was put did not come to its end in time")))
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.caller(request.metadata())?;
        Err(refused(
            Kind::Unsupported,
            "nothing is exchanged here: ask with Flight SQL",
        ))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = self.caller(request.metadata())?;
        let action = request.into_inner();
        match action.r#type.as_str() {
            "CreatePreparedStatement" => {
                let asked: ActionCreatePreparedStatementRequest = unpack(&action.body)?;
                in_no_transaction(asked.transaction_id.as_ref())?;
                let made = self.0.prepare(&caller, asked.query).await?;
                Ok(Response::new(one(Done::new(made.as_any().encode_to_vec()))))
            }
            "ClosePreparedStatement" => {
                let asked: ActionClosePreparedStatementRequest = unpack(&action.body)?;
                self.0.close(&caller, &asked.prepared_statement_handle);
                Ok(Response::new(futures::stream::empty().boxed()))
            }
            "CancelQuery" => {
                let asked: ActionCancelQueryRequest = unpack(&action.body)?;
                let info = FlightInfo::decode(&*asked.info).map_err(|_| malformed("no query is named"))?;
                self.0.cancel(&caller, &info)?;
                let done = ActionCancelQueryResult { result: CANCELLED };
                Ok(Response::new(one(Done::new(done.as_any().encode_to_vec()))))
            }
            "CancelFlightInfo" => {
                let asked = CancelFlightInfoRequest::decode(&*action.body)
                    .ok()
                    .and_then(|asked| asked.info);
                self.0
                    .cancel(&caller, &asked.ok_or_else(|| malformed("no query is named"))?)?;
                let done = CancelFlightInfoResult::new(CancelStatus::Cancelled);
                Ok(Response::new(one(Done::new(done.encode_to_vec()))))
            }
            name if WRITES.contains(&name) => Err(refused(
                Kind::ReadOnly,
                "queries only read, so there are no transactions; every query sees one point of the log",
            )),
            name => {
                let name: String = name.chars().take(80).collect();
                Err(refused(Kind::Unsupported, format!("there is no action `{name}` here")))
            }
        }
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.caller(request.metadata())?;
        let actions = ACTIONS.map(|(name, description)| {
            Ok(ActionType {
                r#type: name.to_owned(),
                description: description.to_owned(),
            })
        });
        Ok(Response::new(futures::stream::iter(actions).boxed()))
    }
}

fn one<T: Send + 'static>(item: T) -> Sent<T> {
    futures::stream::iter([Ok(item)]).boxed()
}

fn command(bytes: &[u8]) -> Result<Command, Status> {
    let any = Any::decode(bytes).map_err(|_| malformed("this is no command of Flight SQL"))?;
    Command::try_from(any).map_err(|_| malformed("the command cannot be read"))
}

fn unpack<M: ProstMessageExt>(bytes: &[u8]) -> Result<M, Status> {
    let any = Any::decode(bytes).map_err(|_| malformed("the action's body cannot be read"))?;
    let message = any
        .unpack()
        .map_err(|_| malformed("the action's body cannot be read"))?;
    message.ok_or_else(|| malformed("the body belongs to another action"))
}

fn in_no_transaction(transaction: Option<&Bytes>) -> Result<(), Status> {
    match transaction {
        Some(id) if !id.is_empty() => Err(refused(Kind::Unsupported, "there are no transactions here")),
        _ => Ok(()),
    }
}

fn not_a_query(command: &Command) -> Status {
    match command {
        Command::CommandStatementUpdate(_)
        | Command::CommandPreparedStatementUpdate(_)
        | Command::CommandStatementIngest(_) => read_only(),
        Command::CommandStatementSubstraitPlan(_) => refused(Kind::Unsupported, "plans are not taken here: ask in SQL"),
        _ => malformed("this command asks for no rows"),
    }
}
