//! What the commands for plugins must know of components and of nodes: what a component says of itself, what its package would be
//! given, what is part of a node's program.

use sluice_package::{Capability, ComponentFacts, Kind, Version, WantedLimits};
use sluice_runtime::{Host, Limits, inspect};

use crate::chain;

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

/// The limits that a node gives a plugin whose package asks for these, and the bytes of its state; an operator may change both.
pub fn package_limits(wanted: &WantedLimits) -> (Limits, usize) {
    let limits = chain::wanted(wanted);
    (limits.resolve(), limits.state_bytes())
}

/// The kind of a plugin that is part of the program, or would be.
pub fn standard_kind(name: &str) -> Option<Kind> {
    match name {
        "mask" => Some(Kind::Mask),
        "sample" => Some(Kind::Sample),
        "enrich" => Some(Kind::Enrich),
        "filter" | "cardinality" => Some(Kind::Filter),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_standard_plugin_is_of_the_kind_that_its_source_says() {
        for name in chain::STANDARD {
            let source = format!("{}/../plugins/{name}/src/lib.rs", env!("CARGO_MANIFEST_DIR"));
            let source = std::fs::read_to_string(source).unwrap();
            let kind = standard_kind(name).unwrap();
            assert!(source.contains(&format!("Kind::{kind:?})")), "{name} is no {kind}");
        }
        assert_eq!(standard_kind("acme/mask"), None);
    }
}
