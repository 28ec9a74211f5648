//! The door for clients of Flight SQL and those who mean no good: another tenant's tickets, what would write, what never ends, and bytes
//! that are no question at all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    Any, CommandPreparedStatementQuery, CommandStatementIngest, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightDescriptor, Ticket,
};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use sluice_query::QueryConfig;
use tonic::Code;
use tonic::transport::Channel;

use super::flight::{Raw, channel, client, code, encoded, encoded_with, numbers, numbers_batch, rows, status, ticket};
use super::node::Node;

/// Runs until it is stopped.
const ENDLESS: &str = "SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3";

/// Longer than any test.
const AGES: Duration = Duration::from_secs(600);

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
    // its own limits end nothing here, however long a busy machine takes
    (config.limits.timeout, config.limits.max_timeout) = (AGES, AGES);
    let node = Node::with(config, 4).await;
    let running = async || -> u64 {
        let text = node.send(node.get("/metrics"), "").await.text();
        let line = text.lines().find(|l| l.starts_with("sluice_query_running ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let until = async |wanted: bool| {
        let began = Instant::now();
        while (running().await > 0) != wanted {
            assert!(began.elapsed() < AGES / 2, "running: {}", !wanted);
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
    // by its client's deadline. The client counts too, and on a busy machine it is over before the query has begun: with more time,
    // the door is the one that ends it.
    let mut wait_ms = 300;
    let late = loop {
        let mut request = raw.asked(ticket(&info));
        let wait = format!("{wait_ms}m").parse().unwrap();
        request.metadata_mut().insert("grpc-timeout", wait);
        let late = match raw.calls.do_get(request).await {
            Ok(answer) => answer.into_inner().try_collect::<Vec<_>>().await.unwrap_err(),
            Err(status) => status,
        };
        until(false).await;
        if late.metadata().contains_key("sluice-code") {
            break late;
        }
        wait_ms *= 2;
        assert!(wait_ms < 60_000, "the client ended it: {late}");
    };
    assert_eq!(code(&late), (Code::DeadlineExceeded, "timeout".into()));
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
    let (node, mut tls, _folder) = Node::with_certificate().await;
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
