//! The store through its public door.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::disk::crash;
use crate::key::PrivateKey;
use crate::manifest::Manifest;
use crate::manifest::tests::manifest;
use crate::revocation::{Revocation, RevocationList, RevokedComponent};
use crate::time::Timestamp;
use crate::trust::TrustedKey;

const NOW: i64 = 1_796_000_000;

fn now() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

pub(crate) struct Site {
    pub(crate) store: Store,
    pub(crate) key: PrivateKey,
    _folder: TempDir,
}

pub(crate) fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy {
        clock: now,
        ..Policy::default()
    };
    let store = Store::open(folder.path().join("plugins"), policy);
    let key = PrivateKey::of_seed(1);
    store.add_key(&pinned("acme", &key)).unwrap();
    Site {
        store,
        key,
        _folder: folder,
    }
}

fn pinned(name: &str, key: &PrivateKey) -> TrustedKey {
    TrustedKey {
        name: name.into(),
        key: key.public(),
        names: None,
        capabilities: None,
    }
}

impl Site {
    fn package(&self, name: &str, version: &str) -> Package {
        let component = format!("component of {name} {version}").into_bytes();
        self.signed(manifest(name, version, &component), component)
    }

    fn signed(&self, manifest: Manifest, component: Vec<u8>) -> Package {
        Package::sign(&manifest, component, &self.key).unwrap()
    }

    fn install(&self, version: &str) {
        let package = self.package("acme/demo", version);
        self.store.install(package, Asked::default(), true).unwrap();
    }

    fn running(&self) -> String {
        let verified = self.store.resolve(&demo(), None).unwrap();
        let version = verified.manifest.version.to_string();
        assert_eq!(
            verified.component,
            format!("component of acme/demo {version}").into_bytes()
        );
        version
    }

    fn revoke(&self, number: u64, entries: Vec<Revocation>) {
        let list = RevocationList {
            number,
            issued: now(),
            expires: now().after(Duration::from_secs(3600)),
            entries,
        };
        let signed = SignedRevocations::sign(&self.key, &list).unwrap();
        self.store.import_revocations(signed).unwrap();
    }
}

fn demo() -> PackageName {
    "acme/demo".parse().unwrap()
}

fn v(text: &str) -> Version {
    text.parse().unwrap()
}

fn state_error(error: StoreError) -> StateError {
    match error {
        StoreError::State(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_store_goes_forward_by_installing_and_back_by_rollback_only() {
    let site = site();
    let store = &site.store;
    let mut watch = store.watch().unwrap();
    site.install("1.0.0");
    site.install("1.1.0");
    assert_eq!(site.running(), "1.1.0");
    assert!(watch.changed().unwrap().is_some() && watch.changed().unwrap().is_none());

    let older = site.package("acme/demo", "1.0.5");
    let refused = state_error(store.install(older, Asked::default(), true).unwrap_err());
    assert!(matches!(refused, StateError::Downgrade { .. }), "{refused}");
    let refused = state_error(store.promote(&demo(), &v("1.0.0")).unwrap_err());
    assert!(matches!(refused, StateError::Downgrade { .. }), "{refused}");
    assert_eq!(store.rollback(&demo(), None).unwrap(), v("1.0.0"));
    assert_eq!(site.running(), "1.0.0");
    let refused = state_error(store.rollback(&demo(), None).unwrap_err());
    assert!(matches!(refused, StateError::NothingToGoBackTo { .. }), "{refused}");

    // What was removed cannot be brought back below the highest.
    store.remove(&demo(), None).unwrap();
    let refused = store.install(site.package("acme/demo", "1.0.0"), Asked::default(), true);
    assert!(matches!(
        state_error(refused.unwrap_err()),
        StateError::Downgrade { .. }
    ));
    site.install("1.1.0");
    assert_eq!(site.running(), "1.1.0");
}

#[test]
fn a_version_that_failed_gives_way_to_the_previous_and_stays_out() {
    let site = site();
    let store = &site.store;
    site.install("1.0.0");
    let alone = state_error(store.mark_bad(&demo(), &v("1.0.0"), "traps").unwrap_err());
    assert!(matches!(alone, StateError::NothingToGoBackTo { .. }), "{alone}");
    assert_eq!(site.running(), "1.0.0");
    site.install("2.0.0");
    assert_eq!(
        store.mark_bad(&demo(), &v("2.0.0"), "traps\nat once").unwrap(),
        Some(v("1.0.0"))
    );
    assert_eq!(site.running(), "1.0.0");
    for refused in [
        store
            .install(site.package("acme/demo", "2.0.0"), Asked::default(), true)
            .map(drop),
        store.resolve(&demo(), Some(&v("2.0.0"))).map(drop),
    ] {
        match state_error(refused.unwrap_err()) {
            StateError::Bad { reason, .. } => assert_eq!(reason, "traps at once"),
            other => panic!("{other}"),
        }
    }
    store.promote(&demo(), &v("2.0.0")).unwrap();
    assert_eq!(site.running(), "2.0.0");
}

#[test]
fn a_disabled_package_is_not_given_out_in_any_version() {
    let site = site();
    site.install("1.0.0");
    site.store.disable(&demo(), "burns the processor").unwrap();
    for version in [None, Some(&v("1.0.0"))] {
        let refused = state_error(site.store.resolve(&demo(), version).unwrap_err());
        assert!(matches!(refused, StateError::Disabled { .. }), "{refused}");
    }
    site.store.enable(&demo()).unwrap();
    assert_eq!(site.running(), "1.0.0");
}

#[test]
fn a_shadow_does_not_change_what_runs_and_ends_when_it_is_promoted() {
    let site = site();
    let store = &site.store;
    site.install("1.0.0");
    store
        .install(site.package("acme/demo", "1.1.0"), Asked::default(), false)
        .unwrap();
    assert_eq!(site.running(), "1.0.0");
    for share in [0.0, 1.5, f64::NAN] {
        assert!(store.set_shadow(&demo(), &v("1.1.0"), share).is_err());
    }
    store.set_shadow(&demo(), &v("1.1.0"), 0.1).unwrap();
    assert!(
        state_error(store.remove(&demo(), Some(&v("1.1.0"))).unwrap_err())
            .to_string()
            .contains("shadow")
    );
    assert_eq!(
        store.state().unwrap().plugins[&demo()].shadow.as_ref().unwrap().share,
        0.1
    );
    store.promote(&demo(), &v("1.1.0")).unwrap();
    let state = store.state().unwrap().plugins[&demo()].clone();
    assert_eq!((state.shadow, state.previous), (None, Some(VersionText(v("1.0.0")))));
}

#[test]
fn a_file_that_changed_in_the_store_is_noticed_at_the_next_load() {
    let site = site();
    site.install("1.0.0");
    let folder = site.store.package_folder(&demo(), &v("1.0.0"));
    let component = folder.join("component.wasm");
    let good = fs::read(&component).unwrap();
    fs::write(&component, good.to_ascii_uppercase()).unwrap();
    let refused = site.store.resolve(&demo(), None).unwrap_err();
    assert!(
        matches!(refused.refusal(), Some(Refusal::ComponentChanged { .. })),
        "{refused}"
    );
    // Installing the same package again mends it.
    site.install("1.0.0");
    assert_eq!(site.running(), "1.0.0");

    // A package of the same name and version that is signed as well, but was never installed.
    let other = site.signed(manifest("acme/demo", "1.0.0", b"other"), b"other".to_vec());
    for (name, bytes) in [
        ("manifest.json", &other.manifest),
        ("manifest.sig", &other.signature),
        ("component.wasm", &other.component),
    ] {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let refused = site.store.resolve(&demo(), None).unwrap_err();
    assert!(matches!(refused, StoreError::Exchanged { .. }), "{refused}");
    let taken = state_error(site.store.install(other, Asked::default(), true).unwrap_err());
    assert!(matches!(taken, StateError::VersionTaken { .. }), "{taken}");
}

#[test]
fn what_is_revoked_is_not_loaded_any_more() {
    let site = site();
    site.install("1.0.0");
    let digest = site.store.resolve(&demo(), None).unwrap().manifest.digest;
    let mut watch = site.store.watch().unwrap();
    let reason = "leaks".to_owned();
    site.revoke(1, vec![Revocation::Component(RevokedComponent { digest, reason })]);
    assert!(watch.changed().unwrap().is_some(), "a running edge has to hear of it");
    let refused = site.store.resolve(&demo(), None).unwrap_err();
    assert!(matches!(refused.refusal(), Some(Refusal::Revoked { .. })), "{refused}");
    fs::remove_file(site.store.root().join("revocations.json")).unwrap();
    let refused = site.store.resolve(&demo(), None).unwrap_err();
    assert!(
        matches!(refused, StoreError::Revocation(RevocationError::Missing { .. })),
        "{refused}"
    );
}

/// What the store says of itself, and that all it says is true.
fn shown(store: &Store) -> String {
    let state = store.state().unwrap();
    let mut lines = Vec::new();
    for (name, plugin) in &state.plugins {
        for version in plugin.versions.keys() {
            // A version that the state names is whole.
            store.verify_installed(name, &version.0).unwrap();
        }
        let versions: Vec<String> = plugin.versions.keys().map(ToString::to_string).collect();
        let bad = plugin.versions.values().filter(|version| version.bad.is_some()).count();
        lines.push(format!(
            "{name} {:?} {:?} {} {versions:?} {bad} {:?} {}",
            plugin.current,
            plugin.previous,
            plugin.highest,
            plugin.shadow,
            plugin.disabled.is_some()
        ));
    }
    lines.push(format!(
        "{:?} {:?}",
        state.revocations,
        store.revocations().unwrap().lists().count()
    ));
    lines.join("\n")
}

type Act = Box<dyn Fn(&Site) -> Result<(), StoreError>>;

fn acts() -> Vec<(&'static str, Act)> {
    fn act(act: impl Fn(&Site) -> Result<(), StoreError> + 'static) -> Act {
        Box::new(act)
    }
    let install = |name: &'static str, version: &'static str| {
        act(move |site: &Site| {
            site.store
                .install(site.package(name, version), Asked::default(), true)
                .map(drop)
        })
    };
    vec![
        ("install another version", install("acme/demo", "1.2.0")),
        ("install the first of another name", install("acme/other", "0.1.0")),
        ("install what is here", install("acme/demo", "1.1.0")),
        ("roll back", act(|site| site.store.rollback(&demo(), None).map(drop))),
        (
            "mark bad",
            act(|site| site.store.mark_bad(&demo(), &v("1.1.0"), "traps").map(drop)),
        ),
        ("promote", act(|site| site.store.promote(&demo(), &v("1.1.0")))),
        ("disable", act(|site| site.store.disable(&demo(), "because"))),
        (
            "remove one",
            act(|site| site.store.remove(&demo(), Some(&v("1.0.0"))).map(drop)),
        ),
        ("remove all", act(|site| site.store.remove(&demo(), None).map(drop))),
    ]
}

/// The power goes after every step of every change, with and without what was not synced: afterwards the store is as before
/// the change or as after it, everything in it verifies, and the next change works.
#[test]
fn a_crash_at_any_step_leaves_the_old_store_or_the_new_one() {
    let prepared = || {
        let site = site();
        site.install("1.0.0");
        site.install("1.1.0");
        site
    };
    let mut crashes = 0;
    for (what, act) in acts() {
        let site = prepared();
        let before = shown(&site.store);
        act(&site).unwrap();
        let after = shown(&site.store);
        for lose in [false, true] {
            for steps in 0.. {
                let site = prepared();
                let (result, cut) = crash::with_power_for(steps, lose, || act(&site));
                let now = shown(&site.store);
                assert!(
                    now == before || now == after,
                    "{what}, step {steps}, lose {lose}:\n{now}\nis neither\n{before}\nnor\n{after}"
                );
                if result.is_ok() {
                    assert_eq!(now, after, "{what}: it was said to be done");
                }
                act(&site)
                    .or_else(|_| site.store.disable(&demo(), "works").or(Ok::<_, StoreError>(())))
                    .unwrap();
                site.install("1.3.0");
                if !cut {
                    break;
                }
                crashes += 1;
            }
        }
    }
    assert!(crashes > 100, "{crashes} crashes prove little");
}

#[test]
fn a_crash_while_revocations_come_in_leaves_the_old_or_the_new_list() {
    let digest = |site: &Site| {
        site.store
            .verify_installed(&demo(), &v("1.0.0"))
            .unwrap()
            .manifest
            .digest
    };
    for lose in [false, true] {
        for steps in 0.. {
            let site = site();
            site.install("1.0.0");
            let reason = "leaks".to_owned();
            let entry = Revocation::Component(RevokedComponent {
                digest: digest(&site),
                reason,
            });
            let list = |number, entries| {
                let list = RevocationList {
                    number,
                    issued: now(),
                    expires: now().after(Duration::from_secs(3600)),
                    entries,
                };
                SignedRevocations::sign(&site.key, &list).unwrap()
            };
            site.store.import_revocations(list(1, Vec::new())).unwrap();
            let second = list(2, vec![entry]);
            let (result, cut) = crash::with_power_for(steps, lose, || site.store.import_revocations(second.clone()));
            let revoked = site.store.resolve(&demo(), None).is_err();
            assert!(revoked || result.is_err(), "step {steps}: said to be done");
            site.store.import_revocations(second).unwrap();
            assert!(site.store.resolve(&demo(), None).is_err());
            if !cut {
                break;
            }
        }
    }
}
