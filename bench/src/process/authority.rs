//! `sluice ca`, called as an operator would.

use std::io;
use std::path::Path;
use std::process::Command;

/// Runs it on the authority in `dir` and returns what it printed; that it failed is an error with its own words.
pub fn ca(sluice: &Path, dir: &Path, words: &[&str]) -> io::Result<String> {
    let output = Command::new(sluice)
        .args(["ca", "--dir"])
        .arg(dir)
        .args(words)
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "`sluice ca {}` failed: {said}",
            words.join(" ")
        )));
    }
    String::from_utf8(output.stdout).map_err(io::Error::other)
}
