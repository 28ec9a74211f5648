//! A real registry, which nobody here wrote: `cargo xtask services registry -- cargo test …` starts it.

use std::env;
use std::fs;

use crate::site::Site;

struct Registry {
    address: String,
    user: String,
    password: String,
}

/// `None` where there is none and none has to be.
fn registry() -> Option<Registry> {
    let Ok(address) = env::var("SLUICE_TEST_REGISTRY") else {
        let why = "SLUICE_TEST_REGISTRY is not set; `cargo xtask services registry -- …` sets it";
        assert!(env::var_os("CI").is_none(), "{why}");
        eprintln!("skipped: {why}");
        return None;
    };
    let of = |name: &str| env::var(name).unwrap_or_default();
    Some(Registry {
        address,
        user: of("SLUICE_TEST_REGISTRY_USER"),
        password: of("SLUICE_TEST_REGISTRY_PASSWORD"),
    })
}

#[test]
fn a_package_goes_through_a_real_registry_by_version_and_by_digest() {
    let Some(registry) = registry() else { return };
    let site = Site::new();
    // A name of its own: the registry may have been used before.
    let unique = site
        .path("")
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_ascii_lowercase()
        .replace('.', "");
    let place = format!("oci://{}/test-{unique}/demo", registry.address);
    fs::write(site.path("password"), format!("{}\n", registry.password)).unwrap();
    fs::write(site.path("wrong"), "not it").unwrap();
    let with = |words: &[&str], password: &str| {
        let login = ["--username", &registry.user, "--password-file", password];
        site.sluice(&[words, &login].concat())
    };
    // Several MiB, as real components have.
    let package = site.signed("1.0.0", &"x".repeat(5 << 20));
    with(&["publish", &package, &place], "@@wrong").refused(1, "docker login");
    let published = with(&["publish", &package, &place, "--json"], "@@password").json();
    assert_eq!(published["place"], format!("{place}:1.0.0"));
    let again = with(&["publish", &package, &place, "--json"], "@@password").json();
    assert_eq!(again, published);
    let other = site.signed("1.0.0", "other");
    with(&["publish", &other, &place], "@@password").refused(3, "a version is published once");

    with(&["install", &format!("{place}:1.0.0")], "@@wrong").refused(1, "lets");
    with(&["install", &format!("{place}:1.0.0")], "@@password").ok();
    assert_eq!(site.list(), ["1.0.0 current"]);
    let second = site.signed("1.1.0", "b");
    let published = with(&["publish", &second, &place, "--json"], "@@password").json();
    let by_digest = format!("{place}@{}", published["digest"].as_str().unwrap());
    with(&["install", &by_digest, "--name", "acme/demo"], "@@password").ok();
    assert_eq!(site.list(), ["1.1.0 current", "1.0.0 previous"]);
    with(&["install", &format!("{place}:7.0.0")], "@@password").refused(1, "nothing named 7.0.0");

    let list = format!("oci://{}/test-{unique}/revocations:latest", registry.address);
    for what in ["acme/demo@=1.1.0", "acme/mask"] {
        let revoke = [
            "revoke",
            what,
            "--reason",
            "leaks",
            "--key",
            "acme.key",
            "--list",
            "list.json",
        ];
        site.sluice(&revoke).ok();
        with(&["publish", "list.json", &list], "@@password").ok();
        with(&["revoke", "--import", &list], "@@password").ok();
    }
    assert!(
        site.list()[0].contains("was revoked by acme: leaks"),
        "{:?}",
        site.list()
    );
    site.sluice(&["rollback", "acme/demo"]).ok();
}
