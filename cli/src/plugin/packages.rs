//! The commands for packages, with what they need to know of components and of where nodes keep their data.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use sluice_package::command::{self, CommandError, Host, Output, PackageCommand};
use sluice_package::{ComponentFacts, Policy, Version};
use sluice_runtime::Kind;

use super::sandbox;

/// Where `sluice up` keeps its edge's data by default.
const DATA: &str = "sluice-data/edge";

pub(super) async fn run(command: PackageCommand) -> Result<ExitCode> {
    let host = Host {
        inspect: &inspect,
        policy: Policy::default(),
        data: PathBuf::from(DATA),
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
            eprintln!("error: {}", chain(&error));
            Ok(ExitCode::from(code))
        }
    }
}

fn chain(error: &CommandError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What a component says of itself, in the sandbox that edges have.
fn inspect(component: &[u8]) -> Result<ComponentFacts, String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let info = sluice_runtime::inspect(component).map_err(|error| text(error.into()))?;
    let host = sandbox::host().map_err(text)?;
    let about = host.describe(component).map_err(|error| text(error.into()))?;
    Ok(ComponentFacts {
        name: about.name,
        version: parse_version(&about.version)?,
        kind: match about.kind {
            Kind::Mask => sluice_package::Kind::Mask,
            Kind::Sample => sluice_package::Kind::Sample,
            Kind::Enrich => sluice_package::Kind::Enrich,
            Kind::Filter => sluice_package::Kind::Filter,
        },
        contract: Version::new(info.contract.major.into(), info.contract.minor.into(), 0),
        capabilities: info
            .capabilities
            .iter()
            .map(|capability| capability.to_string().parse())
            .collect::<Result<_, _>>()
            .map_err(|error: sluice_package::CapabilityError| error.to_string())?,
        reads: about.reads,
        writes: about.writes,
        config_schema: about.config_schema,
    })
}

fn parse_version(text: &str) -> Result<Version, String> {
    sluice_package::parse_version(text).map_err(|error| format!("version {text:?}: {error}"))
}
