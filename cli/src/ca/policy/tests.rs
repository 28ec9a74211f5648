//! What is renewed and what is not: a request that is right, and each way to be wrong.

use std::fs;

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::ca::{Issued, init, issue, list, revoke};

const HOUR: Duration = Duration::from_secs(3_600);

struct World {
    dir: tempfile::TempDir,
    policy: Policy,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        Self {
            dir,
            policy: Policy::default(),
        }
    }

    fn issue(&self, node: &str) -> Issued {
        let role = Role::Edge {
            tenant: "acme".parse().unwrap(),
            node: node.parse().unwrap(),
        };
        issue(self.dir.path(), &role, &self.dir.path().join("out"), HOUR).unwrap()
    }

    /// `late` seconds after now.
    fn renew(&self, request: &RenewalRequest, late: u64) -> Result<PeerIdentity, AuthorityError> {
        let now = crate::ca::now().unwrap() + late;
        let renewed = renew(self.dir.path(), &self.policy, request, ("gw", None), now)?;
        assert_eq!(renewed.len(), 1);
        Ok(identity_of(&renewed[0]).unwrap())
    }
}

fn der(path: &Path) -> Bytes {
    Bytes::copy_from_slice(&CertificateDer::from_pem_file(path).unwrap())
}

fn csr(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Bytes {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    change(&mut params);
    Bytes::copy_from_slice(params.serialize_request(key).unwrap().der())
}

fn signed(by: &Path, request: Bytes, certificate: Bytes) -> RenewalRequest {
    let key = PrivateKeyDer::from_pem_file(by).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
    RenewalRequest {
        certificates: vec![certificate],
        scheme: u16::from(signer.scheme()).into(),
        proof: signer.sign(&renewal_message(&request)).unwrap().into(),
        request,
    }
}

fn good(issued: &Issued) -> RenewalRequest {
    let request = csr(&KeyPair::generate().unwrap(), |_| {});
    signed(&issued.key, request, der(&issued.certificate))
}

fn refusal(result: Result<PeerIdentity, AuthorityError>) -> String {
    match result {
        Err(AuthorityError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn p13_the_name_comes_from_the_old_certificate_whatever_the_request_says() {
    let world = World::new();
    let issued = world.issue("site-1");
    let mut request = good(&issued);
    for round in 0..3 {
        let identity = world.renew(&request, 0).unwrap();
        assert_eq!((identity.tenant.as_str(), identity.node.as_str()), ("acme", "site-1"));
        let asked = csr(&KeyPair::generate().unwrap(), |params| {
            params.subject_alt_names = vec![SanType::URI("sluice://rival/site-9".try_into().unwrap())];
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, "rival/site-9");
        });
        request = signed(&issued.key, asked, der(&issued.certificate));
        let entries = list(world.dir.path()).unwrap();
        let last = entries.last().unwrap();
        assert_eq!(entries.len(), round + 2);
        assert_eq!(
            (last.name.as_str(), last.by.as_str(), last.replaces.as_ref()),
            ("acme/site-1", "renewal via gw", Some(&issued.serial))
        );
    }
}

#[test]
fn p13_a_gateway_gets_no_certificate_of_an_edge_by_itself() {
    let world = World::new();
    let (own, other) = (world.issue("site-1"), world.issue("site-2"));
    // Certificate of one edge, signed by another, by a gateway, by nobody.
    let request = csr(&KeyPair::generate().unwrap(), |_| {});
    let stolen = signed(&other.key, request, der(&own.certificate));
    assert!(refusal(world.renew(&stolen, 0)).contains("not signed"));
    let mut unsigned = good(&own);
    unsigned.proof = Bytes::new();
    assert!(refusal(world.renew(&unsigned, 0)).contains("not signed"));
    // A proof of another request.
    let mut swapped = good(&own);
    swapped.request = csr(&KeyPair::generate().unwrap(), |_| {});
    assert!(refusal(world.renew(&swapped, 0)).contains("not signed"));
    let role = Role::Gateway {
        hosts: vec!["gw.example".to_owned()],
    };
    let gateway = issue(world.dir.path(), &role, world.dir.path(), HOUR).unwrap();
    assert!(refusal(world.renew(&good(&gateway), 0)).contains("alternative name"));
    assert!(
        list(world.dir.path())
            .unwrap()
            .iter()
            .all(|entry| entry.replaces.is_none())
    );
}

#[test]
fn p14_what_is_revoked_foreign_or_too_old_is_not_renewed() {
    let world = World::new();
    let (first, second) = (world.issue("site-1"), world.issue("site-2"));
    let grace = world.policy.grace.as_secs();
    // Within the grace it is, after it not.
    let expired = 3_600 + grace - 60;
    assert_eq!(world.renew(&good(&second), expired).unwrap().node.as_str(), "site-2");
    assert!(refusal(world.renew(&good(&second), expired + 120)).contains("grace"));
    // Revoked, also with a grace, and by its name.
    revoke(world.dir.path(), "acme/site-1").unwrap();
    for late in [0, 3_700] {
        assert!(refusal(world.renew(&good(&first), late)).contains("revoked"));
    }
    // The deny list alone counts, too, as when the list of issued ones is lost.
    fs::remove_file(world.dir.path().join("issued.jsonl")).unwrap();
    assert!(refusal(world.renew(&good(&first), 0)).contains("revoked"));
    let foreign = World::new();
    let stranger = foreign.issue("site-2");
    assert!(refusal(world.renew(&good(&stranger), 0)).contains("not accepted"));
    // A gateway whose own certificate is revoked passes nothing on.
    revoke(world.dir.path(), "77").unwrap();
    let via = ("gw", Some("77"));
    let now = crate::ca::now().unwrap();
    let refused = renew(world.dir.path(), &world.policy, &good(&second), via, now);
    assert!(matches!(refused, Err(AuthorityError::Refused(why)) if why.contains("gateway")));
}

#[test]
fn only_new_keys_of_known_types_are_certified() {
    let world = World::new();
    let issued = world.issue("site-1");
    let old = KeyPair::from_pem(&fs::read_to_string(&issued.key).unwrap()).unwrap();
    let ask = |key: &KeyPair| signed(&issued.key, csr(key, |_| {}), der(&issued.certificate));
    assert!(refusal(world.renew(&ask(&old), 0)).contains("old one"));
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        world
            .renew(&ask(&KeyPair::generate_for(algorithm).unwrap()), 0)
            .unwrap();
    }
    let garbage = signed(&issued.key, Bytes::from_static(b"no request"), der(&issued.certificate));
    assert!(refusal(world.renew(&garbage, 0)).contains("cannot be used"));
    let mut flipped = csr(&KeyPair::generate().unwrap(), |_| {}).to_vec();
    let last = flipped.len() - 3;
    flipped[last] ^= 1;
    let flipped = signed(&issued.key, flipped.into(), der(&issued.certificate));
    assert!(refusal(world.renew(&flipped, 0)).contains("cannot be used"));
    let empty = RenewalRequest {
        certificates: Vec::new(),
        ..garbage
    };
    assert!(refusal(world.renew(&empty, 0)).contains("cannot be read"));
}

#[test]
fn one_edge_is_renewed_so_often_and_another_is_not_held_up_by_it() {
    let mut world = World::new();
    world.policy.renewals_per_hour = 3;
    let (busy, other) = (world.issue("site-1"), world.issue("site-2"));
    for _ in 0..3 {
        world.renew(&good(&busy), 0).unwrap();
    }
    assert!(matches!(world.renew(&good(&busy), 60), Err(AuthorityError::Later(_))));
    world.renew(&good(&other), 60).unwrap();
    world.renew(&good(&busy), 3_601).unwrap();
}
