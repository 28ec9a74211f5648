//! Signed packages in the store of a running node: replaced, taken back, switched off, revoked, tampered with.

use std::path::Path;
use std::time::Duration;

use sluice_package::{
    Kind, PackageName, Revocation, RevocationList, RevokedComponent, SignedRevocations, Timestamp, Version,
    WantedLimits,
};
use sluice_runtime::Standing;

use crate::cloud::Cloud;
use crate::node::{TestNode, eventually};
use crate::plugins::plugin;
use crate::site::{Site, leak, name, of, send, state};

#[test]
fn p2_a_new_version_from_the_store_serves_without_a_restart_and_one_that_fails_is_taken_back_and_marked() {
    let site = Site::new();
    site.install_leak("1.0.0", 32, true);
    let node = TestNode::start(site.config(vec![leak()]));
    for n in 0..3 {
        assert_eq!(send(&node, &format!("a{n}")), 200);
    }
    site.install_leak("1.1.0", 64, true);
    eventually("the new version serves", || {
        state(&node, "1.1.0") == Some(Standing::Probation)
    });
    assert_eq!(send(&node, "b"), 200);
    assert_eq!(of(&node, "1.1.0").unwrap().rows_in, 3);
    // So little memory that every batch fails.
    site.install_leak("1.2.0", 2, true);
    eventually("the bad version is there", || state(&node, "1.2.0").is_some());
    for n in 0..5 {
        assert_eq!(send(&node, &format!("c{n}")), 200);
    }
    eventually("the store knows", || {
        let plugin = &site.store.state().unwrap().plugins[&name()];
        plugin.current.as_ref().unwrap().0 == Version::new(1, 1, 0)
    });
    let marked = site.store.resolve(&name(), Some(&Version::new(1, 2, 0))).unwrap_err();
    assert!(marked.to_string().contains("marked bad"), "{marked}");
    let bad = of(&node, "1.2.0").unwrap();
    assert_eq!((bad.state, bad.rows_in, bad.rescued), (Standing::RolledBack, 0, 1));
    let good = of(&node, "1.1.0").unwrap();
    assert_eq!((good.rows_in, good.rows_out), (18, 18));
    assert_eq!(good.rolled_back_from.as_deref(), Some("1.2.0"));
    eventually("everything is sealed", || {
        node.status.snapshot().journal.unsealed_bytes == 0
    });
    let cloud = Cloud::of(&node.spool);
    assert_eq!(
        (cloud.counts.stored, cloud.counts.quarantined, cloud.events.len()),
        (27, 0, 27)
    );
    node.stop();
    // The next start does not try it again.
    let node = TestNode::start(site.config(vec![leak()]));
    assert_eq!(state(&node, "1.1.0"), Some(Standing::Current));
    assert_eq!(state(&node, "1.2.0"), None);
    node.stop();
}

#[test]
fn p12_a_package_that_was_changed_on_disk_is_not_loaded_and_what_runs_goes_on() {
    let site = Site::new();
    site.install_leak("1.0.0", 32, true);
    let config = site.config(vec![leak()]);
    let node = TestNode::start(config.clone());
    site.install_leak("1.1.0", 32, false);
    let component = site
        .store
        .package_folder(&name(), &Version::new(1, 1, 0))
        .join("component.wasm");
    let mut bytes = std::fs::read(&component).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&component, bytes).unwrap();
    // The store itself would refuse to promote it, so the operator names it.
    let mut pinned = leak();
    pinned.version = Some("1.1.0".to_owned());
    let mut asked = config;
    asked.plugin = vec![pinned];
    let error = node.runtime.block_on(node.status.reload(&asked)).unwrap_err();
    assert!(error.to_string().contains("is not the one that was signed"), "{error}");
    let refused = node.status.snapshot().chain.refused.unwrap();
    assert!(
        refused.why.contains("is not the one that was signed"),
        "{}",
        refused.why
    );
    assert_eq!(send(&node, "a"), 200);
    assert_eq!(of(&node, "1.0.0").unwrap().rows_in, 3);
    node.stop();
    let error = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(sluice_edge::EdgeNode::build_with(asked, crate::node::options()))
        .unwrap_err();
    assert_eq!(error.exit_code(), 3, "a start with it is refused");
}

#[test]
fn p12_the_kill_switch_and_a_revocation_reach_a_running_mask_and_it_never_opens_by_itself() {
    let site = Site::new();
    let limits = || WantedLimits {
        deadline_us: Some(5_000_000),
        ..WantedLimits::default()
    };
    site.install("mask", "1.0.0", "mask", Kind::Mask, limits(), true);
    let mut entry = plugin("mask", "mask", "{}");
    (entry.path, entry.unsigned) = (None, false);
    let node = TestNode::start(site.config(vec![entry]));
    let name: PackageName = "mask".parse().unwrap();
    assert_eq!(send(&node, "a"), 200);
    site.store.disable(&name, "it eats the logs").unwrap();
    eventually("it is off", || state(&node, "1.0.0") == Some(Standing::Disabled));
    eventually("it is told", || {
        let warnings = node.status.snapshot().chain.warnings;
        let first = warnings.first();
        first.is_some_and(|told| told.contains("UNMASKED") && told.contains("it eats the logs"))
    });
    assert_eq!(send(&node, "b"), 200);
    assert_eq!(of(&node, "1.0.0").unwrap().rows_in, 3);
    site.store.enable(&name).unwrap();
    eventually("it is on", || state(&node, "1.0.0") == Some(Standing::Current));
    assert_eq!(send(&node, "c"), 200);

    let verified = site.store.resolve(&name, None).unwrap();
    let list = RevocationList {
        number: 1,
        issued: Timestamp::now(),
        expires: Timestamp::now().after(Duration::from_secs(3600)),
        entries: vec![Revocation::Component(RevokedComponent {
            digest: verified.manifest.digest,
            reason: "it leaks".to_owned(),
        })],
    };
    let signed = SignedRevocations::sign(&site.key, &list).unwrap();
    site.store.import_revocations(signed).unwrap();
    eventually("it may not run", || state(&node, "1.0.0") == Some(Standing::Blocked));
    assert_eq!(
        send(&node, "d"),
        503,
        "a mask that may not run refuses, and another one may come"
    );
    assert_eq!(node.status.snapshot().accepted.log, 9);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/faulty_mask.wasm");
    assert!(path.exists());
    let mut other = plugin("mask", "faulty_mask", "{ mode = \"ok\" }");
    other.path = Some(path);
    let fixed = site.config(vec![other]);
    node.runtime.block_on(node.status.reload(&fixed)).unwrap();
    assert_eq!(send(&node, "e"), 200);
    node.stop();
}

#[test]
fn the_store_puts_a_candidate_beside_a_package_and_promotes_it() {
    let site = Site::new();
    site.install_leak("1.0.0", 32, true);
    let node = TestNode::start(site.config(vec![leak()]));
    site.install_leak("1.1.0", 32, false);
    let version = Version::new(1, 1, 0);
    site.store.set_shadow(&name(), &version, 1.0).unwrap();
    eventually("it runs beside", || state(&node, "1.1.0") == Some(Standing::Shadow));
    assert_eq!(send(&node, "a"), 200);
    eventually("it is compared", || {
        let shadow = of(&node, "1.0.0").unwrap().shadow;
        shadow.is_some_and(|shadow| (shadow.batches, shadow.rows, shadow.kept_by_both) == (1, 3, 3))
    });
    assert_eq!(of(&node, "1.1.0").unwrap().rows_in, 3);
    site.store.promote(&name(), &version).unwrap();
    eventually("it serves", || state(&node, "1.1.0") == Some(Standing::Probation));
    assert_eq!(state(&node, "1.0.0"), Some(Standing::Previous));
    assert_eq!(send(&node, "b"), 200);
    let new = of(&node, "1.1.0").unwrap();
    assert_eq!((new.rows_in, new.shadow), (3, None));
    node.stop();
}

#[test]
fn a_signed_package_in_a_folder_needs_no_installation_and_a_standard_plugin_none_either() {
    let site = Site::new();
    site.install_leak("1.0.0", 32, true);
    let folder = site.dir.path().join("shipped");
    std::fs::create_dir(&folder).unwrap();
    let installed = site.store.package_folder(&name(), &Version::new(1, 0, 0));
    for file in ["manifest.json", "manifest.sig", "component.wasm"] {
        std::fs::copy(installed.join(file), folder.join(file)).unwrap();
    }
    let mut entry = leak();
    (entry.path, entry.package) = (Some(folder), None);
    let mut standard = plugin("sample", "sample", "{ rate = 1.0 }");
    (standard.path, standard.unsigned) = (None, false);
    let node = TestNode::start(site.config(vec![entry.clone(), standard]));
    let sources = node.status.snapshot().chain.sources;
    assert!(
        sources["leak"].starts_with("package acme/leak 1.0.0, signed by tests in "),
        "{sources:?}"
    );
    assert_eq!(sources["sample"], "part of this program");
    assert_eq!(send(&node, "a"), 200);
    assert_eq!(of(&node, "1.0.0").unwrap().rows_in, 3);
    // Another publisher's folder is refused.
    site.store.remove_key("tests").unwrap();
    let error = node.runtime.block_on(node.status.reload(&site.config(vec![{
        entry.name = "other".to_owned();
        entry
    }])));
    assert!(error.unwrap_err().to_string().contains("is not pinned here"));
    node.stop();
}
