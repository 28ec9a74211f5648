//! A query role on a port of its own over stores that were filled by hand: two tenants, rows of both in the same partition, half of
//! them cold and half of them hot.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use sluice_query::config::TlsConfig;
use sluice_query::tokens::{Entry, Reach, mint};
use sluice_query::{QueryConfig, QueryService, Tokens};
use sluice_store::{LogEnds, OffsetRange, Stores, Tables, TablesOptions};
use sluice_wire::Signal;
use sluice_wire::counts::Counts;
use sluice_wire::events::{self, Origin, Outcome};
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};
use sluice_wire::otlp::{DecodeLimits, Decoder, json_to_protobuf};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const PARTITION: Partition = Partition {
    generation: 1,
    index: 0,
};
/// 2026-11-21T00:00:00Z
pub(crate) const BASE_NS: u64 = 1_795_219_200_000_000_000;
pub(crate) const ROWS_PER_BATCH: usize = 4;

pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) pg: SocketAddr,
    pub(crate) flight: SocketAddr,
    pub(crate) acme: String,
    pub(crate) beta: String,
    pub(crate) operator: String,
    client: Client<HttpConnector, Full<Bytes>>,
    shutdown: CancellationToken,
    _folder: TempDir,
}

/// A log whose end is said to be here.
pub(crate) struct End(pub(crate) u64);

impl LogEnds for End {
    fn end(&self, partition: Partition) -> Option<u64> {
        (partition == PARTITION).then_some(self.0)
    }

    fn oldest_unread_us(&self, _: Partition, _: u64) -> Option<i64> {
        Some(BASE_NS as i64 / 1_000)
    }
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The rows of a good answer.
    pub(crate) fn rows(&self) -> Vec<Vec<Value>> {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_value(self.json()["rows"].clone()).unwrap()
    }

    /// Status and code of a refusal.
    pub(crate) fn refused(&self) -> (u16, String) {
        assert!(!self.status.is_success(), "{}", self.text());
        assert_eq!(self.headers["content-type"], "application/problem+json");
        (self.status.as_u16(), self.json()["code"].as_str().unwrap().to_owned())
    }
}

impl Node {
    /// Stores with four batches in the log: acme and beta cold, acme and beta hot.
    pub(crate) async fn start() -> Node {
        Node::with(QueryConfig::default(), 4).await
    }

    pub(crate) async fn with(config: QueryConfig, log_end: u64) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let tables = fill(folder.path(), log_end).await;
        Node::over(config, tables, folder).await
    }

    /// Each tenant has cold files of its own.
    pub(crate) async fn apart() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let tables = fill_apart(folder.path()).await;
        Node::over(QueryConfig::default(), tables, folder).await
    }

    pub(crate) async fn over(config: QueryConfig, tables: Tables, folder: TempDir) -> Node {
        let (acme, a) = mint([1; 32], "acme", &tenant("acme"), Reach::Tenant);
        let (beta, b) = mint([2; 32], "beta", &tenant("beta"), Reach::Tenant);
        let (operator, o) = mint([3; 32], "ops", &tenant("ops"), Reach::Operator);
        let (doors, shutdown) = serve(config, tables, &[a, b, o]).await;
        Node {
            address: doors["http"],
            pg: doors["pg"],
            flight: doors["flight"],
            acme,
            beta,
            operator,
            client: Client::builder(TokioExecutor::new()).build_http(),
            shutdown,
            _folder: folder,
        }
    }

    /// One with a certificate of its own, whoever believes that, and the folder that it lies in.
    pub(crate) async fn with_certificate() -> (Node, rustls::ClientConfig, tempfile::TempDir) {
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
        roots.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (node, client, folder)
    }

    pub(crate) async fn send(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Reply {
        let request: Request<Full<Bytes>> = request.body(Full::new(body.into())).unwrap();
        let response = self.client.request(request).await.unwrap();
        let (head, body) = response.into_parts();
        Reply {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(crate) fn post(&self, path: &str, token: &str) -> http::request::Builder {
        Request::post(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
    }

    pub(crate) fn get(&self, path: &str) -> http::request::Builder {
        Request::get(format!("http://{}{path}", self.address))
    }

    /// One query, answered as JSON.
    pub(crate) async fn ask(&self, token: &str, sql: &str) -> Reply {
        self.ask_with(token, json!({ "sql": sql })).await
    }

    pub(crate) async fn ask_with(&self, token: &str, question: Value) -> Reply {
        self.send(self.post("/v1/sql", token), question.to_string()).await
    }

    pub(crate) async fn ask_as(&self, token: &str, accept: &str, sql: &str) -> Reply {
        let request = self.post("/v1/sql", token).header("accept", accept);
        self.send(request, json!({ "sql": sql }).to_string()).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) async fn serve(
    mut config: QueryConfig,
    tables: Tables,
    entries: &[Entry],
) -> (HashMap<&'static str, SocketAddr>, CancellationToken) {
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.pg = "127.0.0.1:0".parse().unwrap();
    config.flight = "127.0.0.1:0".parse().unwrap();
    let tokens = Tokens::from_entries(entries).unwrap();
    let service = QueryService::build(config, tables, tokens).await.unwrap();
    let bound = service.listen().into_iter().collect();
    let shutdown = CancellationToken::new();
    tokio::spawn(service.run(shutdown.clone()));
    (bound, shutdown)
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// Offsets 0 (acme) and 1 (beta) are cold, 2 (acme) and 3 (beta) are hot; the log is said to end at `log_end`.
pub(crate) async fn fill(folder: &Path, log_end: u64) -> Tables {
    let lake = folder.join("lake");
    let stores = Stores::open(lake.to_str().unwrap(), 64 << 20).await.unwrap();
    let mut cold = record("acme", 0);
    cold.extend(record("beta", 1));
    let range = OffsetRange {
        partition: PARTITION,
        first: 0,
        last: 1,
    };
    stores.cold.commit(&[range], cold).await.unwrap();
    stores.seam.claim(PARTITION, 2, "embedded").await.unwrap();
    let hot = stores.hot.embedded().unwrap();
    hot.claim(PARTITION, 2);
    hot.insert(PARTITION, 2, 2, record("acme", 2)).unwrap();
    hot.insert(PARTITION, 3, 3, record("beta", 3)).unwrap();
    Tables::new(stores, Arc::new(End(log_end)), TablesOptions::default())
}

/// The same rows, all of them cold, in files that hold those of one tenant each.
pub(crate) async fn fill_apart(folder: &Path) -> Tables {
    let lake = folder.join("lake");
    let stores = Stores::open(lake.to_str().unwrap(), 64 << 20).await.unwrap();
    for (offset, tenant) in ["acme", "beta", "acme", "beta"].into_iter().enumerate() {
        let offset = offset as u64;
        let range = OffsetRange {
            partition: PARTITION,
            first: offset,
            last: offset,
        };
        stores.cold.commit(&[range], record(tenant, offset)).await.unwrap();
    }
    Tables::new(stores, Arc::new(End(4)), TablesOptions::default())
}

/// One log record as the writers store it: its rows and its ledger row.
fn record(tenant_name: &str, offset: u64) -> Vec<arrow::array::RecordBatch> {
    record_of(tenant_name, offset, &logs(tenant_name, offset))
}

/// The same of any logs, `ROWS_PER_BATCH` of them.
pub(crate) fn record_of(tenant_name: &str, offset: u64, logs: &Value) -> Vec<arrow::array::RecordBatch> {
    let mut decoder = Decoder::new(DecodeLimits::default());
    let limits = DecodeLimits::default();
    let body = json_to_protobuf(Signal::Log, logs.to_string().as_bytes(), &limits).unwrap();
    let batch = decoder.decode(Signal::Log, &body, BASE_NS).unwrap().batch;
    let id = BatchId {
        stream: StreamId {
            tenant: tenant(tenant_name),
            node: NodeId::new("site-1").unwrap(),
            spool: [7; 16],
        },
        epoch: Epoch { number: 1, random: 42 },
        seq: offset / 2,
    };
    let origin = Origin {
        id: &id,
        partition: PARTITION,
        offset,
        ingested_at_us: BASE_NS as i64 / 1_000 + offset as i64,
    };
    let counts = Counts {
        accepted: ROWS_PER_BATCH as u64,
        stored: ROWS_PER_BATCH as u64,
        ..Counts::default()
    };
    vec![
        events::fold(&batch, &origin).unwrap(),
        events::ledger_row(&origin, Outcome::Accepted, &counts, ""),
    ]
}

/// Records that say whose they are in every part that a query can reach.
fn logs(tenant: &str, offset: u64) -> Value {
    logs_at(tenant, BASE_NS + offset * 1_000_000_000)
}

/// The same at a time.
pub(crate) fn logs_at(tenant: &str, at_ns: u64) -> Value {
    let records: Vec<Value> = (0..ROWS_PER_BATCH as u64)
        .map(|row| {
            json!({
                "timeUnixNano": (at_ns + row).to_string(),
                "severityNumber": 9 + row,
                "severityText": "INFO",
                "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                "spanId": "00f067aa0ba902b7",
                "body": {"stringValue": format!("canary-{tenant} said \"hi\", {row}")},
                "attributes": [
                    {"key": "who", "value": {"stringValue": format!("canary-{tenant}")}},
                    {"key": "big", "value": {"intValue": "9007199254740993"}},
                    {"key": "http.route", "value": {"stringValue": "/cart"}},
                ],
            })
        })
        .collect();
    json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": format!("canary-{tenant}-svc")}}]},
        "scopeLogs": [{"logRecords": records}],
    }]})
}
