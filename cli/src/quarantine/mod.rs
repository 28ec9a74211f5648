//! `sluice quarantine`: events that a plugin failed on, and the way back through a door; whole batches that ingest set aside (`batches`).

mod batches;
mod rows;
mod send;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use sluice_wire::Signal;

use crate::http_client::{Connect, HttpClient, read_all};
use crate::sql::{plain, refusal};
use rows::MARKER;
use send::Door;

/// One answer, in memory.
const MOST_ANSWER: usize = 1 << 30;
const MOST_ERROR: usize = 1 << 20;
/// Where a door is when no node says.
const DEFAULT_DOOR: &str = "http://127.0.0.1:4318";

/// Events that a plugin failed on, and batches that ingest set aside: what there is, and sending it in again
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How many events each plugin failed on, why and when
    List(ListArgs),
    /// Send them in again through a door, once the plugin is mended
    Resubmit(ResubmitArgs),
}

/// Which of them; all if nothing is said.
#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// Only those that this plugin failed on
    #[arg(long)]
    plugin: Option<String>,
    /// Only those with this reason
    #[arg(long)]
    reason: Option<String>,
    /// Only events of this time and later, such as 2026-11-21T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<String>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 answered, 1 not. `sluice sql \"SELECT * FROM quarantined\"` shows the events themselves."
)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    connect: Connect,
    /// For scripts
    #[arg(long)]
    json: bool,
    /// Instead, the whole batches that could not be stored: settings of the ingest that set them aside
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plugin", "reason", "from", "until"])]
    batches: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Each event comes in again as a new one, through the plugins of the node behind that door. It carries the attribute\n\
`sluice.resubmitted_from`, the place of the old one (partition/offset/row), which stays in `quarantined`. An event whose copy is in the\n\
tables is passed over, so a second run sends nothing twice; but a copy is seen there only after some seconds, so do not run it twice at\n\
once. After an error some may have been sent: run it again. Exit codes: 0 all are sent, 1 not."
)]
pub(crate) struct ResubmitArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    connect: Connect,
    /// OTLP/HTTP door to send to; without it that of the node that is asked
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Send at most so many events, the oldest in the log first
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    limit: u64,
    /// Send those, too, whose copy is in the tables already
    #[arg(long)]
    again: bool,
    /// Only tell how many would be sent
    #[arg(long)]
    dry_run: bool,
    /// Instead, put the whole batches that ingest set aside through its log again, as new ones: settings of that ingest. With the
    /// embedded log it must not be running. What this program cannot read either stays
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plugin", "reason", "from", "until", "to", "again"])]
    batches: Option<PathBuf>,
}

fn parse_time(text: &str) -> Result<String, String> {
    // It becomes a part of the question.
    let known = text.bytes().all(|b| b.is_ascii_digit() || b"-+:.TZtz ".contains(&b));
    if known && text.starts_with(|c: char| c.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("write a time such as 2026-11-21 or 2026-11-21T18:00:00Z".to_owned())
    }
}

impl Which {
    /// The condition, and the values of its parameters.
    fn condition(&self) -> (String, Vec<Value>) {
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        for (column, value) in [("quarantined_by", &self.plugin), ("quarantine_reason", &self.reason)] {
            if let Some(value) = value {
                values.push(json!(value));
                conditions.push(format!("{column} = ${}", values.len()));
            }
        }
        for (comparison, time) in [(">=", &self.from), ("<", &self.until)] {
            conditions.extend(
                time.as_ref()
                    .map(|time| format!("time {comparison} TIMESTAMP '{time}'")),
            );
        }
        if conditions.is_empty() {
            conditions.push("true".to_owned());
        }
        (conditions.join(" AND "), values)
    }
}

pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::List(args) => list(args).await,
        Command::Resubmit(args) => resubmit(args).await,
    }
}

async fn list(args: ListArgs) -> Result<ExitCode> {
    if let Some(config) = &args.batches {
        return batches::list(config, args.json).await;
    }
    let client = args.connect.client()?;
    let (condition, params) = args.which.condition();
    let sql = format!(
        "SELECT quarantined_by AS plugin, quarantine_reason AS reason, signal, count(*) AS events, min(time) AS first, max(time) AS last \
         FROM quarantined WHERE {condition} GROUP BY quarantined_by, quarantine_reason, signal ORDER BY events DESC"
    );
    let answer = ask(&client, &sql, params).await?;
    let columns: Vec<&str> = answer["columns"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .collect();
    let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    if args.json {
        let object = |row: &Value| -> Value {
            let pairs = columns.iter().zip(row.as_array().into_iter().flatten());
            pairs
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        println!("{:#}", Value::Array(rows.iter().map(object).collect()));
    } else {
        print!("{}", show(rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each plugin, reason and signal.
fn show(rows: &[Value]) -> String {
    if rows.is_empty() {
        return "nothing is quarantined\n".to_owned();
    }
    let mut out = String::new();
    for row in rows {
        let text = |at: usize| row[at].as_str().map_or_else(|| row[at].to_string(), plain);
        let _ = writeln!(
            out,
            "{:>8} {}s  {}: {}  ({} to {})",
            text(3),
            text(2),
            text(0),
            text(1),
            text(4),
            text(5)
        );
    }
    out
}

async fn resubmit(args: ResubmitArgs) -> Result<ExitCode> {
    if let Some(config) = &args.batches {
        return batches::put_back(config, args.limit, args.dry_run).await;
    }
    let client = args.connect.client()?;
    let (condition, params) = args.which.condition();
    let done = if args.again {
        BTreeSet::new()
    } else {
        already_sent(&client).await?
    };
    // Those that were sent already count against no limit.
    let most = args.limit.saturating_add(done.len() as u64);
    let sql =
        format!("SELECT * FROM quarantined WHERE {condition} ORDER BY \"partition\", \"offset\", \"row\" LIMIT {most}");
    let found = rows::read(&fetch(&client, &sql, params).await?)?;
    let total: usize = found.iter().map(|rows| rows.num_rows()).sum();
    let wanted = rows::marked(&found, &done, usize::try_from(args.limit).unwrap_or(usize::MAX))?;
    let count: usize = wanted.iter().map(|rows| rows.num_rows()).sum();
    let passed_over = total.saturating_sub(count);
    if args.dry_run {
        println!("{count} events would be sent, {passed_over} are passed over");
        return Ok(ExitCode::SUCCESS);
    }
    let door = args
        .to
        .or_else(|| args.connect.door("otlp-http"))
        .unwrap_or_else(|| DEFAULT_DOOR.to_owned());
    let mut door = Door::new(door, count)?;
    for rows in &wanted {
        for signal in [Signal::Log, Signal::Span, Signal::Metric] {
            door.send(signal, rows).await?;
        }
    }
    let sent = door.finish();
    println!("{sent} events sent in again, {passed_over} passed over because their copy is there or for the limit");
    if sent as usize != count {
        bail!("{} events were refused by the door", count - sent as usize);
    }
    Ok(ExitCode::SUCCESS)
}

/// Places of events whose copies are in the tables.
async fn already_sent(client: &HttpClient) -> Result<BTreeSet<String>> {
    let mut done = BTreeSet::new();
    for table in ["events", "quarantined"] {
        let sql = format!("SELECT DISTINCT attrs['{MARKER}'] FROM {table} WHERE attrs['{MARKER}'] IS NOT NULL");
        let answer = ask(client, &sql, Vec::new()).await?;
        let rows = answer["rows"].as_array().into_iter().flatten();
        done.extend(rows.filter_map(|row| Some(row[0].as_str()?.to_owned())));
        if answer["stats"]["truncated"] == true {
            bail!(
                "more events were resubmitted than one answer tells; send some of them with --from and --until, and --again"
            );
        }
    }
    Ok(done)
}

async fn ask(client: &HttpClient, sql: &str, params: Vec<Value>) -> Result<Value> {
    let body = query(client, sql, params, "application/json").await?;
    serde_json::from_slice(&body).context("the answer is not what was asked for")
}

async fn fetch(client: &HttpClient, sql: &str, params: Vec<Value>) -> Result<bytes::Bytes> {
    query(client, sql, params, "application/vnd.apache.arrow.stream").await
}

async fn query(client: &HttpClient, sql: &str, params: Vec<Value>, accept: &str) -> Result<bytes::Bytes> {
    let body = serde_json::to_vec(&json!({ "sql": sql, "params": params })).context("request")?;
    let response = client.post("/v1/sql", accept, body).await?;
    let status = response.status();
    if !status.is_success() {
        let body = read_all(response, MOST_ERROR).await?;
        bail!("{}", refusal(sql, status.as_u16(), &body).trim_end());
    }
    read_all(response, MOST_ANSWER).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_becomes_a_condition_and_nothing_else() {
        let which = Which {
            plugin: Some("mask' OR true".to_owned()),
            reason: Some("trap".to_owned()),
            from: Some(parse_time("2026-11-21T18:00:00Z").unwrap()),
            until: None,
        };
        let (condition, values) = which.condition();
        assert_eq!(
            condition,
            "quarantined_by = $1 AND quarantine_reason = $2 AND time >= TIMESTAMP '2026-11-21T18:00:00Z'"
        );
        assert_eq!(values, [json!("mask' OR true"), json!("trap")]);
        assert!(parse_time("2026'; DROP").is_err() && parse_time("yesterday").is_err() && parse_time("").is_err());
    }
}
