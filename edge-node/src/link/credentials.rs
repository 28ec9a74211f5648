//! What the uplink shows in handshakes: the configured files, or what was renewed over the link; how a request for a new certificate is
//! made, and how the answer is kept.
//!
//! What is renewed is one file with key and certificates, so that no crash leaves one without the other. It says from which configured
//! certificate it descends, and counts as long as that one is configured: whoever puts another one there wants that one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quinn::ClientConfig;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::sign::SigningKey;
use sluice_wal::crash_point;
use sluice_wire::ids::{NodeId, TenantId};
use sluice_wire::session::frame::{Renew, renewal_message};

use super::config::LinkConfig;
use super::connect;
use super::tls::{self, Facts, Pair, TlsError};

/// What a proof may be signed with: all that keys of certificates are used with.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// A certificate with its key and the authorities of gateways, ready for handshakes.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) client: ClientConfig,
    /// For tries beside one that was not answered.
    pub(super) client_again: ClientConfig,
    pub(super) facts: Facts,
    /// It came over the link.
    pub(super) renewed: bool,
    /// Serial number of the configured certificate that it is or descends from.
    origin: String,
    signer: Arc<dyn SigningKey>,
}

/// What the files give.
pub(super) struct Loaded {
    pub(super) credentials: Credentials,
    /// A part of them is not used, and why.
    pub(super) problem: Option<String>,
}

/// The bytes of all files at one moment. A file that is not there is empty.
pub(super) struct Files {
    certificate: io::Result<Vec<u8>>,
    key: io::Result<Vec<u8>>,
    ca: io::Result<Vec<u8>>,
    renewed: Option<Vec<u8>>,
}

/// Begins the line that says from which configured certificate a renewed one descends.
const ORIGIN: &str = "Renewed from: ";

/// Tells files from what they were.
pub(super) type Fingerprint = [u8; 32];

impl Files {
    /// Blocks on the disk.
    pub(super) fn read(config: &LinkConfig) -> Self {
        Self {
            certificate: fs::read(&config.certificate),
            key: fs::read(&config.key),
            ca: fs::read(&config.ca),
            renewed: config.renewed.as_ref().and_then(|path| fs::read(path).ok()),
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        let renewed = self.renewed.as_deref();
        for bytes in [&self.certificate, &self.key, &self.ca].map(|file| file.as_deref().ok()) {
            add(&mut hasher, bytes);
        }
        add(&mut hasher, renewed);
        *hasher.finalize().as_bytes()
    }

    /// The pair that this node shall use.
    pub(super) fn load(&self, config: &LinkConfig, tenant: &TenantId, node: &NodeId) -> Result<Loaded, TlsError> {
        let given = self.given(config).and_then(|pair| {
            let pair = own(pair, &config.certificate, tenant, node)?;
            let origin = pair.facts.serial.clone();
            self.credentials(config, pair, origin, false)
        });
        let renewed = config
            .renewed
            .as_deref()
            .zip(self.renewed.as_deref())
            .map(|(path, bytes)| {
                let pair = own(tls::pair((path, bytes), (path, bytes))?, path, tenant, node)?;
                self.credentials(config, pair, origin(bytes), true)
            });
        let (credentials, problem) = match (given, renewed) {
            (Ok(given), None) => (given, None),
            (Ok(given), Some(Ok(renewed))) if renewed.origin == given.origin => (renewed, None),
            (Ok(given), Some(Ok(_))) => (given, None),
            (Ok(given), Some(Err(error))) => (given, Some(error)),
            (Err(error), Some(Ok(renewed))) => (renewed, Some(error)),
            (Err(error), _) => return Err(error),
        };
        let problem = problem.map(|error| format!("not used: {}", with_source(&error)));
        Ok(Loaded { credentials, problem })
    }

    fn given(&self, config: &LinkConfig) -> Result<Pair, TlsError> {
        let certificate = present(&self.certificate, "certificate", &config.certificate)?;
        let key = present(&self.key, "key", &config.key)?;
        tls::pair((&config.certificate, certificate), (&config.key, key))
    }

    fn credentials(
        &self,
        config: &LinkConfig,
        pair: Pair,
        origin: String,
        renewed: bool,
    ) -> Result<Credentials, TlsError> {
        let ca = present(&self.ca, "authority", &config.ca)?;
        let crypto = tls::client_crypto(&pair, (&config.ca, ca), &config.clock)?;
        let [client, client_again] = connect::client_configs(config, crypto);
        Ok(Credentials {
            client,
            client_again,
            signer: any_supported_type(&pair.key).map_err(TlsError::Pair)?,
            facts: pair.facts,
            renewed,
            origin,
        })
    }
}

/// Empty where the file does not say.
fn origin(renewed: &[u8]) -> String {
    let lines = renewed.split(|byte| *byte == b'\n');
    let mut said = lines.filter_map(|line| line.strip_prefix(ORIGIN.as_bytes()));
    String::from_utf8_lossy(said.next().unwrap_or_default())
        .trim()
        .to_owned()
}

fn add(hasher: &mut blake3::Hasher, bytes: Option<&[u8]>) {
    let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
    hasher.update(&length.to_le_bytes());
    hasher.update(bytes.unwrap_or_default());
}

fn present<'a>(file: &'a io::Result<Vec<u8>>, what: &'static str, path: &Path) -> Result<&'a [u8], TlsError> {
    file.as_deref().map_err(|error| {
        let copy = io::Error::new(error.kind(), error.to_string());
        tls::pem_error(what, path, rustls::pki_types::pem::Error::Io(copy))
    })
}

/// Who we are is settled by the first certificate: the data on disk bears its name.
fn own(pair: Pair, path: &Path, tenant: &TenantId, node: &NodeId) -> Result<Pair, TlsError> {
    if (&pair.facts.tenant, &pair.facts.node) == (tenant, node) {
        return Ok(pair);
    }
    Err(TlsError::OtherNode {
        path: path.display().to_string(),
        found: format!("{}/{}", pair.facts.tenant, pair.facts.node),
        expected: format!("{tenant}/{node}"),
    })
}

impl Credentials {
    /// A new key, and the request for its certificate, signed with the one that is in use.
    pub(super) fn request(&self) -> Result<(KeyPair, Renew), String> {
        let made = || -> Result<_, rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(Vec::<String>::new())?;
            // Who we are is in the certificate that signs: nothing is said of it here.
            params.distinguished_name = DistinguishedName::new();
            let request = params.serialize_request(&key)?.der().to_vec();
            Ok((key, request))
        };
        let (key, request) = made().map_err(|error| format!("no new key: {error}"))?;
        let signer = self.signer.choose_scheme(&SCHEMES);
        let signer = signer.ok_or("the key of the certificate cannot sign a request for another one")?;
        let proof = signer
            .sign(&renewal_message(&request))
            .map_err(|error| error.to_string())?;
        let ask = Renew {
            request: request.into(),
            scheme: u16::from(signer.scheme()).into(),
            proof: proof.into(),
        };
        Ok((key, ask))
    }

    /// The text of the file that holds a new pair, if the certificate is ours and of this key.
    pub(super) fn accept(&self, key: &KeyPair, certificates: &[Bytes]) -> Result<String, TlsError> {
        let mut text = format!("{ORIGIN}{}\n{}", self.origin, key.serialize_pem());
        for der in certificates {
            text.push_str(&pem(der));
        }
        let answer = Path::new("(of the gateway's answer)");
        let pair = tls::pair((answer, text.as_bytes()), (answer, text.as_bytes()))?;
        let pair = own(pair, answer, &self.facts.tenant, &self.facts.node)?;
        let provider = rustls::crypto::ring::default_provider();
        rustls::sign::CertifiedKey::from_der(pair.chain, pair.key, &provider).map_err(TlsError::Pair)?;
        Ok(text)
    }
}

/// Replaces the file of what was renewed: after a crash it holds the old pair or the new one. Only its owner can read it.
pub(super) fn store(path: &Path, text: &str) -> io::Result<()> {
    let beside = beside(path);
    let write = || {
        let mut options = OpenOptions::new();
        // A leftover of a crash may be readable by others.
        drop(fs::remove_file(&beside));
        let mut file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&text.as_bytes()[..text.len() / 2])?;
        crash_point("link.certificate.half_written");
        file.write_all(&text.as_bytes()[text.len() / 2..])?;
        file.sync_all()?;
        crash_point("link.certificate.before_rename");
        fs::rename(&beside, path)
    };
    if let Err(error) = write() {
        // On a full disk it would take the room that the next attempt needs.
        drop(fs::remove_file(&beside));
        return Err(error);
    }
    crash_point("link.certificate.after_rename");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

fn pem(certificate: &[u8]) -> String {
    const LINE: usize = 64;
    let text = STANDARD.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// The chain of a certificate is not needed to tell it from another one.
pub(super) fn serial_of(certificates: &[Bytes]) -> Option<String> {
    let first = CertificateDer::from(certificates.first()?.to_vec());
    tls::facts(Some(&first), Path::new("")).ok().map(|facts| facts.serial)
}

pub(super) fn with_source(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_source(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A self-signed one will do: who signed it is the gateway's business.
    fn write_pair(dir: &Path, name: &str, node: &str, first_year: i32) -> KeyPair {
        let key = KeyPair::generate().unwrap();
        let certificate = made(&key, node, first_year);
        fs::write(dir.join(format!("{name}.pem")), pem(&certificate)).unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        key
    }

    fn made(key: &KeyPair, node: &str, first_year: i32) -> Bytes {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        let uri = format!("sluice://acme/{node}").try_into().unwrap();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        params.not_before = rcgen::date_time_ymd(first_year, 1, 1);
        Bytes::copy_from_slice(params.self_signed(key).unwrap().der())
    }

    fn config(dir: &Path) -> LinkConfig {
        let mut config = LinkConfig::new("gw:1", dir.join("edge.pem"), dir.join("edge.key"), dir.join("edge.pem"));
        config.renewed = Some(dir.join("renewed.pem"));
        config
    }

    fn load(config: &LinkConfig) -> Result<Loaded, TlsError> {
        let (tenant, node) = ("acme".parse().unwrap(), "site-1".parse().unwrap());
        Files::read(config).load(config, &tenant, &node)
    }

    #[test]
    fn t6_what_was_renewed_counts_until_another_certificate_is_configured_and_half_a_pair_never() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let renewed_file = config.renewed.clone().unwrap();
        write_pair(dir.path(), "edge", "site-1", 2020);
        let mut current = load(&config).unwrap();
        assert!(!current.credentials.renewed && current.problem.is_none());

        // Renewed twice, whatever the dates say.
        let mut text = String::new();
        for year in [2021, 2019] {
            let (key, _) = current.credentials.request().unwrap();
            text = current.credentials.accept(&key, &[made(&key, "site-1", year)]).unwrap();
            store(&renewed_file, &text).unwrap();
            current = load(&config).unwrap();
            assert!(current.credentials.renewed && current.problem.is_none());
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&renewed_file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);

        // What an operator puts there counts, once both files are there.
        let old_key = fs::read(dir.path().join("edge.key")).unwrap();
        write_pair(dir.path(), "edge", "site-1", 2018);
        let new_key = fs::read(dir.path().join("edge.key")).unwrap();
        fs::write(dir.path().join("edge.key"), old_key).unwrap();
        let half = load(&config).unwrap();
        assert!(half.credentials.renewed);
        assert!(half.problem.unwrap().contains("cannot be used together"));
        fs::write(dir.path().join("edge.key"), new_key).unwrap();
        let whole = load(&config).unwrap();
        assert!(!whole.credentials.renewed && whole.problem.is_none());

        // Of another node, or cut off: not used.
        write_pair(dir.path(), "edge", "site-2", 2023);
        let other = load(&config).unwrap();
        assert!(other.credentials.renewed && other.problem.unwrap().contains("acme/site-2"));
        fs::write(&renewed_file, &text[..text.len() / 2]).unwrap();
        assert!(matches!(load(&config), Err(TlsError::OtherNode { .. })));
    }

    #[test]
    fn p13_an_answer_for_another_key_or_another_node_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path(), "edge", "site-1", 2020);
        let credentials = load(&config(dir.path())).unwrap().credentials;
        let (key, ask) = credentials.request().unwrap();
        let other = KeyPair::generate().unwrap();
        let answer = |key, node| vec![made(key, node, 2021)];
        assert!(matches!(
            credentials.accept(&key, &answer(&other, "site-1")),
            Err(TlsError::Pair(_))
        ));
        assert!(matches!(
            credentials.accept(&key, &answer(&key, "site-2")),
            Err(TlsError::OtherNode { .. })
        ));
        assert!(credentials.accept(&key, &[]).is_err());
        assert!(credentials.accept(&key, &[Bytes::from_static(b"no DER")]).is_err());
        // Two requests have two keys.
        assert_ne!(credentials.request().unwrap().1.request, ask.request);
    }
}
