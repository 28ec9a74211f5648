//! `sluice sql`: ask a running node, once or at a prompt.

mod answer;
mod command;
mod complete;
mod pager;
mod prompt;
mod table;

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::http_client::{Connect, HttpClient, read_all};
pub(crate) use answer::{plain, refusal};

/// A JSON answer is held in memory; the server stops before this.
const MOST_JSON: usize = 1 << 30;
const MOST_ERROR: usize = 1 << 20;

/// Ask the tables: events, logs, spans, metrics, ledger, quarantined, streams, plugins.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  sluice sql \"SELECT time, service, body FROM logs ORDER BY time DESC LIMIT 10\"
  sluice sql --format csv \"SELECT service, count(*) FROM events GROUP BY 1\" > by_service.csv
  sluice sql -p 4bf92f3577b34da6a3ce929d0e0e4736 'SELECT * FROM events WHERE trace_id = $1 ORDER BY time'
  sluice sql < query.sql
Without a query, and with a terminal, this is a prompt with history,
completion (Tab) and commands (\\?); what is longer than the terminal is shown with $PAGER. Exit codes: 0 answered, 1 not.")]
pub(crate) struct Args {
    /// The query; without it standard input is read, or a prompt shown
    query: Option<String>,
    #[command(flatten)]
    connect: Connect,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The longest that an answer may take, such as 30s or 2m
    #[arg(long, value_parser = parse_timeout)]
    timeout: Option<Duration>,
    /// Cut the answer after this many rows
    #[arg(long, value_name = "N")]
    max_rows: Option<u64>,
    /// A value for $1, $2, … in order; numbers, true, false and null are taken as such, all else as text
    #[arg(short, long = "param", value_name = "VALUE")]
    param: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Csv,
    Arrow,
}

/// Asks, and writes the answer to standard output; what is said about it goes to standard error.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connect.client()?;
    if args.format == Format::Arrow && std::io::stdout().is_terminal() {
        bail!("an Arrow stream is not for a terminal; send it to a file or a program");
    }
    let stdin = std::io::stdin();
    let query = match &args.query {
        Some(query) if query != "-" => query.clone(),
        None if stdin.is_terminal() => return prompt::run(&client, &args).await,
        _ => {
            let mut text = String::new();
            stdin.lock().read_to_string(&mut text).context("standard input")?;
            text
        }
    };
    match ask(&client, &args, &query).await? {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// One query and its answer; `false`: it was refused, and that has been told.
async fn ask(client: &HttpClient, args: &Args, query: &str) -> Result<bool> {
    let accept = match args.format {
        Format::Table | Format::Json => "application/json",
        Format::Csv => "text/csv",
        Format::Arrow => "application/vnd.apache.arrow.stream",
    };
    let body = serde_json::to_vec(&request(args, query)).context("request")?;
    let response = client.post("/v1/sql", accept, body).await?;
    if !response.status().is_success() {
        let status = response.status();
        let body = read_all(response, MOST_ERROR).await?;
        eprint!("{}", answer::refusal(query, status.as_u16(), &body));
        return Ok(false);
    }
    match args.format {
        Format::Table => {
            let parsed = parsed(&read_all(response, MOST_JSON).await?)?;
            let mut out = std::io::stdout().lock();
            let shown = table::write(&parsed, table::Look::of_terminal(), &mut out);
            finished(shown.and_then(|()| out.flush()))?;
            drop(out);
            eprint!("{}", answer::summary(&parsed));
        }
        Format::Json => {
            let body = read_all(response, MOST_JSON).await?;
            finished(std::io::stdout().lock().write_all(&body))?;
            if let Ok(parsed) = serde_json::from_slice::<answer::Answer>(&body) {
                eprint!("{}", answer::note(&parsed.completeness));
            }
        }
        Format::Csv | Format::Arrow => {
            let completeness = response
                .headers()
                .get("sluice-completeness")
                .and_then(|v| serde_json::from_slice::<Value>(v.as_bytes()).ok())
                .unwrap_or(Value::Null);
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.context("the answer broke off: what was written is not all of it")?;
                if let Ok(data) = frame.into_data() {
                    finished(std::io::stdout().lock().write_all(&data))?;
                }
            }
            finished(std::io::stdout().lock().flush())?;
            eprint!("{}", answer::note(&completeness));
        }
    }
    Ok(true)
}

/// One query and its rows, or the refusal as people read it.
async fn fetch(client: &HttpClient, args: &Args, query: &str) -> Result<Result<answer::Answer, String>> {
    let body = serde_json::to_vec(&request(args, query)).context("request")?;
    let response = client.post("/v1/sql", "application/json", body).await?;
    let status = response.status();
    if !status.is_success() {
        let body = read_all(response, MOST_ERROR).await?;
        return Ok(Err(answer::refusal(query, status.as_u16(), &body)));
    }
    parsed(&read_all(response, MOST_JSON).await?).map(Ok)
}

fn parsed(body: &[u8]) -> Result<answer::Answer> {
    serde_json::from_slice(body).context("the answer is not what was asked for")
}

impl Args {
    /// For questions that are not the person's own.
    fn without_params(&self) -> Args {
        Args {
            param: Vec::new(),
            max_rows: None,
            ..self.clone()
        }
    }
}

fn request(args: &Args, query: &str) -> Value {
    let params: Vec<Value> = args.param.iter().map(|text| param(text)).collect();
    let mut request = json!({ "sql": query, "params": params });
    if let Some(timeout) = args.timeout {
        request["timeout_ms"] = json!(timeout.as_millis() as u64);
    }
    if let Some(rows) = args.max_rows {
        request["max_rows"] = json!(rows);
    }
    request
}

/// What looks like a JSON scalar is one; the rest is text, without quotes to fight with the shell about.
fn param(text: &str) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value) if !value.is_array() && !value.is_object() => value,
        _ => Value::String(text.to_owned()),
    }
}

/// A reader that closes the pipe (`| head`) has had enough; that is no failure.
fn finished(written: std::io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| c.is_ascii_alphabetic() || c == ' ')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| "give a number and ms, s, m or h, such as 30s".to_owned())?;
    let factor = match unit.trim() {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("the unit is ms, s, m or h, such as 30s".into()),
    };
    Duration::try_from_secs_f64(number * factor).map_err(|e| e.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_and_parameters_are_read_as_people_write_them() {
        assert_eq!(parse_timeout("1500ms").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_timeout("2 m").unwrap(), Duration::from_secs(120));
        assert_eq!(parse_timeout("7").unwrap(), Duration::from_secs(7));
        assert!(parse_timeout("-3s").is_err() && parse_timeout("5 weeks").is_err());
        assert_eq!(param("5"), json!(5));
        assert_eq!(param("null"), Value::Null);
        assert_eq!(param("4bf92f35"), json!("4bf92f35"));
        assert_eq!(param("[1]"), json!("[1]"));
    }
}
