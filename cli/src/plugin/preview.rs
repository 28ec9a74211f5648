//! `sluice plugin preview`: rows before and after, on a file or on what a running edge takes in. Nothing is sent anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use bytes::Bytes;
use serde_json::{Value, json};
use sluice_plugin_fixture::{Defaults, Layout, Row, normal};
use sluice_runtime::{Call, Limits};
use sluice_wire::Signal;
use sluice_wire::otlp::{DecodeLimits, Decoder, json_to_protobuf};

use crate::http_client::{HttpClient, read_all};

use super::project::Project;
use super::sandbox::{self, Candidate, Setup};
use super::trial::{self, Trial};

/// Bytes of a file that are read.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Show rows before and after, on a file or on a running edge
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin preview --input events.json          a file of OTLP JSON, or of rows, one JSON object a line
  sluice plugin preview --edge http://127.0.0.1:7080 --token-file sluice-data/edge/admin-token
  sluice plugin preview --component other.wasm --input events.json --config '{\"rate\": 0.1}'

An edge hands out copies of events as they come in, before its own plugins have seen them, to whoever has the token that lies in its
data folder. They are shown here and nowhere else; what the edge does with them does not change.")]
pub(crate) struct Args {
    /// The plugin's folder; by default this one, one above or the only one below.
    #[arg(long, value_name = "DIR", default_value = ".")]
    project: PathBuf,
    /// Another component than the project's.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    #[command(flatten)]
    setup: Setup,
    /// OTLP as JSON or protobuf, rows as JSON lines or a JSON array, or an Arrow IPC stream; `-` is the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "edge", required_unless_present = "edge")]
    input: Option<PathBuf>,
    /// The HTTP address of a running edge.
    #[arg(long, value_name = "URL")]
    edge: Option<String>,
    /// The edge's token; by default that of `sluice up` in this folder.
    #[arg(
        long,
        value_name = "FILE",
        requires = "edge",
        default_value = "sluice-data/edge/admin-token"
    )]
    token_file: PathBuf,
    /// Certificates (PEM) that an https address is trusted by.
    #[arg(long, value_name = "FILE", requires = "edge")]
    ca_file: Option<PathBuf>,
    /// Rows to look at.
    #[arg(long, default_value_t = 100)]
    rows: usize,
    /// Seconds to wait for rows of an edge.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    wait: u64,
    /// Only one signal.
    #[arg(long, value_parser = ["log", "span", "metric"])]
    signal: Option<String>,
    /// Show rows that did not change, too.
    #[arg(long)]
    all: bool,
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let host = sandbox::host()?;
    let plugin = match &args.component {
        Some(path) => {
            let component = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let (config, tables) = (args.setup.config()?, args.setup.tables()?);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Candidate::unknown(&name, component, Limits::interpreted()).load(&host, config, tables)?
        }
        None => {
            let project = Project::find(&args.project)?;
            let (config, tables) = (args.setup.config()?, args.setup.tables()?);
            Candidate::of_project(&project)?.load(&host, config, tables)?
        }
    };
    let batches = match (&args.input, &args.edge) {
        (Some(path), _) => read(path)?,
        (None, Some(url)) => tap(&args, url).await?,
        (None, None) => bail!("say where rows come from: --input FILE or --edge URL"),
    };
    let mut shown = Shown::new(&args);
    let mut left = args.rows;
    for (signal, batch) in batches {
        if left == 0 {
            break;
        }
        if args.signal.as_deref().is_some_and(|wanted| wanted != signal.as_str()) {
            continue;
        }
        let batch = batch.slice(0, batch.num_rows().min(left));
        left -= batch.num_rows();
        let before = trial::rows(&batch)?;
        let call = Call::new(signal, now_ns(), "preview");
        shown.take(before, Trial::run(&plugin, &batch, &call)?)?;
    }
    shown.finish()
}

fn now_ns() -> u64 {
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    age.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))
}

/// Rows of whatever form a file has.
fn read(path: &Path) -> Result<Vec<(Signal, RecordBatch)>> {
    let mut bytes = Vec::new();
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?)
    };
    reader
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .context("cannot read the input")?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        bail!(
            "{} has more than {} MiB; give a part of it",
            path.display(),
            MAX_FILE_BYTES >> 20
        );
    }
    if bytes.starts_with(&[0xff; 4]) {
        return arrow_stream(&bytes);
    }
    let start = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    match start {
        Some(b'{' | b'[') => json_input(&bytes),
        Some(_) => otlp_protobuf(&bytes),
        None => bail!("the input is empty"),
    }
}

fn arrow_stream(bytes: &[u8]) -> Result<Vec<(Signal, RecordBatch)>> {
    let reader = StreamReader::try_new(bytes, None).context("no Arrow IPC stream")?;
    let mut batches = Vec::new();
    for batch in reader {
        let batch = batch.context("Arrow IPC stream")?;
        if batch.num_rows() > 0 {
            batches.push((signal_of(&batch)?, batch));
        }
    }
    Ok(batches)
}

fn signal_of(batch: &RecordBatch) -> Result<Signal> {
    let first = trial::rows(&batch.slice(0, 1))?;
    let name = first.first().and_then(|row| row.get("signal")).and_then(Value::as_str);
    Ok(match name {
        Some("span") => Signal::Span,
        Some("metric") => Signal::Metric,
        _ => Signal::Log,
    })
}

fn json_input(bytes: &[u8]) -> Result<Vec<(Signal, RecordBatch)>> {
    let mut rows: BTreeMap<&'static str, Vec<Row>> = BTreeMap::new();
    let mut batches = Vec::new();
    let mut take = |value: Value, place: usize| -> Result<()> {
        if let Some((signal, key)) = [
            (Signal::Log, "resourceLogs"),
            (Signal::Span, "resourceSpans"),
            (Signal::Metric, "resourceMetrics"),
        ]
        .into_iter()
        .find(|(_, key)| value.get(*key).is_some())
        {
            let limits = limits();
            let body = json_to_protobuf(signal, &Bytes::from(value.to_string()), &limits)
                .with_context(|| format!("OTLP JSON with {key}"))?;
            batches.push((signal, decode(signal, &body)?));
            return Ok(());
        }
        let Value::Object(row) = value else {
            bail!("entry {place} is no row: a row is an object such as {{\"body\": \"hello\", \"severity\": 9}}");
        };
        let signal = match row.get("signal").and_then(Value::as_str) {
            Some("span") => "span",
            Some("metric") => "metric",
            _ => "log",
        };
        rows.entry(signal).or_default().push(row);
        Ok(())
    };
    for (place, value) in serde_json::Deserializer::from_slice(bytes)
        .into_iter::<Value>()
        .enumerate()
    {
        match value.with_context(|| format!("entry {place} is no JSON"))? {
            Value::Array(values) => {
                for (place, value) in values.into_iter().enumerate() {
                    take(value, place)?;
                }
            }
            value => take(value, place)?,
        }
    }
    for (name, rows) in rows {
        let defaults = Defaults {
            signal: name.to_owned(),
            time: now_ns() as i64,
        };
        let batch = sluice_plugin_fixture::batch(&rows, &defaults, Layout::Plain).map_err(anyhow::Error::msg)?;
        batches.push((signal_of(&batch)?, batch));
    }
    Ok(batches)
}

fn otlp_protobuf(bytes: &[u8]) -> Result<Vec<(Signal, RecordBatch)>> {
    // Nothing in the bytes says which request they are; the wrong reading of one finds no events in it.
    for signal in [Signal::Log, Signal::Span, Signal::Metric] {
        if let Ok(batch) = decode(signal, bytes)
            && batch.num_rows() > 0
        {
            return Ok(vec![(signal, batch)]);
        }
    }
    bail!("the input is neither OTLP (JSON or protobuf) nor rows as JSON nor an Arrow IPC stream")
}

fn limits() -> DecodeLimits {
    DecodeLimits {
        max_bytes: MAX_FILE_BYTES as usize,
        ..DecodeLimits::default()
    }
}

fn decode(signal: Signal, body: &[u8]) -> Result<RecordBatch> {
    let decoded = Decoder::new(limits())
        .decode(signal, body, now_ns())
        .context("OTLP request")?;
    Ok(decoded.batch)
}

/// Copies of what an edge takes in.
async fn tap(args: &Args, url: &str) -> Result<Vec<(Signal, RecordBatch)>> {
    let where_it_lies = || {
        format!(
            "cannot read {}: the edge's token lies in its data folder as `admin-token`; say where with --token-file",
            args.token_file.display()
        )
    };
    let token = match fs::read_to_string(&args.token_file) {
        Ok(token) => Some(token),
        // There is none before the tap was opened: whether it is, the edge says without one.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(where_it_lies),
    };
    let client = HttpClient::new(
        url.trim_end_matches('/').to_owned(),
        token.as_deref(),
        args.ca_file.as_deref(),
    )?;
    let mut path = format!("/v1/tap?rows={}&wait={}s", args.rows, args.wait);
    if let Some(signal) = &args.signal {
        path.push_str(&format!("&signal={signal}"));
    }
    eprintln!("waiting up to {} s for {} rows …", args.wait, args.rows);
    let answer = client.get(&path).await?;
    let status = answer.status();
    let bytes = read_all(answer, MAX_FILE_BYTES as usize).await?;
    if token.is_none() && status.as_u16() == 401 {
        bail!("{}: there is no such file", where_it_lies());
    }
    if !status.is_success() {
        bail!("{url} answers {status}: {}", String::from_utf8_lossy(&bytes).trim());
    }
    if bytes.is_empty() {
        bail!("no events came within {} s", args.wait);
    }
    let batches = arrow_stream(&bytes)?;
    if batches.is_empty() {
        bail!("no events came within {} s", args.wait);
    }
    Ok(batches)
}

/// Prints what became of rows.
struct Shown {
    json: bool,
    all: bool,
    colour: bool,
    rows: u64,
    changed: u64,
    unchanged: u64,
    quarantined: u64,
    dropped: BTreeMap<String, u64>,
    entries: Vec<Value>,
    error: Option<String>,
}

impl Shown {
    fn new(args: &Args) -> Shown {
        Shown {
            json: args.json,
            all: args.all,
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            rows: 0,
            changed: 0,
            unchanged: 0,
            quarantined: 0,
            dropped: BTreeMap::new(),
            entries: Vec::new(),
            error: None,
        }
    }

    fn take(&mut self, before: Vec<Row>, trial: Trial) -> Result<()> {
        self.rows += before.len() as u64;
        if let Some(error) = trial.error {
            self.error = Some(error);
            return Ok(());
        }
        for (reason, rows) in &trial.drops {
            *self.dropped.entry(reason.clone()).or_default() += rows;
        }
        let mut out = std::io::stdout().lock();
        for (place, row) in before.iter().enumerate() {
            let before = normal(row);
            let (mark, colour, after) = match (trial.stayed.get(&place), trial.quarantined.get(&place)) {
                (Some(after), _) => {
                    let after = normal(after);
                    if after == before {
                        self.unchanged += 1;
                        if !self.all {
                            continue;
                        }
                        ("=", "", Some(after))
                    } else {
                        self.changed += 1;
                        ("~", "33", Some(after))
                    }
                }
                (None, Some(_)) => {
                    self.quarantined += 1;
                    ("!", "35", None)
                }
                (None, None) => ("-", "31", None),
            };
            if self.json {
                let what = match mark {
                    "=" => "unchanged",
                    "~" => "changed",
                    "!" => "quarantined",
                    _ => "dropped",
                };
                self.entries
                    .push(json!({"row": place, "what": what, "before": before, "after": after}));
                continue;
            }
            let mut paint = |code: &str, text: &str| match self.colour && !code.is_empty() {
                true => writeln!(out, "\x1b[{code}m{text}\x1b[0m"),
                false => writeln!(out, "{text}"),
            };
            match after.filter(|_| mark == "~") {
                Some(after) => {
                    paint(colour, &format!("~ {}", headline(&before)))?;
                    for (key, old, new) in differences(&before, &after) {
                        paint("31", &format!("    - {key}: {old}"))?;
                        paint("32", &format!("    + {key}: {new}"))?;
                    }
                }
                None => {
                    let why = trial
                        .quarantined
                        .get(&place)
                        .map(|why| format!("   (set aside: {why})"));
                    paint(
                        colour,
                        &format!("{mark} {}{}", headline(&before), why.unwrap_or_default()),
                    )?;
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<ExitCode> {
        let dropped: u64 = self.dropped.values().sum();
        if self.json {
            let all = json!({
                "rows": self.rows, "unchanged": self.unchanged, "changed": self.changed, "quarantined": self.quarantined,
                "dropped": self.dropped, "error": self.error, "entries": self.entries,
            });
            println!("{all:#}");
        } else {
            let reasons: Vec<String> = self
                .dropped
                .iter()
                .map(|(reason, rows)| format!("{reason} {rows}"))
                .collect();
            println!(
                "\n{} rows: {} unchanged, {} changed, {dropped} dropped{}, {} set aside. Nothing was sent.",
                self.rows,
                self.unchanged,
                self.changed,
                if reasons.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", reasons.join(", "))
                },
                self.quarantined,
            );
        }
        match self.error {
            Some(error) => bail!("the plugin {error}"),
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

/// A row in one line.
fn headline(row: &Row) -> String {
    let text = |key: &str| match row.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let parts = ["signal", "service", "severity", "name", "body"].map(text);
    let line: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    let line = line.join("  ").replace(|c: char| c.is_control(), " ");
    line.chars().take(160).collect()
}

/// Keys whose values differ, attributes by their own names.
fn differences(before: &Row, after: &Row) -> Vec<(String, String, String)> {
    let (before, after) = (flat(before), flat(after));
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or_else(|| "(nothing)".to_owned(), Value::to_string);
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| (key.clone(), shown(before.get(key)), shown(after.get(key))))
        .collect()
}

fn flat(row: &Row) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (key, value) in row {
        match value {
            Value::Object(attributes) if matches!(key.as_str(), "attrs" | "resource" | "scope") => {
                for (name, value) in attributes {
                    flat.insert(format!("{key}[{name:?}]"), value.clone());
                }
            }
            value => {
                flat.insert(key.clone(), value.clone());
            }
        }
    }
    flat
}
