//! The programs that engines are fetched and run with: where they are, whether they are new enough, how to get them.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// A program that a developer has to have, and what to say where it is missing.
#[derive(Debug)]
pub(super) struct Tool {
    name: &'static str,
    /// Prints the version.
    version_argument: &'static [&'static str],
    /// The smallest version that will do: major and minor.
    least: (u32, u32),
    purpose: &'static str,
    install: &'static str,
}

pub(super) const JAVA: Tool = Tool {
    name: "java",
    version_argument: &["-version"],
    least: (17, 0),
    purpose: "runs the Kafka broker",
    install: "Debian, Ubuntu: apt install openjdk-17-jre-headless   Fedora: dnf install java-21-openjdk-headless   macOS: brew install openjdk",
};
pub(super) const MVN: Tool = Tool {
    name: "mvn",
    version_argument: &["--version"],
    least: (3, 6),
    purpose: "fetches the Kafka broker from Maven Central",
    install: "Debian, Ubuntu: apt install maven   Fedora: dnf install maven   macOS: brew install maven",
};
pub(super) const GO: Tool = Tool {
    name: "go",
    version_argument: &["version"],
    least: (1, 24),
    purpose: "builds MinIO, the S3 server, and the registry",
    install: "https://go.dev/dl (distributions are often too old)   macOS: brew install go",
};
pub(super) const PYTHON: Tool = Tool {
    name: "python3",
    version_argument: &["--version"],
    least: (3, 9),
    purpose: "carries the ClickHouse engine and the round trips of --check",
    install: "Debian, Ubuntu: apt install python3 python3-venv   Fedora: dnf install python3   macOS: brew install python",
};

impl Tool {
    /// The program to run, or an error that says what is missing and how to install it.
    pub(super) fn find(&self) -> Result<PathBuf> {
        let program = self.path();
        let output = Command::new(&program)
            .args(self.version_argument)
            .stdin(Stdio::null())
            .output();
        let Ok(output) = output else {
            bail!("`{}` is missing: it {}.\n  {}", self.name, self.purpose, self.install);
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let (major, minor) = self.least;
        match first_version(&text) {
            Some(found) if found >= self.least => Ok(program),
            Some((a, b)) => bail!(
                "`{}` is version {a}.{b}, and {major}.{minor} or newer is needed: it {}.\n  {}",
                self.name,
                self.purpose,
                self.install
            ),
            None => bail!(
                "`{}` does not run: it says {:?}. {major}.{minor} or newer is needed: it {}.\n  {}",
                self.name,
                text.trim(),
                self.purpose,
                self.install
            ),
        }
    }

    fn path(&self) -> PathBuf {
        // A JDK that the developer chose is meant to be used, whatever else stands in the path.
        if self.name == "java"
            && let Some(home) = env::var_os("JAVA_HOME")
        {
            let chosen = PathBuf::from(home).join("bin/java");
            if chosen.is_file() {
                return chosen;
            }
        }
        PathBuf::from(self.name)
    }
}

/// Fails with every tool that is missing, not with the first one only.
pub(super) fn need(tools: &[&Tool]) -> Result<()> {
    let missing: Vec<String> = tools
        .iter()
        .filter_map(|tool| tool.find().err())
        .map(|error| format!("- {error}"))
        .collect();
    if !missing.is_empty() {
        bail!("not all programs are here that this needs:\n{}", missing.join("\n"));
    }
    Ok(())
}

/// The first `number.number` or `"number` of a version text; a number alone counts as `number.0`.
fn first_version(text: &str) -> Option<(u32, u32)> {
    let plain = text
        .find('\u{1b}')
        .map_or(text, |at| text[at..].split_once('m').map_or("", |(_, rest)| rest));
    let digits = plain.find(|c: char| c.is_ascii_digit())?;
    let rest = &plain[digits..];
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let mut parts = rest[..end].split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next().and_then(|p| p.parse().ok()).unwrap_or(0);
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::first_version;

    #[test]
    fn versions_are_found_in_what_tools_print() {
        for (text, version) in [
            ("openjdk version \"17.0.15\" 2025-04-15", (17, 0)),
            ("openjdk version \"21\" 2023-09-19", (21, 0)),
            ("Apache Maven 3.8.7", (3, 8)),
            // Colours of a terminal have digits too.
            ("\u{1b}[1mApache Maven 3.8.7\u{1b}[m", (3, 8)),
            ("go version go1.26.8 linux/amd64", (1, 26)),
            ("Python 3.11.7", (3, 11)),
        ] {
            assert_eq!(first_version(text), Some(version), "{text}");
        }
        assert_eq!(first_version("no such thing"), None);
    }
}
