//! Plugins from source to component: cargo makes core modules, each carrying its contract in a custom section;
//! `wit-component` wraps them. Every library of the plugins workspace that is a `cdylib` becomes `plugins/dist/<name>.wasm`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;

const TARGET: &str = "wasm32-unknown-unknown";

pub(crate) fn build() -> Result<()> {
    ensure_target()?;
    let plugins = run::root().join("plugins");
    let mut cargo = run::cargo();
    cargo
        .current_dir(&plugins)
        .env("CARGO_TARGET_DIR", run::guest_target_dir())
        // Flags for the host's processor mean nothing to the sandbox.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["build", "--release", "--locked", "--target", TARGET]);
    run::run(&mut cargo)?;

    let dist = plugins.join("dist");
    fs::create_dir_all(&dist).context("cannot make plugins/dist")?;
    for name in component_libraries(&plugins)? {
        let module = run::guest_target_dir()
            .join(TARGET)
            .join("release")
            .join(format!("{name}.wasm"));
        let bytes = encode(&module).with_context(|| format!("cannot make a component of {name}"))?;
        let path = dist.join(format!("{name}.wasm"));
        // Unchanged files keep their time stamp, and whoever loads one never sees half of it.
        if fs::read(&path).ok().as_deref() != Some(&bytes[..]) {
            let fresh = dist.join(format!(".{name}.wasm.new"));
            fs::write(&fresh, &bytes).context("cannot write the component")?;
            fs::rename(&fresh, &path).context("cannot put the component in its place")?;
        }
        eprintln!("plugins/dist/{name}.wasm  {} KiB", bytes.len() / 1024);
    }
    Ok(())
}

fn encode(module: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&bytes)?
        .encode()
}

/// The names of all `cdylib` targets of the workspace, as cargo names their files.
fn component_libraries(plugins: &Path) -> Result<Vec<String>> {
    let output = run::cargo()
        .current_dir(plugins)
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .output()
        .context("cannot run `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata`: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("answer of `cargo metadata`")?;
    let items = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> = items(&metadata, "packages")
        .iter()
        .flat_map(|package| items(package, "targets"))
        .filter(|target| items(target, "crate_types").iter().any(|kind| kind == "cdylib"))
        .filter_map(|target| target["name"].as_str().map(|name| name.replace('-', "_")))
        .collect();
    names.sort();
    if names.is_empty() {
        bail!("the plugins workspace has no cdylib");
    }
    Ok(names)
}

/// The compiler's own library for the sandbox. rustup may be set not to install what `rust-toolchain.toml` lists.
fn ensure_target() -> Result<()> {
    if target_library().is_some_and(|path| path.is_dir()) {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.current_dir(run::root()).args(["target", "add", TARGET]);
    if rustup.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!(
        "the Rust compiler has no {TARGET} target.\n\
         With rustup:    rustup target add {TARGET}\n\
         Without rustup: install your distribution's package with the standard library for {TARGET} (often named \
         rust-std-static-{TARGET} or libstd-rust-dev-wasm32), of the same version as `rustc --version` says"
    )
}

fn target_library() -> Option<PathBuf> {
    let output = Command::new("rustc")
        .current_dir(run::root())
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}
