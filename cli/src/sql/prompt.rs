//! The prompt: queries over several lines, with history across sessions, completion, and answers in the form that a person asked for.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Editor};

use super::command::{Expanded, HELP, Input, input};
use super::complete::{Names, questions};
use super::{Args, Format, answer, ask, fetch, pager, table};
use crate::http_client::HttpClient;

const HISTORY_LINES: usize = 5_000;

/// How answers are shown, until the session ends.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    expanded: Expanded,
    timing: bool,
    no_pager: bool,
}

pub(super) async fn run(client: &HttpClient, args: &Args) -> Result<ExitCode> {
    eprintln!("connected to {}; \\? for help", client.base());
    let config = rustyline::Config::builder()
        .max_history_size(HISTORY_LINES)
        .context("history")?
        .auto_add_history(false)
        .completion_type(CompletionType::List)
        .build();
    let mut editor: Editor<Names, DefaultHistory> = Editor::with_config(config).context("terminal")?;
    let names = Names::default();
    editor.set_helper(Some(names.clone()));
    let history = history_file();
    if let Some(path) = &history {
        // the first session has none
        let _ = editor.load_history(path);
    }
    let (learning, told) = (client.clone(), args.clone());
    let learning = tokio::spawn(async move { learn(&learning, &told, &names).await });
    let mut manner = Manner::default();
    let mut so_far = String::new();
    loop {
        let prompt = if so_far.is_empty() { "sluice> " } else { "   ...> " };
        // the editor blocks, so it goes to a thread of its own and comes back with the line
        let (back, line) = tokio::task::spawn_blocking(move || {
            let line = editor.readline(prompt);
            (editor, line)
        })
        .await
        .context("prompt")?;
        editor = back;
        let line = match line {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                so_far.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("prompt"),
        };
        match input(&mut so_far, &line) {
            Input::Nothing | Input::More => {}
            Input::Leave => break,
            Input::Help => eprint!("{HELP}"),
            Input::Mistake(what) => eprintln!("error: {what}"),
            Input::Timing(on) => {
                manner.timing = on.unwrap_or(!manner.timing);
                eprintln!("timing is {}", on_or_off(manner.timing));
            }
            Input::Pager(on) => {
                manner.no_pager = !on.unwrap_or(manner.no_pager);
                eprintln!("the pager is {}", on_or_off(!manner.no_pager));
            }
            Input::Expanded(expanded) => {
                manner.expanded = expanded.unwrap_or(match manner.expanded {
                    Expanded::Off => Expanded::On,
                    _ => Expanded::Off,
                });
                let shown = match manner.expanded {
                    Expanded::Auto => "auto",
                    other => on_or_off(other == Expanded::On),
                };
                eprintln!("expanded display is {shown}");
            }
            Input::Query(query) => {
                // as it is asked again: with what ends it
                let entry = match line.trim() {
                    command if command.starts_with("\\d") => command.to_owned(),
                    _ => format!("{query};"),
                };
                let _ = editor.add_history_entry(entry);
                if let Some(path) = &history {
                    // a history that cannot be kept is no reason to stop
                    let _ = editor.save_history(path);
                }
                let size = editor.dimensions().map(|(columns, rows)| (columns.into(), rows.into()));
                answer_to(client, args, &query, manner, size).await;
            }
        }
    }
    learning.abort();
    Ok(ExitCode::SUCCESS)
}

fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// What the Tab key will offer. A server that does not tell is no reason to stop.
async fn learn(client: &HttpClient, args: &Args, names: &Names) {
    for (question, take) in questions() {
        if let Ok(Ok(rows)) = fetch(client, &args.without_params(), &question).await {
            take(names, &rows.rows);
        }
    }
}

/// Ctrl-C drops the request, and with it the query on the server.
async fn answer_to(client: &HttpClient, args: &Args, query: &str, manner: Manner, size: Option<(usize, usize)>) {
    let began = Instant::now();
    let shown = async {
        match args.format {
            Format::Table => show(client, args, query, manner, size).await,
            _ => ask(client, args, query).await.map(drop),
        }
    };
    tokio::select! {
        done = shown => {
            if let Err(error) = done {
                eprintln!("error: {error:#}");
            }
            if manner.timing {
                eprintln!("time: {:.3} ms", began.elapsed().as_secs_f64() * 1_000.0);
            }
        }
        _ = tokio::signal::ctrl_c() => eprintln!("ended"),
    }
}

async fn show(
    client: &HttpClient,
    args: &Args,
    query: &str,
    manner: Manner,
    size: Option<(usize, usize)>,
) -> Result<()> {
    let answer = match fetch(client, args, query).await? {
        Ok(answer) => answer,
        Err(refusal) => {
            eprint!("{refusal}");
            return Ok(());
        }
    };
    let mut look = table::Look::of_terminal();
    look.expanded = match manner.expanded {
        Expanded::On => true,
        Expanded::Off => false,
        Expanded::Auto => size.is_some_and(|(columns, _)| table::width(&answer, look) > columns),
    };
    let mut text = Vec::new();
    table::write(&answer, look, &mut text).context("the answer")?;
    let rows = size
        .map(|(_, rows)| rows)
        .filter(|_| !manner.no_pager && look.widest.is_some());
    // a pager takes the terminal until a person leaves it
    let shown = tokio::task::spawn_blocking(move || pager::show(&text, rows)).await;
    super::finished(shown.context("pager")?)?;
    eprint!("{}", answer::summary(&answer));
    Ok(())
}

fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state")))?;
    let folder = state.join("sluice");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("sql_history"))
}
