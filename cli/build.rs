//! Puts what an author of plugins needs into the program: the templates, the SDKs and the contract, so that
//! `sluice plugin new` works in any folder of a machine that has nothing but this program.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What is taken along, from the root of the repository.
const SOURCES: [&str; 8] = [
    "plugins/Cargo.toml",
    "plugins/sdk",
    "plugins/sdk-macros",
    "plugins/fixture",
    "plugins/js",
    "plugins/python",
    "plugins/templates",
    "wit",
];
/// Folders that hold what tools made.
const MADE: [&str; 6] = ["target", "dist", "node_modules", "__pycache__", ".venv", ".sluice"];
/// Folders of an SDK that only this repository has a use for; those of a template are its author's.
const OURS: [&str; 3] = ["tests", "test", "benches"];

fn main() {
    // Asked for at run time: this script may have been built for another checkout that shares the target folder.
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    let mut files = Vec::new();
    for source in SOURCES {
        let path = root.join(source);
        println!("cargo:rerun-if-changed={}", path.display());
        collect(&path, &mut files);
    }
    files.sort();
    let mut text = String::from("pub(super) static ASSETS: &[(&str, &[u8])] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&root).unwrap_or(file);
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "    ({:?}, include_bytes!({:?})),",
            name.to_string_lossy(),
            file.canonicalize().unwrap_or_else(|_| file.clone())
        );
    }
    text.push_str("];\n");
    write("assets.rs", &text);
    // What `bench` compares with; absent when the plugins were not built before.
    let noop = root.join("plugins/dist/noop.wasm");
    println!("cargo:rerun-if-changed={}", noop.display());
    match noop.canonicalize() {
        Ok(path) => write("noop.rs", &format!("Some(include_bytes!({path:?}))\n")),
        Err(_) => write("noop.rs", "None\n"),
    }
}

fn write(name: &str, text: &str) {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join(name);
    if let Err(error) = fs::write(&out, text) {
        panic!("{}: {error}", out.display());
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
        return;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let is_template = path.components().any(|part| part.as_os_str() == "templates");
        let skipped = MADE.iter().chain(OURS.iter().filter(|_| !is_template));
        if !skipped.into_iter().any(|skipped| name == **skipped) {
            collect(&entry.path(), files);
        }
    }
}
