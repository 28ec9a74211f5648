//! The folder of a plugin's source: where it is, what language it is in, what it is called.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

/// Marks the folder; it says what the source does not: publisher, capabilities, limits.
pub(super) const FILE: &str = "plugin.toml";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
    Js,
    Python,
}

impl Language {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Js => "js",
            Language::Python => "python",
        }
    }

    /// Whether the component carries an interpreter, which decides its limits.
    pub(super) fn is_interpreted(self) -> bool {
        self != Language::Rust
    }
}

#[derive(Clone, Debug)]
pub(super) struct Project {
    pub(super) root: PathBuf,
    pub(super) language: Language,
    /// Without its vendor.
    pub(super) name: String,
}

impl Project {
    /// The project in a folder or above it; or the only one right below it, so that `new` and `build` can follow each other.
    pub(super) fn find(from: &Path) -> Result<Project> {
        let from = fs::canonicalize(from).with_context(|| format!("cannot find {}", from.display()))?;
        if let Some(root) = from.ancestors().find(|folder| folder.join(FILE).is_file()) {
            return Project::open(root);
        }
        let mut below: Vec<PathBuf> = fs::read_dir(&from)
            .with_context(|| format!("cannot read {}", from.display()))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join(FILE).is_file())
            .collect();
        below.sort();
        match &below[..] {
            [only] => {
                eprintln!("plugin in {}", only.display());
                Project::open(only)
            }
            [] => bail!(
                "no {FILE} in {} or above it: this is no folder of a plugin\n  make one with `sluice plugin new NAME`, or say which with --project DIR",
                from.display()
            ),
            several => bail!(
                "several plugins below {}: say which with --project DIR, such as {}",
                from.display(),
                several[0].display()
            ),
        }
    }

    fn open(root: &Path) -> Result<Project> {
        let has = |name: &str| root.join(name).is_file();
        let language = if has("Cargo.toml") {
            Language::Rust
        } else if has("package.json") {
            Language::Js
        } else if has("requirements.txt") {
            Language::Python
        } else {
            bail!(
                "cannot tell the language of {}: it has no Cargo.toml, package.json or requirements.txt",
                root.display()
            )
        };
        let path = root.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let table: toml::Table = toml::from_str(&text).with_context(|| format!("{} is no TOML", path.display()))?;
        let name = table
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(toml::Value::as_str)
            .with_context(|| format!("{} has no name in [package]", path.display()))?;
        let name = name.rsplit('/').next().unwrap_or(name).to_owned();
        check_name(&name)?;
        Ok(Project {
            root: root.to_owned(),
            language,
            name,
        })
    }

    /// Where `build` puts the component.
    pub(super) fn component(&self) -> PathBuf {
        self.root.join("dist").join(format!("{}.wasm", self.name))
    }

    /// The component, with a word on what to do if there is none.
    pub(super) fn read_component(&self) -> Result<Vec<u8>> {
        let path = self.component();
        fs::read(&path).with_context(|| {
            format!(
                "cannot read {}: build the plugin first, with `sluice plugin build`",
                path.display()
            )
        })
    }

    /// What this program puts there for the build: SDK and contract.
    pub(super) fn kit(&self) -> PathBuf {
        self.root.join(".sluice")
    }
}

/// A name that is a file, a crate and a package everywhere.
pub(super) fn check_name(name: &str) -> Result<()> {
    let fits = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.ends_with('-');
    if !fits {
        bail!(
            "{name:?} is no name for a plugin: 1 to 64 small letters, digits and `-`, beginning with a letter, such as `drop-health`"
        );
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_found_from_within_from_above_and_never_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let error = Project::find(folder.path()).unwrap_err().to_string();
        assert!(error.contains("sluice plugin new"), "{error}");
        let make = |name: &str| {
            let root = folder.path().join(name);
            fs::create_dir_all(root.join("src/deep")).unwrap();
            fs::write(root.join(FILE), format!("[package]\nname = \"acme/{name}\"\n")).unwrap();
            fs::write(root.join("Cargo.toml"), "").unwrap();
            root
        };
        let one = make("one");
        for from in [&one, &one.join("src/deep"), &folder.path().to_owned()] {
            let project = Project::find(from).unwrap();
            assert_eq!((project.name.as_str(), project.language), ("one", Language::Rust));
        }
        make("two");
        let error = Project::find(folder.path()).unwrap_err().to_string();
        assert!(error.contains("several"), "{error}");
    }

    #[test]
    fn names_are_small_letters_digits_and_dashes() {
        for good in ["a", "drop-health2"] {
            check_name(good).unwrap();
        }
        for bad in ["", "A", "2x", "a_b", "a/b", "../x", "a-", "ä"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
