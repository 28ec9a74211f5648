//! Components become machine code in a process of their own, under limits: a compiler is a large program fed with a
//! stranger's bytes.

mod child;
mod parent;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub use child::{called_as_compiler, compile_command};
pub(crate) use parent::compile;

/// First argument of a program that is started as compiler; it calls [`compile_command`] and nothing else.
pub const COMPILE_COMMAND: &str = "compile-plugin";
/// Bytes of address space of a compiler: an embedded Python of 18 MB takes 350 MB.
pub const DEFAULT_COMPILER_BYTES: u64 = 1024 * 1024 * 1024;
/// Processor time of a compiler: an embedded Python takes 5 s on a fast machine, 18 s on a slow server, more on a small board.
pub const DEFAULT_COMPILER_TIME: Duration = Duration::from_secs(120);

/// The program that compiles, and what it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    pub program: PathBuf,
    /// Given before the options of the host.
    pub args: Vec<OsString>,
    /// Bytes of address space.
    pub memory_bytes: u64,
    /// Processor time. On the wall it may take ten times as long, as it stands back behind those who serve.
    pub time: Duration,
}

impl Compiler {
    /// This very program, started once more with [`COMPILE_COMMAND`]; its `main` must hand that over to [`compile_command`]
    /// before anything else.
    pub fn this_program() -> Compiler {
        Compiler::new(this_executable(), [COMPILE_COMMAND])
    }

    /// Another program that calls [`compile_command`].
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Compiler {
        Compiler {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            memory_bytes: DEFAULT_COMPILER_BYTES,
            time: DEFAULT_COMPILER_TIME,
        }
    }
}

/// By way of the kernel where it knows: the program that runs, also when its file was replaced by another version since.
fn this_executable() -> PathBuf {
    if cfg!(target_os = "linux") {
        PathBuf::from("/proc/self/exe")
    } else {
        std::env::current_exe().unwrap_or_default()
    }
}
