//! Query nodes over one lake, in this process, and workers in processes of their own, which can be killed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sluice_query::tokens::{Reach, mint};
use sluice_query::{QueryConfig, QueryService, Tokens, WorkerService};
use sluice_store::{LogEnds, Stores, Tables, TablesOptions};
use sluice_wire::ids::Partition;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::rows;

/// How a process is told to be a worker, and of what.
const LAKE: &str = "SLUICE_TEST_WORKER_LAKE";
const SETTINGS: &str = "SLUICE_TEST_WORKER_SETTINGS";
/// What it says before its address.
const AT: &str = "worker at ";

/// A lake with rows in it, and the secret of those who share it.
pub(crate) struct Fleet {
    pub(crate) stores: Stores,
    pub(crate) folder: TempDir,
}

/// A worker in a process of its own. It dies with this.
pub(crate) struct Worker {
    pub(crate) address: SocketAddr,
    child: Child,
}

/// A query node in this process.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) acme: String,
    pub(crate) beta: String,
    pub(crate) operator: String,
    client: Client<HttpConnector, Full<Bytes>>,
    shutdown: CancellationToken,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

struct NoEnds;

impl LogEnds for NoEnds {
    fn end(&self, _: Partition) -> Option<u64> {
        None
    }

    fn oldest_unread_us(&self, _: Partition, _: u64) -> Option<i64> {
        None
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn rows(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_value(self.json()["rows"].clone()).unwrap()
    }
}

impl Fleet {
    pub(crate) async fn new() -> Fleet {
        Self::of(rows::COLD).await
    }

    /// With so many records of the log in cold.
    pub(crate) async fn of(cold: u64) -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        let stores = rows::fill(folder.path(), cold).await;
        std::fs::write(folder.path().join("secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
        Fleet { stores, folder }
    }

    pub(crate) fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    pub(crate) fn tables(&self) -> Tables {
        Tables::new(self.stores.clone(), Arc::new(NoEnds), TablesOptions::default())
    }

    /// What a worker and a node have in common.
    pub(crate) fn settings(&self) -> QueryConfig {
        let mut config = QueryConfig::default();
        config.scale.secret_file = self.secret();
        config.scale.min_bytes = 0;
        config.cache.answers = 0;
        config
    }

    pub(crate) fn worker(&self) -> Worker {
        self.worker_with("")
    }

    /// `settings`: more of its configuration.
    pub(crate) fn worker_with(&self, settings: &str) -> Worker {
        let lake = self.folder.path().join("lake");
        Worker::start(
            &lake,
            &format!("{settings}\n[scale]\nsecret_file = {:?}\n", self.secret()),
        )
    }

    pub(crate) async fn node(&self, workers: &[&Worker]) -> Node {
        let mut config = self.settings();
        config.scale.workers = workers.iter().map(|worker| worker.url()).collect();
        Node::start(config, self.tables()).await
    }
}

impl Worker {
    pub(crate) fn start(lake: &Path, settings: &str) -> Worker {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "fleet::worker_process"])
            .env(LAKE, lake)
            .env(SETTINGS, settings)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| Some(line.unwrap().split_once(AT)?.1.parse().unwrap()))
            .expect("a worker that serves");
        // What it says later must find a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Worker { address, child }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `STOP`: alive and silent, until `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// One of its counters.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = get(self.address, "/metrics", None).await.text();
        counter(&text, name)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    pub(crate) async fn start(mut config: QueryConfig, tables: Tables) -> Node {
        for address in [&mut config.listen, &mut config.pg, &mut config.flight] {
            *address = "127.0.0.1:0".parse().unwrap();
        }
        let (acme, a) = mint([1; 32], "acme", &rows::tenant("acme"), Reach::Tenant);
        let (beta, b) = mint([2; 32], "beta", &rows::tenant("beta"), Reach::Tenant);
        let (operator, o) = mint([3; 32], "ops", &rows::tenant("ops"), Reach::Operator);
        let tokens = Tokens::from_entries(&[a, b, o]).unwrap();
        let service = QueryService::build(config, tables, tokens).await.unwrap();
        let address = service
            .listen()
            .into_iter()
            .find(|(name, _)| *name == "http")
            .unwrap()
            .1;
        let shutdown = CancellationToken::new();
        tokio::spawn(service.run(shutdown.clone()));
        Node {
            address,
            acme,
            beta,
            operator,
            client: Client::builder(TokioExecutor::new()).build_http(),
            shutdown,
        }
    }

    pub(crate) async fn ask(&self, token: &str, sql: &str) -> Reply {
        self.ask_with(token, json!({ "sql": sql })).await
    }

    pub(crate) async fn ask_with(&self, token: &str, question: Value) -> Reply {
        reply(self.response(token, "application/json", question).await).await
    }

    /// The answer as it comes: who does not read it holds up those who make it.
    pub(crate) async fn stream(&self, token: &str, sql: &str) -> Incoming {
        let response = self.response(token, "text/csv", json!({ "sql": sql })).await;
        match response.status() {
            StatusCode::OK => response.into_body(),
            _ => panic!("{}", reply(response).await.text()),
        }
    }

    async fn response(&self, token: &str, accept: &str, question: Value) -> http::Response<Incoming> {
        let request = Request::post(format!("http://{}/v1/sql", self.address))
            .header("authorization", format!("Bearer {token}"))
            .header("accept", accept)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(question.to_string())))
            .unwrap();
        self.client.request(request).await.unwrap()
    }

    /// The plan of a query, with what ran where.
    pub(crate) async fn explained(&self, token: &str, sql: &str) -> String {
        let reply = self.ask(token, &format!("EXPLAIN {sql}")).await;
        reply.rows().iter().map(ToString::to_string).collect()
    }

    /// Parts of queries by what became of them, over all workers.
    pub(crate) async fn parts(&self, outcome: &str) -> u64 {
        let text = get(self.address, "/metrics", Some(&self.operator)).await.text();
        let of = format!("outcome=\"{outcome}\"");
        let counts = text
            .lines()
            .filter(|line| line.starts_with("sluice_query_worker_parts_total{") && line.contains(&of));
        counts
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> Reply {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::get(format!("http://{address}{path}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    reply(client.request(request.body(Full::default()).unwrap()).await.unwrap()).await
}

async fn reply(response: http::Response<Incoming>) -> Reply {
    let (head, body) = response.into_parts();
    Reply {
        status: head.status,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

fn counter(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .rsplit_once(' ')
        .unwrap()
        .1
        .parse()
        .unwrap()
}

/// Not a test: the process of a worker.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process of a worker, which the tests start"]
async fn worker_process() {
    let lake = std::env::var(LAKE).expect("the lake of the worker");
    let mut config = QueryConfig::from_toml(&std::env::var(SETTINGS).unwrap()).unwrap();
    config.worker.listen = "127.0.0.1:0".parse().unwrap();
    let stores = Stores::open(&lake, 0).await.unwrap();
    let tables = Tables::new(stores, Arc::new(NoEnds), TablesOptions::default());
    let service = WorkerService::build(config, tables).await.unwrap();
    println!("\n{AT}{}", service.listen()[0].1);
    service.run(CancellationToken::new()).await.unwrap();
}
