//! What can be wrong with one call of a plugin.

use std::time::Duration;

/// A fault is the plugin's doing (or its limits'), never the sender's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("trap: {0}")]
    Trap(String),
    #[error("used more than its {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("needs more than its {0} bytes of memory")]
    Memory(usize),
    #[error("recursed deeper than its {0} bytes of stack")]
    Stack(usize),
    #[error("gave the host more than its {0} bytes")]
    Output(usize),
    #[error("gave back something invalid: {0}")]
    Invalid(String),
    #[error("failed: {}", short(.0))]
    Failed(String),
    #[error("cannot be started: {0}")]
    Start(String),
    #[error("cannot be given the batch: {0}")]
    Input(String),
    #[error("is switched off after {0} faults in a row")]
    Open(u32),
    /// By whoever put it into the chain; it fails as its kind does.
    #[error("may not run: {0}")]
    Blocked(String),
}

/// Whose words a fault is told in, and why rows were set aside. Both are written to disk, sent and logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// Those of the guest: nothing that it was given is hidden from who reads them.
    OfGuest,
    /// Those of the host alone: a mask follows, so what the guest was given, and might repeat, is not masked yet.
    OfHost,
}

impl Words {
    /// Why rows were set aside, as it may be told.
    pub(crate) fn reason(self, version: &str, of_guest: &str) -> String {
        match self {
            Words::OfGuest => of_guest.to_owned(),
            Words::OfHost => format!("set aside by version {version}; {HIDDEN}"),
        }
    }
}

const HIDDEN: &str = "the text is not kept, as it may hold what should be masked";

impl Fault {
    /// The same without what a guest may have chosen: the message of a mask, or of what stands ahead of one, may hold just what
    /// should be masked.
    pub(crate) fn without_text(self) -> Fault {
        match self {
            Fault::Trap(_) => Fault::Trap(HIDDEN.to_owned()),
            Fault::Invalid(_) => Fault::Invalid(HIDDEN.to_owned()),
            Fault::Failed(_) => Fault::Failed(HIDDEN.to_owned()),
            Fault::Start(_) => Fault::Start(HIDDEN.to_owned()),
            other => other,
        }
    }
}

/// The cause without a backtrace of the guest, which can be long.
pub(crate) fn cause(error: &wasmtime::Error) -> String {
    const MAX_CHARS: usize = 400;
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !cause.starts_with("error while executing at wasm backtrace") && !parts.iter().any(|p| p.contains(&cause)) {
            parts.push(cause);
        }
    }
    let text = if parts.is_empty() {
        error.to_string()
    } else {
        parts.join(": ")
    };
    text.chars().take(MAX_CHARS).collect()
}

/// A guest chooses this text, so it is cut.
fn short(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    text.chars()
        .take(MAX_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
