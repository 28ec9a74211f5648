//! Certificates of every kind that a gateway may meet.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};

/// One certificate with its key, as PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a client certificate says. The default is a good one of acme/site-1.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) names: Vec<SanType>,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) serial: u64,
    /// Years of validity.
    pub(crate) years: (i32, i32),
    /// Beyond that, from now on.
    pub(crate) lives: Option<Duration>,
    /// In the subject, where older certificates had names.
    pub(crate) common_name: Option<String>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            names: vec![uri("sluice://acme/site-1")],
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            serial: 0x1001,
            years: (2020, 2100),
            lives: None,
            common_name: None,
        }
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// An authority and a folder for what it issues.
pub(crate) struct Pki {
    dir: tempfile::TempDir,
    pub(crate) issuer: Arc<Issuer<'static, KeyPair>>,
    pub(crate) ca: PathBuf,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, certificate.pem()).unwrap();
        Self {
            issuer: Arc::new(Issuer::new(params, key)),
            ca,
            dir,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn gateway(&self) -> Files {
        let spec = Spec {
            names: vec![dns("localhost")],
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
            ..Spec::default()
        };
        self.issue("gateway", &spec)
    }

    pub(crate) fn issue(&self, file: &str, spec: &Spec) -> Files {
        let key = KeyPair::generate().unwrap();
        let certificate = params(spec).signed_by(&key, &*self.issuer).unwrap();
        self.write(file, &certificate, &key)
    }

    pub(crate) fn self_signed(&self, file: &str, spec: &Spec) -> Files {
        let key = KeyPair::generate().unwrap();
        let certificate = params(spec).self_signed(&key).unwrap();
        self.write(file, &certificate, &key)
    }

    /// A certificate that came from elsewhere.
    pub(crate) fn write_der(&self, file: &str, der: &[u8], key: &KeyPair) -> Files {
        let files = Files {
            certificate: self.dir.path().join(format!("{file}.pem")),
            key: self.dir.path().join(format!("{file}.key")),
        };
        std::fs::write(&files.certificate, der).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn write(&self, file: &str, certificate: &Certificate, key: &KeyPair) -> Files {
        let files = Files {
            certificate: self.dir.path().join(format!("{file}.pem")),
            key: self.dir.path().join(format!("{file}.key")),
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

pub(crate) fn params(spec: &Spec) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.subject_alt_names.clone_from(&spec.names);
    if let Some(name) = &spec.common_name {
        params.distinguished_name.push(rcgen::DnType::CommonName, name.as_str());
    }
    params.extended_key_usages.clone_from(&spec.usages);
    params.serial_number = Some(SerialNumber::from(spec.serial));
    params.not_before = rcgen::date_time_ymd(spec.years.0, 1, 1);
    params.not_after = match spec.lives {
        Some(lives) => {
            let since = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap();
            rcgen::date_time_ymd(1970, 1, 1) + since + lives
        }
        None => rcgen::date_time_ymd(spec.years.1, 1, 1),
    };
    params
}
