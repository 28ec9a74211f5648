//! The ways to change a signed plugin, each with the reason for which it is refused.

use super::*;

pub(super) fn later() -> Timestamp {
    now().after(Duration::from_secs(3600))
}

pub(super) fn earlier() -> Timestamp {
    Timestamp::from_seconds(NOW - 10)
}

pub(super) fn of_versions(name: &str, versions: &str) -> Revocation {
    Revocation::Versions(RevokedVersions {
        name: name.parse().unwrap(),
        versions: versions.parse().unwrap(),
        reason: "leaks".into(),
    })
}

pub(super) fn of_digest() -> Revocation {
    Revocation::Component(RevokedComponent {
        digest: Digest::of(COMPONENT),
        reason: "leaks".into(),
    })
}

pub(super) fn of_key(key: &PrivateKey) -> Revocation {
    Revocation::Key(RevokedKey {
        key: key.public().id(),
        reason: "stolen".into(),
    })
}

/// The word for a refusal, so that a table can name it.
pub(super) fn reason(refusal: &Refusal) -> &'static str {
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

pub(super) type Change = Box<dyn FnOnce(&mut Case)>;

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
pub(super) fn ways() -> Vec<(&'static str, Change, &'static str)> {
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
