//! Shows what is longer than the terminal piece by piece, with the program that people chose for that.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Long lines are cut at the edge and scrolled to, colours stay, what fits is left on the screen.
const LESS: &str = "-SRFX";

/// Writes a text, through a pager if it has more lines than `rows`.
pub(super) fn show(text: &[u8], rows: Option<usize>) -> io::Result<()> {
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    if rows.is_some_and(|rows| lines >= rows) && through_pager(text)? {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}

/// `false`: there is none.
fn through_pager(text: &[u8]) -> io::Result<bool> {
    let chosen = ["SLUICE_PAGER", "PAGER"].iter().find_map(std::env::var_os);
    let chosen = chosen.unwrap_or_else(|| OsString::from("less"));
    if chosen.is_empty() {
        return Ok(false);
    }
    // As other tools do: it may have arguments of its own.
    let mut command = Command::new("sh");
    command.arg("-c").arg(&chosen).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", LESS);
    }
    let Ok(mut pager) = command.spawn() else {
        return Ok(false);
    };
    if let Some(mut input) = pager.stdin.take() {
        match input.write_all(text) {
            // whoever leaves early has seen enough
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    // 127: the shell did not find it
    Ok(pager.wait()?.code() != Some(127))
}
