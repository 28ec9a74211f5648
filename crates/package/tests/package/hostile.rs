//! Registries that break off, lie, send us elsewhere or ask who we are. The server serves an OCI layout folder over HTTP, and
//! each test spoils one thing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use sluice_package::Package;
use sluice_package::oci::{self, Access, Credentials, OciError, Reference, RegistryError};
use tempfile::TempDir;

use crate::site::package;

#[derive(Clone, Debug)]
struct Request {
    path: String,
    headers: BTreeMap<String, String>,
}

struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes after which the connection is cut, whatever was announced.
    cut: Option<usize>,
}

impl Answer {
    fn new(status: &'static str, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
            cut: None,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// Ends with the test's process.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    /// What it answers from lies here as long as the test asks. Its thread lives on to the end of
    /// the process, so a folder of its own would stay behind.
    _folder: TempDir,
}

impl Server {
    fn start(folder: TempDir, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, handler): (_, Arc<Handler>) = (Arc::clone(&seen), Arc::new(handler));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
                // A client that goes away is no failure of the server.
                thread::spawn(move || serve(stream, &log, &*handler));
            }
        });
        Self {
            address,
            seen,
            _folder: folder,
        }
    }

    fn seen(&self, what: &str) -> Vec<Request> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|request| request.path.contains(what))
            .cloned()
            .collect()
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, handler: &Handler) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let request = Request { path, headers };
    log.lock().unwrap().push(request.clone());
    let answer = handler(&request);
    let mut stream = stream;
    let mut head = format!(
        "HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    let sent = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
    stream.write_all(sent).ok()
}

/// A layout with one package in it, and what a good registry would answer.
#[derive(Clone)]
struct Shelf {
    place: PathBuf,
    package: Package,
}

const SIZE: usize = 200_000;

impl Shelf {
    async fn new() -> (Self, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let package = package(folder.path(), SIZE);
        let place = folder.path().join("shelf");
        let layout: Reference = format!("oci:{}", place.display()).parse().unwrap();
        oci::push(&package, &layout, "1.0.0", &Access::default()).await.unwrap();
        (Self { place, package }, folder)
    }

    fn blob(&self, digest: &str) -> Vec<u8> {
        fs::read(
            self.place
                .join("blobs/sha256")
                .join(digest.trim_start_matches("sha256:")),
        )
        .unwrap()
    }

    fn image(&self) -> Vec<u8> {
        let index: serde_json::Value =
            serde_json::from_slice(&fs::read(self.place.join("index.json")).unwrap()).unwrap();
        self.blob(index["manifests"][0]["digest"].as_str().unwrap())
    }

    fn answer(&self, request: &Request) -> Answer {
        match request.path.rsplit_once('/') {
            Some((_, "1.0.0")) => Answer::new("200 OK", self.image()),
            Some((_, digest)) if digest.starts_with("sha256:") => Answer::new("200 OK", self.blob(digest)),
            _ => Answer::new("404 Not Found", Vec::new()),
        }
    }
}

fn is_component(request: &Request, shelf: &Shelf) -> bool {
    request
        .path
        .ends_with(&sluice_package::Digest::of(&shelf.package.component).to_string())
}

async fn pull(server: &Server, access: &Access) -> Result<Package, OciError> {
    let reference: Reference = format!("oci://{}/acme/demo:1.0.0", server.address).parse().unwrap();
    oci::pull(&reference, access).await
}

/// Serves the shelf with one thing spoiled.
async fn spoiled(spoil: impl Fn(&Shelf, &Request) -> Option<Answer> + Send + Sync + 'static) -> (Shelf, Server) {
    let (shelf, folder) = Shelf::new().await;
    let own = shelf.clone();
    let server = Server::start(folder, move |request| {
        spoil(&own, request).unwrap_or_else(|| own.answer(request))
    });
    (shelf, server)
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    for ranges in [true, false] {
        let (shelf, server) = spoiled(move |shelf, request| {
            if !is_component(request, shelf) {
                return None;
            }
            let whole = shelf.package.component.clone();
            let from = request
                .headers
                .get("range")
                .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
            match from {
                // A part of the rest, until there is little left.
                Some(from) if ranges => {
                    let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
                    let rest = whole[from..].to_vec();
                    let cut = (from < SIZE / 2).then_some(rest.len() / 2);
                    Some(Answer {
                        cut,
                        ..Answer::new("206 Partial Content", rest).with("Content-Range", range)
                    })
                }
                // This one knows no ranges and sends all of it.
                Some(_) => Some(Answer::new("200 OK", whole)),
                None => Some(Answer {
                    cut: Some(SIZE / 4),
                    ..Answer::new("200 OK", whole)
                }),
            }
        })
        .await;
        assert_eq!(pull(&server, &Access::default()).await.unwrap(), shelf.package);
        assert!(
            server
                .seen("blobs")
                .iter()
                .any(|request| request.headers.contains_key("range"))
        );
    }
}

#[tokio::test]
async fn a_registry_that_always_breaks_off_is_given_up() {
    let (_, server) = spoiled(|shelf, request| {
        is_component(request, shelf).then(|| Answer {
            cut: Some(10),
            ..shelf.answer(request)
        })
    })
    .await;
    let error = pull(&server, &Access::default()).await.unwrap_err();
    assert!(
        matches!(
            error,
            OciError::Registry(RegistryError::Protocol { .. } | RegistryError::BrokeOff { .. })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_registry_sends_is_bounded_before_it_is_read_and_is_what_its_digest_says() {
    type Spoil = fn(&Shelf, &Request) -> Option<Answer>;
    fn image(shelf: &Shelf, request: &Request, from: &str, to: &str) -> Option<Answer> {
        let text = String::from_utf8(shelf.image()).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        request
            .path
            .ends_with("1.0.0")
            .then(|| Answer::new("200 OK", text.replacen(from, to, 1).into_bytes()))
    }
    let cases: [(&str, Spoil, &str); 8] = [
        (
            "a manifest without end",
            |_, r| {
                r.path
                    .ends_with("1.0.0")
                    .then(|| Answer::new("200 OK", vec![b' '; 1 << 20]))
            },
            "longer than",
        ),
        (
            "no manifest",
            |_, r| r.path.ends_with("1.0.0").then(|| Answer::new("200 OK", b"{}".to_vec())),
            "holds no Sluice plugin",
        ),
        (
            "a component larger than any host takes",
            |shelf, r| image(shelf, r, "\"size\":200000", "\"size\":99999999999"),
            "are allowed",
        ),
        (
            "something else",
            |shelf, r| image(shelf, r, "vnd.sluice.plugin.v1\"", "vnd.example\""),
            "is of the type",
        ),
        (
            "a digest that leads elsewhere",
            |shelf, r| image(shelf, r, "sha256:", "sha256:../../"),
            "this is not a digest",
        ),
        (
            "more bytes than it said",
            |shelf, r| is_component(r, shelf).then(|| Answer::new("200 OK", vec![b'x'; SIZE + 1])),
            "more bytes than it said",
        ),
        (
            "other bytes",
            |shelf, r| is_component(r, shelf).then(|| Answer::new("200 OK", vec![b'y'; SIZE])),
            "not what its digest",
        ),
        (
            "an error with orders for a terminal",
            |_, r| {
                let body = br#"{"errors": [{"code": "DENIED", "message": "go \u001b[2Jaway"}]}"#;
                r.path
                    .ends_with("1.0.0")
                    .then(|| Answer::new("403 Forbidden", body.to_vec()))
            },
            "DENIED go [2Jaway",
        ),
    ];
    for (what, spoil, said) in cases {
        let (_, server) = spoiled(spoil).await;
        let error = pull(&server, &Access::default()).await.unwrap_err().to_string();
        assert!(error.contains(said), "{what}: {error}");
        if what.contains("larger than") {
            assert!(
                server.seen("blobs").is_empty(),
                "nothing is fetched of what is too large"
            );
        }
    }
}

#[tokio::test]
async fn a_token_is_fetched_with_our_name_and_shown_to_the_registry_alone() {
    let elsewhere = {
        let (shelf, folder) = Shelf::new().await;
        Server::start(folder, move |request| shelf.answer(request))
    };
    let storage = elsewhere.address;
    let (shelf, server) = spoiled(move |shelf, request| {
        let host = &request.headers["host"];
        if request.path.starts_with("/token") {
            let asked = request.path.contains("service=r.example")
                && request.path.contains("scope=repository%3Aacme%2Fdemo%3Apull");
            // me:secret
            let known = request
                .headers
                .get("authorization")
                .is_some_and(|header| header == "Basic bWU6c2VjcmV0");
            return Some(match asked && known {
                true => Answer::new("200 OK", br#"{"token": "t0ken"}"#.to_vec()),
                false => Answer::new("401 Unauthorized", Vec::new()),
            });
        }
        if request
            .headers
            .get("authorization")
            .is_none_or(|header| header != "Bearer t0ken")
        {
            let realm = format!(
                "Bearer realm=\"http://{host}/token\",service=\"r.example\",scope=\"repository:acme/demo:pull\""
            );
            return Some(Answer::new("401 Unauthorized", Vec::new()).with("WWW-Authenticate", realm));
        }
        let digest = request.path.rsplit('/').next().unwrap();
        is_component(request, shelf).then(|| {
            Answer::new("307 Temporary Redirect", Vec::new())
                .with("Location", format!("http://localhost:{}/x/{digest}", storage.port()))
        })
    })
    .await;
    let credentials = |password: &str| Credentials {
        user: "me".into(),
        password: password.into(),
    };
    let access = |password| Access {
        credentials: Some(credentials(password)),
        ..Access::default()
    };
    // The storage has another package of the same bytes: x's.
    assert_eq!(
        pull(&server, &access("secret")).await.unwrap().component,
        shelf.package.component
    );
    let stored = elsewhere.seen("/x/");
    assert_eq!(stored.len(), 1);
    assert!(!stored[0].headers.contains_key("authorization"), "{stored:?}");
    assert_eq!(server.seen("/token").len(), 1, "one token does for one pull");
    for refused in [access("wrong"), Access::default()] {
        let error = pull(&server, &refused).await.unwrap_err();
        assert!(
            matches!(error, OciError::Registry(RegistryError::Denied { .. })),
            "{error}"
        );
        assert!(
            !error.to_string().contains("wrong"),
            "a password is never shown: {error}"
        );
    }
}

#[tokio::test]
async fn a_registry_that_is_not_well_for_a_moment_is_asked_again() {
    let count = Mutex::new(0);
    let (shelf, server) = spoiled(move |_, request| {
        let mut count = count.lock().unwrap();
        *count += 1;
        (request.path.ends_with("1.0.0") && *count < 3).then(|| Answer::new("503 Service Unavailable", Vec::new()))
    })
    .await;
    assert_eq!(pull(&server, &Access::default()).await.unwrap(), shelf.package);
    assert_eq!(server.seen("1.0.0").len(), 3);
}

/// TLS before the server, with a certificate that no system knows. Its certificate, and its port.
async fn encrypted(server: &Server) -> (String, u16) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), server.address);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust the certificate goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (made.cert.pem(), port)
}

#[tokio::test]
async fn a_registry_is_spoken_to_under_a_certificate_that_is_trusted_and_no_other() {
    let (shelf, server) = spoiled(|_, _| None).await;
    let (pem, port) = encrypted(&server).await;
    let (_, stranger) = encrypted(&server).await;
    let ca = shelf.place.join("ca.pem");
    fs::write(&ca, pem).unwrap();
    let access = Access {
        ca_file: Some(ca),
        ..Access::default()
    };
    let pull = async |port: u16| {
        let reference: Reference = format!("oci://localhost:{port}/acme/demo:1.0.0").parse().unwrap();
        oci::pull(&reference, &access).await
    };
    assert_eq!(pull(port).await.unwrap(), shelf.package);
    let before = server.seen("").len();
    let error = pull(stranger).await.unwrap_err();
    assert!(
        matches!(
            error,
            OciError::Registry(RegistryError::Unreachable { scheme: "HTTPS", .. })
        ),
        "{error}"
    );
    // Nor is what speaks no TLS spoken to where TLS is wanted.
    let error = pull(server.address.port()).await.unwrap_err();
    assert!(
        matches!(
            error,
            OciError::Registry(RegistryError::Unreachable { scheme: "HTTPS", .. })
        ),
        "{error}"
    );
    assert_eq!(server.seen("/v2/").len(), before);
}

#[tokio::test]
async fn a_file_of_authorities_that_is_none_is_named() {
    let (_, server) = spoiled(|_, _| None).await;
    for (path, said) in [("/nonexistent/ca.pem", "ca.pem"), ("/dev/null", "not a file")] {
        let access = Access {
            ca_file: Some(PathBuf::from(path)),
            ..Access::default()
        };
        let error = pull(&server, &access).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert!(server.seen("").is_empty());
}
