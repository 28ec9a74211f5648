//! A broker that is spoken to over TLS, and asks for a password.

use std::collections::BTreeMap;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sluice_ingest::{KafkaLog, Log};
use sluice_wire::ids::Partition;
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, SecureDoor};
use super::contract::{envelope, head, read_all};
use super::{OpenKafka, soon};

const P: Partition = Partition {
    generation: 0,
    index: 0,
};
const USER: &str = "sluice";
const PASSWORD: &str = "not-a-secret";

/// An authority of the test's own, and what it made for a broker on the loopback.
fn door() -> (SecureDoor, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // Else it would have the broker's own name.
    params.distinguished_name.push(DnType::CommonName, "an authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let door = SecureDoor {
        user: USER,
        password: PASSWORD,
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    };
    (door, authority.pem())
}

fn properties(ca: Option<&Path>, password: &str) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::from([
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", USER),
        ("sasl.password", password),
    ]);
    if let Some(ca) = ca {
        properties.insert("ssl.ca.location", ca.to_str().unwrap());
    }
    properties
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What the log says while it cannot be used, once that has this word in it.
async fn trouble_with(log: &KafkaLog, word: &str) -> String {
    let said = async {
        loop {
            match log.trouble() {
                Some(why) if why.contains(word) => return why,
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    soon(&format!("the log says something of {word:?}"), said).await
}

#[tokio::test(flavor = "multi_thread")]
async fn p14_a_broker_is_spoken_to_over_tls_with_a_password_and_says_why_it_lets_nobody_in() {
    let (door, ca) = door();
    let Some(broker) = Broker::start_secure(&door) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, ca).unwrap();
    let opened = |properties| {
        let mut topic = OpenKafka::at(broker.address.to_string(), 1);
        topic.options.properties = properties;
        let log = KafkaLog::open(topic.options).unwrap();
        let stop = CancellationToken::new();
        let (watched, told) = (log.clone(), stop.clone());
        tokio::spawn(async move { watched.run(told).await });
        (log, stop.drop_guard())
    };

    let (log, _stop) = opened(properties(Some(&ca_file), PASSWORD));
    soon("the log opens", log.opened()).await.unwrap();
    for seq in 1..=3 {
        let offset = log.append(P, &head(seq), envelope(seq), 0).await.unwrap();
        assert_eq!(offset, seq - 1);
    }
    let read = read_all(&log, P, 0, 1 << 20).await;
    assert_eq!(read.len(), 3);
    assert_eq!(read[2].envelope, envelope(3));

    let (log, _stop) = opened(properties(Some(&ca_file), "another one"));
    let why = trouble_with(&log, "uthentication").await;
    assert!(!why.contains("another one"), "{why}");
    assert!(log.append(P, &head(1), envelope(1), 0).await.is_err());

    // Whom nobody on this machine knows.
    let (log, _stop) = opened(properties(None, PASSWORD));
    trouble_with(&log, "certificate").await;
    assert!(log.append(P, &head(1), envelope(1), 0).await.is_err());
}
