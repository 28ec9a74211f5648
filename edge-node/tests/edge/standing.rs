//! What is taken back stops, and what could not be loaded comes by itself: each place of the chain stands for itself (P12).

use std::path::PathBuf;

use sluice_edge::config::PluginEntry;
use sluice_package::{PackageName, Version};
use sluice_runtime::{PROBATION_BATCHES, PluginStats, Standing};

use crate::node::{TestNode, eventually};
use crate::site::{Site, leak, mask, name, of, send, state};

fn named(node: &TestNode, name: &str) -> PluginStats {
    let plugins = node.status.snapshot().plugins;
    let mut plugins = plugins.into_iter();
    plugins
        .find(|plugin| plugin.name == name && plugin.state.is_in_place())
        .unwrap()
}

fn refused(node: &TestNode) -> Option<String> {
    node.status.snapshot().chain.refused.map(|refused| refused.why)
}

fn component(site: &Site, version: Version) -> PathBuf {
    site.store.package_folder(&name(), &version).join("component.wasm")
}

fn pinned(version: &str) -> PluginEntry {
    let mut entry = leak();
    entry.version = Some(version.to_owned());
    entry
}

#[test]
fn p12_a_plugin_that_cannot_be_loaded_delays_nothing_that_concerns_another_and_is_tried_again() {
    let site = Site::new();
    site.install_leak("1.0.0", 32, true);
    site.install_mask("3.0.0");
    let node = TestNode::start(site.config(vec![leak(), mask()]));
    assert_eq!(send(&node, "a"), 200);
    // From here on the first entry cannot be loaded, and the version that runs goes on.
    let path = component(&site, Version::new(1, 0, 0));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, b"damaged").unwrap();
    let mask_name: PackageName = "mask".parse().unwrap();
    site.store.disable(&mask_name, "it eats the logs").unwrap();
    eventually("the mask is off", || named(&node, "mask").state == Standing::Disabled);
    let warnings = || node.status.snapshot().chain.warnings.join("\n");
    eventually("both are told", || {
        refused(&node).is_some() && warnings().contains("UNMASKED")
    });
    let why = refused(&node).unwrap();
    assert!(why.contains("`leak`") && !why.contains("`mask`"), "{why}");
    site.store.enable(&mask_name).unwrap();
    eventually("the mask is on", || named(&node, "mask").state == Standing::Current);
    eventually("that is told, too", || warnings().is_empty());
    assert_eq!(send(&node, "b"), 200);
    assert_eq!((named(&node, "mask").rows_in, named(&node, "leak").rows_in), (6, 6));

    site.revoke(1, &[("mask", "=3.0.0")]);
    eventually("the mask may not run", || {
        named(&node, "mask").state == Standing::Blocked
    });
    assert_eq!(send(&node, "c"), 503);
    site.install_mask("3.1.0");
    eventually("another mask came", || named(&node, "mask").version == "3.1.0");
    assert_eq!(send(&node, "d"), 200);
    let generation = site.store.state().unwrap().generation;
    let status = node.status.snapshot().chain;
    assert!(
        status.store_generation < generation && status.refused.is_some(),
        "not all of it is followed: {status:?}"
    );
    assert_eq!(named(&node, "leak").version, "1.0.0");

    std::fs::write(&path, whole).unwrap();
    eventually("it is loaded although nothing in the store changed", || {
        refused(&node).is_none()
    });
    eventually("all of it is followed", || {
        node.status.snapshot().chain.store_generation == generation
    });
    assert_eq!(site.store.state().unwrap().generation, generation);
    node.stop();
}

#[test]
fn p12_while_a_configuration_cannot_be_taken_over_the_one_before_follows_the_store_and_it_comes_by_itself() {
    let site = Site::new();
    site.install_leak("1.0.0", 32, true);
    site.install_mask("3.0.0");
    let node = TestNode::start(site.config(vec![leak(), mask()]));
    let mut asked = site.config(vec![pinned("1.1.0"), mask()]);
    let mut new = mask();
    (new.name, new.package) = ("mask-2".to_owned(), Some("mask".to_owned()));
    asked.plugin.push(new);
    let error = node.runtime.block_on(node.status.reload(&asked)).unwrap_err();
    assert!(error.to_string().contains("1.1.0"), "{error}");
    let places = |node: &TestNode| node.status.snapshot().plugins.len();
    assert_eq!((places(&node), refused(&node).is_some()), (2, true));
    site.revoke(1, &[("mask", "=3.0.0")]);
    eventually("the mask may not run", || {
        named(&node, "mask").state == Standing::Blocked
    });
    assert_eq!(send(&node, "a"), 503);
    site.install_mask("3.1.0");
    eventually("another mask came", || named(&node, "mask").version == "3.1.0");
    assert_eq!(places_in_use(&node), ["leak", "mask"], "nothing of what was refused");
    assert_eq!(send(&node, "b"), 200);
    site.install_leak("1.1.0", 32, false);
    eventually("what was asked for is there", || {
        places_in_use(&node) == ["leak", "mask", "mask-2"] && named(&node, "leak").version == "1.1.0"
    });
    eventually("nothing is refused any more", || refused(&node).is_none());
    assert_eq!(send(&node, "c"), 200);
    node.stop();
}

fn places_in_use(node: &TestNode) -> Vec<String> {
    let plugins = node.status.snapshot().plugins.into_iter();
    let names = plugins
        .filter(|plugin| plugin.state.is_in_place())
        .map(|plugin| plugin.name);
    names.collect()
}

#[test]
fn p12_the_version_that_a_place_went_back_to_and_the_one_that_stands_by_are_taken_back_too() {
    let site = Site::new();
    site.install_leak("1.0.0", 32, true);
    // So little memory that every batch fails.
    site.install_leak("1.1.0", 2, false);
    let node = TestNode::start(site.config(vec![pinned("1.0.0")]));
    let reload = |version: &str| {
        let config = site.config(vec![pinned(version)]);
        node.runtime.block_on(node.status.reload(&config)).unwrap();
    };
    reload("1.1.0");
    assert_eq!(send(&node, "a"), 200);
    assert_eq!(state(&node, "1.1.0"), Some(Standing::RolledBack));
    assert_eq!(of(&node, "1.0.0").unwrap().rows_in, 3);
    // The configuration asks for another version than the one that serves.
    site.revoke(1, &[("acme/leak", "=1.0.0")]);
    eventually("it may not run", || state(&node, "1.0.0") == Some(Standing::Blocked));
    assert!(of(&node, "1.0.0").unwrap().blocked.unwrap().contains("it leaks"));
    assert_eq!((send(&node, "b"), node.status.snapshot().quarantined), (200, 3));

    // What stands by does not step in once it is revoked, and a key that is pinned no more speaks for nothing.
    site.install_leak("1.2.0", 32, false);
    site.install_leak("1.3.0", 32, false);
    reload("1.2.0");
    reload("1.3.0");
    assert_eq!(state(&node, "1.2.0"), Some(Standing::Previous));
    site.revoke(2, &[("acme/leak", "=1.0.0"), ("acme/leak", "=1.2.0")]);
    eventually("nothing stands by", || state(&node, "1.2.0") == Some(Standing::Retired));
    assert_eq!(state(&node, "1.3.0"), Some(Standing::Current));
    assert_eq!((send(&node, "c"), node.status.snapshot().quarantined), (200, 3));
    site.store.remove_key("tests").unwrap();
    eventually("nobody vouches for it", || {
        state(&node, "1.3.0") == Some(Standing::Blocked)
    });
    assert!(of(&node, "1.3.0").unwrap().blocked.unwrap().contains("not pinned"));
    node.stop();
}

#[test]
fn a_version_that_has_not_proven_itself_has_its_predecessor_beside_it_after_a_restart() {
    let site = Site::new();
    site.install_leak("1.0.0", 32, true);
    TestNode::start(site.config(vec![leak()])).stop();
    // So little memory that every batch fails; installed while nothing runs.
    site.install_leak("1.1.0", 2, true);
    let node = TestNode::start(site.config(vec![leak()]));
    assert_eq!(state(&node, "1.1.0"), Some(Standing::Probation));
    assert_eq!(state(&node, "1.0.0"), Some(Standing::Previous));
    node.crash();
    let node = TestNode::start(site.config(vec![leak()]));
    assert_eq!((send(&node, "a"), node.status.snapshot().quarantined), (200, 0));
    assert_eq!(state(&node, "1.1.0"), Some(Standing::RolledBack));
    eventually("the store knows", || {
        let plugin = &site.store.state().unwrap().plugins[&name()];
        plugin.current.as_ref().unwrap().0 == Version::new(1, 0, 0)
    });
    site.install_leak("1.2.0", 32, true);
    eventually("the good version serves", || {
        state(&node, "1.2.0") == Some(Standing::Probation)
    });
    for batch in 0..PROBATION_BATCHES {
        assert_eq!(send(&node, &format!("b{batch}")), 200);
    }
    assert_eq!(state(&node, "1.2.0"), Some(Standing::Current));
    let proven = site.dir.path().join("data/plugins/proven.json");
    eventually("it is kept that it works", || proven.exists());
    node.stop();
    let node = TestNode::start(site.config(vec![leak()]));
    assert_eq!(state(&node, "1.2.0"), Some(Standing::Current));
    assert_eq!(state(&node, "1.0.0"), None);
    node.stop();
    // What is lost is asked of it once more.
    std::fs::write(&proven, "{").unwrap();
    let node = TestNode::start(site.config(vec![leak()]));
    assert_eq!(state(&node, "1.2.0"), Some(Standing::Probation));
    node.stop();
}
