//! Says what this program's plans mean: a mark over what makes them so. Functions travel to workers by their names, and states of
//! aggregates as this code writes them, so a part that another build sends is refused (`scale`).

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// What decides it, from the root of the repository.
const SOURCES: [&str; 4] = ["Cargo.lock", "crates/wire/src", "crates/store/src", "query/src"];

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
    let mut mark = DefaultHasher::new();
    for file in &files {
        // Where the checkout lies does not count.
        file.strip_prefix(&root).unwrap_or(file).hash(&mut mark);
        match fs::read(file) {
            Ok(bytes) => bytes.hash(&mut mark),
            Err(error) => panic!("{}: {error}", file.display()),
        }
    }
    println!("cargo:rustc-env=SLUICE_MEANING={:016x}", mark.finish());
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        collect(&entry.path(), files);
    }
}
