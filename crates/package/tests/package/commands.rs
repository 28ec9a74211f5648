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
    let published = site
        .sluice(&["publish", &second, "oci:@@stick", "--latest", "--json"])
        .json();
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
    site.sluice(&["shadow", "acme/demo", "1.1.0", "--share", "7%"]).ok();
    assert_eq!(site.list(), ["1.1.0 shadow 7%", "1.0.0 current"]);
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
    site.sluice(&["install", "oci:@@nowhere:1.0.0"])
        .refused(1, "nothing named 1.0.0");
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
    site.sluice(&sign).refused(3, "this is no component");
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
    site.sluice(&others).refused(2, "is a list of the key");
}

#[test]
fn every_command_explains_itself() {
    let site = Site::new();
    let help = site.sluice(&["--help"]).notes;
    let words = [
        "keygen", "trust", "sign", "verify", "publish", "install", "list", "rollback", "revoke", "disable", "enable",
        "shadow", "promote", "remove",
    ];
    for word in words {
        assert!(help.contains(word), "{word} is not in {help}");
        let own = site.sluice(&[word, "--help"]).notes;
        assert!(own.contains("Usage: ") && own.lines().count() > 5, "{own}");
    }
}

#[test]
fn a_folder_that_is_no_nodes_is_neither_filled_nor_shown_as_an_empty_store() {
    let site = Site::new();
    let package = site.signed("1.0.0", "a");
    fs::create_dir_all(site.path("up/edge/spool")).unwrap();
    fs::write(site.path("up/edge/identity"), "").unwrap();
    let every: [&[&str]; 11] = [
        &["install", &package],
        &["verify", &package],
        &["list"],
        &["rollback", "acme/demo"],
        &["disable", "acme/demo", "--yes"],
        &["enable", "acme/demo"],
        &["shadow", "acme/demo", "1.0.0"],
        &["promote", "acme/demo", "1.0.0"],
        &["remove", "acme/demo"],
        &["trust", "list"],
        &["trust", "add", "again", "acme.key.pub"],
    ];
    for words in every {
        let with = |data: &'static str| site.sluice(&[words, &["--data", data]].concat());
        // One level above the right folder, and a folder that is not there.
        with("@@up").refused(2, &format!("did you mean --data {}", site.path("up/edge").display()));
        with("@@upp").refused(2, "it is not there");
        let said = with("@@up/edge");
        assert!(!said.notes.contains("no node's data folder"), "{said:?}");
        fs::remove_dir_all(site.path("up/edge/plugins")).ok();
    }
    assert!(!site.path("upp").exists() && !site.path("up/plugins").exists());
    site.sluice(&["trust", "add", "acme", "acme.key.pub", "--data", "@@new", "--create"])
        .ok();
    site.sluice(&["install", &package, "--data", "@@new"]).ok();
    let installed = site.sluice(&["list", "--data", "@@new"]).ok();
    assert!(installed.out.contains("acme/demo"), "{installed:?}");
}

#[test]
fn what_may_be_a_mask_is_disabled_by_somebody_who_was_told_what_follows() {
    let mut site = Site::new();
    site.sluice(&["install", &site.signed("1.0.0", "mask")]).ok();
    let is_off = |site: &Site| site.list()[0].contains("disabled since");
    for name in ["acme/demo", "mask", "nobody/knows"] {
        let disable = ["disable", name];
        site.answer = None;
        site.sluice(&disable).refused(2, "--yes");
        site.answer = Some(false);
        site.sluice(&disable).refused(1, "nothing was changed");
        assert!(!is_off(&site));
        let asked = site.asked.lock().unwrap().pop().unwrap();
        assert!(asked.contains("UNMASKED") && asked.contains(name), "{asked}");
    }
    site.answer = Some(true);
    let told = site.sluice(&["disable", "acme/demo"]).ok().notes;
    assert!(
        told.contains("acme/demo is a mask") && told.contains("UNMASKED"),
        "{told}"
    );
    assert!(site.list()[0].contains("no reason given"), "{:?}", site.list());
    site.sluice(&["enable", "acme/demo"]).ok();

    // What is no mask is off at once: nobody is asked, and none has to be there.
    site.answer = None;
    site.asked.lock().unwrap().clear();
    site.sluice(&["disable", "acme/demo", "--yes", "--reason", "leaks"])
        .ok();
    assert!(site.list()[0].contains(": leaks"), "{:?}", site.list());
    let told = site.sluice(&["disable", "filter"]).ok().notes;
    assert!(told.contains("kind filter: events pass without it"), "{told}");
    assert!(site.asked.lock().unwrap().is_empty());
}

#[test]
fn a_version_alone_is_revoked_alone() {
    let site = Site::new();
    let revoke = |what: &str| {
        let list = format!("{}.json", what.len());
        let words = [
            "revoke", what, "--reason", "x", "--key", "acme.key", "--list", &list, "--json",
        ];
        site.sluice(&words).json()["list"]["entries"][0]["versions"].clone()
    };
    assert_eq!(revoke("acme/demo@1.2.3"), "=1.2.3");
    assert_eq!(revoke("acme/demo@=1.2.3"), "=1.2.3");
    assert_eq!(revoke("acme/demo@>=1.2.3,<2.0.0-rc.1"), ">=1.2.3, <2.0.0-rc.1");
    assert_eq!(revoke("acme/demo"), "*");
    site.sluice(&[
        "revoke",
        "acme/demo@1.2",
        "--reason",
        "x",
        "--key",
        "acme.key",
        "--list",
        "a.json",
    ])
    .refused(2, "not a range");
}

#[test]
fn a_folder_with_one_package_needs_no_tag_and_one_with_several_says_what_is_there() {
    let site = Site::new();
    site.sluice(&["install", "oci:@@stick"])
        .refused(1, "nothing named latest");
    site.sluice(&["publish", &site.signed("1.0.0", "a"), "oci:@@stick"])
        .ok();
    let words = [
        "revoke",
        "acme/x",
        "--reason",
        "x",
        "--key",
        "acme.key",
        "--list",
        "list.json",
    ];
    site.sluice(&words).ok();
    site.sluice(&["publish", "list.json", "oci:@@stick:revocations"]).ok();
    site.sluice(&["install", "oci:@@stick"]).ok();
    assert_eq!(site.list(), ["1.0.0 current"]);
    site.sluice(&["revoke", "--import", "oci:@@stick"]).ok();
    let second = site.signed("1.1.0", "b");
    site.sluice(&["publish", &second, "oci:@@stick"]).ok();
    let several = site.sluice(&["install", "oci:@@stick"]);
    for tag in ["1.0.0", "1.1.0"] {
        let line = format!("oci:{}:{tag}  acme/demo {tag}", site.path("stick").display());
        assert!(several.code == 2 && several.notes.contains(&line), "{several:?}");
    }
    assert!(!several.notes.contains("revocations"), "{several:?}");
    site.sluice(&["install", "oci:@@stick:2.0.0"])
        .refused(1, "acme/demo 1.1.0");
    assert_eq!(site.list(), ["1.0.0 current"]);
    site.sluice(&["publish", &second, "oci:@@stick", "--latest"]).ok();
    site.sluice(&["install", "oci:@@stick"]).ok();
    assert_eq!(site.list(), ["1.1.0 current", "1.0.0 previous"]);
}
