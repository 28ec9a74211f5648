//! Several processes on one store.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use sluice_package::{Asked, Package, Policy, PrivateKey, Store, TrustedKey};

use crate::site::component;

const STORE: &str = "SLUICE_TEST_STORE";
const NAME: &str = "SLUICE_TEST_PACKAGE";
const VERSIONS: u32 = 12;

fn package(folder: &Path, name: &str, version: &str) -> Package {
    let source = format!("[package]\nname = \"{name}\"\npublisher = \"Acme\"\n");
    let source = sluice_package::PluginSource::parse(&source).unwrap();
    let bytes = component(version, "");
    let facts = sluice_package::ComponentFacts {
        name: name.into(),
        version: version.parse().unwrap(),
        kind: sluice_package::Kind::Filter,
        contract: sluice_package::Version::new(1, 0, 0),
        capabilities: [].into(),
        reads: Vec::new(),
        writes: Vec::new(),
        config_schema: String::new(),
    };
    let manifest = source.manifest(&facts, &bytes, &Policy::default()).unwrap();
    Package::sign(&manifest, bytes, &PrivateKey::load(&folder.join("key")).unwrap()).unwrap()
}

/// Not a test by itself: the process that `processes_that_install_at_once_lose_nothing` starts.
#[test]
fn installs_versions_for_another_test() {
    let (Some(store), Ok(name)) = (env::var_os(STORE), env::var(NAME)) else {
        return;
    };
    let root = Path::new(&store);
    let store = Store::open(root, Policy::default());
    for patch in 0..VERSIONS {
        let package = package(root.parent().unwrap(), &name, &format!("1.0.{patch}"));
        store.install(package, Asked::default(), true).unwrap();
    }
}

#[test]
fn processes_that_install_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("plugins");
    let key = PrivateKey::generate(&folder.path().join("key"), "").unwrap();
    let store = Store::open(&root, Policy::default());
    let key = TrustedKey {
        name: "acme".into(),
        key: key.public(),
        names: None,
        capabilities: None,
    };
    store.add_key(&key).unwrap();
    let names = ["acme/a", "acme/b", "acme/c"];
    let start = |name: &&str| {
        Command::new(env::current_exe().unwrap())
            .args(["processes::installs_versions_for_another_test", "--exact"])
            .env(STORE, &root)
            .env(NAME, name)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut children: Vec<_> = names.iter().map(start).collect();
    // Whoever reads meanwhile sees whole states, and what they name is there and good.
    let mut seen = 0;
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        let state = store.state().unwrap();
        assert!(state.generation >= seen);
        seen = state.generation;
        for name in state.plugins.keys() {
            store.resolve(name, None).unwrap();
        }
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let state = store.state().unwrap();
    // One change pinned the key.
    assert_eq!(state.generation, 1 + u64::from(VERSIONS) * names.len() as u64);
    for name in names {
        let plugin = &state.plugins[&name.parse().unwrap()];
        assert_eq!(plugin.versions.len(), VERSIONS as usize, "{name}");
    }
}
