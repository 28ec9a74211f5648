//! The door for clients of Flight SQL, asked with the client of its makers, and by peers that mean no good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandGetCrossReference,
    CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandStatementIngest, CommandStatementQuery, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightDescriptor, FlightInfo,
    Ticket,
};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use sluice_query::QueryConfig;
use sluice_query::config::TlsConfig;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::node::{Node, ROWS_PER_BATCH};

/// Runs until it is stopped.
const ENDLESS: &str = "SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3";

pub(crate) type Client = FlightSqlServiceClient<Channel>;

async fn channel(node: &Node) -> Channel {
    let address = format!("http://{}", node.flight);
    Channel::from_shared(address).unwrap().connect().await.unwrap()
}

pub(crate) async fn client(node: &Node, token: &str) -> Client {
    let mut client = FlightSqlServiceClient::new(channel(node).await);
    client.set_token(token.to_owned());
    client
}

/// The calls without the client's own help.
struct Raw {
    calls: FlightServiceClient<Channel>,
    token: String,
}

impl Raw {
    async fn new(node: &Node, token: &str) -> Raw {
        Raw {
            calls: FlightServiceClient::new(channel(node).await),
            token: token.to_owned(),
        }
    }

    fn asked<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        request
    }

    async fn info(&mut self, command: impl ProstMessageExt) -> Result<FlightInfo, Status> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let request = self.asked(descriptor);
        Ok(self.calls.get_flight_info(request).await?.into_inner())
    }

    async fn query(&mut self, sql: &str) -> Result<FlightInfo, Status> {
        self.info(CommandStatementQuery {
            query: sql.into(),
            transaction_id: None,
        })
        .await
    }

    async fn fetch(&mut self, ticket: Ticket) -> Result<Vec<FlightData>, Status> {
        let request = self.asked(ticket);
        self.calls.do_get(request).await?.into_inner().try_collect().await
    }

    async fn act(&mut self, name: &str, body: Vec<u8>) -> Result<Vec<arrow_flight::Result>, Status> {
        let request = self.asked(Action::new(name, body));
        self.calls.do_action(request).await?.into_inner().try_collect().await
    }

    async fn prepare(&mut self, sql: &str) -> Result<ActionCreatePreparedStatementResult, Status> {
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
    async fn put(&mut self, handle: &[u8], mut messages: Vec<FlightData>) -> Result<(), Status> {
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

async fn rows(client: &mut Client, info: FlightInfo) -> RecordBatch {
    let announced = info.clone().try_decode_schema().unwrap();
    let stream = client.do_get(ticket(&info)).await.unwrap();
    let batches: Vec<_> = stream.try_collect().await.unwrap();
    let schema = batches.first().map_or(Arc::new(announced.clone()), RecordBatch::schema);
    assert_eq!(*schema, announced, "what comes is what was announced");
    concat_batches(&schema, &batches).unwrap()
}

fn numbers(batch: &RecordBatch, column: usize) -> Vec<i64> {
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

fn numbers_batch(value: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![value])) as ArrayRef)]).unwrap()
}

fn encoded(batch: &RecordBatch) -> Vec<FlightData> {
    encoded_with(batch, IpcWriteOptions::default())
}

fn encoded_with(batch: &RecordBatch, options: IpcWriteOptions) -> Vec<FlightData> {
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

/// P13: what a ticket fetches is decided by the token that shows it, and only the token that asked for it may.
#[tokio::test(flavor = "multi_thread")]
async fn p13_a_ticket_is_worth_nothing_to_another_tenant() {
    let node = Node::start().await;
    let (mut acme, mut beta) = (Raw::new(&node, &node.acme).await, Raw::new(&node, &node.beta).await);
    let info = acme.query("SELECT body FROM events").await.unwrap();
    assert!(!acme.fetch(ticket(&info)).await.unwrap().is_empty());
    let refused = beta.fetch(ticket(&info)).await.unwrap_err();
    assert_eq!(code(&refused), (Code::PermissionDenied, "forbidden".into()));
    let cancel = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    assert_eq!(
        beta.act("CancelFlightInfo", cancel).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    // made up, changed, or the query itself
    let sealed: TicketStatementQuery = Any::decode(&*ticket(&info).ticket).unwrap().unpack().unwrap().unwrap();
    let mut bytes = sealed.statement_handle.to_vec();
    bytes[20] ^= 1;
    for handle in [bytes, b"SELECT body FROM events".to_vec(), Vec::new(), vec![0; 50]] {
        let forged = TicketStatementQuery {
            statement_handle: handle.into(),
        };
        let refused = acme
            .fetch(Ticket::new(forged.as_any().encode_to_vec()))
            .await
            .unwrap_err();
        assert_eq!(code(&refused), (Code::PermissionDenied, "forbidden".into()));
    }
    for token in ["", "x", &node.acme[..node.acme.len() - 1]] {
        let mut stranger = Raw::new(&node, token).await;
        let refused = stranger.query("SELECT 1").await.unwrap_err();
        assert_eq!(
            code(&refused),
            (Code::Unauthenticated, "unauthorized".into()),
            "{token}"
        );
        assert_eq!(
            stranger.fetch(ticket(&info)).await.unwrap_err().code(),
            Code::Unauthenticated
        );
    }
    let mut client = FlightSqlServiceClient::new(channel(&node).await);
    assert!(client.handshake("acme", "slq_no").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_written() {
    let node = Node::start().await;
    let mut client = client(&node, &node.operator).await;
    let read_only = (Code::PermissionDenied, "read_only".to_owned());
    for sql in [
        "DELETE FROM events",
        "INSERT INTO events SELECT * FROM events",
        "SELECT 1",
    ] {
        let refused = client.execute_update(sql.into(), None).await.unwrap_err();
        assert_eq!(code(&status(refused)), read_only, "{sql}");
    }
    let refused = client.execute("DROP TABLE events".into(), None).await.unwrap_err();
    assert_eq!(code(&status(refused)), read_only);
    let ingest = CommandStatementIngest {
        table: "events".into(),
        ..CommandStatementIngest::default()
    };
    let refused = client
        .execute_ingest(ingest, futures::stream::iter([Ok(numbers_batch(1))]))
        .await
        .unwrap_err();
    assert_eq!(code(&status(refused)), read_only);
    let refused = client.begin_transaction().await.unwrap_err();
    assert_eq!(code(&status(refused)), read_only);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_when_it_is_cancelled_its_time_is_up_or_its_client_goes() {
    let mut config = QueryConfig::default();
    config.limits.threads = 2;
    let node = Node::with(config, 4).await;
    let running = async || -> u64 {
        let text = node.send(node.get("/metrics"), "").await.text();
        let line = text.lines().find(|l| l.starts_with("sluice_query_running ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let until = async |wanted: bool| {
        let began = Instant::now();
        while (running().await > 0) != wanted {
            assert!(
                began.elapsed().as_secs() < 20,
                "its own time limit would end it after 30 s, which would prove nothing"
            );
            tokio::task::yield_now().await;
        }
    };
    let mut raw = Raw::new(&node, &node.acme).await;
    let info = raw.query(ENDLESS).await.unwrap();
    // by its ticket, over another call
    let fetching = {
        let mut other = Raw::new(&node, &node.acme).await;
        let ticket = ticket(&info);
        tokio::spawn(async move { other.fetch(ticket).await })
    };
    until(true).await;
    let body = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    let done = raw.act("CancelFlightInfo", body.clone()).await.unwrap();
    let done = CancelFlightInfoResult::decode(&*done[0].body).unwrap();
    assert_eq!(done.status, CancelStatus::Cancelled as i32);
    assert_eq!(fetching.await.unwrap().unwrap_err().code(), Code::Cancelled);
    until(false).await;
    assert_eq!(
        code(&raw.act("CancelFlightInfo", body).await.unwrap_err()),
        (Code::NotFound, "not_found".into())
    );
    // by its client's deadline
    let mut request = raw.asked(ticket(&info));
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let late = raw.calls.do_get(request).await.unwrap_err();
    assert_eq!(code(&late), (Code::DeadlineExceeded, "timeout".into()));
    until(false).await;
    // by its client's going
    let gone = {
        let mut other = Raw::new(&node, &node.acme).await;
        let ticket = ticket(&info);
        tokio::spawn(async move { other.fetch(ticket).await })
    };
    until(true).await;
    gone.abort();
    until(false).await;
}

/// P15: whatever comes over the wire is answered with an error, and the next good question with its rows.
#[tokio::test(flavor = "multi_thread")]
async fn p15_hostile_peers_get_errors_and_nobody_else_notices() {
    let node = Node::start().await;
    let mut raw = Raw::new(&node, &node.acme).await;
    let garbage: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0xff; 100],
        Any {
            type_url: "type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery".into(),
            value: vec![0xff; 9].into(),
        }
        .encode_to_vec(),
        Any {
            type_url: "x".repeat(10_000),
            value: Vec::new().into(),
        }
        .encode_to_vec(),
    ];
    for bytes in &garbage {
        let request = raw.asked(FlightDescriptor::new_cmd(bytes.clone()));
        assert_eq!(
            code(&raw.calls.get_flight_info(request).await.unwrap_err()).1,
            "bad_request"
        );
        assert_eq!(
            code(&raw.fetch(Ticket::new(bytes.clone())).await.unwrap_err()).1,
            "bad_request"
        );
        for action in [
            "CreatePreparedStatement",
            "ClosePreparedStatement",
            "CancelQuery",
            "CancelFlightInfo",
        ] {
            assert_eq!(
                code(&raw.act(action, bytes.clone()).await.unwrap_err()).1,
                "bad_request",
                "{action}"
            );
        }
        let put = FlightData::new().with_descriptor(FlightDescriptor::new_cmd(bytes.clone()));
        let request = raw.asked(futures::stream::iter([put]));
        assert!(raw.calls.do_put(request).await.is_err());
    }
    assert_eq!(
        code(&raw.act(&"x".repeat(10_000), Vec::new()).await.unwrap_err()).1,
        "unsupported"
    );
    let long = format!("SELECT '{}'", "x".repeat(2 << 20));
    assert_eq!(
        raw.query(&long).await.unwrap_err().code(),
        Code::OutOfRange,
        "longer than a request may be"
    );

    let handle = raw
        .prepare("SELECT $1::bigint")
        .await
        .unwrap()
        .prepared_statement_handle;
    let good = encoded(&numbers_batch(1));
    let compressed = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD));
    if let Ok(options) = compressed
        && let Ok(messages) = std::panic::catch_unwind(|| encoded_with(&numbers_batch(1), options))
    {
        assert_eq!(code(&raw.put(&handle, messages).await.unwrap_err()).1, "bad_request");
    }
    let two = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
    let text = RecordBatch::try_from_iter([("a", Arc::new(StringArray::from(vec!["no number"])) as ArrayRef)]).unwrap();
    let wide =
        RecordBatch::try_from_iter(["a", "b"].map(|name| (name, Arc::new(Int64Array::from(vec![1])) as ArrayRef)))
            .unwrap();
    for batch in [two, text, wide] {
        assert_eq!(
            code(&raw.put(&handle, encoded(&batch)).await.unwrap_err()).1,
            "bad_request"
        );
    }
    // every byte of what describes the rows, changed
    let mut answered = 0;
    for message in 0..good.len() {
        for at in 0..good[message].data_header.len() {
            let mut changed = good.clone();
            let mut header = changed[message].data_header.to_vec();
            header[at] ^= 0x55;
            changed[message].data_header = header.into();
            if let Err(status) = raw.put(&handle, changed).await {
                assert_eq!(code(&status).1, "bad_request", "message {message}, byte {at}: {status}");
                answered += 1;
            }
        }
    }
    assert!(answered > 50, "only {answered} changes were noticed");
    let endless = futures::stream::iter(std::iter::repeat_n(good[0].clone(), 1_000));
    let command = CommandPreparedStatementQuery {
        prepared_statement_handle: handle.clone(),
    };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let first = good[0].clone().with_descriptor(descriptor);
    let request = raw.asked(futures::stream::iter([first]).chain(endless));
    let refused = match raw.calls.do_put(request).await {
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(code(&refused).1, "bad_request");

    raw.put(&handle, good).await.unwrap();
    let info = raw.info(command).await.unwrap();
    assert_eq!(raw.fetch(ticket(&info)).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_the_door_speaks_tls_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let config = QueryConfig {
        tls: Some(TlsConfig { cert, key }),
        ..QueryConfig::default()
    };
    let node = Node::with(config, 4).await;
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from(made.cert.der().to_vec()))
        .unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let address = node.flight;
    let connect = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = Channel::from_static("http://localhost")
        .connect_with_connector(connect)
        .await
        .unwrap();
    let mut client = FlightSqlServiceClient::new(channel);
    client.set_token(node.acme.clone());
    let info = client.execute("SELECT 40 + 2 AS n".into(), None).await.unwrap();
    assert_eq!(numbers(&rows(&mut client, info).await, 0), [42]);

    let plain = Channel::from_shared(format!("http://{}", node.flight))
        .unwrap()
        .timeout(Duration::from_secs(20));
    if let Ok(plain) = plain.connect().await {
        let mut client = FlightSqlServiceClient::new(plain);
        client.set_token(node.acme.clone());
        assert!(client.execute("SELECT 1".into(), None).await.is_err());
    }
}
