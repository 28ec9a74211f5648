//! The compiler's side: a component on standard input becomes an image on standard output, inside limits that the process
//! gives itself before it reads a byte.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::COMPILE_COMMAND;
use crate::engine;
use crate::limits::MAX_COMPONENT_BYTES;

/// Begins every answer, so that a program which is no compiler is noticed. Its length follows, eight bytes, least first.
pub(super) const ANSWER: [u8; 8] = *b"sluiceim";
/// Exit code: the component cannot be compiled; the reason stands on standard error.
pub(super) const MALFORMED: u8 = 65;
/// Exit code: this program was started in a way that it does not understand.
pub(super) const USAGE: u8 = 64;
/// Exit code: this machine did not let the compiler limit itself, or lost its pipes.
pub(super) const SYSTEM: u8 = 71;
/// How much it stands back behind those who serve.
const NICENESS: i32 = 10;

/// Whether this process was started with [`COMPILE_COMMAND`] as its first argument; `main` then calls [`compile_command`]
/// before anything else.
pub fn called_as_compiler() -> bool {
    std::env::args_os().nth(1).is_some_and(|first| first == COMPILE_COMMAND)
}

/// What a program does that was started as compiler.
pub fn compile_command() -> ExitCode {
    let arguments = std::env::args_os()
        .skip(1)
        .filter(|argument| argument != COMPILE_COMMAND);
    let Some(limits) = OwnLimits::parse(arguments) else {
        eprintln!("`{COMPILE_COMMAND}` is for the plugin host; it is given --memory-bytes=N and --seconds=N");
        return ExitCode::from(USAGE);
    };
    if let Err(error) = limits.apply() {
        eprintln!("the compiler cannot limit itself: {error}");
        return ExitCode::from(SYSTEM);
    }
    match compile_standard_input() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Component(what)) => {
            eprintln!("{what}");
            ExitCode::from(MALFORMED)
        }
        Err(Failure::System(error)) => {
            eprintln!("{error}");
            ExitCode::from(SYSTEM)
        }
    }
}

enum Failure {
    Component(String),
    System(std::io::Error),
}

fn compile_standard_input() -> Result<(), Failure> {
    let mut component = Vec::new();
    let most = MAX_COMPONENT_BYTES as u64 + 1;
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut component)
        .map_err(Failure::System)?;
    let image = engine::precompile(&component).map_err(Failure::Component)?;
    drop(component);
    let mut out = std::io::stdout().lock();
    out.write_all(&ANSWER)
        .and_then(|()| out.write_all(&(image.len() as u64).to_le_bytes()))
        .and_then(|()| out.write_all(&image))
        .and_then(|()| out.flush())
        .map_err(Failure::System)
}

/// What the process may use from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnLimits {
    memory_bytes: u64,
    seconds: u64,
}

impl OwnLimits {
    fn parse(arguments: impl Iterator<Item = OsString>) -> Option<OwnLimits> {
        let (mut memory_bytes, mut seconds) = (None, None);
        for argument in arguments {
            let (name, value) = argument.to_str()?.split_once('=')?;
            match name {
                "--memory-bytes" => memory_bytes = Some(value.parse().ok()?),
                "--seconds" => seconds = Some(value.parse().ok()?),
                _ => return None,
            }
        }
        Some(OwnLimits {
            memory_bytes: memory_bytes?,
            seconds: seconds?,
        })
    }

    fn apply(self) -> std::io::Result<()> {
        let limit = |resource, value: u64| {
            // Whoever uses up his time is told by a signal of its own; at the second limit it would be the one that any killer sends.
            let slack = u64::from(matches!(resource, Resource::Cpu));
            let limit = Rlimit {
                current: Some(value),
                maximum: Some(value + slack),
            };
            setrlimit(resource, limit)
        };
        // It cannot outlive whom it works for.
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        limit(Resource::Core, 0)?;
        limit(Resource::Fsize, 0)?;
        limit(Resource::As, self.memory_bytes)?;
        limit(Resource::Cpu, self.seconds)?;
        // Whoever may not do this compiles with the weight of everyone else.
        let _ = rustix::process::nice(NICENESS);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_are_needed_and_nothing_else_is_taken() {
        let parse = |text: &str| OwnLimits::parse(text.split_whitespace().map(OsString::from));
        let limits = OwnLimits {
            memory_bytes: 7,
            seconds: 8,
        };
        assert_eq!(parse("--memory-bytes=7 --seconds=8"), Some(limits));
        for wrong in [
            "",
            "--seconds=8",
            "--memory-bytes=7",
            "--memory-bytes=7 --seconds=x",
            "--memory-bytes=7 --seconds=8 --more=1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
