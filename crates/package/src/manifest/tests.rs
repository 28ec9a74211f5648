//! Manifests that are fine, and all that may be wrong with one.
#![allow(clippy::unwrap_used)]

use super::*;

pub(crate) fn manifest(name: &str, version: &str, component: &[u8]) -> Manifest {
    Manifest {
        schema: MANIFEST_SCHEMA,
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
        kind: Kind::Filter,
        publisher: "Acme".into(),
        digest: Digest::of(component),
        size: component.len() as u64,
        contract: Version::new(1, 0, 0),
        minimum_host: Version::new(0, 1, 0),
        capabilities: BTreeSet::from([Capability::Log]),
        reads: vec!["body".into()],
        writes: Vec::new(),
        config_schema: None,
        limits: WantedLimits::default(),
        created: "2026-11-21T15:00:00Z".parse().unwrap(),
        expires: None,
        description: None,
        license: None,
        homepage: None,
    }
}

#[test]
fn what_is_written_reads_back_and_values_out_of_bounds_are_named() {
    let good = manifest("acme/demo", "1.0.0", b"component");
    assert_eq!(Manifest::parse(&good.to_bytes().unwrap()).unwrap(), good);
    let text = String::from_utf8(good.to_bytes().unwrap()).unwrap();
    let long = "x".repeat(2000);
    for (from, to, said) in [
        ("\"schema\": 1", "\"schema\": 2", "update the host"),
        ("\"schema\": 1", "\"schema\": 0", "`schema`"),
        ("\"schema\": 1", "\"schema\": 1, \"extra\": 1", "unknown field `extra`"),
        (
            "\"schema\": 1",
            "\"schema\": 1, \"name\": \"a\"",
            "duplicate field `name`",
        ),
        ("acme/demo", "acme/../../demo", "not a package name"),
        ("acme/demo", "Acme/demo", "not a package name"),
        ("\"1.0.0\",\n  \"kind", "\"1.0\",\n  \"kind", "not a version"),
        ("\"log\"", "\"wasi\"", "unknown variant `wasi`"),
        ("\"size\": 9", "\"size\": 0", "`size`"),
        ("\"size\": 9", "\"size\": 999999999999", "`size`"),
        ("\"Acme\"", "\"Ac\\u001bme\"", "`publisher`"),
        ("\"body\"", &format!("\"{long}\""), "`reads`"),
        (
            "\"created\"",
            "\"expires\": \"2026-11-21T15:00:00Z\", \"created\"",
            "`expires`",
        ),
        ("15:00:00Z", "15:00:00+01:00", "not a time"),
        ("}", "}}", "trailing"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = Manifest::parse(text.replacen(from, to, 1).as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{to}: {error}");
    }
}

#[test]
fn a_component_that_does_more_than_its_manifest_says_is_noticed() {
    let manifest = manifest("acme/demo", "1.0.0", b"component");
    let facts = ComponentFacts {
        name: "demo".into(),
        version: manifest.version.clone(),
        kind: manifest.kind,
        contract: manifest.contract.clone(),
        capabilities: BTreeSet::new(),
        reads: manifest.reads.clone(),
        writes: Vec::new(),
        config_schema: String::new(),
    };
    assert_eq!(manifest.agrees_with(&facts), Ok(()));
    let more = ComponentFacts {
        capabilities: BTreeSet::from([Capability::Log, Capability::State]),
        ..facts.clone()
    };
    assert_eq!(manifest.agrees_with(&more).unwrap_err().key, "capabilities");
    let other = ComponentFacts {
        kind: Kind::Mask,
        ..facts.clone()
    };
    assert_eq!(manifest.agrees_with(&other).unwrap_err().key, "kind");
    let writes = ComponentFacts {
        writes: vec!["body".into()],
        ..facts
    };
    assert_eq!(manifest.agrees_with(&writes).unwrap_err().key, "writes");
}
