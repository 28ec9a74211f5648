//! A registry, over the OCI distribution protocol. A client of our own: those there are read manifests, tokens and errors of any
//! size into memory and bring a second TLS stack; what is needed here are five requests.

mod challenge;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use reqwest::{Certificate, Client, Method, Request, Response, StatusCode, Url};
use serde::Deserialize;

use super::artifact::{Artifact, Descriptor, IMAGE_BYTES, IMAGE_TYPE};
use super::credentials::Credentials;
use super::reference::Selector;
use crate::digest::Digest;
use crate::file;
use challenge::Challenge;

/// Time for a connection, and for the next bytes once there is one; a slow link may take as long as it likes in all.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
/// How often a download that broke off is taken up again, and the pause before, which doubles.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// Redirects of one request: registries send to their storage in one.
const REDIRECTS: usize = 5;
/// Bytes of a token's answer and of an error; real tokens have up to 8 KiB.
const TOKEN_BYTES: u64 = 64 * 1024;
const ERROR_BYTES: u64 = 8 * 1024;
/// Bytes of a file with certificates.
const CA_BYTES: u64 = 1024 * 1024;

/// How a registry is reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Whom to log in as, if the registry asks.
    pub credentials: Option<Credentials>,
    /// Plain HTTP although the registry is not on this machine.
    pub insecure_http: bool,
    /// Authorities to trust beside those of the system, in PEM. With it, HTTPS is spoken on the loopback, too.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("no registry can be spoken to from here")]
    Client(#[source] reqwest::Error),
    #[error("{}: {problem}", .path.display())]
    CaFile { path: PathBuf, problem: String },
    #[error("{registry} is not an address: write a host and perhaps a port")]
    Address { registry: String },
    #[error("{registry} cannot be reached over {scheme}{hint}")]
    Unreachable {
        registry: String,
        scheme: &'static str,
        hint: &'static str,
        #[source]
        source: reqwest::Error,
    },
    #[error(
        "{registry} lets {who} not {action} ({status}{said}): log in with `docker login`, or give --username and --password-file"
    )]
    Denied {
        registry: String,
        who: String,
        action: String,
        status: u16,
        said: String,
    },
    #[error("{registry} answers {status} to the request to {action}{said}")]
    Answer {
        registry: String,
        action: String,
        status: u16,
        said: String,
    },
    #[error("{registry} does not keep to the protocol: {problem}")]
    Protocol { registry: String, problem: String },
    #[error("{registry} broke off {attempts} times while it sent {what}; try again")]
    BrokeOff {
        registry: String,
        what: String,
        attempts: u32,
    },
}

pub(super) struct Registry {
    client: Client,
    /// `scheme://host/v2/`
    base: Url,
    repository: String,
    credentials: Option<Credentials>,
    /// The header that the registry was content with last.
    authorization: Mutex<Option<String>>,
}

impl Registry {
    pub(super) fn new(host: &str, repository: &str, access: &Access) -> Result<Self, RegistryError> {
        let plain = access.insecure_http || (is_loopback(host) && access.ca_file.is_none());
        let scheme = if plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|_| RegistryError::Address {
            registry: host.to_owned(),
        })?;
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .https_only(!plain)
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &access.ca_file {
            let wrong = |problem: String| RegistryError::CaFile {
                path: path.clone(),
                problem,
            };
            let pem = file::read(path, CA_BYTES).map_err(|error| wrong(error.to_string()))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
            if certificates.is_empty() {
                return Err(wrong("there is no certificate in it".into()));
            }
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(Self {
            client: builder.build().map_err(RegistryError::Client)?,
            base,
            repository: repository.to_owned(),
            credentials: access.credentials.clone(),
            authorization: Mutex::new(None),
        })
    }

    pub(super) async fn manifest(&self, selector: &Selector) -> Result<Option<Vec<u8>>, RegistryError> {
        let url = self.url(&format!("manifests/{selector}"))?;
        let action = format!("read {selector}");
        let mut request = Request::new(Method::GET, url);
        request.headers_mut().insert(ACCEPT, value(IMAGE_TYPE)?);
        let response = self.send_again(&request, &action).await?;
        match response.status() {
            StatusCode::OK => self.body(response, IMAGE_BYTES, &action).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.unexpected(response, action).await),
        }
    }

    /// Bytes of at most the descriptor's size. A download that breaks off goes on where it was.
    pub(super) async fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let url = self.url(&format!("blobs/{}", descriptor.digest))?;
        let action = format!("read {}", descriptor.digest);
        let mut bytes: Vec<u8> = Vec::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * (1 << attempt)).await;
            }
            let mut request = Request::new(Method::GET, url.clone());
            if !bytes.is_empty() {
                request
                    .headers_mut()
                    .insert(RANGE, value(&format!("bytes={}-", bytes.len()))?);
            }
            let mut response = self.send_again(&request, &action).await?;
            match response.status() {
                StatusCode::OK => bytes.clear(),
                StatusCode::PARTIAL_CONTENT if continues(&response, bytes.len()) => {}
                StatusCode::PARTIAL_CONTENT => return Err(self.protocol("it sends another range than was asked for")),
                _ => return Err(self.unexpected(response, action).await),
            }
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) if (bytes.len() + chunk.len()) as u64 > descriptor.size => {
                        return Err(self.protocol("it sends more bytes than it said"));
                    }
                    Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                    Ok(None) if bytes.len() as u64 == descriptor.size => return Ok(bytes),
                    // Cut or broken off.
                    Ok(None) | Err(_) => break,
                }
            }
        }
        Err(RegistryError::BrokeOff {
            registry: self.to_string(),
            what: descriptor.digest.to_string(),
            attempts: ATTEMPTS,
        })
    }

    pub(super) async fn push(&self, artifact: &Artifact, tag: &str) -> Result<(), RegistryError> {
        for (descriptor, bytes) in &artifact.blobs {
            self.push_blob(&descriptor.digest, Bytes::copy_from_slice(bytes))
                .await?;
        }
        let action = format!("publish {tag}");
        let mut request = Request::new(Method::PUT, self.url(&format!("manifests/{tag}"))?);
        request.headers_mut().insert(CONTENT_TYPE, value(IMAGE_TYPE)?);
        *request.body_mut() = Some(artifact.manifest.clone().into());
        let response = self.send(&request, &action).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::OK => Ok(()),
            _ => Err(self.unexpected(response, action).await),
        }
    }

    async fn push_blob(&self, digest: &Digest, bytes: Bytes) -> Result<(), RegistryError> {
        let action = format!("publish {digest}");
        let head = Request::new(Method::HEAD, self.url(&format!("blobs/{digest}"))?);
        if self.send(&head, &action).await?.status() == StatusCode::OK {
            return Ok(());
        }
        let begin = Request::new(Method::POST, self.url("blobs/uploads/")?);
        let response = self.send(&begin, &action).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.unexpected(response, action).await);
        }
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok());
        let location = location.and_then(|location| response.url().join(location).ok());
        let mut url = location.ok_or_else(|| self.protocol("it does not say where to upload to"))?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut put = Request::new(Method::PUT, url);
        put.headers_mut()
            .insert(CONTENT_TYPE, value("application/octet-stream")?);
        *put.body_mut() = Some(bytes.into());
        let response = self.send(&put, &action).await?;
        match response.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(self.unexpected(response, action).await),
        }
    }

    fn url(&self, rest: &str) -> Result<Url, RegistryError> {
        // Repository, tags and digests have no character that means something in a path.
        self.base
            .join(&format!("{}/{rest}", self.repository))
            .map_err(|_| RegistryError::Address {
                registry: self.to_string(),
            })
    }

    /// A request that changes nothing: tried again when the registry is not well.
    async fn send_again(&self, request: &Request, action: &str) -> Result<Response, RegistryError> {
        let mut attempt = 0;
        loop {
            let answer = self.send(request, action).await;
            attempt += 1;
            let unwell = match &answer {
                Ok(response) => {
                    response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS
                }
                // Who cannot be reached at all will not be reached in a second.
                Err(RegistryError::Unreachable { source, .. }) => !source.is_connect() && !source.is_builder(),
                Err(_) => false,
            };
            if !unwell || attempt >= ATTEMPTS {
                return answer;
            }
            tokio::time::sleep(PAUSE * (1 << attempt)).await;
        }
    }

    /// Sends, and answers once if the registry asks who we are.
    async fn send(&self, request: &Request, action: &str) -> Result<Response, RegistryError> {
        let known = self.authorization.lock().ok().and_then(|known| known.clone());
        let response = self.send_once(request, known.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let asked = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = asked
            .filter_map(|header| header.to_str().ok())
            .find_map(Challenge::parse);
        let authorization = match challenge {
            Some(Challenge::Bearer { realm, parameters }) => Some(self.token(&realm, &parameters, action).await?),
            Some(Challenge::Basic) => self.credentials.as_ref().map(Credentials::basic),
            None => None,
        };
        let Some(authorization) = authorization else {
            return Err(self.unexpected(response, action.to_owned()).await);
        };
        if let Ok(mut known) = self.authorization.lock() {
            *known = Some(authorization.clone());
        }
        self.send_once(request, Some(&authorization)).await
    }

    async fn send_once(&self, request: &Request, authorization: Option<&str>) -> Result<Response, RegistryError> {
        let copy = request.try_clone();
        let mut request = copy.ok_or_else(|| self.protocol("a request cannot be repeated"))?;
        // Uploads may go elsewhere; who we are to the registry is nobody else's business.
        if let Some(authorization) = authorization.filter(|_| request.url().origin() == self.base.origin()) {
            let mut header = value(authorization)?;
            header.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        self.client
            .execute(request)
            .await
            .map_err(|source| self.unreachable(source))
    }

    /// Asks the registry's authority for a token, with our name if there is one.
    async fn token(&self, realm: &str, parameters: &[(String, String)], action: &str) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut url = Url::parse(realm).map_err(|_| self.protocol("it names no address to get a token from"))?;
        if self.base.scheme() == "https" && url.scheme() != "https" {
            return Err(self.protocol("it wants us to log in without encryption"));
        }
        url.query_pairs_mut().extend_pairs(parameters);
        let mut request = Request::new(Method::GET, url);
        if let Some(credentials) = &self.credentials {
            let mut header = value(&credentials.basic())?;
            header.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        let response = self
            .client
            .execute(request)
            .await
            .map_err(|source| self.unreachable(source))?;
        if response.status() != StatusCode::OK {
            return Err(self.unexpected(response, format!("log in to {action}")).await);
        }
        let bytes = self.body(response, TOKEN_BYTES, "log in").await?;
        let token: Option<Token> = serde_json::from_slice(&bytes).ok();
        let token = token.and_then(|answer| answer.token.or(answer.access_token));
        let token = token.ok_or_else(|| self.protocol("there is no token in what it answers"))?;
        Ok(format!("Bearer {token}"))
    }

    async fn body(&self, mut response: Response, limit: u64, action: &str) -> Result<Vec<u8>, RegistryError> {
        let too_long = || self.protocol(&format!("what it sends to {action} is longer than {limit} bytes"));
        let stated = response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        if stated.is_some_and(|stated: u64| stated > limit) {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|source| self.unreachable(source))? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(too_long());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn unexpected(&self, response: Response, action: String) -> RegistryError {
        let status = response.status();
        let said = self.body(response, ERROR_BYTES, &action).await.unwrap_or_default();
        let (registry, said, status_code) = (self.to_string(), error_text(&said), status.as_u16());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
                registry,
                who: self
                    .credentials
                    .as_ref()
                    .map_or("nobody in particular".into(), |c| c.user.clone()),
                action,
                status: status_code,
                said,
            },
            _ => RegistryError::Answer {
                registry,
                action,
                status: status_code,
                said,
            },
        }
    }

    fn unreachable(&self, source: reqwest::Error) -> RegistryError {
        let plain = self.base.scheme() == "http";
        RegistryError::Unreachable {
            registry: self.to_string(),
            scheme: if plain { "HTTP" } else { "HTTPS" },
            hint: match plain {
                true => "",
                false => {
                    " (a registry of your own: --ca-file names its authority, --insecure-http does without encryption)"
                }
            },
            source,
        }
    }

    fn protocol(&self, problem: &str) -> RegistryError {
        RegistryError::Protocol {
            registry: self.to_string(),
            problem: problem.to_owned(),
        }
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.base.port().map(|port| format!(":{port}")).unwrap_or_default();
        write!(
            f,
            "{}{port}/{}",
            self.base.host_str().unwrap_or_default(),
            self.repository
        )
    }
}

fn value(text: &str) -> Result<reqwest::header::HeaderValue, RegistryError> {
    text.parse().map_err(|_| RegistryError::Protocol {
        registry: "the registry".into(),
        problem: "a header would have characters that none may have".into(),
    })
}

/// `bytes FROM-…`
fn continues(response: &Response, from: usize) -> bool {
    let range = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The messages of an error, without what a terminal would obey.
fn error_text(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(parsed) = serde_json::from_slice::<Errors>(body) else {
        return String::new();
    };
    let words: Vec<String> = parsed
        .errors
        .iter()
        .map(|e| format!("{} {}", e.code, e.message))
        .collect();
    let text: String = words.join("; ").chars().filter(|c| !c.is_control()).take(300).collect();
    format!(": {text}")
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn plain_http_is_spoken_unasked_on_this_machine_only() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:5000",
            "[2001:db8::1]",
            "example",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
