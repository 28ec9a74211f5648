//! The rules of going forward and back.

use semver::Version;

use super::{InstalledVersion, Mark, PluginState, Shadow, State, StateError, VersionText};
use crate::digest::Digest;
use crate::limits::VERSIONS;
use crate::manifest::Release;
use crate::name::PackageName;
use crate::time::Timestamp;

impl State {
    fn plugin_mut(&mut self, name: &PackageName) -> Result<&mut PluginState, StateError> {
        self.plugin(name)?;
        self.plugins
            .get_mut(name)
            .ok_or_else(|| StateError::NotInstalled { name: name.clone() })
    }

    /// Whether this version may come in.
    pub(in crate::store) fn admits(
        &self,
        name: &PackageName,
        version: &Version,
        digest: &Digest,
    ) -> Result<(), StateError> {
        let Some(plugin) = self.plugins.get(name) else {
            return Ok(());
        };
        if let Some(here) = plugin.versions.get(&version.into()) {
            if here.digest != *digest {
                let (name, version) = (name.clone(), version.clone());
                return Err(StateError::VersionTaken {
                    release: Box::new(Release { name, version }),
                    here: here.digest,
                    found: *digest,
                });
            }
            if let Some(Mark { reason, at }) = here.bad.clone() {
                return Err(StateError::Bad {
                    name: name.clone(),
                    version: version.clone(),
                    reason,
                    at,
                });
            }
        }
        if let Some(VersionText(highest)) = plugin.highest.clone().filter(|highest| *version < highest.0) {
            return Err(StateError::Downgrade {
                name: name.clone(),
                version: version.clone(),
                highest,
            });
        }
        if plugin.versions.len() >= VERSIONS && !plugin.versions.contains_key(&version.into()) {
            return Err(StateError::TooManyVersions { name: name.clone() });
        }
        Ok(())
    }

    /// Takes a version in; it becomes the current one if `activate`.
    pub(in crate::store) fn install(
        &mut self,
        name: &PackageName,
        version: &Version,
        digest: Digest,
        activate: bool,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.admits(name, version, &digest)?;
        let plugin = self.plugins.entry(name.clone()).or_default();
        let installed = InstalledVersion {
            digest,
            installed: now,
            bad: None,
        };
        plugin.versions.entry(version.into()).or_insert(installed);
        plugin.highest = plugin.highest.take().max(Some(version.into()));
        if activate {
            plugin.go_to(version);
        }
        Ok(())
    }

    /// Makes a version the current one because somebody says so; what was held against it is forgotten.
    pub(in crate::store) fn promote(&mut self, name: &PackageName, version: &Version) -> Result<(), StateError> {
        let plugin = self.plugin_mut(name)?;
        plugin.version(name, version)?;
        if let Some(current) = plugin.current.as_ref().filter(|current| version < &current.0) {
            let highest = current.0.clone();
            return Err(StateError::Downgrade {
                name: name.clone(),
                version: version.clone(),
                highest,
            });
        }
        if let Some(installed) = plugin.versions.get_mut(&version.into()) {
            installed.bad = None;
        }
        plugin.go_to(version);
        Ok(())
    }

    /// Goes back by hand, to the previous or to a chosen older version. Nothing is previous then: what was left is not a refuge.
    pub(in crate::store) fn rollback(
        &mut self,
        name: &PackageName,
        version: Option<&Version>,
    ) -> Result<Version, StateError> {
        let plugin = self.plugin_mut(name)?;
        let previous = plugin.previous.as_ref().map(|previous| &previous.0);
        let nothing = || StateError::NothingToGoBackTo { name: name.clone() };
        let version = version.or(previous).cloned().ok_or_else(nothing)?;
        plugin.good_version(name, &version)?;
        match plugin.current.as_ref().map(|current| &current.0) {
            Some(current) if *current == version => {
                return Err(StateError::AlreadyCurrent {
                    name: name.clone(),
                    version,
                });
            }
            Some(current) if *current < version => {
                return Err(StateError::NotBack {
                    name: name.clone(),
                    version,
                    current: current.clone(),
                });
            }
            _ => {}
        }
        plugin.go_to(&version);
        plugin.previous = None;
        Ok(version)
    }

    /// A version failed. If it is the current one, the previous one becomes current, and is returned.
    pub(in crate::store) fn mark_bad(
        &mut self,
        name: &PackageName,
        version: &Version,
        mark: Mark,
    ) -> Result<Option<Version>, StateError> {
        let plugin = self.plugin_mut(name)?;
        plugin.version(name, version)?;
        let text = VersionText::from(version);
        let mut back = None;
        if plugin.current.as_ref() == Some(&text) {
            let good = |other: &VersionText| plugin.versions.get(other).is_some_and(|v| v.bad.is_none());
            let previous = plugin.previous.clone().filter(good);
            let previous = previous.ok_or_else(|| StateError::NothingToGoBackTo { name: name.clone() })?;
            back = Some(previous.0.clone());
            plugin.current = Some(previous);
        }
        plugin.previous = plugin
            .previous
            .take()
            .filter(|previous| *previous != text && back.is_none());
        plugin.shadow = plugin
            .shadow
            .take()
            .filter(|shadow| shadow.version != text && plugin.current.as_ref() != Some(&shadow.version));
        if let Some(installed) = plugin.versions.get_mut(&text) {
            installed.bad = Some(mark);
        }
        Ok(back)
    }

    pub(in crate::store) fn set_shadow(
        &mut self,
        name: &PackageName,
        shadow: Option<(&Version, f64)>,
    ) -> Result<(), StateError> {
        let plugin = self.plugin_mut(name)?;
        let Some((version, share)) = shadow else {
            plugin.shadow = None;
            return Ok(());
        };
        plugin.good_version(name, version)?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(StateError::Share { share });
        }
        if plugin.current.as_ref().is_some_and(|current| current.0 == *version) {
            return Err(StateError::AlreadyCurrent {
                name: name.clone(),
                version: version.clone(),
            });
        }
        plugin.shadow = Some(Shadow {
            version: version.into(),
            share,
        });
        Ok(())
    }

    /// Throws the kill switch or takes it back. Any name has one; a name of which nothing is left has no entry.
    pub(in crate::store) fn set_disabled(&mut self, name: &PackageName, mark: Option<Mark>) {
        self.plugins.entry(name.clone()).or_default().disabled = mark;
        self.plugins.retain(|_, plugin| *plugin != PluginState::default());
    }

    /// Forgets one version, or all of them; what was the highest is remembered.
    pub(in crate::store) fn remove(&mut self, name: &PackageName, version: Option<&Version>) -> Result<(), StateError> {
        let plugin = self.plugin_mut(name)?;
        let Some(version) = version else {
            plugin.versions.clear();
            (plugin.current, plugin.previous, plugin.shadow) = (None, None, None);
            return Ok(());
        };
        plugin.version(name, version)?;
        let text = VersionText::from(version);
        let in_use = |role, remedy| StateError::InUse {
            name: name.clone(),
            version: version.clone(),
            role,
            remedy,
        };
        if plugin.current.as_ref() == Some(&text) {
            return Err(in_use(
                "runs",
                format!("roll back or promote another version first, or remove all of {name}"),
            ));
        }
        if plugin.shadow.as_ref().is_some_and(|shadow| shadow.version == text) {
            return Err(in_use(
                "runs in the shadow",
                format!("`sluice plugin shadow {name} --off` first"),
            ));
        }
        plugin.versions.remove(&text);
        plugin.previous = plugin.previous.take().filter(|previous| *previous != text);
        Ok(())
    }
}
