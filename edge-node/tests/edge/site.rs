//! A node's data folder with signed packages in its store.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use sluice_edge::EdgeConfig;
use sluice_edge::config::PluginEntry;
use sluice_package::{
    Asked, Capability, Digest, Kind, MANIFEST_SCHEMA, Manifest, Package, PackageName, Policy, PrivateKey, Revocation,
    RevocationList, RevokedVersions, SignedRevocations, Store, Timestamp, TrustedKey, Version, WantedLimits,
};
use sluice_runtime::{PluginStats, Standing};
use sluice_wire::Signal;

use crate::client::{PROTOBUF, http, post, request};
use crate::node::{TestNode, config};
use crate::plugins::plugin;

/// A node's data folder with a store that trusts one publisher.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) key: PrivateKey,
    pub(crate) store: Store,
}

impl Site {
    pub(crate) fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate(&dir.path().join("key"), "tests").unwrap();
        let store = Store::open(dir.path().join("data/plugins"), Policy::default());
        let trusted = TrustedKey {
            name: "tests".to_owned(),
            key: key.public(),
            names: None,
            capabilities: None,
        };
        store.add_key(&trusted).unwrap();
        Site { dir, key, store }
    }

    pub(crate) fn config(&self, chain: Vec<PluginEntry>) -> EdgeConfig {
        let mut config = config(&self.dir.path().join("data"));
        config.plugin = chain;
        config
    }

    pub(crate) fn install(
        &self,
        name: &str,
        version: &str,
        component: &str,
        kind: Kind,
        limits: WantedLimits,
        activate: bool,
    ) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{component}.wasm"));
        let component = std::fs::read(path).unwrap();
        let manifest = Manifest {
            schema: MANIFEST_SCHEMA,
            name: name.parse().unwrap(),
            version: version.parse().unwrap(),
            kind,
            publisher: "tests".to_owned(),
            digest: Digest::of(&component),
            size: component.len() as u64,
            contract: Version::new(1, 0, 0),
            minimum_host: Version::new(0, 1, 0),
            capabilities: BTreeSet::from(Capability::ALL),
            reads: Vec::new(),
            writes: Vec::new(),
            config_schema: None,
            limits,
            created: Timestamp::now(),
            expires: None,
            description: None,
            license: None,
            homepage: None,
        };
        let package = Package::sign(&manifest, component, &self.key).unwrap();
        self.store.install(package, Asked::default(), activate).unwrap();
    }

    /// A plugin that needs a megabyte more with every batch.
    pub(crate) fn install_leak(&self, version: &str, memory_mib: u64, activate: bool) {
        let limits = WantedLimits {
            memory_bytes: Some(memory_mib << 20),
            deadline_us: Some(5_000_000),
            ..WantedLimits::default()
        };
        self.install("acme/leak", version, "faulty", Kind::Filter, limits, activate);
    }

    /// The standard mask as a package.
    pub(crate) fn install_mask(&self, version: &str) {
        let limits = WantedLimits {
            deadline_us: Some(5_000_000),
            ..WantedLimits::default()
        };
        self.install("mask", version, "mask", Kind::Mask, limits, true);
    }

    /// Takes all of this back; numbers grow.
    pub(crate) fn revoke(&self, number: u64, releases: &[(&str, &str)]) {
        let entry = |(name, versions): &(&str, &str)| {
            Revocation::Versions(RevokedVersions {
                name: name.parse().unwrap(),
                versions: versions.parse().unwrap(),
                reason: "it leaks".to_owned(),
            })
        };
        let list = RevocationList {
            number,
            issued: Timestamp::now(),
            expires: Timestamp::now().after(Duration::from_secs(3600)),
            entries: releases.iter().map(entry).collect(),
        };
        let signed = SignedRevocations::sign(&self.key, &list).unwrap();
        self.store.import_revocations(signed).unwrap();
    }
}

/// The mask of the store.
pub(crate) fn mask() -> PluginEntry {
    let mut entry = plugin("mask", "mask", "{}");
    (entry.path, entry.unsigned) = (None, false);
    entry
}

pub(crate) fn leak() -> PluginEntry {
    let mut entry = plugin("leak", "faulty", "{ mode = \"leak\" }");
    (entry.path, entry.unsigned) = (None, false);
    entry.package = Some("acme/leak".to_owned());
    entry.limits = toml::from_str("").unwrap();
    entry
}

pub(crate) fn send(node: &TestNode, prefix: &str) -> u16 {
    let (address, body) = (
        node.address("otlp-http"),
        request(Signal::Log, prefix, 3, "kim@example.com"),
    );
    node.runtime
        .block_on(async { post(&http(), address, "/v1/logs", PROTOBUF, body).await.unwrap() })
        .status
}

pub(crate) fn of(node: &TestNode, version: &str) -> Option<PluginStats> {
    let plugins = node.status.snapshot().plugins;
    plugins.into_iter().find(|plugin| plugin.version == version)
}

pub(crate) fn state(node: &TestNode, version: &str) -> Option<Standing> {
    of(node, version).map(|plugin| plugin.state)
}

pub(crate) fn name() -> PackageName {
    "acme/leak".parse().unwrap()
}
