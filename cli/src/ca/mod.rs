//! The certificate authority of a fleet: a folder with a key, what it issued, and the deny list.
//!
//! Gateways need `ca.pem` and `deny`, edges need `ca.pem`; `ca.key` never leaves the folder. An edge's certificate carries one name, the
//! URI `sluice://<tenant>/<node>`, and is for clients only; a gateway's carries its hosts. It may be shown to the authority's door, too, but
//! no gateway takes it for an edge, because its names are none of an edge.

mod book;
mod client;
pub(crate) mod command;
pub(crate) mod config;
mod local;
mod policy;
mod serve;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use sluice_wire::ids::{NodeId, TenantId};

pub(crate) use book::{Entry, list, revoke};
pub(crate) use client::HttpsAuthority;
pub(crate) use local::LocalAuthority;
pub(crate) use policy::Policy;

pub(crate) const CA_CERTIFICATE: &str = "ca.pem";
pub(crate) const DENY_LIST: &str = "deny";
const CA_KEY: &str = "ca.key";

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Edges renew over the link, also when they were away for months: what is stolen is soon worth nothing.
pub(crate) const EDGE_LIFE: Duration = Duration::from_secs(14 * 24 * 3600);
/// A person, or what stands in for one, puts a gateway's certificate in its place.
pub(crate) const GATEWAY_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Edge {
        tenant: TenantId,
        node: NodeId,
    },
    /// Host names or addresses by which edges reach it.
    Gateway {
        hosts: Vec<String>,
    },
}

impl Role {
    /// How long its certificates live when nobody says otherwise.
    pub(crate) fn usual_life(&self) -> Duration {
        match self {
            Self::Edge { .. } => EDGE_LIFE,
            Self::Gateway { .. } => GATEWAY_LIFE,
        }
    }
}

/// A certificate that was just made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
    pub(crate) serial: String,
}

/// Whether `init` was done in this folder.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join(CA_KEY).exists()
}

/// Makes a new authority; refuses a folder that has one. Returns the path of its certificate.
pub(crate) fn init(dir: &Path) -> Result<PathBuf> {
    ensure!(!exists(dir), "{} already holds a certificate authority", dir.display());
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = named("Sluice certificate authority");
    // It signs peers and no further authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut params, CA_LIFE, now()?);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    book::write_new(
        &dir.join(DENY_LIST),
        b"# serial numbers of revoked certificates, one per line\n",
        0o644,
    )?;
    let path = dir.join(CA_CERTIFICATE);
    book::write_new(&path, certificate.pem().as_bytes(), 0o644)?;
    // Last: with it the authority exists.
    book::write_new(&dir.join(CA_KEY), key.serialize_pem().as_bytes(), 0o600)?;
    Ok(path)
}

/// Forgets the certificates that have not even a grace any more, and a month beyond it.
pub(crate) fn forget_old(dir: &Path, policy: &Policy) -> Result<()> {
    let kept = policy.grace + DAY * 30;
    book::forget(dir, now()?.saturating_sub(kept.as_secs()))
}

/// Issues a certificate with a new key into `out`.
pub(crate) fn issue(dir: &Path, role: &Role, out: &Path, life: Duration) -> Result<Issued> {
    ensure!(
        life >= Duration::from_secs(1),
        "a certificate lives at least one second"
    );
    let issuer = issuer(dir)?;
    let (params, entry) = describe(role, life, now()?, "sluice ca issue")?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let stem = file_stem(role);
    let issued = Issued {
        certificate: out.join(format!("{stem}.pem")),
        key: out.join(format!("{stem}.key")),
        ca: dir.join(CA_CERTIFICATE),
        serial: entry.serial.clone(),
    };
    // Remembered first: a certificate that nobody knows of could not be revoked.
    book::Lock::take(dir)?.add(&entry)?;
    book::replace(&issued.key, key.serialize_pem().as_bytes(), 0o600)?;
    book::replace(&issued.certificate, certificate.pem().as_bytes(), 0o644)?;
    Ok(issued)
}

/// What signs. Of several certificates in `ca.pem` the first is the key's; the others are those that it takes over from.
fn issuer(dir: &Path) -> Result<Issuer<'static, KeyPair>> {
    ensure!(
        exists(dir),
        "{} holds no certificate authority: run `sluice ca init` first",
        dir.display()
    );
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let key = KeyPair::from_pem(&read(CA_KEY)?)?;
    Ok(Issuer::from_ca_cert_pem(&read(CA_CERTIFICATE)?, key)?)
}

/// A certificate of a role, but for its key, and what is remembered of it.
fn describe(role: &Role, life: Duration, now_s: u64, by: &str) -> Result<(CertificateParams, Entry)> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    let (kind, name) = match role {
        Role::Edge { tenant, node } => {
            params.subject_alt_names = vec![SanType::URI(format!("sluice://{tenant}/{node}").try_into()?)];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            ("edge", format!("{tenant}/{node}"))
        }
        Role::Gateway { hosts } => {
            ensure!(!hosts.is_empty(), "a gateway needs at least one host name or address");
            params.subject_alt_names = hosts.iter().map(|h| host_name(h)).collect::<Result<_>>()?;
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                // At the authority's door.
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            ("gateway", hosts.join(","))
        }
    };
    params.distinguished_name = named(&name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    // 16 random bytes; the first is below 0x80, as serial numbers are positive, and not 0, so that its text is fixed.
    let mut serial: [u8; 16] = rand::random();
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let entry = Entry {
        serial: hex::encode(serial),
        role: kind.to_owned(),
        name,
        issued_at: now_s,
        not_after: set_life(&mut params, life, now_s),
        revoked: false,
        by: by.to_owned(),
        replaces: None,
    };
    Ok((params, entry))
}

/// To `life` from now, and from a day ago, as clocks of remote sites are off; from no more than its life ago, because edges reckon with
/// two thirds of the whole. Returns the end.
fn set_life(params: &mut CertificateParams, life: Duration, now_s: u64) -> u64 {
    let (now, epoch) = (Duration::from_secs(now_s), rcgen::date_time_ymd(1970, 1, 1));
    params.not_before = epoch + now.saturating_sub(DAY.min(life));
    params.not_after = epoch + now + life;
    (now + life).as_secs()
}

/// The time of day in seconds since 1970: what certificates are dated and judged by.
pub(crate) fn now() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since.context("the clock stands before 1970")?.as_secs())
}

fn host_name(host: &str) -> Result<SanType> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    Ok(SanType::DnsName(
        host.try_into()
            .with_context(|| format!("{host:?} is not a host name"))?,
    ))
}

fn named(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

/// Without `/`: both names are checked ids, a host could hold a colon.
fn file_stem(role: &Role) -> String {
    match role {
        Role::Edge { tenant, node } => format!("{tenant}.{node}"),
        Role::Gateway { hosts } => {
            let first = hosts.first().map_or("", String::as_str);
            let safe = |c: char| {
                if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') {
                    c
                } else {
                    '_'
                }
            };
            format!("gateway-{}", first.chars().map(safe).collect::<String>())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509Certificate};

    fn edge(node: &str) -> Role {
        Role::Edge {
            tenant: TenantId::new("acme").unwrap(),
            node: NodeId::new(node).unwrap(),
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("sluice-ca-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn an_authority_issues_remembers_and_revokes() {
        let dir = scratch("whole");
        init(&dir).unwrap();
        assert!(init(&dir).is_err(), "a second authority would orphan the first");
        let first = issue(&dir, &edge("site-1"), &dir.join("out"), DAY * 30).unwrap();
        issue(&dir, &edge("site-2"), &dir.join("out"), DAY * 30).unwrap();
        let hosts = vec!["gw.example".to_owned(), "127.0.0.1".to_owned()];
        issue(&dir, &Role::Gateway { hosts }, &dir.join("out"), DAY * 30).unwrap();
        let names: Vec<_> = list(&dir).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["acme/site-1", "acme/site-2", "gw.example,127.0.0.1"]);

        let pem = fs::read(&first.certificate).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
        assert_eq!(hex::encode(certificate.raw_serial()), first.serial);

        assert_eq!(revoke(&dir, "acme/site-1").unwrap().len(), 1);
        revoke(&dir, &first.serial.to_uppercase()).unwrap();
        assert!(revoke(&dir, "acme/site-9").is_err());
        let deny = fs::read_to_string(dir.join(DENY_LIST)).unwrap();
        assert_eq!(deny.matches(&first.serial).count(), 1);
        let revoked: Vec<_> = list(&dir).unwrap().into_iter().map(|e| e.revoked).collect();
        assert_eq!(revoked, [true, false, false]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn keys_are_readable_by_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = scratch("mode");
        init(&dir).unwrap();
        let issued = issue(&dir, &edge("site-1"), &dir, DAY).unwrap();
        for key in [dir.join(CA_KEY), issued.key] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
