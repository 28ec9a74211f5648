//! P12: a signed plugin that was changed in any way is refused, with the reason. Every way stands in one table.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::manifest::tests::manifest;
use crate::revocation::{
    Revocation, RevocationError, RevocationList, RevokedComponent, RevokedKey, RevokedVersions, SignedRevocations,
};
use crate::trust::TrustedKey;

const COMPONENT: &[u8] = b"\0asm component of acme/demo";
const NOW: i64 = 1_796_000_000;

fn now() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

/// Everything that decides. Each test begins with the one under which the package is good.
struct Case {
    package: Package,
    trust: Trust,
    lists: Vec<SignedRevocations>,
    policy: Policy,
    purpose: Purpose,
    name: &'static str,
    version: &'static str,
}

fn publisher() -> PrivateKey {
    PrivateKey::of_seed(1)
}

fn operator() -> PrivateKey {
    PrivateKey::of_seed(2)
}

fn stranger() -> PrivateKey {
    PrivateKey::of_seed(3)
}

fn signed_by(key: &PrivateKey, change: impl FnOnce(&mut Manifest)) -> Package {
    let mut stated = manifest("acme/demo", "1.2.3", COMPONENT);
    change(&mut stated);
    Package::sign(&stated, COMPONENT.to_vec(), key).unwrap()
}

/// Signs text that `Manifest` would not write.
fn signed_text(from: &str, to: &str) -> Package {
    let good = signed_by(&publisher(), |_| {});
    let text = String::from_utf8(good.manifest).unwrap();
    assert!(text.contains(from), "{from}");
    let manifest = text.replacen(from, to, 1).into_bytes();
    let signature = Signature::sign(&publisher(), &manifest, COMPONENT).to_bytes();
    Package {
        manifest,
        signature,
        component: COMPONENT.to_vec(),
    }
}

impl Case {
    fn good() -> Self {
        let mut trust = Trust::default();
        let rules = |names: &str| Some(vec![names.parse().unwrap()]);
        for (name, key, names) in [("acme", publisher(), rules("acme/*")), ("operator", operator(), None)] {
            let key = TrustedKey {
                name: name.into(),
                key: key.public(),
                names,
                capabilities: None,
            };
            trust.add(key).unwrap();
        }
        Self {
            package: signed_by(&publisher(), |_| {}),
            trust,
            lists: Vec::new(),
            policy: Policy {
                clock: now,
                ..Policy::default()
            },
            purpose: Purpose::Install,
            name: "acme/demo",
            version: "1.2.3",
        }
    }

    fn package(mut self, package: Package) -> Self {
        self.package = package;
        self
    }

    fn revoked(mut self, key: &PrivateKey, entry: Revocation, expires: Timestamp) -> Self {
        let issued = Timestamp::from_seconds(NOW - 1000);
        let list = RevocationList {
            number: 1,
            issued,
            expires,
            entries: vec![entry],
        };
        self.lists.push(SignedRevocations::sign(key, &list).unwrap());
        self
    }

    fn verify(self) -> Result<Verified, Refusal> {
        let revocations = Revocations::verify(&self.lists, &self.trust, &BTreeMap::new()).unwrap();
        let (name, version) = (self.name.parse().unwrap(), self.version.parse().unwrap());
        let asked = Asked {
            name: Some(&name),
            version: Some(&version),
        };
        self.package
            .verify(&self.trust, &revocations, &self.policy, self.purpose, asked)
    }
}

fn later() -> Timestamp {
    now().after(Duration::from_secs(3600))
}

fn earlier() -> Timestamp {
    Timestamp::from_seconds(NOW - 10)
}

fn of_versions(name: &str, versions: &str) -> Revocation {
    Revocation::Versions(RevokedVersions {
        name: name.parse().unwrap(),
        versions: versions.parse().unwrap(),
        reason: "leaks".into(),
    })
}

fn of_digest() -> Revocation {
    Revocation::Component(RevokedComponent {
        digest: Digest::of(COMPONENT),
        reason: "leaks".into(),
    })
}

fn of_key(key: &PrivateKey) -> Revocation {
    Revocation::Key(RevokedKey {
        key: key.public().id(),
        reason: "stolen".into(),
    })
}

/// The word for a refusal, so that a table can name it.
fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::TooLarge { .. } => "too large",
        Refusal::SignatureUnreadable(_) => "signature unreadable",
        Refusal::UnknownKey { .. } => "unknown key",
        Refusal::BadSignature { .. } => "bad signature",
        Refusal::ComponentSize { .. } => "component size",
        Refusal::ComponentChanged { .. } => "component changed",
        Refusal::Manifest(_) => "manifest",
        Refusal::NotForThisKey { .. } => "not for this key",
        Refusal::NotAsked { .. } => "not asked",
        Refusal::Revoked { .. } => "revoked",
        Refusal::KeyRevoked { .. } => "key revoked",
        Refusal::RevocationsStale { .. } => "revocations stale",
        Refusal::RevocationsMissing { .. } => "revocations missing",
        Refusal::Expired { .. } => "expired",
        Refusal::HostTooOld { .. } => "host too old",
        Refusal::Contract { .. } => "contract",
        Refusal::Capability { .. } => "capability",
    }
}

type Change = Box<dyn FnOnce(&mut Case)>;

fn change(change: impl FnOnce(&mut Case) + 'static) -> Change {
    Box::new(change)
}

fn edited(from: &'static str, to: &'static str) -> Change {
    change(move |case| {
        let text = String::from_utf8(std::mem::take(&mut case.package.manifest)).unwrap();
        assert!(text.contains(from), "{from}");
        case.package.manifest = text.replacen(from, to, 1).into_bytes();
    })
}

fn resigned(stated: impl FnOnce(&mut Manifest) + 'static) -> Change {
    change(move |case| case.package = signed_by(&publisher(), stated))
}

fn written(from: &'static str, to: &'static str) -> Change {
    change(move |case| case.package = signed_text(from, to))
}

fn revoking(key: PrivateKey, entry: Revocation, expires: Timestamp) -> Change {
    change(move |case| {
        let whole = std::mem::replace(case, Case::good());
        *case = whole.revoked(&key, entry, expires);
    })
}

/// Every way to change a signed plugin that was thought of, and what is said of it.
fn ways() -> Vec<(&'static str, Change, &'static str)> {
    vec![
        (
            "a byte of the component",
            change(|c| c.package.component[9] ^= 1),
            "component changed",
        ),
        (
            "the component cut",
            change(|c| c.package.component.truncate(COMPONENT.len() - 1)),
            "component size",
        ),
        (
            "the component emptied",
            change(|c| c.package.component.clear()),
            "component size",
        ),
        (
            "something appended",
            change(|c| c.package.component.push(0)),
            "component size",
        ),
        (
            "another component of the same size",
            change(|c| c.package.component = vec![7; COMPONENT.len()]),
            "component changed",
        ),
        (
            "more than any host takes",
            change(|c| c.package.component = vec![0; usize::try_from(COMPONENT_BYTES).unwrap() + 1]),
            "too large",
        ),
        (
            "a manifest that never ends",
            change(|c| c.package.manifest.resize(1 << 20, b' ')),
            "too large",
        ),
        ("the name", edited("acme/demo", "acme/mask"), "bad signature"),
        ("the version raised", edited("1.2.3", "9.2.3"), "bad signature"),
        (
            "a capability added",
            edited("\"log\"", "\"log\", \"lookup\""),
            "bad signature",
        ),
        (
            "a column added",
            edited("\"body\"", "\"body\", \"attrs:*\""),
            "bad signature",
        ),
        (
            "a field added",
            edited("\"schema\"", "\"extra\": 1, \"schema\""),
            "bad signature",
        ),
        ("a space", edited("{", "{ "), "bad signature"),
        (
            "a limit lifted",
            edited("\"limits\": {}", "\"limits\": {\"memory_bytes\": 268435456}"),
            "bad signature",
        ),
        (
            "signed by a stranger",
            change(|c| c.package = signed_by(&stranger(), |_| {})),
            "unknown key",
        ),
        (
            "a stranger's signature under the publisher's key id",
            change(|c| {
                let forged = signed_by(&stranger(), |_| {}).signature;
                let (theirs, ours) = (
                    stranger().public().id().to_string(),
                    publisher().public().id().to_string(),
                );
                c.package.signature = String::from_utf8(forged).unwrap().replace(&theirs, &ours).into_bytes();
            }),
            "bad signature",
        ),
        (
            "the signature of the publisher's other package",
            change(|c| {
                c.package.signature = signed_by(&publisher(), |m| m.description = Some("other".into())).signature
            }),
            "bad signature",
        ),
        (
            "a signature that names the digest of exchanged bytes",
            change(|c| {
                let other = vec![7; COMPONENT.len()];
                let (was, is) = (Digest::of(COMPONENT).to_string(), Digest::of(&other).to_string());
                let signature = String::from_utf8(std::mem::take(&mut c.package.signature)).unwrap();
                c.package.signature = signature.replace(&was, &is).into_bytes();
                c.package.component = other;
            }),
            "bad signature",
        ),
        (
            "a signature of a revocation list",
            change(|c| {
                let list = RevocationList {
                    number: 1,
                    issued: earlier(),
                    expires: later(),
                    entries: vec![of_digest()],
                };
                c.package.signature = SignedRevocations::sign(&publisher(), &list).unwrap().to_bytes();
            }),
            "signature unreadable",
        ),
        (
            "no signature",
            change(|c| c.package.signature.clear()),
            "signature unreadable",
        ),
        (
            "a weaker algorithm",
            change(|c| {
                let text = String::from_utf8(std::mem::take(&mut c.package.signature)).unwrap();
                c.package.signature = text.replace("ed25519", "none").into_bytes();
            }),
            "signature unreadable",
        ),
        (
            "a component signed under a manifest that states another",
            change(|c| {
                c.package.component = vec![7; COMPONENT.len()];
                c.package.signature =
                    Signature::sign(&publisher(), &c.package.manifest, &c.package.component).to_bytes();
            }),
            "component changed",
        ),
        (
            "a schema of tomorrow",
            written("\"schema\": 1", "\"schema\": 2"),
            "manifest",
        ),
        (
            "a signed field that nobody knows",
            written("\"schema\": 1", "\"schema\": 1, \"extra\": 1"),
            "manifest",
        ),
        (
            "a key given twice",
            written("\"schema\": 1", "\"schema\": 1, \"size\": 1"),
            "manifest",
        ),
        (
            "a way out of the store in the name",
            written("acme/demo", "../../etc"),
            "manifest",
        ),
        (
            "a way out in the version",
            written("\"version\": \"1.2.3\"", "\"version\": \"../1.2.3\""),
            "manifest",
        ),
        ("upper case in the name", written("acme/demo", "Acme/demo"), "manifest"),
        (
            "a look-alike letter in the name",
            written("acme/demo", "\u{430}cme/demo"),
            "manifest",
        ),
        (
            "a package of another vendor",
            resigned(|m| m.name = "other/demo".parse().unwrap()),
            "not for this key",
        ),
        (
            "a package without a vendor",
            resigned(|m| m.name = "mask".parse().unwrap()),
            "not for this key",
        ),
        (
            "another package of the vendor",
            resigned(|m| m.name = "acme/mask".parse().unwrap()),
            "not asked",
        ),
        (
            "an older version in its place",
            resigned(|m| m.version = Version::new(1, 2, 2)),
            "not asked",
        ),
        ("expired a second ago", resigned(|m| m.expires = Some(now())), "expired"),
        (
            "made for a newer host",
            resigned(|m| m.minimum_host = Version::new(99, 0, 0)),
            "host too old",
        ),
        (
            "for a contract of tomorrow",
            resigned(|m| m.contract = Version::new(1, 7, 0)),
            "contract",
        ),
        (
            "for a contract that never was",
            resigned(|m| m.contract = Version::new(0, 9, 0)),
            "contract",
        ),
        (
            "a capability that the host does not allow",
            change(|c| c.policy.capabilities = BTreeSet::new()),
            "capability",
        ),
        (
            "a capability that the key is not trusted with",
            change(|c| {
                let mut key = c.trust.key(&publisher().public().id()).unwrap().clone();
                key.capabilities = Some(BTreeSet::from([Capability::Match]));
                c.trust = Trust::default();
                c.trust.add(key).unwrap();
            }),
            "capability",
        ),
        (
            "its digest revoked by its publisher",
            revoking(publisher(), of_digest(), later()),
            "revoked",
        ),
        (
            "its version revoked",
            revoking(publisher(), of_versions("acme/demo", ">=1.0.0, <1.3.0"), later()),
            "revoked",
        ),
        (
            "its key revoked by the operator",
            revoking(operator(), of_key(&publisher()), later()),
            "key revoked",
        ),
        (
            "its key revoked by itself",
            revoking(publisher(), of_key(&publisher()), later()),
            "key revoked",
        ),
        (
            "revoked on a list that expired since",
            revoking(publisher(), of_digest(), earlier()),
            "revoked",
        ),
        (
            "a revocation list that is too old to tell",
            revoking(publisher(), of_versions("acme/mask", "*"), earlier()),
            "revocations stale",
        ),
        (
            "no revocation list where one is wanted",
            change(|c| c.policy.strict_revocations = true),
            "revocations missing",
        ),
    ]
}

#[test]
fn p12_a_signed_plugin_that_was_changed_in_any_way_is_refused_with_the_reason() {
    let verified = Case::good().verify().unwrap();
    assert_eq!(
        (verified.component.as_slice(), verified.signer.as_str()),
        (COMPONENT, "acme")
    );
    for (way, apply, expected) in ways() {
        let mut case = Case::good();
        apply(&mut case);
        let refusal = case.verify().map(drop).expect_err(way);
        assert_eq!(reason(&refusal), expected, "{way}: {refusal}");
    }
}

#[test]
fn p12_what_revokes_somebody_else_refuses_nothing() {
    for entry in [
        of_versions("acme/demo", "<1.2.3"),
        of_versions("acme/mask", "*"),
        of_key(&stranger()),
        Revocation::Component(RevokedComponent {
            digest: Digest::of(b"other"),
            reason: "x".into(),
        }),
    ] {
        Case::good().revoked(&publisher(), entry, later()).verify().unwrap();
    }
    // A key that may sign for one vendor takes nothing of another back.
    let mut case = Case::good().revoked(&publisher(), of_versions("other/demo", "*"), later());
    case.package = signed_by(&operator(), |m| m.name = "other/demo".parse().unwrap());
    case.name = "other/demo";
    case.verify().unwrap();
}

#[test]
fn p12_an_old_revocation_list_stops_what_comes_in_and_only_warns_of_what_runs() {
    let stale = || {
        let mut case = Case::good().revoked(&publisher(), of_versions("acme/mask", "*"), earlier());
        case.purpose = Purpose::Load;
        case
    };
    let warnings = stale().verify().unwrap().warnings;
    assert!(matches!(&warnings[..], [Warning::RevocationsExpired { issuer, .. }] if issuer == "acme"));
    let mut strict = stale();
    strict.policy.strict_revocations = true;
    assert_eq!(reason(&strict.verify().unwrap_err()), "revocations stale");
}

#[test]
fn p12_a_revocation_list_that_was_changed_replaced_by_an_old_one_or_taken_away_is_noticed() {
    let trust = Case::good().trust;
    let key = publisher();
    let id = key.public().id();
    let list = |number| RevocationList {
        number,
        issued: earlier(),
        expires: later(),
        entries: vec![of_digest()],
    };
    let sign = |number| SignedRevocations::sign(&key, &list(number)).unwrap();
    let seen = BTreeMap::from([(id, 2)]);
    let check = |lists: &[SignedRevocations]| Revocations::verify(lists, &trust, &seen).map(drop);
    assert_eq!(check(&[sign(2)]), Ok(()));
    assert_eq!(check(&[sign(3)]), Ok(()));
    assert_eq!(
        check(&[sign(1)]),
        Err(RevocationError::Older {
            key: id,
            found: 1,
            seen: 2
        })
    );
    assert_eq!(check(&[]), Err(RevocationError::Missing { key: id, number: 2 }));
    let text = String::from_utf8(sign(2).to_bytes()).unwrap();
    for (from, to) in [
        ("leaks", "fine!"),
        ("\"number\":2", "\"number\":3"),
        (",\"reason\"", ", \"reason\""),
    ] {
        assert!(text.contains(from), "{from}");
        let changed = SignedRevocations::parse(text.replacen(from, to, 1).as_bytes()).unwrap();
        assert_eq!(check(&[changed]), Err(RevocationError::BadSignature { key: id }));
    }
    let forged = SignedRevocations::sign(&stranger(), &list(9)).unwrap();
    assert_eq!(
        forged.verify(&trust).unwrap_err(),
        RevocationError::UnknownKey {
            key: stranger().public().id()
        }
    );
}

proptest! {
    /// No single changed, removed or added byte of any of the three files leaves a package good.
    #[test]
    fn p12_no_changed_byte_of_manifest_or_component_goes_unnoticed(
        part in 0..3_usize, place in any::<prop::sample::Index>(), how in 0..3_u8, byte in any::<u8>()
    ) {
        let mut case = Case::good();
        let good = case.package.clone();
        let parts = [&mut case.package.manifest, &mut case.package.component, &mut case.package.signature];
        let bytes = parts.into_iter().nth(part).unwrap();
        let at = place.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => {
                bytes.remove(at);
            }
            _ => bytes.insert(at, byte),
        }
        // White space in manifest.sig means nothing, and nothing else may change there.
        let same_signature = Signature::parse(&case.package.signature) == Signature::parse(&good.signature);
        let same = case.package.manifest == good.manifest && case.package.component == good.component && same_signature;
        prop_assert_eq!(case.verify().is_ok(), same);
    }

    /// Whatever bytes come: a refusal, never a panic.
    #[test]
    fn p12_bytes_from_anywhere_are_refused(manifest in any::<Vec<u8>>(), signature in any::<Vec<u8>>()) {
        let package = Package { manifest, signature, component: COMPONENT.to_vec() };
        prop_assert!(Case::good().package(package).verify().is_err());
    }
}

/// The contracts that the policy knows are those of this repository.
#[test]
fn the_policy_runs_the_contracts_that_are_written_down() {
    let wit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let text = std::fs::read_to_string(wit.join("plugin.wit")).unwrap();
    let current = text
        .split("package sluice:plugin@")
        .nth(1)
        .and_then(|rest| rest.split(';').next())
        .unwrap();
    let mut written: Vec<Version> = vec![current.parse().unwrap()];
    for entry in std::fs::read_dir(wit.join("released")).unwrap() {
        let name = entry.unwrap().file_name();
        written.push(name.to_str().unwrap().parse().unwrap());
    }
    written.sort();
    written.dedup();
    assert_eq!(crate::CONTRACTS.to_vec(), written);
}
