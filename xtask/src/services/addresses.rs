//! What is told to those who use the engines: lines for a shell, a file for a program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};
use serde_json::json;

use super::engine::{Engine, Started};

pub(super) type Variables = Vec<(&'static str, String)>;

/// Lines that a shell can source.
pub(super) fn lines(variables: &Variables) -> String {
    variables
        .iter()
        .map(|(name, value)| format!("{name}={}\n", quoted(value)))
        .collect()
}

fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@,+=%".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', "'\\''"))
    }
}

/// The file that says that the engines answer; it goes when they do.
#[derive(Debug)]
pub(super) struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    /// Whoever waits for the file never sees half of it.
    pub(super) fn write(path: &Path, variables: &Variables, started: &[Started], given: &[Engine]) -> Result<Self> {
        let engines: Vec<_> = started
            .iter()
            .map(|one| {
                json!({
                    "name": one.engine.name(),
                    "pid": one.running.id(),
                    "address": one.launch.address.to_string(),
                    "data": one.data,
                    "log": one.log,
                })
            })
            .collect();
        let variables: serde_json::Map<String, _> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let text = serde_json::to_string_pretty(&json!({
            "pid": process::id(),
            "variables": variables,
            "engines": engines,
            "given": given.iter().map(|engine| engine.name()).collect::<Vec<_>>(),
        }))
        .context("cannot write JSON")?;
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", process::id()));
        fs::write(&fresh, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        fs::rename(&fresh, path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
        })
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // If somebody else removed it, so much the better.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_shell_reads_back_every_value() -> anyhow::Result<()> {
        for value in [
            "127.0.0.1:9092,b:1",
            "http://h:1/?a=b&c",
            "",
            "it's $HOME `x` \"y\" \\",
            "two words\nlines",
        ] {
            let script = format!("v={}; printf %s \"$v\"", quoted(value));
            let output = std::process::Command::new("sh").args(["-c", &script]).output()?;
            assert_eq!(String::from_utf8(output.stdout)?, value, "{script}");
        }
        Ok(())
    }
}
