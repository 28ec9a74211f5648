//! An OTLP/HTTP door that rows are sent to.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Result, bail};
use arrow::array::RecordBatch;
use indicatif::{ProgressBar, ProgressStyle};
use sluice_wire::Signal;
use sluice_wire::otlp::encode_rows;

use crate::http_client::{HttpClient, read_all};

/// Events of one request.
const REQUEST_ROWS: usize = 500;
const MOST_REPLY: usize = 1 << 20;
/// Attempts at a request that a busy door turns away, and the longest pause between two.
const ATTEMPTS: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(super) struct Door {
    client: HttpClient,
    sent: u64,
    progress: ProgressBar,
}

impl Door {
    pub(super) fn new(url: String, events: usize) -> Result<Self> {
        let progress = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(events as u64),
            false => ProgressBar::hidden(),
        };
        if let Ok(style) = ProgressStyle::with_template("sending {bar:30} {pos} of {len} events") {
            progress.set_style(style);
        }
        Ok(Self {
            client: HttpClient::new(url.trim_end_matches('/').to_owned(), None, None)?,
            sent: 0,
            progress,
        })
    }

    /// Sends the rows of one signal.
    pub(super) async fn send(&mut self, signal: Signal, rows: &RecordBatch) -> Result<()> {
        let path = match signal {
            Signal::Log => "/v1/logs",
            Signal::Span => "/v1/traces",
            Signal::Metric => "/v1/metrics",
        };
        for from in (0..rows.num_rows()).step_by(REQUEST_ROWS) {
            let part = rows.slice(from, REQUEST_ROWS.min(rows.num_rows() - from));
            let request = encode_rows(signal, &part)?;
            if request.is_empty() {
                continue;
            }
            let events = count(signal, &part);
            if self.post(path, request.into()).await? {
                self.sent += events;
            }
            self.progress.inc(events);
        }
        Ok(())
    }

    /// False if the door left some of it out.
    async fn post(&self, path: &str, body: bytes::Bytes) -> Result<bool> {
        for attempt in 1.. {
            let kind = "application/x-protobuf";
            let response = self.client.post_as(path, kind, kind, body.clone()).await?;
            let (status, again) = (response.status(), retry_after(&response));
            let reply = read_all(response, MOST_REPLY).await?;
            if status.is_success() {
                // The answer to a request that was taken whole is empty.
                if !reply.is_empty() {
                    eprintln!("a part of a request was refused: {}", printable(&reply));
                }
                return Ok(reply.is_empty());
            }
            if !matches!(status.as_u16(), 429 | 502..=504) || attempt == ATTEMPTS {
                bail!("{}{path} answers {status}: {}", self.client.base(), printable(&reply));
            }
            tokio::time::sleep(again).await;
        }
        Ok(false)
    }

    /// How many events were taken.
    pub(super) fn finish(self) -> u64 {
        self.progress.finish_and_clear();
        self.sent
    }
}

fn retry_after(response: &http::Response<hyper::body::Incoming>) -> Duration {
    let header = response.headers().get(http::header::RETRY_AFTER);
    let seconds = header.and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).min(LONGEST_PAUSE)
}

fn count(signal: Signal, rows: &RecordBatch) -> u64 {
    use arrow::array::cast::AsArray;
    let signals = rows.column_by_name("signal");
    let signals = signals.and_then(|column| arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).ok());
    let is_one = |text: Option<&str>| text == Some(signal.as_str());
    signals.map_or(0, |column| {
        column.as_string::<i32>().iter().filter(|text| is_one(*text)).count() as u64
    })
}

/// What a door says inside protobuf, without what is not text.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control() && *c != '\u{fffd}').collect()
}
