//! Colours for whoever watches.

use std::io::{self, IsTerminal};

#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    pub(super) fn of_terminal() -> Paint {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = variable("TERM").is_some_and(|term| term == "dumb");
        Paint {
            on: io::stdout().is_terminal() && variable("NO_COLOR").is_none() && !dumb,
        }
    }

    #[cfg(test)]
    pub(super) fn new(on: bool) -> Paint {
        Paint { on }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn look(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(super) fn quiet(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn title(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        match self.on && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}
