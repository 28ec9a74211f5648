//! How far long work is: one line that changes where a person watches, else a line now and then.

use std::time::{Duration, Instant};

use super::{Output, show_bytes};

const WATCHED: Duration = Duration::from_millis(200);
const UNWATCHED: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    shown: Instant,
    is_line_open: bool,
}

impl Progress {
    /// `total` bytes are to be read.
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        Self {
            what,
            total,
            done: 0,
            shown: Instant::now(),
            is_line_open: false,
        }
    }

    pub(super) fn add(&mut self, bytes: u64, output: &mut Output<'_>) {
        self.done += bytes;
        let pause = if output.is_watched { WATCHED } else { UNWATCHED };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let percent = (self.done * 100).checked_div(self.total).unwrap_or(100).min(100);
        let text = format!(
            "{} {percent:>3} %  {} of {}",
            self.what,
            show_bytes(self.done),
            show_bytes(self.total)
        );
        // Notes that nobody takes are no reason to stop.
        let _ = match output.is_watched {
            true => write!(output.notes, "\r{text:<60}"),
            false => writeln!(output.notes, "{text}"),
        };
        let _ = output.notes.flush();
        self.is_line_open = output.is_watched;
    }

    pub(super) fn end(&mut self, output: &mut Output<'_>) {
        if std::mem::take(&mut self.is_line_open) {
            let _ = write!(output.notes, "\r{:60}\r", "");
            let _ = output.notes.flush();
        }
    }
}
