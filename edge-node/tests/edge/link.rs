//! A node that has certificates and no gateway that answers.

use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use sluice_edge::config::WhenShort;
use sluice_edge::{EdgeConfig, EdgeNode};
use sluice_wire::Signal;

use crate::client::{self, http, request};
use crate::cloud::Cloud;
use crate::node::{TestNode, config, eventually};
use crate::plugins::plugin;

/// Certificates of an authority made for this test, for a node of a tenant.
fn with_link(dir: &Path) -> EdgeConfig {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::URI("sluice://acme/site-7".try_into().unwrap())];
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let mut config = config(&dir.join("data"));
    let save = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    config.link.certificate = save("node.pem", certificate.pem());
    config.link.key = save("node.key", key.serialize_pem());
    config.link.ca = save("ca.pem", authority_pem);
    // A port where nobody is: bound for a moment to find one.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.link.gateways = vec![nobody.to_string()];
    config.link.retry_min = Duration::from_millis(20);
    config.link.retry_max = Duration::from_millis(40);
    config
}

#[test]
fn p13_names_come_from_the_certificate_and_without_a_gateway_everything_stays_in_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_link(dir.path());
    let mut other = config.clone();
    other.tenant = "somebody-else".to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(EdgeNode::build(other)).unwrap_err().exit_code(), 3);

    let node = TestNode::start(config);
    let stream = node.spool.stream();
    assert_eq!((stream.tenant.as_str(), stream.node.as_str()), ("acme", "site-7"));
    let address = node.address("otlp-http");
    let body = request(Signal::Log, "l", 10, "x");
    assert!(
        node.runtime
            .block_on(async { client::send(&http(), address, "/v1/logs", body).await })
    );
    eventually("it is sealed", || !node.spool.is_drained());
    eventually("the link says that nobody answers", || {
        node.status
            .snapshot()
            .link
            .is_some_and(|link| !link.connected && link.last_error.is_some())
    });
    assert_eq!(Cloud::of(&node.spool).events.len(), 10);
    node.stop();
}

/// The budget counts whether a gateway answers or not: what is sealed now has to travel later.
#[test]
fn a_short_budget_makes_sample_keep_fewer_rows_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = with_link(dir.path());
    config.link.budget.per_second = 300;
    config.link.budget.when_short = vec![WhenShort::Sampling, WhenShort::Compression];
    config.plugin = vec![plugin("sample", "sample", "{ rate = 1.0, without_trace = \"random\" }")];
    let node = TestNode::start(config);
    let address = node.address("otlp-http");
    let mut sent = 0;
    let mut post = |node: &TestNode| {
        let body = request(Signal::Log, &format!("r{sent}"), 100, "x");
        let send = async { client::send(&http(), address, "/v1/logs", body).await };
        assert!(node.runtime.block_on(send));
        sent += 100;
    };
    let dropped = |node: &TestNode| {
        let rows = node.status.snapshot().dropped;
        assert!(
            rows.iter()
                .all(|of| (of.plugin.as_str(), of.reason.as_str()) == ("sample", "link")),
            "{rows:?}"
        );
        rows.iter().map(|of| of.rows).sum::<u64>()
    };
    eventually("rows are left out for the link", || {
        post(&node);
        dropped(&node) > 1_000
    });
    let budget = node.status.snapshot().link.and_then(|link| link.budget).unwrap();
    assert_eq!(budget.room_per_second, Some(300));
    eventually("everything is sealed", || {
        Cloud::of(&node.spool).counts.accepted == sent
    });
    let counts = Cloud::of(&node.spool).counts;
    assert_eq!(counts.stored + dropped(&node), sent);
    node.stop();
}
