//! The commands for packages, with what they need to know of components and of where nodes keep their data.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use sluice_package::command::{self, Host, Output, PackageCommand};
use sluice_package::{ComponentFacts, Policy};

use super::sandbox;

/// Where `sluice up` keeps its edge's data by default.
const DATA: &str = "sluice-data/edge";

pub(super) async fn run(command: PackageCommand) -> Result<ExitCode> {
    let host = Host {
        inspect: &inspect,
        policy: Policy::default(),
        data: PathBuf::from(DATA),
        standard: &sluice_edge::standard_kind,
        ask: &command::ask_on_terminal,
    };
    let (mut out, mut notes) = (std::io::stdout(), std::io::stderr());
    let mut output = Output {
        out: &mut out,
        notes: &mut notes,
    };
    match command::run(command, &host, &mut output).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let code = error.exit_code();
            eprintln!("error: {:#}", anyhow::Error::from(error));
            Ok(ExitCode::from(code))
        }
    }
}

/// What a component says of itself, in the sandbox that keeps what it compiled.
fn inspect(component: &[u8]) -> Result<ComponentFacts, String> {
    let host = sandbox::host().map_err(|error| format!("{error:#}"))?;
    let _word = sandbox::compiling("the component", component);
    sluice_edge::component_facts(component, &host)
}
