//! Rules about manifests (invariants 1 and 2 of the architecture).

use std::collections::BTreeMap;
use std::process::Command;
use std::{env, fs};

use toml::{Table, Value};

use super::{refuse, root};

/// Our crates and which of ours each may depend on. `cli`, `tests` and `bench` may use any.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("sluice-settings", &[]),
    ("sluice-wire", &[]),
    ("sluice-wal", &[]),
    ("sluice-package", &["sluice-settings"]),
    ("sluice-tenants", &["sluice-settings", "sluice-wire"]),
    ("sluice-runtime", &["sluice-wire"]),
    ("sluice-store", &["sluice-wire"]),
    (
        "sluice-edge",
        &[
            "sluice-settings",
            "sluice-package",
            "sluice-runtime",
            "sluice-wire",
            "sluice-wal",
        ],
    ),
    (
        "sluice-ingest",
        &[
            "sluice-settings",
            "sluice-tenants",
            "sluice-wire",
            "sluice-wal",
            "sluice-store",
        ],
    ),
    (
        "sluice-query",
        &[
            "sluice-settings",
            "sluice-store",
            "sluice-tenants",
            "sluice-wire",
            "sluice-runtime",
        ],
    ),
    ("xtask", &[]),
];
const ANY: [&str; 3] = ["sluice", "sluice-tests", "sluice-bench"];

/// Engines, and the only crates whose own code knows them.
const KNOWN_BY: [(&str, &[&str]); 9] = [
    ("wasmtime", &["sluice-runtime"]),
    ("wit-component", &["xtask", "sluice-runtime", "sluice"]),
    ("datafusion", &["sluice-store", "sluice-query"]),
    ("deltalake", &["sluice-store"]),
    ("object_store", &["sluice-store"]),
    ("rdkafka", &["sluice-ingest"]),
    ("clickhouse", &["sluice-store"]),
    ("quinn", &["sluice-edge", "sluice-ingest"]),
    ("quinn-proto", &["sluice-edge"]),
];

struct Manifest {
    path: String,
    table: Table,
}

impl Manifest {
    fn name(&self) -> &str {
        self.table["package"]["name"].as_str().unwrap()
    }

    /// Names of dependencies; with those of tests, too, if asked for.
    fn dependencies(&self, with_dev: bool) -> Vec<&str> {
        let mut tables: Vec<&Table> = vec![&self.table];
        if let Some(targets) = self.table.get("target").and_then(Value::as_table) {
            tables.extend(targets.values().filter_map(Value::as_table));
        }
        let kinds: &[&str] = match with_dev {
            true => &["dependencies", "build-dependencies", "dev-dependencies"],
            false => &["dependencies", "build-dependencies"],
        };
        tables
            .into_iter()
            .flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()))
            .flat_map(|dependencies| dependencies.iter())
            .map(|(key, value)| value.get("package").and_then(Value::as_str).unwrap_or(key))
            .collect()
    }
}

/// The manifests of all members of the workspace.
fn manifests() -> Vec<Manifest> {
    let read = |path: &str| -> Table { fs::read_to_string(root().join(path)).unwrap().parse().unwrap() };
    let workspace = read("Cargo.toml");
    let members = workspace["workspace"]["members"].as_array().unwrap();
    members
        .iter()
        .map(|member| {
            let path = format!("{}/Cargo.toml", member.as_str().unwrap());
            Manifest {
                table: read(&path),
                path,
            }
        })
        .collect()
}

#[test]
fn our_crates_depend_only_on_what_the_architecture_allows() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let manifests = manifests();
    let ours: Vec<&str> = manifests.iter().map(Manifest::name).collect();
    let mut broken = Vec::new();
    for manifest in &manifests {
        let name = manifest.name();
        if ANY.contains(&name) {
            continue;
        }
        let Some(may) = allowed.get(name) else {
            broken.push(format!("{name} is in no list: say what it may depend on"));
            continue;
        };
        for dependency in manifest.dependencies(true) {
            if ours.contains(&dependency) && !may.contains(&dependency) {
                broken.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    refuse("dependencies between our crates", &broken);
}

#[test]
fn engines_are_known_only_where_they_are_wrapped() {
    let mut broken = Vec::new();
    for manifest in manifests() {
        for dependency in manifest.dependencies(false) {
            let family = KNOWN_BY
                .iter()
                .find(|(engine, _)| dependency == *engine || dependency.starts_with(&format!("{engine}-")));
            if let Some((engine, by)) = family
                && !by.contains(&manifest.name())
            {
                broken.push(format!("{} must not know {engine} ({dependency})", manifest.path));
            }
        }
    }
    refuse("engines", &broken);
}

#[test]
fn every_crate_inherits_the_lints_and_what_is_said_once() {
    let mut broken = Vec::new();
    for manifest in manifests() {
        let inherits =
            |table: &Value, key: &str| table.get(key).and_then(|v| v.get("workspace")) == Some(&Value::Boolean(true));
        let whole = Value::Table(manifest.table.clone());
        if !inherits(&whole, "lints") && whole.get("lints").is_none() {
            broken.push(format!("{}: no `[lints] workspace = true`", manifest.path));
        }
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            if !inherits(&whole["package"], key) {
                broken.push(format!("{}: `{key}` is not the workspace's", manifest.path));
            }
        }
        // A crate that needs an exception from a lint repeats the others; `unwrap_used` is never up for one.
        if let Some(lints) = whole.get("lints")
            && !inherits(&whole, "lints")
            && lints["clippy"].get("unwrap_used").and_then(Value::as_str) != Some("deny")
        {
            broken.push(format!("{}: its own lints do not deny `unwrap_used`", manifest.path));
        }
    }
    refuse("inheritance", &broken);
}

/// The small binary stays small: what it is built from holds no query engine, no lake and no Kafka.
#[test]
fn the_edge_program_pulls_in_no_engine_of_the_cloud() {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root())
        // Settings of the machine that would show the tree of the whole workspace instead.
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
        .env_remove("CARGO_UNSTABLE_FEATURE_UNIFICATION")
        .args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            "sluice-edge",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(tree.contains("wasmtime "), "the tree is not that of the edge");
    let banned = [
        "datafusion",
        "deltalake",
        "parquet",
        "rdkafka",
        "clickhouse",
        "object_store",
        "aws-lc-sys",
    ];
    let found: Vec<String> = tree
        .lines()
        .filter(|line| banned.iter().any(|b| line.starts_with(b)))
        .map(str::to_owned)
        .collect();
    refuse("sluice-edge", &found);
}
