//! `POST /v1/sql`: one query in, one answer out, in the format that `Accept` names.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::{Api, auth, problem};
use crate::encode::json::{self, Stats};
use crate::encode::{Encoder, Format};
use crate::engine::{Answer, Dialect, Question, Rows};
use crate::error::{Kind, QueryError};
use crate::params;

/// Where the formats without room for it say how complete they are.
const COMPLETENESS: HeaderName = HeaderName::from_static("sluice-completeness");
/// Common clients and proxies take 8 KiB of headers in all.
const HEADER_BYTES: usize = 4 << 10;
/// Answers up to about this size are sent as a whole.
const BUFFER: usize = 256 << 10;
/// A request's body comes within this time.
const BODY_WITHIN: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
    #[serde(default)]
    params: Vec<Value>,
    timeout_ms: Option<u64>,
    max_rows: Option<u64>,
}

pub(crate) async fn ask(State(api): State<Arc<Api>>, request: Request) -> Response {
    match answer(&api, request).await {
        Ok(response) => response,
        Err(error) => problem::response(&error),
    }
}

async fn answer(api: &Arc<Api>, request: Request) -> Result<Response, QueryError> {
    let began = Instant::now();
    let who = auth::identify(request.headers(), &api.tokens)?;
    let format = format(request.headers())?;
    let question = read(api, request).await?;
    let answer = api.engine.ask(&who, question).await?;
    match format.encoder() {
        None => whole(api, answer, began).await,
        Some(encoder) => streamed(api, format, encoder, answer).await,
    }
}

fn format(headers: &HeaderMap) -> Result<Format, QueryError> {
    let accept = match headers.get(header::ACCEPT) {
        None => "*/*",
        Some(value) => value.to_str().unwrap_or("?"),
    };
    Format::negotiate(accept).ok_or_else(|| {
        QueryError::new(Kind::NotAcceptable, format!("no answer can be given as `{accept}`"))
            .hint("there are application/json, application/x-ndjson, text/csv and application/vnd.apache.arrow.stream")
    })
}

/// JSON, or the bare text of a query when the request says so.
async fn read(api: &Api, request: Request) -> Result<Question, QueryError> {
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let message = format!("the request is compressed ({encoding:?}), which is not offered here");
        return Err(QueryError::new(Kind::BadRequest, message).hint("a query is short: send it as it is"));
    }
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("application/json")
        .to_ascii_lowercase();
    let most = usize::try_from(api.engine.limits().max_request).unwrap_or(usize::MAX);
    let body = tokio::time::timeout(BODY_WITHIN, to_bytes(request.into_body(), most))
        .await
        .map_err(|_| QueryError::new(Kind::BadRequest, "the request did not come to its end in time"))?
        .map_err(|error| {
            QueryError::new(
                Kind::BadRequest,
                format!("the request was cut off, or is longer than {most} bytes"),
            )
            .because(error)
        })?;
    let asked = if kind.starts_with("text/plain") || kind.starts_with("application/sql") {
        let sql = String::from_utf8(body.into())
            .map_err(|error| QueryError::new(Kind::BadRequest, "the query is not UTF-8").because(error))?;
        Asked {
            sql,
            params: Vec::new(),
            timeout_ms: None,
            max_rows: None,
        }
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            QueryError::new(Kind::BadRequest, format!("the request is not as described: {error}"))
                .hint("{\"sql\": \"SELECT …\", \"params\": [], \"timeout_ms\": 30000, \"max_rows\": 1000}")
                .because(error)
        })?
    };
    Ok(Question {
        sql: asked.sql,
        params: params::scalars(&asked.params)?,
        timeout: asked.timeout_ms.map(Duration::from_millis),
        max_rows: asked.max_rows,
        dialect: Dialect::Ours,
    })
}

/// JSON is built as a whole, so that an error on the last row is still an error and not a broken answer.
async fn whole(api: &Api, mut answer: Answer, began: Instant) -> Result<Response, QueryError> {
    let most = api.engine.limits().max_answer;
    let mut out = String::new();
    json::begin(&answer.schema, &mut out);
    let mut first = true;
    while let Some(batch) = answer.rows.next().await {
        let batch = batch.inspect_err(|_| failed(api))?;
        json::rows(&batch, first, &mut out).map_err(encoding)?;
        first = false;
        if out.len() as u64 > most {
            failed(api);
            return Err(QueryError::new(
                Kind::AnswerTooLarge,
                format!("the answer is longer than `limits.max_answer` allows, which is {most} bytes"),
            )
            .hint("select fewer columns or rows, or ask for application/x-ndjson, which streams"));
        }
    }
    let stats = Stats {
        rows: answer.rows.given(),
        elapsed_ms: began.elapsed().as_millis() as u64,
        truncated: answer.rows.truncated(),
    };
    api.engine.counters.rows.fetch_add(stats.rows, Ordering::Relaxed);
    json::end(&answer.completeness, &stats, &mut out)
        .map_err(|error| QueryError::new(Kind::Internal, "the answer cannot be written").because(error))?;
    Ok(respond(Format::Json, Body::from(out), None))
}

/// What fits into one buffer is sent as a whole, and an error within it can still be told as such. One that comes later breaks the
/// connection off, so that no client takes a part for the whole.
async fn streamed(
    api: &Arc<Api>,
    format: Format,
    mut encoder: Box<dyn Encoder>,
    answer: Answer,
) -> Result<Response, QueryError> {
    let mut head = Vec::new();
    encoder.begin(&answer.schema, &mut head).map_err(encoding)?;
    let completeness = Some(answer.completeness.header(HEADER_BYTES));
    let mut writing = Writing {
        api: Arc::clone(api),
        encoder,
        rows: answer.rows,
    };
    while head.len() < BUFFER {
        let more = writing.step(&mut head).await.inspect_err(|_| failed(api))?;
        if !more {
            return Ok(respond(format, Body::from(head), completeness));
        }
    }
    let pieces = futures::stream::unfold(Some((writing, head)), |state| async move {
        let (mut writing, mut out) = state?;
        if !out.is_empty() {
            return Some((Ok(Bytes::from(out)), Some((writing, Vec::new()))));
        }
        match writing.step(&mut out).await {
            Ok(true) => Some((Ok(Bytes::from(out)), Some((writing, Vec::new())))),
            Ok(false) => Some((Ok(Bytes::from(out)), None)),
            Err(error) => {
                failed(&writing.api);
                tracing::warn!(code = error.kind.code(), %error, "answer broken off");
                Some((Err(error), None))
            }
        }
    });
    Ok(respond(format, Body::from_stream(pieces), completeness))
}

/// An answer on its way.
struct Writing {
    api: Arc<Api>,
    encoder: Box<dyn Encoder>,
    rows: Rows,
}

impl Writing {
    /// Writes the next batch; `false`: there is none, and the end is written too.
    async fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, QueryError> {
        match self.rows.next().await {
            Some(batch) => {
                self.encoder.batch(&batch?, out).map_err(encoding)?;
                Ok(true)
            }
            None => {
                self.encoder.end(out).map_err(encoding)?;
                let rows = &self.api.engine.counters.rows;
                rows.fetch_add(self.rows.given(), Ordering::Relaxed);
                Ok(false)
            }
        }
    }
}

fn respond(format: Format, body: Body, completeness: Option<String>) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let Some(value) = completeness.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(COMPLETENESS, value);
    }
    response
}

fn failed(api: &Api) {
    api.engine.counters.failed.fetch_add(1, Ordering::Relaxed);
}

fn encoding(error: arrow::error::ArrowError) -> QueryError {
    QueryError::new(
        Kind::Unsupported,
        "a column of the answer has a type that this format cannot hold",
    )
    .because(error)
}
