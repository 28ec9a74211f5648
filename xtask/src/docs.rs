//! Links of documents: what a Markdown file of the repository points to inside the repository exists.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Folders that hold no documents of ours.
const SKIPPED: [&str; 5] = ["target", ".git", "node_modules", "sluice-data", "dist"];

pub(crate) fn check(root: &Path) -> Result<()> {
    let mut broken = Vec::new();
    for document in documents(root)? {
        let text = fs::read_to_string(&document).with_context(|| format!("cannot read {}", document.display()))?;
        let folder = document.parent().unwrap_or(root);
        for (line, link) in links(&text) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !folder.join(path).exists() {
                let shown = document.strip_prefix(root).unwrap_or(&document).display();
                broken.push(format!("{shown}:{line}: there is no {link}"));
            }
        }
    }
    if !broken.is_empty() {
        bail!("broken links:\n{}", broken.join("\n"));
    }
    Ok(())
}

fn documents(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && !SKIPPED.contains(&name.as_str()) {
            found.extend(documents(&path)?);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Targets of `[text](target)` outside code, that are no addresses; with their line.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // Every second piece stands between backticks.
        for piece in line.split('`').step_by(2) {
            for after in piece.split("](").skip(1) {
                let target = after.split([')', ' ']).next().unwrap_or_default();
                if !target.contains("://") && !target.starts_with("mailto:") {
                    found.push((number + 1, target.to_owned()));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_where_a_reader_sees_them() {
        let text = "a [b](c.md) and [d](https://e) `[f](g)`\n```\n[h](i)\n```\n[j](k.md#l) [m](#n)";
        let expected = [(1, "c.md"), (5, "k.md#l"), (5, "#n")].map(|(line, link)| (line, link.to_owned()));
        assert_eq!(links(text), expected);
    }
}
