//! The folder of a plugin's source: where it is, what language it is in, what it is called.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use sluice_package::{PluginSource, SOURCE_FILE};

/// What may be source, and how much of it is looked at for something newer than the component.
const SOURCE_ENDINGS: [&str; 6] = ["rs", "toml", "js", "ts", "py", "txt"];
const SOURCE_DEPTH: usize = 5;
const SOURCE_FILES: usize = 1000;

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

    /// Where the source says its version.
    pub(super) fn version_file(self) -> &'static str {
        match self {
            Language::Rust => "Cargo.toml",
            Language::Js => "plugin.js",
            Language::Python => "plugin.py",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Project {
    pub(super) root: PathBuf,
    pub(super) language: Language,
    /// Without its vendor.
    pub(super) name: String,
    /// What plugin.toml says.
    pub(super) source: PluginSource,
}

impl Project {
    /// The project in a folder or above it; or the only one right below it, so that `new` and `build` can follow each other.
    pub(super) fn find(from: &Path) -> Result<Project> {
        let file = PluginSource::find(from)?;
        let root = file.parent().unwrap_or(Path::new("."));
        if fs::canonicalize(from).is_ok_and(|from| root.parent() == Some(&from)) {
            eprintln!("plugin in {}", root.display());
        }
        Project::open(root)
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
        let source = PluginSource::load(&root.join(SOURCE_FILE))?;
        let name = source.package.name.as_str();
        let name = name.rsplit('/').next().unwrap_or(name).to_owned();
        check_name(&name)?;
        Ok(Project {
            root: root.to_owned(),
            language,
            name,
            source,
        })
    }

    /// Where `build` puts the component.
    pub(super) fn component(&self) -> PathBuf {
        self.root.join("dist").join(format!("{}.wasm", self.name))
    }

    /// The component, with a word on what to do if there is none, or an older one than the source.
    pub(super) fn read_component(&self) -> Result<Vec<u8>> {
        let path = self.component();
        if let Some(newer) = self.newer_source(&path) {
            let inside = |path: &Path| path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
            eprintln!(
                "note: {} is newer than {}: `sluice plugin build` makes it anew",
                inside(&newer),
                inside(&path)
            );
        }
        fs::read(&path).with_context(|| {
            format!(
                "cannot read {}: build the plugin first, with `sluice plugin build`",
                path.display()
            )
        })
    }

    /// A file of the source that was changed after the component was made.
    fn newer_source(&self, component: &Path) -> Option<PathBuf> {
        let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
        let made = changed(component)?;
        let is_newer = |path: &PathBuf| changed(path).is_some_and(|time| time > made);
        let mut files = vec![self.root.join(SOURCE_FILE)];
        match self.language {
            Language::Rust => {
                files.push(self.root.join("Cargo.toml"));
                files_below(&self.root.join("src"), SOURCE_DEPTH, &mut files);
            }
            // Their modules lie beside what the tools of the language put there.
            Language::Js | Language::Python => files_below(&self.root, 1, &mut files),
        }
        let is_source = |path: &PathBuf| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| SOURCE_ENDINGS.contains(&ending))
        };
        files.into_iter().filter(is_source).find(is_newer)
    }

    /// What this program puts there for the build: SDK and contract.
    pub(super) fn kit(&self) -> PathBuf {
        self.root.join(".sluice")
    }
}

fn files_below(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
    {
        if found.len() >= SOURCE_FILES {
            return;
        }
        match path.is_dir() {
            true if depth > 1 => files_below(&path, depth - 1, found),
            true => {}
            false => found.push(path),
        }
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
            let source = format!("[package]\nname = \"acme/{name}\"\npublisher = \"Acme\"\n");
            fs::write(root.join(SOURCE_FILE), source).unwrap();
            fs::write(root.join("Cargo.toml"), "").unwrap();
            root
        };
        let one = make("one");
        for from in [&one, &one.join("src/deep"), &folder.path().to_owned()] {
            let project = Project::find(from).unwrap();
            assert_eq!((project.name.as_str(), project.language), ("one", Language::Rust));
        }
        fs::write(
            folder.path().join("one").join(SOURCE_FILE),
            "[package]\nname = \"acme/one\"\npublishr = \"x\"\n",
        )
        .unwrap();
        let error = format!("{:#}", Project::find(&one).unwrap_err());
        assert!(
            error.contains("publishr"),
            "what `sign` would refuse is told at once: {error}"
        );
        make("two");
        let error = Project::find(folder.path()).unwrap_err().to_string();
        assert!(error.contains("several"), "{error}");
    }

    #[test]
    fn a_component_that_is_older_than_its_source_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let put = |name: &str, seconds: u64| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = "[package]\nname = \"acme/one\"\npublisher = \"Acme\"\n";
            fs::write(&path, text).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        };
        for name in ["plugin.toml", "Cargo.toml", "src/lib.rs", "src/deep/more.rs"] {
            put(name, 100);
        }
        let project = Project::open(root).unwrap();
        let newer = || project.newer_source(&project.component());
        assert_eq!(newer(), None, "there is no component");
        put("dist/one.wasm", 200);
        // What is no source may be as new as it likes.
        put("fixtures/a.json", 300);
        put("src/notes.md", 300);
        assert_eq!(newer(), None);
        put("src/deep/more.rs", 201);
        assert_eq!(newer(), Some(root.join("src/deep/more.rs")));
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
