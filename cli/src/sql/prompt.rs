//! The prompt: queries over several lines, ended by a semicolon, with history across sessions.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::{Args, ask};
use crate::http_client::HttpClient;

const HISTORY_LINES: usize = 5_000;
const HELP: &str = "A query ends with a semicolon or an empty line.
  \\d          the tables
  \\d TABLE    the columns of one
  \\q          leave (or Ctrl-D); Ctrl-C ends a running query
";

/// What a line, or the lines so far, amount to.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Nothing,
    More,
    Query(String),
    Help,
    Leave,
}

pub(super) async fn run(client: &HttpClient, args: &Args) -> Result<ExitCode> {
    eprintln!("connected to {}; \\? for help", client.base());
    let config = rustyline::Config::builder()
        .max_history_size(HISTORY_LINES)
        .context("history")?
        .auto_add_history(false)
        .build();
    let mut editor = DefaultEditor::with_config(config).context("terminal")?;
    let history = history_file();
    if let Some(path) = &history {
        // the first session has none
        let _ = editor.load_history(path);
    }
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
            Input::Query(query) => {
                let _ = editor.add_history_entry(query.as_str());
                if let Some(path) = &history {
                    // a history that cannot be kept is no reason to stop
                    let _ = editor.save_history(path);
                }
                answer(client, args, &query).await;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ctrl-C drops the request, and with it the query on the server.
async fn answer(client: &HttpClient, args: &Args, query: &str) {
    tokio::select! {
        done = ask(client, args, query) => {
            if let Err(error) = done {
                eprintln!("error: {error:#}");
            }
        }
        _ = tokio::signal::ctrl_c() => eprintln!("ended"),
    }
}

fn input(so_far: &mut String, line: &str) -> Input {
    let trimmed = line.trim();
    if so_far.is_empty() {
        match trimmed.trim_end_matches(';') {
            "" => return Input::Nothing,
            "\\q" | "exit" | "quit" => return Input::Leave,
            "\\?" | "\\h" | "help" => return Input::Help,
            "\\d" => return Input::Query("SHOW TABLES".into()),
            other => {
                if let Some(table) = other.strip_prefix("\\d ") {
                    return Input::Query(format!("DESCRIBE {}", table.trim()));
                }
            }
        }
    } else {
        so_far.push('\n');
    }
    so_far.push_str(line);
    if trimmed.is_empty() || trimmed.ends_with(';') {
        let query = std::mem::take(so_far);
        let query = query.trim().trim_end_matches(';').trim_end();
        return match query {
            "" => Input::Nothing,
            query => Input::Query(query.to_owned()),
        };
    }
    Input::More
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_ends_with_a_semicolon_or_an_empty_line() {
        let mut so_far = String::new();
        assert_eq!(input(&mut so_far, ""), Input::Nothing);
        assert_eq!(input(&mut so_far, "SELECT 1"), Input::More);
        assert_eq!(input(&mut so_far, "  + 1;"), Input::Query("SELECT 1\n  + 1".into()));
        assert_eq!(input(&mut so_far, "SELECT ';'"), Input::More);
        assert_eq!(input(&mut so_far, ""), Input::Query("SELECT ';'".into()));
        assert_eq!(input(&mut so_far, "\\d events"), Input::Query("DESCRIBE events".into()));
        assert_eq!(input(&mut so_far, "quit;"), Input::Leave);
        assert_eq!(so_far, "");
    }
}
