//! A registry, over the OCI distribution protocol. A client of our own: those there are read manifests, tokens and errors of any
//! size into memory and bring a second TLS stack; what is needed here are five requests.

mod challenge;
mod connection;

use std::path::PathBuf;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, Request, Response, StatusCode, Url};

use super::artifact::{Artifact, Descriptor, IMAGE_BYTES, IMAGE_TYPE};
use super::credentials::Credentials;
use super::reference::Selector;
use crate::digest::Digest;
use connection::{ATTEMPTS, Connection, header, pause};

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
    connection: Connection,
    repository: String,
}

impl Registry {
    pub(super) fn new(host: &str, repository: &str, access: &Access) -> Result<Self, RegistryError> {
        Ok(Self {
            connection: Connection::new(host, repository, access)?,
            repository: repository.to_owned(),
        })
    }

    pub(super) async fn manifest(&self, selector: &Selector) -> Result<Option<Vec<u8>>, RegistryError> {
        let url = self.url(&format!("manifests/{selector}"))?;
        let action = format!("read {selector}");
        let mut request = Request::new(Method::GET, url);
        request.headers_mut().insert(ACCEPT, header(IMAGE_TYPE)?);
        let response = self.connection.send_again(&request, &action).await?;
        match response.status() {
            StatusCode::OK => self.connection.body(response, IMAGE_BYTES, &action).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.connection.unexpected(response, action).await),
        }
    }

    /// Bytes of at most the descriptor's size. A download that breaks off goes on where it was.
    pub(super) async fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let url = self.url(&format!("blobs/{}", descriptor.digest))?;
        let action = format!("read {}", descriptor.digest);
        let mut bytes: Vec<u8> = Vec::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                pause(attempt).await;
            }
            let mut request = Request::new(Method::GET, url.clone());
            if !bytes.is_empty() {
                request
                    .headers_mut()
                    .insert(RANGE, header(&format!("bytes={}-", bytes.len()))?);
            }
            let mut response = self.connection.send_again(&request, &action).await?;
            match response.status() {
                StatusCode::OK => bytes.clear(),
                StatusCode::PARTIAL_CONTENT if continues(&response, bytes.len()) => {}
                StatusCode::PARTIAL_CONTENT => {
                    return Err(self.connection.protocol("it sends another range than was asked for"));
                }
                _ => return Err(self.connection.unexpected(response, action).await),
            }
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) if (bytes.len() + chunk.len()) as u64 > descriptor.size => {
                        return Err(self.connection.protocol("it sends more bytes than it said"));
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
        request.headers_mut().insert(CONTENT_TYPE, header(IMAGE_TYPE)?);
        *request.body_mut() = Some(artifact.manifest.clone().into());
        let response = self.connection.send(&request, &action).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::OK => Ok(()),
            _ => Err(self.connection.unexpected(response, action).await),
        }
    }

    async fn push_blob(&self, digest: &Digest, bytes: Bytes) -> Result<(), RegistryError> {
        let action = format!("publish {digest}");
        let head = Request::new(Method::HEAD, self.url(&format!("blobs/{digest}"))?);
        if self.connection.send(&head, &action).await?.status() == StatusCode::OK {
            return Ok(());
        }
        let begin = Request::new(Method::POST, self.url("blobs/uploads/")?);
        let response = self.connection.send(&begin, &action).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.connection.unexpected(response, action).await);
        }
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok());
        let location = location.and_then(|location| response.url().join(location).ok());
        let mut url = location.ok_or_else(|| self.connection.protocol("it does not say where to upload to"))?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let mut put = Request::new(Method::PUT, url);
        put.headers_mut()
            .insert(CONTENT_TYPE, header("application/octet-stream")?);
        *put.body_mut() = Some(bytes.into());
        let response = self.connection.send(&put, &action).await?;
        match response.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(self.connection.unexpected(response, action).await),
        }
    }

    fn url(&self, rest: &str) -> Result<Url, RegistryError> {
        // Repository, tags and digests have no character that means something in a path.
        self.connection
            .base
            .join(&format!("{}/{rest}", self.repository))
            .map_err(|_| RegistryError::Address {
                registry: self.to_string(),
            })
    }
}

impl std::fmt::Display for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.connection.fmt(f)
    }
}

/// `bytes FROM-…`
fn continues(response: &Response, from: usize) -> bool {
    let range = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}
