//! A word while something takes long: whoever watches a terminal sees it move, a log gets one line.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What is done sooner is not spoken of.
const PATIENCE: Duration = Duration::from_millis(400);
const TURN: Duration = Duration::from_millis(120);
const WHEEL: [char; 8] = ['⣾', '⣽', '⣻', '⢿', '⡿', '⣟', '⣯', '⣷'];

/// Speaks from a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Progress {
    done: Option<SyncSender<()>>,
    speaker: Option<JoinHandle<()>>,
}

impl Progress {
    /// On the standard error, `what` being what goes on: `compiling demo (18.0 MiB)`.
    pub fn on_stderr(what: impl Into<String>) -> Progress {
        let terminal = io::stderr();
        let watched = terminal.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Progress::to(terminal, watched, PATIENCE, what.into())
    }

    fn to(mut out: impl Write + Send + 'static, watched: bool, patience: Duration, what: String) -> Progress {
        // Nothing is ever sent: its end is the message.
        let (done, ended) = mpsc::sync_channel(0);
        let speak = move || {
            let began = Instant::now();
            if ended.recv_timeout(patience) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            // What cannot be told changes nothing about what goes on.
            if !watched {
                let _ = writeln!(out, "{what} …");
                return;
            }
            for turn in 0usize.. {
                let seconds = began.elapsed().as_secs();
                let wheel = WHEEL[turn % WHEEL.len()];
                let _ = write!(out, "\r{wheel} {what} … {seconds} s\x1b[K").and_then(|()| out.flush());
                if ended.recv_timeout(TURN) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
        };
        Progress {
            done: Some(done),
            speaker: thread::Builder::new().name("progress".to_owned()).spawn(speak).ok(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(speaker) = self.speaker.take() {
            // It ends at once, and what is printed next must not run into its line.
            let _ = speaker.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A place that says when something was written to it.
    struct Page(Arc<Mutex<String>>, SyncSender<()>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            // Whoever waits for no more words does not hold it up.
            let _ = self.1.try_send(());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written until `spoken` pieces are there, and at the end.
    fn written(watched: bool, patience: Duration, spoken: usize) -> String {
        let page = Arc::new(Mutex::new(String::new()));
        let (said, heard) = mpsc::sync_channel(64);
        let progress = Progress::to(Page(page.clone(), said), watched, patience, "compiling".to_owned());
        for _ in 0..spoken {
            heard.recv().unwrap();
        }
        drop(progress);
        let page = page.lock().unwrap();
        page.clone()
    }

    #[test]
    fn a_log_gets_one_line_a_terminal_is_left_clean_and_what_is_quick_is_silent() {
        assert_eq!(written(false, Duration::ZERO, 1), "compiling …\n");
        let watched = written(true, Duration::ZERO, 8);
        assert!(watched.starts_with("\r⣾ compiling … 0 s\x1b[K\r⣽ "), "{watched:?}");
        assert!(watched.ends_with("\r\x1b[K") && !watched.contains('\n'), "{watched:?}");
        assert_eq!(written(true, Duration::MAX, 0), "");
    }
}
