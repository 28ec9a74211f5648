//! What this program carries for authors: templates, SDKs and the contract, as files of the repository.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/assets.rs"));
}

/// The files below a folder of the repository, by their path within it.
pub(super) fn below(folder: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let prefix = format!("{folder}/");
    embedded::ASSETS
        .iter()
        .filter_map(move |(path, bytes)| Some((path.strip_prefix(&prefix)?, *bytes)))
}

pub(super) fn file(path: &str) -> Option<&'static [u8]> {
    embedded::ASSETS
        .iter()
        .find_map(|(own, bytes)| (*own == path).then_some(*bytes))
}

/// Writes a folder of the repository to another place; files that are already right keep their time stamps, because build tools go
/// by them.
pub(super) fn write_below(folder: &str, to: &Path) -> Result<()> {
    for (path, bytes) in below(folder) {
        write(&to.join(path), bytes)?;
    }
    Ok(())
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).ok().as_deref() == Some(bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_a_template_and_the_contract_is_there() {
        for language in ["rust", "js", "python"] {
            let folder = format!("plugins/templates/{language}");
            assert!(below(&folder).any(|(path, _)| path == "plugin.toml"), "{language}");
        }
        assert!(file("wit/plugin.wit").is_some_and(|text| !text.is_empty()));
        assert!(below("plugins/sdk").any(|(path, _)| path == "src/lib.rs"));
        assert!(below("plugins").all(|(path, _)| !path.contains("target/")));
    }
}
