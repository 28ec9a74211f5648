//! A compiler of plugins and nothing else: what the host starts.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_runtime::compile_command()
}
