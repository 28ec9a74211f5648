//! ClickHouse's HTTP interface, as little of it as hot needs: statements, inserts in Arrow, answers in Arrow.
//!
//! Nothing is ever sent twice by itself. Texts travel as parameters in hexadecimal, because each way into a server unescapes
//! parameters in its own way. Not by the crate `clickhouse`, which tells the server's error code as text alone and takes the body of an error
//! whole, however long a peer makes it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

use super::config::{ClickHouseConfig, ConfigError};

/// QUERY_WAS_CANCELLED.
const CANCELLED: u32 = 394;
/// Of a query that somebody cancelled before it gave a row.
const MAX_ATTEMPTS: u32 = 3;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Below the 3 s after which older servers close an idle connection.
const POOL_IDLE: Duration = Duration::from_secs(2);
/// Before and between pieces of an answer: longer than a query may take, which has a limit of its own.
const SILENCE: Duration = Duration::from_secs(360);
/// Of an answer that is taken whole, and of an error's text.
const MAX_SMALL_ANSWER: usize = 16 << 20;
const MAX_ERROR: usize = 600;
/// More than any chain is long.
const NEVER: u64 = 1 << 32;
/// What a profile of somebody's may have set, so that an answer or an insert is cut short in silence.
const CUTS: [&str; 8] = [
    "result_overflow_mode",
    "read_overflow_mode",
    "read_overflow_mode_leaf",
    "timeout_overflow_mode",
    "group_by_overflow_mode",
    "sort_overflow_mode",
    "distinct_overflow_mode",
    "set_overflow_mode",
];
/// How an Arrow stream that is whole ends.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Why the server did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ClickHouseError {
    /// Nothing was sent.
    #[error("ClickHouse cannot be reached: {0}")]
    Unreachable(String),
    /// The server's own error, before any answer.
    #[error("ClickHouse refused: {message}")]
    Refused { code: Option<u32>, message: String },
    /// It may or may not have been done.
    #[error("the connection to ClickHouse ended without an answer: {0}")]
    Broken(String),
    #[error("ClickHouse gave another answer than it was asked for: {0}")]
    Answer(String),
}

/// A statement and what belongs to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statement {
    pub(crate) text: String,
    /// Numbers and hexadecimal texts by name.
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// One server. Clones share connections.
#[derive(Clone)]
pub(crate) struct Client {
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    address: Url,
    database: String,
    user: Option<HeaderValue>,
    password: Option<HeaderValue>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address.as_str())
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl Statement {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, setting: &'static str, value: impl ToString) -> Self {
        self.settings.push((setting, value.to_string()));
        self
    }
}

/// It is done whole or not at all, and nothing is added to its answer.
fn whole(statement: Statement) -> Statement {
    let settings = CUTS.iter();
    let statement = settings.fold(statement, |statement, cut| statement.with(cut, "throw"));
    statement.with("limit", 0).with("offset", 0).with("extremes", 0)
}

impl Client {
    pub(super) fn new(config: &ClickHouseConfig) -> Result<Self, ConfigError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_WITHIN));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_timer(TokioTimer::new())
            .retry_canceled_requests(false)
            .build(connector);
        let header = |text: String| {
            let mut value = HeaderValue::try_from(text).map_err(|_| ConfigError::Password)?;
            value.set_sensitive(true);
            Ok(value)
        };
        let password = config.password()?.map(header).transpose()?;
        let user = match (config.user.as_str(), &password) {
            ("", None) => None,
            ("", Some(_)) => Some(header("default".to_owned())?),
            (user, _) => Some(header(user.to_owned())?),
        };
        Ok(Self {
            http,
            address: config.address()?,
            database: config.database.clone(),
            user,
            password,
        })
    }

    /// The same server, without a database that may not exist yet.
    pub(super) fn without_database(&self) -> Self {
        Self {
            database: String::new(),
            ..self.clone()
        }
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    pub(super) fn address(&self) -> &Url {
        &self.address
    }

    /// Runs a statement to its end and returns its answer as lines of columns.
    pub(crate) async fn run(
        &self,
        statement: Statement,
        within: Duration,
    ) -> Result<Vec<Vec<String>>, ClickHouseError> {
        let whole = async {
            let statement = whole(statement)
                .with("wait_end_of_query", 1)
                .with("default_format", "TabSeparatedRaw");
            let body = Bytes::from(statement.text.clone());
            let answer = self.send(&statement, None, body).await?;
            collect(answer.into_body(), MAX_SMALL_ANSWER).await
        };
        let bytes = limited(within, whole).await?;
        let text = String::from_utf8(bytes).map_err(|_| ClickHouseError::Answer("it is no text".to_owned()))?;
        Ok(text
            .lines()
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect())
    }

    /// Sends the data of an INSERT and waits until the server has them.
    pub(crate) async fn insert(
        &self,
        statement: Statement,
        data: Bytes,
        within: Duration,
    ) -> Result<(), ClickHouseError> {
        let whole = async {
            let statement = whole(statement).with("wait_end_of_query", 1);
            let answer = self.send(&statement, Some(&statement.text), data).await?;
            collect(answer.into_body(), MAX_SMALL_ANSWER).await
        };
        limited(within, whole).await.map(drop)
    }

    /// Begins a query whose rows come in Arrow.
    pub(crate) async fn query(&self, statement: Statement) -> Result<ArrowAnswer, ClickHouseError> {
        let statement = whole(statement)
            .with("default_format", "ArrowStream")
            .with("output_format_arrow_compression_method", "none")
            .with("output_format_arrow_low_cardinality_as_dictionary", 0)
            .with("output_format_arrow_string_as_string", 1)
            // Chains of comparisons stay chains: what a list makes of a null is not for each release of a server to decide.
            .with("optimize_min_equality_disjunction_chain_length", NEVER)
            .with("optimize_min_inequality_conjunction_chain_length", NEVER)
            // Reads only, whatever it says; and only such a query ends with its client.
            .with("readonly", 2)
            .with("cancel_http_readonly_queries_on_client_close", 1);
        let body = Bytes::from(statement.text.clone());
        let mut attempts = 1;
        let answer = loop {
            match limited(SILENCE, self.send(&statement, None, body.clone())).await {
                // Not by us, and before its first row: some servers take one connection that closes for another.
                Err(ClickHouseError::Refused {
                    code: Some(CANCELLED), ..
                }) if attempts < MAX_ATTEMPTS => attempts += 1,
                other => break other?,
            }
        };
        Ok(ArrowAnswer {
            body: answer.into_body(),
            decoder: StreamDecoder::new(),
            piece: Buffer::default(),
            tail: Vec::new(),
        })
    }

    async fn send(
        &self,
        statement: &Statement,
        in_address: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClickHouseError> {
        let mut address = self.address.clone();
        {
            let mut pairs = address.query_pairs_mut();
            if !self.database.is_empty() {
                pairs.append_pair("database", &self.database);
            }
            if let Some(text) = in_address {
                pairs.append_pair("query", text);
            }
            for (name, value) in &statement.settings {
                pairs.append_pair(name, value);
            }
            for (name, value) in &statement.parameters {
                pairs.append_pair(&format!("param_{name}"), value);
            }
        }
        let mut request = Request::post(address.as_str());
        if let Some(user) = &self.user {
            request = request.header("X-ClickHouse-User", user);
        }
        if let Some(password) = &self.password {
            request = request.header("X-ClickHouse-Key", password);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| ClickHouseError::Unreachable(error.to_string()))?;
        let answer = self
            .http
            .request(request)
            .await
            .map_err(|error| match error.is_connect() {
                true => ClickHouseError::Unreachable(with_causes(&error)),
                false => ClickHouseError::Broken(with_causes(&error)),
            })?;
        let code = answer.headers().get("X-ClickHouse-Exception-Code");
        let code = code.and_then(|value| value.to_str().ok()?.parse().ok());
        if answer.status().is_success() && code.is_none() {
            return Ok(answer);
        }
        let status = answer.status();
        let mut message = format!("status {status}");
        if let Ok(bytes) = collect_some(answer.into_body(), MAX_ERROR).await {
            let text = String::from_utf8_lossy(&bytes);
            let _ = write!(message, ": {}", text.trim());
        }
        Err(ClickHouseError::Refused { code, message })
    }
}

/// The rows of a query, as they come.
pub(crate) struct ArrowAnswer {
    body: Incoming,
    decoder: StreamDecoder,
    piece: Buffer,
    /// The last bytes, which tell whether the answer is whole.
    tail: Vec<u8>,
}

impl ArrowAnswer {
    /// The next rows; `None` when all have come.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, ClickHouseError> {
        loop {
            while !self.piece.is_empty() {
                let decoded = self.decoder.decode(&mut self.piece);
                match decoded.map_err(|error| self.cut_short(&error.to_string()))? {
                    Some(batch) if batch.num_rows() > 0 => return Ok(Some(batch)),
                    _ => {}
                }
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let Ok(frame) = frame else {
                return Err(ClickHouseError::Broken(format!("nothing came for {SILENCE:?}")));
            };
            match frame {
                None if self.tail.ends_with(&END_OF_STREAM) || self.tail.is_empty() => return Ok(None),
                None => return Err(self.cut_short("the rows have no end")),
                Some(Err(error)) => return Err(self.cut_short(&with_causes(&error))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.keep_tail(&data);
                    self.piece = Buffer::from(data);
                }
            }
        }
    }

    fn keep_tail(&mut self, data: &[u8]) {
        self.tail
            .extend_from_slice(&data[data.len().saturating_sub(MAX_ERROR)..]);
        let surplus = self.tail.len().saturating_sub(MAX_ERROR);
        self.tail.drain(..surplus);
    }

    /// A server whose query fails midway writes the error behind the rows.
    fn cut_short(&self, what: &str) -> ClickHouseError {
        let text = String::from_utf8_lossy(&self.tail);
        match text.find("Code: ") {
            Some(at) => ClickHouseError::Answer(text[at..].trim().to_owned()),
            None => ClickHouseError::Broken(what.to_owned()),
        }
    }
}

async fn limited<T>(
    within: Duration,
    what: impl Future<Output = Result<T, ClickHouseError>>,
) -> Result<T, ClickHouseError> {
    let ended = tokio::time::timeout(within, what).await;
    ended.unwrap_or_else(|_| Err(ClickHouseError::Broken(format!("no answer within {within:?}"))))
}

async fn collect(body: Incoming, limit: usize) -> Result<Vec<u8>, ClickHouseError> {
    let bytes = collect_some(body, limit + 1).await?;
    if bytes.len() > limit {
        return Err(ClickHouseError::Answer(format!("more than {limit} bytes")));
    }
    Ok(bytes)
}

/// The first bytes of a body.
async fn collect_some(mut body: Incoming, limit: usize) -> Result<Vec<u8>, ClickHouseError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ClickHouseError::Broken(with_causes(&error)))?;
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(&data[..data.len().min(limit - bytes.len())]);
        }
        if bytes.len() >= limit {
            break;
        }
    }
    Ok(bytes)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

fn tls(config: &ClickHouseConfig) -> Result<rustls::ClientConfig, ConfigError> {
    let unusable = |what: String| ConfigError::Ca {
        path: config.ca.clone(),
        what,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    let plain = config.address()?.scheme() == "http";
    if config.ca.as_os_str().is_empty() && !plain {
        let builder = builder
            .with_native_roots()
            .map_err(|error| unusable(error.to_string()))?;
        return Ok(builder.with_no_client_auth());
    }
    let mut roots = rustls::RootCertStore::empty();
    if !config.ca.as_os_str().is_empty() {
        let certificates = CertificateDer::pem_file_iter(&config.ca).map_err(|error| unusable(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
