//! The life of a package, typed.

use std::fs;

use crate::site::Site;

#[test]
fn a_package_is_signed_published_installed_tried_promoted_and_taken_back() {
    let site = Site::new();
    let first = site.signed("1.0.0", "a");
    let verified = site.sluice(&["verify", &first, "--json"]).json();
    assert_eq!(verified["manifest"]["name"], "acme/demo");
    assert_eq!(verified["signer"], "acme");
    site.sluice(&["publish", &first, "oci:@@stick"]).ok();
    let second = site.signed("1.1.0", "b");
    let published = site.sluice(&["publish", &second, "oci:@@stick", "--json"]).json();
    let by_digest = format!("oci:@@stick@{}", published["digest"].as_str().unwrap());

    site.sluice(&["install", "oci:@@stick:1.0.0"]).ok();
    assert_eq!(site.list(), ["1.0.0 current"]);
    site.sluice(&[
        "install",
        &by_digest.replace("@@", &format!("{}/", site.path("").display())),
        "--inactive",
    ])
    .ok();
    assert_eq!(site.list(), ["1.1.0 installed", "1.0.0 current"]);
    site.sluice(&["shadow", "acme/demo", "1.1.0", "--share", "5%"]).ok();
    assert_eq!(site.list(), ["1.1.0 shadow 5%", "1.0.0 current"]);
    site.sluice(&["promote", "acme/demo"]).ok();
    assert_eq!(site.list(), ["1.1.0 current", "1.0.0 previous"]);
    site.sluice(&["remove", "acme/demo", "1.1.0"])
        .refused(3, "roll back or promote");
    site.sluice(&["rollback", "acme/demo"]).ok();
    assert_eq!(site.list(), ["1.1.0 installed", "1.0.0 current"]);

    let warned = site.sluice(&["disable", "acme/demo", "--reason", "burns"]).ok();
    assert!(warned.notes.contains("enable acme/demo"), "{warned:?}");
    assert!(
        site.list()[1].starts_with("1.0.0 current, disabled since "),
        "{:?}",
        site.list()
    );
    site.sluice(&["enable", "acme/demo"]).ok();

    let revoke = [
        "revoke",
        "acme/demo@<1.1.0",
        "--reason",
        "leaks",
        "--key",
        "acme.key",
        "--list",
        "list.json",
    ];
    site.sluice(&revoke).ok();
    site.sluice(&["publish", "list.json", "oci:@@stick:revocations"]).ok();
    site.sluice(&["revoke", "--import", "oci:@@stick:revocations"]).ok();
    let listed = site.list();
    assert!(listed[1].contains("was revoked by acme: leaks"), "{listed:?}");
    assert_eq!(listed[0], "1.1.0 installed");
    site.sluice(&["promote", "acme/demo", "1.0.0"]).refused(3, "leaks");
    site.sluice(&["promote", "acme/demo", "1.1.0"]).ok();
    site.sluice(&["remove", "acme/demo", "1.0.0"]).ok();
    assert_eq!(site.list(), ["1.1.0 current"]);
    let table = site.sluice(&["list"]).ok().out;
    assert!(
        table.contains("Acme GmbH (acme)") && table.starts_with("NAME"),
        "{table}"
    );
}

#[test]
fn exit_codes_tell_failed_wrong_and_refused_apart() {
    let site = Site::new();
    let package = site.signed("1.2.0", "a");
    site.sluice(&["verify", "@@nowhere"]).refused(1, "cannot read");
    site.sluice(&["install", "oci:@@nowhere"])
        .refused(1, "nothing named latest");
    site.sluice(&["rollback", "acme/demo"]).refused(1, "not installed here");
    site.sluice(&["install", "oci://Host/../x"])
        .refused(2, "no place for packages");
    site.sluice(&["rollback", "../demo"]).refused(2, "not a package name");
    site.sluice(&["shadow", "acme/demo", "1.0.0", "--share", "200%"])
        .refused(2, "no share");
    site.sluice(&["publish", &package, "oci:@@stick:9.9.9"])
        .refused(2, "this is 1.2.0");
    site.sluice(&["install", &package, "--version", "1.3.0"])
        .refused(3, "was asked for");
    site.sluice(&["install", &package]).ok();
    site.sluice(&["install", &site.signed("1.1.0", "b")])
        .refused(3, "rollback");
    site.sluice(&["install", &site.signed("1.2.0", "other")])
        .refused(3, "with other bytes");
    site.sluice(&["keygen", "other.key"]).ok();
    let strangers = site.signed_with("2.0.0", "x", "other.key", "");
    site.sluice(&["install", &strangers])
        .refused(3, "sluice plugin trust add");
    site.sluice(&["trust", "add", "other", "other.key.pub", "--names", "other/*"])
        .ok();
    site.sluice(&["install", &strangers])
        .refused(3, "may not sign acme/demo");
    let component = site.path(&package[2..]).join("component.wasm");
    fs::write(&component, "garbage").unwrap();
    site.sluice(&["install", &package])
        .refused(3, "fetch the package again");
    site.sluice(&["trust", "remove", "acme"]).ok();
    assert!(site.list()[0].contains("which is not pinned here"), "{:?}", site.list());
}

#[test]
fn keys_are_made_once_shown_never_and_pinned_under_one_name() {
    let site = Site::new();
    site.sluice(&["keygen", "acme.key"]).refused(1, "never overwritten");
    let secret = fs::read_to_string(site.path("acme.key")).unwrap();
    site.sluice(&["trust", "add", "again", "acme.key.pub"])
        .refused(1, "pinned twice");
    site.sluice(&["trust", "add", "theft", secret.trim()])
        .refused(1, "private key");
    site.sluice(&["trust", "add", "../../etc", "acme.key.pub"])
        .refused(1, "not a name for a key");
    site.sluice(&["keygen", "b.key"]).ok();
    site.sluice(&["trust", "add", "acme", "b.key.pub"])
        .refused(1, "another key is pinned");
    let line = fs::read_to_string(site.path("b.key.pub")).unwrap();
    site.sluice(&["trust", "add", "b", line.trim(), "--capabilities", "clock,match"])
        .ok();
    let listed = site.sluice(&["trust", "list", "--json"]).json();
    let keys = listed["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    assert!(
        keys.iter()
            .any(|key| key["name"] == "b" && key["capabilities"][1] == "match"),
        "{keys:?}"
    );
    // Its key may not hand out `log`, which the component imports.
    let package = site.signed_with("1.0.0", "a", "b.key", "");
    site.sluice(&["install", &package]).refused(3, "trust/b.pub");
    site.sluice(&["trust", "remove", "acme"]).ok();
    assert!(!site.sluice(&["trust", "list"]).ok().out.contains("acme"));
}

#[test]
fn what_is_to_expire_and_what_is_not_as_it_says_is_not_signed_or_not_taken() {
    let site = Site::new();
    let source = "version = \"2.0.0\"";
    fs::write(
        site.path("plugin.toml"),
        format!("[package]\nname = \"acme/demo\"\npublisher = \"Acme\"\n{source}\n"),
    )
    .unwrap();
    fs::write(site.path("demo.wasm"), crate::site::component("1.0.0", "")).unwrap();
    let sign = [
        "sign",
        "@@demo.wasm",
        "--key",
        "acme.key",
        "--source",
        "@@plugin.toml",
        "--out",
        "@@out",
    ];
    site.sluice(&sign).refused(3, "calls itself version 1.0.0");
    fs::write(site.path("demo.wasm"), "no component").unwrap();
    site.sluice(&sign).refused(1, "this is no component");
    let short = site.signed_with("1.0.0", "a", "acme.key", "expires = \"1 d\"");
    site.sluice(&["install", &short]).ok();
    let listed = site.sluice(&["list", "--json"]).json();
    assert!(
        listed["plugins"][0]["expires"].as_str().unwrap().ends_with('Z'),
        "{listed}"
    );
    site.sluice(&[
        "install",
        &site.signed_with("1.1.0", "a", "acme.key", "minimum_host = \"99.0.0\""),
    ])
    .refused(3, "update the host");
}

#[test]
fn a_revocation_list_grows_and_an_old_one_is_not_taken() {
    let site = Site::new();
    let package = site.signed("1.0.0", "a");
    let digest = site.sluice(&["verify", &package, "--json"]).json()["manifest"]["digest"].clone();
    let revoke = |what: &str| {
        let words = [
            "revoke",
            what,
            "--reason",
            "leaks",
            "--key",
            "acme.key",
            "--list",
            "list.json",
            "--json",
        ];
        site.sluice(&words).json()
    };
    assert_eq!(revoke("acme/mask")["list"]["number"], 1);
    fs::copy(site.path("list.json"), site.path("old.json")).unwrap();
    let second = revoke(digest.as_str().unwrap());
    assert_eq!(second["list"]["entries"].as_array().unwrap().len(), 2, "{second}");
    site.sluice(&["revoke", "--import", "list.json"]).ok();
    site.sluice(&["revoke", "--import", "old.json"])
        .refused(3, "an old list is never taken");
    site.sluice(&["install", &package])
        .refused(3, "was revoked by acme: leaks");
    // Valid for a second that is over when it is looked at: nothing that it covers comes in.
    site.sluice(&[
        "revoke",
        "--renew",
        "--key",
        "acme.key",
        "--list",
        "list.json",
        "--valid",
        "1 ms",
    ])
    .refused(3, "expires before");
    site.sluice(&[
        "revoke",
        "key:00",
        "--reason",
        "x",
        "--key",
        "acme.key",
        "--list",
        "list.json",
    ])
    .refused(2, "not a key id");
    site.sluice(&["revoke", "--renew", "--key", "acme.key", "--list", "none.json"])
        .refused(2, "no list");
    site.sluice(&["keygen", "other.key"]).ok();
    let others = ["revoke", "--renew", "--key", "other.key", "--list", "list.json"];
    site.sluice(&others).refused(3, "not pinned");
}
