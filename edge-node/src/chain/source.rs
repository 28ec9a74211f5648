//! Where the component of a place comes from, and who vouches for it.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use sluice_package::{
    Asked, PackageName, Provenance, Refusal, State, Store, StoreError, Verified, Version, WantedLimits, limits,
    parse_version,
};
use sluice_runtime::Capability;

use super::{ChainError, builtin};
use crate::config::{PluginEntry, PluginLimits, Size, Span};

/// A component, and what is known of it without running it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) component: Vec<u8>,
    /// Of its package.
    pub(super) version: Option<String>,
    /// Where it is installed in the store.
    pub(super) installed: Option<(PackageName, Version)>,
    /// Who vouched for it, if it is a package.
    pub(super) provenance: Option<Provenance>,
    pub(super) limits: PluginLimits,
    /// What it may use at most; `None`: what every plugin may.
    pub(super) capabilities: Option<BTreeSet<Capability>>,
    /// For people.
    pub(super) origin: String,
    pub(super) warnings: Vec<String>,
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    /// Name of the place.
    pub(super) plugin: &'a str,
    pub(super) path: Option<&'a Path>,
    pub(super) unsigned: bool,
    /// Named by the operator, not only by the name of the place.
    pub(super) package: Option<&'a str>,
    pub(super) version: Option<&'a str>,
}

impl<'a> Wish<'a> {
    pub(super) fn of(entry: &'a PluginEntry) -> Wish<'a> {
        Wish {
            plugin: &entry.name,
            path: entry.path.as_deref(),
            unsigned: entry.unsigned,
            package: entry.package.as_deref(),
            version: entry.version.as_deref(),
        }
    }

    fn package_error(&self, source: StoreError) -> ChainError {
        ChainError::Package {
            plugin: self.plugin.to_owned(),
            source: Box::new(source),
        }
    }

    fn named<T>(&self, result: Result<T, sluice_package::NameError>) -> Result<T, ChainError> {
        result.map_err(|source| ChainError::Name {
            plugin: self.plugin.to_owned(),
            source,
        })
    }
}

/// Finds it: what `path` names, else the package of the store, else the standard plugin.
pub(super) fn find(wish: &Wish<'_>, store: &Store, state: &State) -> Result<Source, ChainError> {
    match wish.path {
        Some(path) if path.is_dir() => folder(wish, path, store),
        Some(path) => file(wish, path),
        None => by_name(wish, store, state),
    }
}

fn file(wish: &Wish<'_>, path: &Path) -> Result<Source, ChainError> {
    let read = |source| ChainError::Read {
        plugin: wish.plugin.to_owned(),
        path: path.to_owned(),
        source,
    };
    // What is not there is said before what may not be there.
    let file = std::fs::File::open(path).map_err(read)?;
    if !wish.unsigned {
        return Err(ChainError::Unsigned {
            plugin: wish.plugin.to_owned(),
            path: path.to_owned(),
        });
    }
    let mut component = Vec::new();
    // One byte more than the host takes: it says what is wrong with that.
    let limit = limits::COMPONENT_BYTES + 1;
    file.take(limit).read_to_end(&mut component).map_err(read)?;
    Ok(Source {
        component,
        version: None,
        installed: None,
        provenance: None,
        limits: PluginLimits::default(),
        capabilities: None,
        origin: format!("{}, unsigned", path.display()),
        warnings: Vec::new(),
    })
}

fn folder(wish: &Wish<'_>, path: &Path, store: &Store) -> Result<Source, ChainError> {
    let name = wish.package.map(str::parse).transpose();
    let name: Option<PackageName> = wish.named(name)?;
    let version = wish.named(wish.version.map(parse_version).transpose())?;
    let asked = Asked {
        name: name.as_ref(),
        version: version.as_ref(),
    };
    let verified = store.verify_folder(path, asked).map_err(|e| wish.package_error(e))?;
    let mut source = of_package(verified);
    source.installed = None;
    source.origin = format!("{} in {}", source.origin, path.display());
    Ok(source)
}

fn by_name(wish: &Wish<'_>, store: &Store, state: &State) -> Result<Source, ChainError> {
    let text = wish.package.unwrap_or(wish.plugin);
    let name: PackageName = wish.named(text.parse())?;
    let version = wish.named(wish.version.map(parse_version).transpose())?;
    let is_installed = state
        .plugins
        .get(&name)
        .is_some_and(|plugin| !plugin.versions.is_empty());
    if is_installed {
        let verified = store.resolve(&name, version.as_ref());
        return verified.map(of_package).map_err(|e| wish.package_error(e));
    }
    let (plugin, package) = (wish.plugin.to_owned(), text.to_owned());
    match builtin::component(text) {
        Some(component) => Ok(Source {
            component: component.to_owned(),
            version: None,
            installed: None,
            provenance: None,
            limits: PluginLimits::default(),
            capabilities: Some(Capability::ALL.into()),
            origin: "part of this program".to_owned(),
            warnings: Vec::new(),
        }),
        None if builtin::STANDARD.contains(&text) => Err(ChainError::NotBuiltIn { plugin, package }),
        None => Err(ChainError::NotThere { plugin, package }),
    }
}

fn of_package(verified: Verified) -> Source {
    let provenance = Some(verified.provenance());
    let manifest = verified.manifest;
    let granted = Capability::ALL.into_iter().filter(|capability| {
        let asked = &manifest.capabilities;
        asked.iter().any(|asked| asked.as_str() == capability.as_str())
    });
    Source {
        capabilities: Some(granted.collect()),
        provenance,
        component: verified.component,
        version: Some(manifest.version.to_string()),
        limits: wanted(&manifest.limits),
        origin: format!(
            "package {} {}, signed by {}",
            manifest.name, manifest.version, verified.signer
        ),
        installed: Some((manifest.name, manifest.version)),
        warnings: verified.warnings.iter().map(ToString::to_string).collect(),
    }
}

/// What a package asks for, as the configuration would.
pub(crate) fn wanted(limits: &WantedLimits) -> PluginLimits {
    let span = |micros: Option<u64>| micros.map(|micros| Span(Duration::from_micros(micros)));
    PluginLimits {
        interpreted: limits.interpreted.then_some(true),
        memory: limits.memory_bytes.map(Size),
        stack: limits.stack_bytes.map(Size),
        deadline: span(limits.deadline_us),
        deadline_per_row: span(limits.deadline_per_row_us),
        deadline_per_kib: span(limits.deadline_per_kib_us),
        output: limits.output_bytes.map(Size),
        output_ratio: limits
            .output_ratio
            .map(|ratio| usize::try_from(ratio).unwrap_or(usize::MAX)),
        log_lines_per_second: limits
            .log_lines_per_second
            .map(|lines| u32::try_from(lines).unwrap_or(u32::MAX)),
        state: limits.state_bytes.map(Size),
        ..PluginLimits::default()
    }
}

/// Whether somebody took back that it may run, and not only that it cannot be loaded.
pub(super) fn is_taken_back(error: &ChainError) -> bool {
    let ChainError::Package { source, .. } = error else {
        return false;
    };
    matches!(
        source.refusal(),
        Some(
            Refusal::Revoked { .. }
                | Refusal::KeyRevoked { .. }
                | Refusal::UnknownKey { .. }
                | Refusal::NotForThisKey { .. }
                | Refusal::Capability { .. }
        )
    )
}
