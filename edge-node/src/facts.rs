//! What a component says of itself, for the commands that sign and check packages.

use sluice_package::{Capability, ComponentFacts, Kind, Version};
use sluice_runtime::{Host, inspect};

/// Looks into a component, and asks it what it is: inside the limits that every plugin has, in a process that compiles it apart.
pub fn component_facts(component: &[u8], host: &Host) -> Result<ComponentFacts, String> {
    let info = inspect(component).map_err(|error| error.to_string())?;
    let said = host.describe(component).map_err(|error| error.to_string())?;
    let version = Version::parse(&said.version)
        .map_err(|error| format!("its version {:?} is no semantic version: {error}", said.version))?;
    let capabilities = info
        .capabilities
        .iter()
        .map(|capability| capability.as_str().parse::<Capability>());
    Ok(ComponentFacts {
        name: said.name,
        version,
        kind: match said.kind {
            sluice_runtime::Kind::Mask => Kind::Mask,
            sluice_runtime::Kind::Sample => Kind::Sample,
            sluice_runtime::Kind::Enrich => Kind::Enrich,
            sluice_runtime::Kind::Filter => Kind::Filter,
        },
        contract: Version::new(info.contract.major.into(), info.contract.minor.into(), 0),
        capabilities: capabilities
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?,
        reads: said.reads,
        writes: said.writes,
        config_schema: said.config_schema,
    })
}
