//! The HTTP doors of a running process, asked as any client would.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// A million ids with room to spare.
const MAX_ANSWER_BYTES: usize = 512 << 20;
/// What the shipped configuration allows an answer to have.
const MAX_ROWS: u64 = 1_000_000;
const QUERY_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("the process has no door named `{0}`")]
    NoDoor(String),
    #[error("request cannot be built")]
    Request(#[source] http::Error),
    #[error("no answer")]
    Send(#[source] hyper_util::client::legacy::Error),
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer in time")]
    Late,
    #[error("answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("the answer is not what it should be: {what}")]
    Shape { what: String },
}

/// Status, headers and body of any answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl HttpAnswer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request; every status is an answer.
pub async fn http_send(request: Request<Full<Bytes>>, limit: Duration) -> Result<HttpAnswer, HttpError> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let answer = client.request(request).await.map_err(HttpError::Send)?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(HttpError::Body)?;
        Ok(HttpAnswer {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    };
    tokio::time::timeout(limit, exchange)
        .await
        .unwrap_or(Err(HttpError::Late))
}

/// GET with an optional token.
pub async fn get(url: &str, token: Option<&str>) -> Result<HttpAnswer, HttpError> {
    let mut request = Request::get(url);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::default()).map_err(HttpError::Request)?;
    http_send(request, QUERY_TIMEOUT).await
}

/// The rows of a query and how complete they are.
#[derive(Clone, Debug)]
pub struct Answer {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
    pub completeness: Value,
}

impl Answer {
    /// Says of itself that it holds all that the log held when the query began.
    pub fn is_complete(&self) -> bool {
        self.completeness.get("complete").and_then(Value::as_bool) == Some(true)
    }

    /// Whoever answered knows where the log ends.
    pub fn knows_the_end(&self) -> bool {
        self.completeness
            .get("missing_records")
            .is_some_and(|records| !records.is_null())
    }

    /// The only value of the only row, as a count.
    pub fn count(&self) -> Result<u64, HttpError> {
        let value = self.rows.first().and_then(|row| row.first());
        let count = match value {
            Some(Value::Null) => Some(0),
            Some(Value::Number(n)) => n.as_u64().or_else(|| n.as_f64().map(|f| f as u64)),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        count.ok_or_else(|| shape(format!("{value:?} is no count")))
    }
}

/// Asks `POST /v1/sql`.
#[derive(Clone, Debug)]
pub struct Sql {
    url: String,
    token: String,
}

impl Sql {
    pub fn new(url: String, token: String) -> Sql {
        Sql { url, token }
    }

    pub async fn ask(&self, sql: &str) -> Result<Answer, HttpError> {
        let answer = self.send(sql, "application/json").await?;
        let value: Value = serde_json::from_slice(&answer.body).map_err(|e| shape(e.to_string()))?;
        let list = |name: &str| {
            let list = value.get(name).and_then(Value::as_array);
            list.cloned().ok_or_else(|| shape(format!("no `{name}` in the answer")))
        };
        let name = |column: Value| match column.get("name").and_then(Value::as_str) {
            Some(name) => name.to_owned(),
            None => column.to_string(),
        };
        Ok(Answer {
            columns: list("columns")?.into_iter().map(name).collect(),
            rows: list("rows")?
                .into_iter()
                .map(|row| row.as_array().cloned().unwrap_or_default())
                .collect(),
            completeness: value.get("completeness").cloned().unwrap_or(Value::Null),
        })
    }

    /// The answer in another format; fails unless the status is a success.
    pub async fn send(&self, sql: &str, accept: &str) -> Result<HttpAnswer, HttpError> {
        let body = json!({
            "sql": sql,
            "max_rows": MAX_ROWS,
            "timeout_ms": QUERY_TIMEOUT.as_millis() as u64,
        });
        let request = Request::post(format!("{}/v1/sql", self.url))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept)
            .body(Full::from(body.to_string()))
            .map_err(HttpError::Request)?;
        let answer = http_send(request, QUERY_TIMEOUT + Duration::from_secs(10)).await?;
        if !answer.status.is_success() {
            return Err(HttpError::Refused {
                status: answer.status,
                body: answer.text(),
            });
        }
        Ok(answer)
    }
}

fn shape(what: String) -> HttpError {
    HttpError::Shape { what }
}
