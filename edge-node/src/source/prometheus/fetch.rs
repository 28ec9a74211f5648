//! Gets one page over HTTP, within its size and its time.

use std::io;
use std::path::PathBuf;

use reqwest::{Certificate, Client, Url, header, redirect};

use crate::config::Prometheus;

/// What we can read, best first.
const ACCEPT: &str =
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,text/plain;q=0.3,*/*;q=0.1";
/// From one address to the next.
const MAX_REDIRECTS: usize = 4;
const MAX_TOKEN_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client,
    max_bytes: usize,
    token_file: Option<PathBuf>,
}

/// A page as it came.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) bytes: Vec<u8>,
    pub(super) is_open_metrics: bool,
}

impl Fetcher {
    pub(super) fn new(config: &Prometheus, targets: &[Url]) -> io::Result<Self> {
        let mut builder = Client::builder()
            .no_proxy()
            .timeout(config.timeout)
            .pool_max_idle_per_host(1)
            .redirect(redirect::Policy::limited(MAX_REDIRECTS))
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")));
        let is_secure = targets.iter().any(|url| url.scheme() == "https");
        if config.ca.is_some() || !is_secure {
            builder = builder.tls_built_in_root_certs(false);
        }
        if let Some(path) = &config.ca {
            let in_file = |error: &dyn std::fmt::Display| io::Error::other(format!("ca {}: {error}", path.display()));
            let pem = std::fs::read(path).map_err(|error| in_file(&error))?;
            for authority in Certificate::from_pem_bundle(&pem).map_err(|error| in_file(&error))? {
                builder = builder.add_root_certificate(authority);
            }
        }
        Ok(Self {
            client: builder.build().map_err(io::Error::other)?,
            max_bytes: usize::try_from(config.max_page_bytes).unwrap_or(usize::MAX),
            token_file: config.token_file.clone(),
        })
    }

    /// The text of a failure is for the operator.
    pub(super) async fn fetch(&self, url: &Url) -> Result<Page, String> {
        let mut request = self.client.get(url.clone()).header(header::ACCEPT, ACCEPT);
        if let Some(path) = &self.token_file {
            let token = tokio::fs::read_to_string(path).await;
            let token = token.map_err(|error| format!("token_file {}: {error}", path.display()))?;
            if token.len() > MAX_TOKEN_BYTES {
                return Err(format!(
                    "token_file {} is larger than {MAX_TOKEN_BYTES} bytes",
                    path.display()
                ));
            }
            request = request.bearer_auth(token.trim());
        }
        let mut response = request.send().await.map_err(|error| told(&error))?;
        if !response.status().is_success() {
            return Err(format!("answers {}", response.status()));
        }
        let too_large = || format!("the page is larger than {} bytes (max_page_bytes)", self.max_bytes);
        if response
            .content_length()
            .is_some_and(|length| length > self.max_bytes as u64)
        {
            return Err(too_large());
        }
        let kind = response.headers().get(header::CONTENT_TYPE);
        let is_open_metrics = kind
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/openmetrics-text"));
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
            if bytes.len() + chunk.len() > self.max_bytes {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Page { bytes, is_open_metrics })
    }
}

/// What is at the bottom of it says most.
fn told(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "does not answer in time".to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}
