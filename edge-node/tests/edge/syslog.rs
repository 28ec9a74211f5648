//! Syslog from clients that others wrote, and over every transport: what comes in is stored once, and whoever can wait is made to.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sluice_edge::config::{Syslog, TlsDoor};
use sluice_edge::{EdgeConfig, SourceStatus};

use crate::node::{TestNode, config, eventually, skipped};
use crate::rows::{self, Log};

const ANY: &str = "127.0.0.1:0";

fn listening(data: &Path) -> EdgeConfig {
    let mut config = config(data);
    let table = format!("[[source.syslog]]\nname = \"net\"\nudp = \"{ANY}\"\ntcp = \"{ANY}\"");
    config.source.syslog = EdgeConfig::from_toml(&table).unwrap().source.syslog;
    config
}

fn settings(config: &mut EdgeConfig) -> &mut Syslog {
    &mut config.source.syslog[0]
}

fn source(node: &TestNode) -> SourceStatus {
    let status = node.status.snapshot();
    status.sources.into_iter().find(|s| s.name == "net").unwrap()
}

fn address(node: &TestNode, protocol: &str) -> SocketAddr {
    source(node).addresses[protocol].parse().unwrap()
}

fn wait_for(node: &TestNode, many: usize) -> Vec<Log> {
    eventually(&format!("{many} messages are in the spool"), || {
        rows::logs(&node.spool).len() >= many
    });
    rows::logs(&node.spool)
}

fn find<'a>(logs: &'a [Log], text: &str) -> &'a Log {
    logs.iter().find(|log| log.text() == text).unwrap()
}

#[test]
fn p1_messages_over_udp_and_tcp_are_events_with_their_parts() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(listening(dir.path()));
    let udp = UdpSocket::bind(ANY).unwrap();
    udp.send_to(
        b"<165>1 2003-10-11T22:14:15.003Z box app 42 ID47 [x@1 user=\"me\"] over udp",
        address(&node, "udp"),
    )
    .unwrap();
    let mut tcp = TcpStream::connect(address(&node, "tcp")).unwrap();
    let counted = "<11>1 - - - - - - counted\nof two lines";
    write!(
        tcp,
        "{} {counted}<14>Oct 11 22:14:15 box su[7]: by line\n<14>the last",
        counted.len()
    )
    .unwrap();
    // What is said before the end of a connection counts, also without the end of its line.
    drop(tcp);
    let logs = wait_for(&node, 4);
    let first = find(&logs, "over udp");
    assert_eq!((first.severity, first.time_ns), (10, 1_065_910_455_003_000_000));
    assert_eq!((first.of("host.name"), first.of("service.name")), ("box", "app"));
    assert_eq!(
        (first.attribute("syslog.procid"), first.attribute("syslog.msgid")),
        ("42", "ID47")
    );
    assert_eq!(first.attribute("syslog.structured_data.x@1.user"), "me");
    assert_eq!(
        (
            first.attribute("network.transport"),
            first.attribute("network.peer.address")
        ),
        ("udp", "127.0.0.1")
    );
    let counted = find(&logs, "counted\nof two lines");
    assert_eq!((counted.severity, counted.attribute("network.transport")), (17, "tcp"));
    let legacy = find(&logs, "by line");
    assert_eq!((legacy.severity, legacy.of("service.name")), (9, "su"));
    find(&logs, "the last");
    assert_eq!(source(&node).accepted, 4);
    node.stop();
}

/// `logger` of util-linux, and the handler that comes with Python.
#[test]
fn clients_of_others_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(listening(dir.path()));
    let (udp, tcp) = (address(&node, "udp"), address(&node, "tcp"));
    let mut expected = Vec::new();
    let has = |program: &str| {
        Command::new(program)
            .arg("--version")
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if !has("logger") {
        skipped("this machine has no `logger`");
    } else {
        for (name, protocol, port, more) in [
            ("logger-udp-5424", "-d", udp.port(), &["--rfc5424"][..]),
            ("logger-udp-3164", "-d", udp.port(), &["--rfc3164"]),
            ("logger-tcp-5424", "-T", tcp.port(), &["--rfc5424"]),
            ("logger-tcp-counted", "-T", tcp.port(), &["--rfc5424", "--octet-count"]),
            ("logger-tcp-3164", "-T", tcp.port(), &["--rfc3164"]),
        ] {
            let status = Command::new("logger")
                .args([
                    "-n",
                    "127.0.0.1",
                    "-P",
                    &port.to_string(),
                    protocol,
                    "-p",
                    "local3.warning",
                    "-t",
                    "tagged",
                ])
                .args(more)
                .arg(name)
                .status();
            assert!(status.unwrap().success());
            expected.push(name.to_owned());
        }
    }
    if !has("python3") {
        skipped("this machine has no `python3`");
    } else {
        let script = "
import logging, logging.handlers, socket, sys
for name, port, kind in (('python-udp', int(sys.argv[1]), socket.SOCK_DGRAM), ('python-tcp', int(sys.argv[2]), socket.SOCK_STREAM)):
    handler = logging.handlers.SysLogHandler(('127.0.0.1', port), logging.handlers.SysLogHandler.LOG_LOCAL3, kind)
    log = logging.getLogger(name)
    log.addHandler(handler)
    log.warning(name)
    log.warning(name + ' again')
    handler.close()
";
        let status = Command::new("python3")
            .args(["-c", script, &udp.port().to_string(), &tcp.port().to_string()])
            .status();
        assert!(status.unwrap().success());
        for name in ["python-udp", "python-tcp"] {
            expected.extend([name.to_owned(), format!("{name} again")]);
        }
    }
    let logs = wait_for(&node, expected.len());
    for text in &expected {
        let log = find(&logs, text);
        assert_eq!(log.severity, 13, "{text}");
        assert!(matches!(
            log.attributes["syslog.facility"],
            opentelemetry_proto::tonic::common::v1::any_value::Value::IntValue(19)
        ));
        if text.starts_with("logger") {
            assert_eq!(log.of("service.name"), "tagged", "{text}");
            assert!(
                log.time_ns > 1_700_000_000_000_000_000 && !log.of("host.name").is_empty(),
                "{text}"
            );
        }
    }
    assert_eq!(logs.len(), expected.len());
    node.stop();
}

struct Pki {
    ca: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        Self { ca }
    }

    /// Certificate and key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A message must not take others with it that wait in the same request.
#[test]
fn p1_more_parameters_than_an_event_has_attributes_share_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = listening(dir.path());
    config.accept.max_attributes = 16;
    let node = TestNode::start(config);
    let mut tcp = TcpStream::connect(address(&node, "tcp")).unwrap();
    let many: Vec<String> = (0..100).map(|i| format!("p{i}=\"v {i}\"")).collect();
    let fit: Vec<String> = (0..8).map(|i| format!("p{i}=\"v {i}\"")).collect();
    write!(
        tcp,
        "<14>1 - - - - - - before\n<14>1 - - - 42 ID47 [x@1 {}] of many\n<14>1 - - - - - [x@1 {}] of few\n<14>1 - - - - - - behind\n",
        many.join(" "),
        fit.join(" ")
    )
    .unwrap();
    drop(tcp);
    let logs = wait_for(&node, 4);
    find(&logs, "before");
    find(&logs, "behind");
    assert_eq!(find(&logs, "of few").attribute("syslog.structured_data.x@1.p7"), "v 7");
    let crowded = find(&logs, "of many");
    assert_eq!(crowded.attribute("syslog.structured_data.x@1.p6"), "v 6");
    let rest = crowded.attribute("syslog.structured_data");
    assert!(
        rest.starts_with("x@1.p7=\"v 7\" ") && rest.ends_with(" x@1.p99=\"v 99\""),
        "{rest}"
    );
    assert!(source(&node).refused.is_empty(), "{:?}", source(&node).refused);
    node.stop();
}

fn tls_client(pki: &Pki, own: Option<(String, String)>) -> rustls::ClientConnection {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
}

#[test]
fn p13_over_tls_only_senders_with_a_certificate_are_heard() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = pki.issue("localhost");
    let mut config = listening(dir.path());
    *settings(&mut config) = Syslog {
        udp: String::new(),
        tcp: String::new(),
        tls: Some(TlsDoor {
            address: ANY.to_owned(),
            certificate: write("server.pem", &certificate),
            key: write("server.key", &key),
            client_ca: Some(write("ca.pem", &pki.ca.pem())),
        }),
        ..settings(&mut config).clone()
    };
    let node = TestNode::start(config);
    let at = address(&node, "tls");
    let send = |own: Option<(String, String)>, text: &str| send_over_tls(at, &pki, own, text);
    let _ = send(None, "<13>nobody\n");
    let other = Pki::new();
    let _ = send(Some(other.issue("intruder")), "<13>intruder\n");
    // Nor anybody who speaks no TLS.
    TcpStream::connect(at).unwrap().write_all(b"<13>plain\n").unwrap();
    send(Some(pki.issue("sender")), "<13>a friend\n12 <13>and more").unwrap();
    let logs = wait_for(&node, 2);
    eventually("the others are turned away", || {
        source(&node).refused.get("handshake") == Some(&3)
    });
    assert_eq!(logs.len(), 2);
    assert!(find(&logs, "a friend").attributes.contains_key("tls.established"));
    find(&logs, "and more");

    // The files are replaced, by nonsense first: nothing changes until they can be used.
    write("server.pem", "nonsense");
    send(Some(pki.issue("sender")), "<13>still the old certificate\n").unwrap();
    eventually("it is told", || {
        source(&node).problem.is_some_and(|p| p.contains("stay as they were"))
    });
    let (certificate, key) = other.issue("localhost");
    write("server.pem", &certificate);
    write("server.key", &key);
    write("ca.pem", &other.ca.pem());
    let pki = &other;
    let send = |own: Option<(String, String)>, text: &str| send_over_tls(at, pki, own, text);
    send(Some(pki.issue("sender")), "<13>the new certificate\n").unwrap();
    wait_for(&node, 4);
    assert_eq!(source(&node).problem, None);
    node.stop();
}

fn send_over_tls(at: SocketAddr, pki: &Pki, own: Option<(String, String)>, text: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(at).unwrap();
    let mut client = tls_client(pki, own);
    let mut tls = rustls::Stream::new(&mut client, &mut stream);
    let sent = tls.write_all(text.as_bytes()).and_then(|()| tls.flush());
    client.send_close_notify();
    sent.and_then(|()| client.complete_io(&mut stream).map(drop))
}

#[test]
fn p15_tcp_waits_while_nothing_is_accepted_and_udp_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = listening(dir.path());
    config.spool.max_bytes = 8 << 20;
    config.seal.zstd_level = 0;
    config.accept.retry_after = Duration::from_millis(20);
    settings(&mut config).max_waiting_bytes = 256 << 10;
    let node = TestNode::start(config);
    let (udp_at, tcp_at) = (address(&node, "udp"), address(&node, "tcp"));
    let messages = 6000;
    let filler = "0123456789abcdef".repeat(256);
    // More than the spool, the queue and the kernel's buffers together, so the sender cannot be done before there is room.
    let sender = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(tcp_at).unwrap();
        for n in 0..messages {
            writeln!(stream, "<13>1 - - - - m{n} - {n} {filler}").unwrap();
        }
    });
    eventually("the source waits", || {
        source(&node).counters.get("waits").is_some_and(|n| *n > 2)
    });
    let udp = UdpSocket::bind(ANY).unwrap();
    eventually("datagrams are dropped and counted", || {
        udp.send_to(&[b'x'; 1000], udp_at).unwrap();
        source(&node).refused.get("no_room").is_some_and(|n| *n > 0)
    });
    assert!(!sender.is_finished());
    let (mut found, mut at) = (Vec::new(), 0);
    let of_tcp = |log: &Log| log.attribute("network.transport") == "tcp";
    eventually("every message has arrived", || {
        found.extend(rows::take_logs(&node.spool, &mut at).into_iter().filter(of_tcp));
        found.len() >= messages
    });
    sender.join().unwrap();
    // Each once, and in its order.
    let ids = found.iter().map(|log| log.attribute("syslog.msgid").to_owned());
    assert!(ids.eq((0..messages).map(|n| format!("m{n}"))));
    node.stop();
}

#[test]
fn p15_what_is_no_syslog_and_what_is_too_long_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = listening(dir.path());
    settings(&mut config).max_message_bytes = 1000;
    settings(&mut config).max_connections = 2;
    let node = TestNode::start(config);
    let at = address(&node, "tcp");
    let mut endless = TcpStream::connect(at).unwrap();
    endless.write_all(&vec![b'x'; 4 << 20]).unwrap();
    endless.write_all(b"\n<13>after the endless line\n").unwrap();
    let mut counted = TcpStream::connect(at).unwrap();
    counted.write_all(b"3000000 ").unwrap();
    counted.write_all(&vec![b'y'; 3_000_000]).unwrap();
    counted.write_all(b"<13>after the endless count\n").unwrap();
    drop((endless, counted));
    // Both places are free again.
    let mut nonsense = TcpStream::connect(at).unwrap();
    let _ = nonsense.write_all(b"99999999999999 GET / HTTP/1.1\n");
    eventually("it is turned away", || {
        source(&node).refused.get("bad_frame") == Some(&1)
    });
    let logs = wait_for(&node, 4);
    assert_eq!(logs.len(), 4);
    find(&logs, "after the endless line");
    find(&logs, "after the endless count");
    let cut: Vec<_> = logs
        .iter()
        .filter(|log| log.attributes.contains_key("log.truncated"))
        .collect();
    assert_eq!(cut.len(), 2);
    assert!(cut.iter().all(|log| log.text().len() == 1000));
    assert_eq!(source(&node).counters["cut_messages"], 2);
    node.stop();
}
