//! `sluice status`: what a running node says of itself, worst news first.

mod all;
mod glance;
mod news;
mod paint;
mod plugins;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::Value;
use sluice_settings::readable;

use self::paint::Paint;
use crate::http_client::{Connect, read_all};
use crate::sql::{plain, refusal};

const MOST: usize = 64 << 20;

/// Show how a running node is doing.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Lines with ✗ or ! are what somebody should look at. Numbers are rounded; --json has them exactly. Colours are left out where the
output is no terminal, or NO_COLOR is set.

Exit codes: 0 data moves, 1 it does not, or nothing answers.")]
pub(crate) struct Args {
    #[command(flatten)]
    connect: Connect,
    /// Every figure, not only those that tell how it is
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// Every figure, for scripts
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connect.client()?;
    let response = client.get("/v1/status").await?;
    let code = response.status();
    let body = read_all(response, MOST).await?;
    if !code.is_success() {
        eprint!("{}", refusal("", code.as_u16(), &body));
        return Ok(ExitCode::FAILURE);
    }
    let status: Value = serde_json::from_slice(&body).context("the answer is not a status")?;
    let (now_ms, paint) = (now_ms(), Paint::of_terminal());
    if args.json {
        println!("{status:#}");
    } else if args.all {
        print!(
            "{}{}",
            news::headlines(&status, now_ms, paint),
            all::render(&status, now_ms)
        );
    } else {
        print!("{}", glance::render(&status, now_ms, paint));
    }
    Ok(if status["ready"] == true {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn now_ms() -> u64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH);
    age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// The number at a place of the status; 0 where there is none.
fn number(status: &Value, place: &str) -> u64 {
    status.pointer(place).and_then(Value::as_u64).unwrap_or(0)
}

/// The text at a place of the status, if there is one and it is not empty.
fn words(status: &Value, place: &str) -> Option<String> {
    let text = status.pointer(place)?.as_str()?;
    (!text.is_empty()).then(|| plain(text))
}

/// `1 file`, `12.3 k files`, `2 batches`.
fn several(count: u64, one: &str) -> String {
    let ending = match count {
        1 => "",
        _ if one.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{} {one}{ending}", readable::count(count))
}

/// A time since 1970, as how long ago it was.
fn ago(at_ms: u64, now_ms: u64) -> String {
    match now_ms.checked_sub(at_ms) {
        // A clock that is a little behind ours is no news.
        None | Some(0..1_000) => "just now".to_owned(),
        Some(age) => format!("{} ago", readable::span(age)),
    }
}
