//! JavaScript: npm fetches the bundler and the componentizer into the plugin's folder, the SDK's script calls them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::Tools;
use crate::plugin::project::Project;

pub(super) fn build(project: &Project, tools: &Tools) -> Result<Vec<u8>> {
    tools.version(
        "node",
        &["--version"],
        (20, 0),
        "Plugins in JavaScript are built with Node.js 20 or newer",
    )?;
    if is_stale(project) {
        let mut install = Command::new("npm");
        install
            .current_dir(&project.root)
            .args(["install", "--no-audit", "--no-fund", "--loglevel=error"]);
        tools.run("fetching the tools (npm install)", &mut install)?;
    }
    let out = project.kit().join("build/plugin.wasm");
    let mut make = Command::new("node");
    make.current_dir(&project.root)
        .arg(".sluice/sdk/build.mjs")
        .args(["--out", ".sluice/build/plugin.wasm"]);
    tools.run("making the component", &mut make)?;
    fs::read(&out).with_context(|| format!("cannot read {}", out.display()))
}

/// Whether what package.json names was not fetched since it changed.
fn is_stale(project: &Project) -> bool {
    let time = |name: &str| {
        fs::metadata(project.root.join(name))
            .and_then(|file| file.modified())
            .ok()
    };
    if !project.root.join("node_modules/sluice-plugin").exists() {
        return true;
    }
    match (time("node_modules/.package-lock.json"), time("package.json")) {
        (Some(fetched), Some(named)) => fetched < named,
        _ => true,
    }
}
