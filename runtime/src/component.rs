//! What a component is, read from its bytes without compiling or running any of it: its contract and what it imports.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, TypeBounds, Validator, WasmFeatures};

use crate::capability::{Capability, Grants};
use crate::limits::MAX_COMPONENT_BYTES;

/// Prefix of everything that a component may import.
const OURS: &str = "sluice:plugin/";
/// The interface that every plugin of contract 1 exports.
const GUEST: &str = "guest";
/// The functions that a plugin of contract 0.1 exports at top level; any of them tells it.
const DESCRIBE: &str = "describe";
/// Interfaces of contract 0.1 that are no capability: it holds types alone.
const TYPES: &str = "types";

/// A version of the contract, without the patch level, which changes nothing that either side could notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct ContractVersion {
    pub major: u16,
    pub minor: u16,
}

impl ContractVersion {
    pub const V0_1: ContractVersion = ContractVersion { major: 0, minor: 1 };
    pub const V1_0: ContractVersion = ContractVersion { major: 1, minor: 0 };
    /// The newest that this host runs. It runs every released one.
    pub const NEWEST: ContractVersion = ContractVersion::V1_0;

    fn known(self) -> bool {
        [ContractVersion::V0_1, ContractVersion::V1_0].contains(&self)
    }
}

impl fmt::Display for ContractVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What can be told of a component without running it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ComponentInfo {
    pub contract: ContractVersion,
    /// What it imports, so what it must be granted.
    pub capabilities: BTreeSet<Capability>,
    pub bytes: usize,
}

/// Why a component cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error("{bytes} bytes; at most {MAX_COMPONENT_BYTES} are read")]
    TooLarge { bytes: usize },
    #[error("not a component that this host can compile: {0}")]
    Malformed(String),
    #[error("imports `{0}`; only `{OURS}...` is there for plugins")]
    Forbidden(String),
    #[error("imports `{0}`, which this host does not offer")]
    Missing(String),
    #[error("uses `{0}`, which is not granted; grant it in the plugin's entry, or take a plugin that does not need it")]
    NotGranted(Capability),
    #[error("needs contract {0}; this host has up to {newest}: update the node", newest = ContractVersion::NEWEST)]
    Newer(ContractVersion),
    #[error("needs contract {0}, which was never released; build it with a released version of the contract")]
    Unreleased(ContractVersion),
    #[error("does not fit `{OURS}transform`: {0}")]
    World(String),
    #[error("takes more than {} s of processor time to compile", .0.as_secs_f64())]
    TooSlow(Duration),
    #[error("is not compiled after {} s; the compiler stands back behind all others: try again when the machine has less to do", .0.as_secs_f64())]
    Starved(Duration),
    #[error("takes more than {0} bytes of memory to compile")]
    CompilerMemory(u64),
    #[error("becomes more than {0} bytes of machine code")]
    TooMuchCode(u64),
    #[error("cannot be compiled here: {0}")]
    Compiler(String),
}

/// Looks at a component as publishing needs it: that it is valid, imports nothing but what hosts offer, and of which
/// contract it is. Does not compile or run it.
pub fn inspect(component: &[u8]) -> Result<ComponentInfo, ComponentError> {
    let info = look(component)?;
    let mut features = WasmFeatures::default();
    features.set(WasmFeatures::MEMORY64, false);
    features.set(WasmFeatures::RELAXED_SIMD, false);
    Validator::new_with_features(features)
        .validate_all(component)
        .map_err(|e| ComponentError::Malformed(e.to_string()))?;
    Ok(info)
}

/// Only the imports and exports; whoever compiles the component validates it.
pub(crate) fn look(component: &[u8]) -> Result<ComponentInfo, ComponentError> {
    if component.len() > MAX_COMPONENT_BYTES {
        return Err(ComponentError::TooLarge { bytes: component.len() });
    }
    let names = Names::read(component).map_err(ComponentError::Malformed)?;
    let mut capabilities = BTreeSet::new();
    let mut newest: Option<ContractVersion> = None;
    let mut unknown = None;
    for name in &names.imports {
        let ours = Ours::parse(name).ok_or_else(|| ComponentError::Forbidden(name.clone()))?;
        newest = newest.max(Some(ours.version));
        match ours.interface.parse() {
            Ok(capability) => drop(capabilities.insert(capability)),
            // What a guest has in common with its host is no capability: types alone.
            Err(_) if ours.interface == TYPES || ours.interface == GUEST => {}
            Err(_) => unknown = Some(name.clone()),
        }
    }
    let exported = names.exports.iter().filter_map(|name| Ours::parse(name));
    let guest = exported
        .filter(|ours| ours.interface == GUEST)
        .map(|ours| ours.version)
        .max();
    let old = names.exports.iter().any(|name| name == DESCRIBE);
    let contract = match guest {
        Some(version) => version.max(newest.unwrap_or(version)),
        None => newest.unwrap_or(ContractVersion::V0_1),
    };
    if contract > ContractVersion::NEWEST {
        return Err(ComponentError::Newer(contract));
    }
    if !contract.known() {
        return Err(ComponentError::Unreleased(contract));
    }
    if let Some(name) = unknown {
        return Err(ComponentError::Missing(name));
    }
    if guest.is_none() && !old {
        let newest = ContractVersion::NEWEST;
        let what = format!("it exports neither `{OURS}{GUEST}@{newest}.0` nor `{DESCRIBE}`");
        return Err(ComponentError::World(what));
    }
    Ok(ComponentInfo {
        contract,
        capabilities,
        bytes: component.len(),
    })
}

/// Whether all that a component uses is granted.
pub(crate) fn check_grants(info: &ComponentInfo, grants: &Grants) -> Result<(), ComponentError> {
    match info.capabilities.difference(&grants.capabilities).next() {
        None => Ok(()),
        Some(capability) => Err(ComponentError::NotGranted(*capability)),
    }
}

/// A name such as `sluice:plugin/log@1.0.0`.
struct Ours<'a> {
    interface: &'a str,
    version: ContractVersion,
}

impl<'a> Ours<'a> {
    fn parse(name: &'a str) -> Option<Ours<'a>> {
        let (interface, version) = name.strip_prefix(OURS)?.split_once('@')?;
        let mut parts = version.split('.');
        let mut number = || parts.next()?.parse().ok();
        let version = ContractVersion {
            major: number()?,
            minor: number()?,
        };
        Some(Ours { interface, version })
    }
}

/// Names at the border of a component, not of what is nested in it.
#[derive(Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

impl Names {
    fn read(component: &[u8]) -> Result<Names, String> {
        let mut names = Names::default();
        let mut depth = 0usize;
        for payload in Parser::new(0).parse_all(component) {
            match payload.map_err(|e| e.to_string())? {
                Payload::Version { encoding, .. } if depth == 0 && encoding != Encoding::Component => {
                    return Err("it is a core module; make a component of it".to_owned());
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        let import = import.map_err(|e| e.to_string())?;
                        // Another name of a type that is there already brings nothing in.
                        if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                            names.imports.push(import.name.name.to_owned());
                        }
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        names
                            .exports
                            .push(export.map_err(|e| e.to_string())?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }
}
