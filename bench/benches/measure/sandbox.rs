//! What the sandbox costs: a program of its own measures it, because the plugins as native libraries would give the libraries of
//! the product other features.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Line;

pub(crate) fn measure(program: &Path, dist: &Path) -> Vec<Line> {
    let mut sandbox = Command::new(program);
    sandbox
        .arg("--plugins")
        .arg(dist)
        .arg("--instructions")
        .stderr(Stdio::inherit());
    let output = sandbox.output().unwrap();
    assert!(
        output.status.success(),
        "{} ended with {}",
        program.display(),
        output.status
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| {
        let [what, value, against] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        crate::line(what, value.to_owned(), against.to_owned())
    });
    lines.collect()
}
