//! The certificate authority of a fleet: a folder with a key, what it issued, and the deny list.
//!
//! Gateways need `ca.pem` and `deny`, edges need `ca.pem`; `ca.key` never leaves the folder. An edge's certificate
//! carries one name, the URI `sluice://<tenant>/<node>`, and is for clients only; a gateway's carries its hosts and is
//! for servers only, so that neither can pass for the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use sluice_wire::ids::{NodeId, TenantId};

pub(crate) const CA_CERTIFICATE: &str = "ca.pem";
pub(crate) const DENY_LIST: &str = "deny";
const CA_KEY: &str = "ca.key";
const ISSUED: &str = "issued.jsonl";

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Long enough for a site that is offline for months, short enough that rotation is practised.
pub(crate) const DEFAULT_DAYS: u32 = 365;

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

/// A certificate that was just made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Issued {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
    pub(crate) serial: String,
}

/// One line of what the authority remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) serial: String,
    /// `edge` or `gateway`.
    pub(crate) role: String,
    /// `tenant/node`, or the hosts.
    pub(crate) name: String,
    /// Seconds since 1970.
    pub(crate) not_after: u64,
    #[serde(default)]
    pub(crate) revoked: bool,
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
    set_life(&mut params, CA_LIFE)?;
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    write_new(
        &dir.join(DENY_LIST),
        b"# serial numbers of revoked certificates, one per line\n",
        0o644,
    )?;
    let path = dir.join(CA_CERTIFICATE);
    write_new(&path, certificate.pem().as_bytes(), 0o644)?;
    // Last: with it the authority exists.
    write_new(&dir.join(CA_KEY), key.serialize_pem().as_bytes(), 0o600)?;
    Ok(path)
}

/// Issues a certificate with a new key into `out`.
pub(crate) fn issue(dir: &Path, role: &Role, out: &Path, days: u32) -> Result<Issued> {
    ensure!(days > 0, "a certificate lives at least one day");
    ensure!(
        exists(dir),
        "{} holds no certificate authority: run `sluice ca init` first",
        dir.display()
    );
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let issuer = Issuer::from_ca_cert_pem(&read(CA_CERTIFICATE)?, KeyPair::from_pem(&read(CA_KEY)?)?)?;
    let (params, entry) = describe(role, days)?;
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
    let mut entries = list(dir)?;
    entries.push(entry);
    save(dir, &entries)?;
    replace(&issued.key, key.serialize_pem().as_bytes(), 0o600)?;
    replace(&issued.certificate, certificate.pem().as_bytes(), 0o644)?;
    Ok(issued)
}

/// Revokes by serial number, or every certificate of a `tenant/node` or of a gateway's hosts. Returns what was revoked.
pub(crate) fn revoke(dir: &Path, which: &str) -> Result<Vec<Entry>> {
    let mut entries = list(dir)?;
    let serial = canonical(which);
    let matches = |e: &Entry| Some(&e.serial) == serial.as_ref() || e.name == which;
    let mut revoked: Vec<_> = entries.iter().filter(|e| matches(e)).cloned().collect();
    if revoked.is_empty() {
        // A serial number that is not remembered may still be worth denying: the list of issued ones can be lost.
        let Some(serial) = serial else {
            bail!("no certificate has the serial number or the name {which:?}")
        };
        revoked.push(Entry {
            serial,
            role: "unknown".to_owned(),
            name: String::new(),
            not_after: 0,
            revoked: true,
        });
    }
    // The deny list is what gateways obey, so it comes first.
    let path = dir.join(DENY_LIST);
    let mut text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for entry in &mut revoked {
        entry.revoked = true;
        let known = text
            .lines()
            .any(|l| canonical(l.split('#').next().unwrap_or_default().trim()).as_ref() == Some(&entry.serial));
        if !known {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("{} # {}\n", entry.serial, entry.name));
        }
    }
    replace(&path, text.as_bytes(), 0o644)?;
    for entry in &mut entries {
        entry.revoked |= revoked.iter().any(|r| r.serial == entry.serial);
    }
    save(dir, &entries)?;
    Ok(revoked)
}

/// Everything that was issued, oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<Entry>> {
    let path = dir.join(ISSUED);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let parse = |(at, line)| serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), at + 1));
    text.lines()
        .enumerate()
        .filter(|(_, l)| !l.is_empty())
        .map(parse)
        .collect()
}

fn describe(role: &Role, days: u32) -> Result<(CertificateParams, Entry)> {
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
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
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
    let not_after = set_life(&mut params, DAY * days)?;
    let entry = Entry {
        serial: hex::encode(serial),
        role: kind.to_owned(),
        name,
        not_after: not_after.as_secs(),
        revoked: false,
    };
    Ok((params, entry))
}

/// From a day ago, as clocks of remote sites are off, to `life` from now. Returns the end.
fn set_life(params: &mut CertificateParams, life: Duration) -> Result<Duration> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock stands before 1970")?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + life;
    Ok(now + life)
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

/// Lower-case hex without colons and leading zeros.
fn canonical(serial: &str) -> Option<String> {
    let digits = serial.replace(':', "").to_ascii_lowercase();
    let is_hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| digits.trim_start_matches('0').to_owned())
}

fn save(dir: &Path, entries: &[Entry]) -> Result<()> {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&serde_json::to_string(entry)?);
        text.push('\n');
    }
    replace(&dir.join(ISSUED), text.as_bytes(), 0o644)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Whole or not at all, also for readers at the same moment.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().context("not a file name")?.to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot remove {}", fresh.display()));
        }
        _ => {}
    }
    write_new(&fresh, bytes, mode)?;
    fs::rename(&fresh, path).with_context(|| format!("cannot replace {}", path.display()))?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent)
            .and_then(|d| d.sync_all())
            .with_context(|| format!("cannot sync {}", parent.display()))?;
    }
    Ok(())
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
        let first = issue(&dir, &edge("site-1"), &dir.join("out"), 30).unwrap();
        issue(&dir, &edge("site-2"), &dir.join("out"), 30).unwrap();
        let hosts = vec!["gw.example".to_owned(), "127.0.0.1".to_owned()];
        issue(&dir, &Role::Gateway { hosts }, &dir.join("out"), 30).unwrap();
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
        let issued = issue(&dir, &edge("site-1"), &dir, 1).unwrap();
        for key in [dir.join(CA_KEY), issued.key] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
