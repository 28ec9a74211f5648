//! Rust: cargo makes a core module that carries its contract in a custom section; it is wrapped as a component.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Tools;
use crate::plugin::assets;
use crate::plugin::project::Project;

const TARGET: &str = "wasm32-unknown-unknown";
/// Guests use the vector instructions of Wasm; every host that Sluice runs on has them.
const FLAGS: &str = "-C target-feature=+simd128,+bulk-memory,+sign-ext,+nontrapping-fptoint";
/// Members of the plugins workspace that are the SDK.
const SDK: [&str; 3] = ["sdk", "sdk-macros", "fixture"];

pub(super) fn build(project: &Project, tools: &Tools) -> Result<Vec<u8>> {
    ensure_target(project, tools)?;
    let cargo = || {
        let mut cargo = Command::new("cargo");
        // Flags for the host's processor mean nothing to the sandbox.
        cargo
            .current_dir(&project.root)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", FLAGS);
        cargo
    };
    let mut compile = cargo();
    compile.args(["build", "--release", "--target", TARGET, "--lib"]);
    tools.run("compiling", &mut compile)?;
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cannot run `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata`: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("answer of `cargo metadata`")?;
    let library = cdylib(&metadata).context(
        "Cargo.toml makes no library that can become a component: it needs [lib] crate-type = [\"cdylib\", \"rlib\"]",
    )?;
    let folder = metadata["target_directory"]
        .as_str()
        .context("target folder of cargo")?;
    let module = std::path::Path::new(folder)
        .join(TARGET)
        .join("release")
        .join(format!("{library}.wasm"));
    let bytes = std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| encoder.encode())
        .context("cannot make a component: does the source use `#[sluice_plugin]` or `export_plugin!`?")
}

/// The SDK as a workspace of its own: its members and their versions as in this program's repository.
pub(super) fn write_sdk(project: &Project) -> Result<()> {
    // The members find each other and the contract as in the repository.
    let kit = project.kit().join("sdk");
    for folder in ["wit", "plugins/sdk", "plugins/sdk-macros", "plugins/fixture"] {
        assets::write_below(folder, &kit.join(folder))?;
    }
    let text = assets::file("plugins/Cargo.toml").context("this program was built without the SDK")?;
    let text = std::str::from_utf8(text).context("manifest of the SDK")?;
    let mut manifest: toml::Table = toml::from_str(text).context("manifest of the SDK")?;
    if let Some(workspace) = manifest.get_mut("workspace").and_then(toml::Value::as_table_mut) {
        let members = SDK.map(|member| toml::Value::String(member.to_owned()));
        workspace.insert("members".to_owned(), toml::Value::Array(members.to_vec()));
    }
    manifest.remove("profile");
    let text = toml::to_string(&manifest).context("manifest of the SDK")?;
    assets::write(&kit.join("plugins/Cargo.toml"), text.as_bytes())
}

fn cdylib(metadata: &Value) -> Option<String> {
    let packages = metadata["packages"].as_array()?;
    let targets = packages
        .iter()
        .flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let is_cdylib = |target: &&Value| {
        let kinds = target["crate_types"].as_array();
        kinds.into_iter().flatten().any(|kind| kind == "cdylib")
    };
    let target = targets.into_iter().find(is_cdylib)?;
    Some(target["name"].as_str()?.replace('-', "_"))
}

/// The compiler's own library for the sandbox.
fn ensure_target(project: &Project, tools: &Tools) -> Result<()> {
    let output = Command::new("rustc")
        .current_dir(&project.root)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .context("cannot run rustc: install Rust from https://rustup.rs")?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && std::path::Path::new(&folder).is_dir() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.current_dir(&project.root).args(["target", "add", TARGET]);
    tools
        .run("fetching the standard library for WebAssembly", &mut rustup)
        .with_context(|| {
            format!(
                "the Rust compiler has no {TARGET} target; without rustup, install your distribution's package with the \
                 standard library for it, of the same version as `rustc --version` says"
            )
        })
}
