//! The door for clients of Flight SQL, asked with the client of its makers.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandGetCrossReference,
    CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandStatementQuery, ProstMessageExt, SqlInfo,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, Ticket};
use futures::TryStreamExt;
use prost::Message;
use sluice_query::QueryConfig;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::node::{Node, ROWS_PER_BATCH};

pub(crate) type Client = FlightSqlServiceClient<Channel>;

pub(crate) async fn channel(node: &Node) -> Channel {
    let address = format!("http://{}", node.flight);
    Channel::from_shared(address).unwrap().connect().await.unwrap()
}

pub(crate) async fn client(node: &Node, token: &str) -> Client {
    let mut client = FlightSqlServiceClient::new(channel(node).await);
    client.set_token(token.to_owned());
    client
}

/// The calls without the client's own help.
pub(crate) struct Raw {
    pub(crate) calls: FlightServiceClient<Channel>,
    token: String,
}

impl Raw {
    pub(crate) async fn new(node: &Node, token: &str) -> Raw {
        Raw {
            calls: FlightServiceClient::new(channel(node).await),
            token: token.to_owned(),
        }
    }

    pub(crate) fn asked<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        request
    }

    pub(crate) async fn info(&mut self, command: impl ProstMessageExt) -> Result<FlightInfo, Status> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let request = self.asked(descriptor);
        Ok(self.calls.get_flight_info(request).await?.into_inner())
    }

    pub(crate) async fn query(&mut self, sql: &str) -> Result<FlightInfo, Status> {
        self.info(CommandStatementQuery {
            query: sql.into(),
            transaction_id: None,
        })
        .await
    }

    pub(crate) async fn fetch(&mut self, ticket: Ticket) -> Result<Vec<FlightData>, Status> {
        let request = self.asked(ticket);
        self.calls.do_get(request).await?.into_inner().try_collect().await
    }

    pub(crate) async fn act(&mut self, name: &str, body: Vec<u8>) -> Result<Vec<arrow_flight::Result>, Status> {
        let request = self.asked(Action::new(name, body));
        self.calls.do_action(request).await?.into_inner().try_collect().await
    }

    pub(crate) async fn prepare(&mut self, sql: &str) -> Result<ActionCreatePreparedStatementResult, Status> {
        let asked = ActionCreatePreparedStatementRequest {
            query: sql.into(),
            transaction_id: None,
        };
        let done = self
            .act("CreatePreparedStatement", asked.as_any().encode_to_vec())
            .await?;
        Ok(Any::decode(&*done[0].body).unwrap().unpack().unwrap().unwrap())
    }

    /// Puts messages for a prepared statement; its command goes with the first.
    pub(crate) async fn put(&mut self, handle: &[u8], mut messages: Vec<FlightData>) -> Result<(), Status> {
        let command = CommandPreparedStatementQuery {
            prepared_statement_handle: handle.to_vec().into(),
        };
        messages[0].flight_descriptor = Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
        let request = self.asked(futures::stream::iter(messages));
        self.calls
            .do_put(request)
            .await?
            .into_inner()
            .try_collect::<Vec<_>>()
            .await?;
        Ok(())
    }
}

pub(crate) fn code(status: &Status) -> (Code, String) {
    let code = status
        .metadata()
        .get("sluice-code")
        .map(|code| code.to_str().unwrap().to_owned());
    (status.code(), code.unwrap_or_else(|| panic!("no code: {status}")))
}

pub(crate) fn status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => panic!("{other}"),
    }
}

pub(crate) fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

pub(crate) async fn rows(client: &mut Client, info: FlightInfo) -> RecordBatch {
    let announced = info.clone().try_decode_schema().unwrap();
    let stream = client.do_get(ticket(&info)).await.unwrap();
    let batches: Vec<_> = stream.try_collect().await.unwrap();
    let schema = batches.first().map_or(Arc::new(announced.clone()), RecordBatch::schema);
    assert_eq!(*schema, announced, "what comes is what was announced");
    concat_batches(&schema, &batches).unwrap()
}

pub(crate) fn numbers(batch: &RecordBatch, column: usize) -> Vec<i64> {
    batch.column(column).as_primitive::<Int64Type>().values().to_vec()
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.iter().map(|text| text.unwrap_or("").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_announced_and_fetched_and_says_how_complete_it_is() {
    let node = Node::with(QueryConfig::default(), 9).await;
    let mut client = FlightSqlServiceClient::new(channel(&node).await);
    client.handshake("anyone", &node.acme).await.unwrap();
    let sql = "SELECT time, service, body, severity, attrs, trace_id, attrs['big'] AS big FROM logs ORDER BY time";
    let info = client.execute(sql.into(), None).await.unwrap();
    let answer = rows(&mut client, info).await;
    assert_eq!(answer.num_rows(), 2 * ROWS_PER_BATCH);
    assert_eq!(texts(&answer, "body")[0], "canary-acme said \"hi\", 0");
    assert_eq!(texts(&answer, "big")[0], "9007199254740993");

    let info = client
        .execute("SELECT count(*) FROM events".into(), None)
        .await
        .unwrap();
    let stream = client.do_get(ticket(&info)).await.unwrap();
    let said: serde_json::Value =
        serde_json::from_slice(stream.headers().get("sluice-completeness").unwrap().as_bytes()).unwrap();
    assert_eq!(
        (said["complete"].as_bool(), said["missing_records"].as_u64()),
        (Some(false), Some(5))
    );
    let mut raw = Raw::new(&node, &node.acme).await;
    let messages = raw.fetch(ticket(&info)).await.unwrap();
    for message in &messages[..2] {
        let beside: serde_json::Value = serde_json::from_slice(&message.app_metadata).unwrap();
        assert_eq!(beside["missing_records"], 5, "beside the schema and the first rows");
    }
    // an answer without rows has columns
    let info = client
        .execute("SELECT body FROM logs WHERE false".into(), None)
        .await
        .unwrap();
    assert_eq!(rows(&mut client, info).await.num_rows(), 0);
    // a large one comes in messages that clients take
    let large = "SELECT value, repeat('x', 1000) AS text FROM range(20000)";
    let info = client.execute(large.into(), None).await.unwrap();
    let messages = raw.fetch(ticket(&info)).await.unwrap();
    assert!(messages.len() > 8 && messages.iter().all(|message| message.data_body.len() < 4 << 20));
    let schema = CommandStatementQuery {
        query: "SELECT 1 AS one".into(),
        transaction_id: None,
    };
    let request = raw.asked(FlightDescriptor::new_cmd(schema.as_any().encode_to_vec()));
    let schema = raw.calls.get_schema(request).await.unwrap().into_inner();
    assert_eq!(
        arrow::datatypes::Schema::try_from(&schema).unwrap().field(0).name(),
        "one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_is_bound_run_and_closed() {
    let node = Node::start().await;
    let mut client = client(&node, &node.acme).await;
    let sql = "SELECT count(*) FROM logs WHERE body = $1 AND severity >= $2".to_owned();
    let mut prepared = client.prepare(sql, None).await.unwrap();
    assert_eq!(prepared.parameter_schema().unwrap().fields().len(), 2);
    assert_eq!(prepared.dataset_schema().unwrap().fields().len(), 1);
    let values = |body: &str, severity: i32| {
        // a number of another size than the column's is the same number
        let columns: [(&str, ArrayRef); 2] = [
            ("a", Arc::new(StringArray::from(vec![body]))),
            ("b", Arc::new(Int32Array::from(vec![severity]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    for (body, severity, count) in [
        ("canary-acme said \"hi\", 3", 12, 2),
        ("canary-acme said \"hi\", 0", 12, 0),
        ("' OR '1' = '1", 0, 0),
        ("canary-beta said \"hi\", 3", 0, 0),
    ] {
        prepared.set_parameters(values(body, severity)).unwrap();
        let info = prepared.execute().await.unwrap();
        assert_eq!(numbers(&rows(&mut client, info).await, 0), [count], "{body}");
    }
    prepared.close().await.unwrap();

    let mut raw = Raw::new(&node, &node.acme).await;
    let made = raw.prepare("SELECT $1::bigint + 1").await.unwrap();
    let handle = made.prepared_statement_handle.clone();
    let query = CommandPreparedStatementQuery {
        prepared_statement_handle: handle.clone(),
    };
    let info = raw.info(query.clone()).await.unwrap();
    let unbound = raw.fetch(ticket(&info)).await.unwrap_err();
    assert_eq!(
        code(&unbound),
        (Code::InvalidArgument, "bad_request".into()),
        "nothing was bound"
    );
    // what is somebody else's is as unknown as what never was
    let mut other = Raw::new(&node, &node.beta).await;
    let foreign = other.info(query.clone()).await.unwrap_err();
    assert_eq!(code(&foreign), (Code::NotFound, "not_found".into()));
    let foreign = other.put(&handle, encoded(&numbers_batch(1))).await.unwrap_err();
    assert_eq!(code(&foreign), (Code::NotFound, "not_found".into()));
    raw.put(&handle, encoded(&numbers_batch(41))).await.unwrap();
    let direct = raw.fetch(Ticket::new(query.as_any().encode_to_vec())).await.unwrap();
    assert!(direct.len() >= 2);
    let closed = arrow_flight::sql::ActionClosePreparedStatementRequest {
        prepared_statement_handle: handle,
    };
    raw.act("ClosePreparedStatement", closed.as_any().encode_to_vec())
        .await
        .unwrap();
    assert_eq!(raw.info(query).await.unwrap_err().code(), Code::NotFound);
    // a mistake is told when it is prepared
    let wrong = raw.prepare("SELECT bdy FROM logs").await.unwrap_err();
    assert_eq!(code(&wrong), (Code::InvalidArgument, "unknown_column".into()));
    assert!(
        wrong.message().contains("line 1, column 8") && wrong.message().contains("did you mean `body`?"),
        "{wrong}"
    );
}

pub(crate) fn numbers_batch(value: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![value])) as ArrayRef)]).unwrap()
}

pub(crate) fn encoded(batch: &RecordBatch) -> Vec<FlightData> {
    encoded_with(batch, IpcWriteOptions::default())
}

pub(crate) fn encoded_with(batch: &RecordBatch, options: IpcWriteOptions) -> Vec<FlightData> {
    let stream = FlightDataEncoderBuilder::new()
        .with_options(options)
        .build(futures::stream::iter([Ok(batch.clone())]));
    futures::executor::block_on(stream.try_collect()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_can_be_listed() {
    let node = Node::start().await;
    let mut client = client(&node, &node.acme).await;
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "catalog_name"), ["sluice"]);
    let info = client.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "db_schema_name"), ["public"]);
    let asked = CommandGetTables {
        table_name_filter_pattern: Some("%s".into()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(asked).await.unwrap();
    let tables = rows(&mut client, info).await;
    let names = texts(&tables, "table_name");
    assert!(
        ["events", "logs", "spans", "metrics", "streams"]
            .iter()
            .all(|name| names.contains(&(*name).to_owned())),
        "{names:?}"
    );
    assert!(!names.contains(&"ledger".to_owned()), "the pattern counts");
    let shown = tables
        .column_by_name("table_schema")
        .unwrap()
        .as_binary::<i32>()
        .value(0);
    let shown = arrow::ipc::convert::try_schema_from_ipc_buffer(shown).unwrap();
    assert!(shown.field_with_name("body").is_ok(), "{shown}");
    let info = client.get_table_types().await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "table_type"), ["TABLE", "VIEW"]);
    let info = client
        .get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerReadOnly])
        .await
        .unwrap();
    assert_eq!(rows(&mut client, info).await.num_rows(), 2);
    let info = client
        .get_xdbc_type_info(CommandGetXdbcTypeInfo::default())
        .await
        .unwrap();
    assert!(texts(&rows(&mut client, info).await, "type_name").contains(&"TIMESTAMP".to_owned()));
    let asked = CommandGetPrimaryKeys {
        table: "events".into(),
        ..CommandGetPrimaryKeys::default()
    };
    let info = client.get_primary_keys(asked).await.unwrap();
    assert_eq!(rows(&mut client, info).await.num_rows(), 0);
    let info = client
        .get_cross_reference(CommandGetCrossReference::default())
        .await
        .unwrap();
    assert_eq!(rows(&mut client, info).await.num_columns(), 13);
    let mut raw = Raw::new(&node, &node.acme).await;
    let request = raw.asked(arrow_flight::Empty {});
    let actions: Vec<_> = raw
        .calls
        .list_actions(request)
        .await
        .unwrap()
        .into_inner()
        .try_collect()
        .await
        .unwrap();
    assert!(actions.iter().all(|action| !action.r#type.contains("Transaction")));
}
