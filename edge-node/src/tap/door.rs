//! `GET /v1/tap?rows=N&signal=log&wait=10s`: an Arrow IPC stream of events before any plugin, for the bearer of the token.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use sluice_settings::units;
use sluice_wire::Signal;
use sluice_wire::layout;
use tokio::time::Instant;

use super::{Tap, TapDoor, joined};
use crate::sealer::blocking;

const DEFAULT_ROWS: usize = 1000;
/// As many as one request may bring.
const MAX_ROWS: usize = 65_536;
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Its type as registered.
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

const CLOSED: &str = "the tap is closed: write `tap = true` under [admin] in the configuration of the edge ([edge.admin] in that of \
    `sluice up`), and send the process SIGHUP or start it anew\n";
const NO_TOKEN: &str = "send `Authorization: Bearer` and the token in `admin-token` of the edge's data folder\n";
const OTHER_TOKEN: &str = "this is not the token of this edge: it lies in `admin-token` of its data folder\n";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Wanted {
    rows: usize,
    signal: Option<Signal>,
    wait: Duration,
}

pub(crate) async fn page(State(door): State<TapDoor>, query: RawQuery, headers: HeaderMap) -> Response<Body> {
    let Some(token) = door.token() else {
        return plain(StatusCode::FORBIDDEN, CLOSED);
    };
    let given = bearer(&headers);
    if !given.is_some_and(|given| token.is(given)) {
        let text = if given.is_some() { OTHER_TOKEN } else { NO_TOKEN };
        let mut response = plain(StatusCode::UNAUTHORIZED, text);
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    match Wanted::parse(query.0.as_deref().unwrap_or_default()) {
        Ok(wanted) => show(&door.tap, wanted).await,
        Err(text) => plain(StatusCode::BAD_REQUEST, format!("{text}\n")),
    }
}

async fn show(tap: &Tap, wanted: Wanted) -> Response<Body> {
    let Ok(mut rows) = tap.listen(wanted.signal, wanted.rows) else {
        return plain(
            StatusCode::TOO_MANY_REQUESTS,
            "others listen already; come again later\n",
        );
    };
    let until = Instant::now() + wanted.wait;
    let mut parts = Vec::new();
    while let Ok(Some(part)) = tokio::time::timeout_at(until, rows.recv()).await {
        parts.push(part);
    }
    drop(rows);
    if parts.is_empty() {
        return plain(StatusCode::NO_CONTENT, "");
    }
    // As many of the first as one batch can hold, whatever they are.
    let written = blocking(move || {
        loop {
            match joined(&parts).and_then(|batch| layout::to_ipc(&batch)) {
                Err(_) if parts.len() > 1 => parts.truncate(parts.len() / 2),
                result => return result,
            }
        }
    })
    .await;
    match written {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            let kind = HeaderValue::from_static(ARROW_STREAM);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

impl Wanted {
    fn parse(query: &str) -> Result<Wanted, String> {
        let mut wanted = Wanted {
            rows: DEFAULT_ROWS,
            signal: None,
            wait: DEFAULT_WAIT,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // The only letters that a value here can have that are written otherwise in an address.
            let value = value.replace("%20", " ").replace('+', " ");
            match name {
                "rows" => match value.parse() {
                    Ok(rows) if (1..=MAX_ROWS).contains(&rows) => wanted.rows = rows,
                    _ => return Err(format!("rows={value}: a number from 1 to {MAX_ROWS}")),
                },
                "signal" => {
                    wanted.signal = Some(match value.as_str() {
                        "log" => Signal::Log,
                        "span" => Signal::Span,
                        "metric" => Signal::Metric,
                        _ => return Err(format!("signal={value}: log, span or metric")),
                    });
                }
                "wait" => match units::parse_duration(&value) {
                    Ok(wait) if wait <= MAX_WAIT => wanted.wait = wait,
                    _ => {
                        return Err(format!(
                            "wait={value}: a duration such as 10s, at most {} s",
                            MAX_WAIT.as_secs()
                        ));
                    }
                },
                _ => return Err(format!("{name} is nothing to ask for: there are rows, signal and wait")),
            }
        }
        Ok(wanted)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn plain(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_and_what_makes_no_sense_is_told() {
        let wanted = Wanted::parse("rows=10&signal=span&wait=500ms").unwrap();
        assert_eq!(
            wanted,
            Wanted {
                rows: 10,
                signal: Some(Signal::Span),
                wait: Duration::from_millis(500)
            }
        );
        assert_eq!(Wanted::parse("").unwrap().rows, DEFAULT_ROWS);
        assert_eq!(Wanted::parse("wait=10%20s").unwrap().wait, Duration::from_secs(10));
        for bad in [
            "rows=0",
            "rows=x",
            "rows=70000",
            "signal=logs",
            "wait=5",
            "wait=2h",
            "colour=red",
        ] {
            assert!(Wanted::parse(bad).is_err(), "{bad}");
        }
    }
}
