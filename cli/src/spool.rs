//! `sluice spool`: looks into the data folder of an edge. What it does is in `sluice_edge::tools`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use sluice_edge::tools::{self, Output, SpoolCommand};

pub(crate) async fn run(command: SpoolCommand) -> Result<ExitCode> {
    let code = tokio::task::spawn_blocking(move || {
        let mut output = Output {
            out: &mut std::io::stdout(),
            notes: &mut std::io::stderr(),
            is_watched: std::io::stderr().is_terminal(),
        };
        tools::run(&command, &mut output)
    });
    Ok(ExitCode::from(code.await??))
}
