//! Puts the standard plugins into the program, if `cargo xtask guests` has made their components.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const STANDARD: [&str; 5] = ["mask", "sample", "enrich", "filter", "cardinality"];

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let plugins = folder.join("../plugins");
    let dist = plugins.join("dist");
    // A path that is not there would have this run at every build.
    let watched: &Path = if dist.is_dir() { &dist } else { &plugins };
    println!("cargo::rerun-if-changed={}", watched.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut list = String::from("static COMPONENTS: &[(&str, &[u8])] = &[\n");
    for name in STANDARD {
        let component = dist.join(format!("{name}.wasm"));
        if component.is_file() {
            let path = component.display().to_string();
            let _ = writeln!(list, "    ({name:?}, include_bytes!({path:?})),");
        }
    }
    list.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    if let Err(error) = fs::write(out.join("standard_plugins.rs"), list) {
        println!("cargo::error=the list of standard plugins cannot be written: {error}");
    }
}
