//! What a plugin may write to the log of the node: short lines, not too many.

use std::sync::Mutex;

use crate::clock::WallTime;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// One per plugin, shared by its instances.
#[derive(Debug)]
pub(crate) struct LogSink {
    plugin: String,
    max_bytes: usize,
    start: WallTime,
    rate: Mutex<Rate>,
}

impl LogSink {
    pub(crate) fn new(plugin: &str, max_bytes: usize, lines_per_second: u32) -> Self {
        LogSink {
            plugin: plugin.to_owned(),
            max_bytes,
            start: WallTime::now(),
            rate: Mutex::new(Rate {
                per_second: lines_per_second,
                ..Rate::default()
            }),
        }
    }

    pub(crate) fn write(&self, level: Level, line: &str) {
        let now_ms = self.start.elapsed_ms();
        if !crate::lock(&self.rate).admit(now_ms) {
            return;
        }
        let line = tidy(line, self.max_bytes);
        let plugin = self.plugin.as_str();
        match level {
            Level::Debug => tracing::debug!(plugin, line, "plugin log"),
            Level::Info => tracing::info!(plugin, line, "plugin log"),
            Level::Warn => tracing::warn!(plugin, line, "plugin log"),
            Level::Error => tracing::error!(plugin, line, "plugin log"),
        }
    }

    /// Lines that were not written.
    pub(crate) fn lines_cut(&self) -> u64 {
        crate::lock(&self.rate).cut
    }
}

/// Lines per second, counted in whole seconds. Pure.
#[derive(Debug, Default)]
struct Rate {
    per_second: u32,
    second: u64,
    lines: u32,
    cut: u64,
}

impl Rate {
    fn admit(&mut self, now_ms: u64) -> bool {
        let second = now_ms / 1000;
        if second != self.second {
            self.second = second;
            self.lines = 0;
        }
        if self.lines < self.per_second {
            self.lines += 1;
            true
        } else {
            self.cut += 1;
            false
        }
    }
}

/// Cuts a line and takes out what could forge another line or steer a terminal.
fn tidy(line: &str, max_bytes: usize) -> String {
    let mut end = line.len().min(max_bytes);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_a_character_and_hold_no_control_characters() {
        assert_eq!(tidy("aé", 2), "a");
        assert_eq!(tidy("a\nb\x1b[31m", 100), "a b [31m");
        assert_eq!(tidy("", 0), "");
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let sink = LogSink::new("flood", 10, 3);
        for _ in 0..1000 {
            sink.write(Level::Debug, "x");
        }
        assert!(sink.lines_cut() >= 1000 - 2 * 3);
        let mut rate = Rate {
            per_second: 2,
            ..Rate::default()
        };
        let admitted: Vec<bool> = [0, 1, 2, 999, 1000, 1001, 1002].map(|ms| rate.admit(ms)).into();
        assert_eq!(admitted, [true, true, false, false, true, true, false]);
        assert_eq!(rate.cut, 3);
    }
}
