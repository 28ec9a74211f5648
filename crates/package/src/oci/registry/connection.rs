//! The connection to a registry: how it is encrypted, who we are, how often we ask, how much we read.

use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, WWW_AUTHENTICATE};
use reqwest::{Certificate, Client, Method, Request, Response, StatusCode, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::{Access, RegistryError};
use crate::file;
use crate::oci::credentials::Credentials;

/// Time for a connection, and for the next bytes once there is one; a slow link may take as long as it likes in all.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
/// How often a download that broke off is taken up again, and the pause before, which doubles.
pub(super) const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// Redirects of one request: registries send to their storage in one.
const REDIRECTS: usize = 5;
/// Bytes of a token's answer and of an error; real tokens have up to 8 KiB.
const TOKEN_BYTES: u64 = 64 * 1024;
const ERROR_BYTES: u64 = 8 * 1024;
/// Bytes of a file with certificates.
const CA_BYTES: u64 = 1024 * 1024;

pub(super) struct Connection {
    client: Client,
    /// `scheme://host/v2/`
    pub(super) base: Url,
    /// Host and repository, for messages.
    place: String,
    credentials: Option<Credentials>,
    /// The header that the registry was content with last.
    authorization: Mutex<Option<String>>,
}

impl Connection {
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
        if is_loopback(host) {
            // What is here needs no proxy to get to.
            builder = builder.no_proxy();
        }
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
            place: format!("{host}/{repository}"),
            credentials: access.credentials.clone(),
            authorization: Mutex::new(None),
        })
    }

    /// A request that changes nothing: tried again when the registry is not well.
    pub(super) async fn send_again(&self, request: &Request, action: &str) -> Result<Response, RegistryError> {
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
            pause(attempt).await;
        }
    }

    /// Sends, and answers once if the registry asks who we are.
    pub(super) async fn send(&self, request: &Request, action: &str) -> Result<Response, RegistryError> {
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
            let mut value = header(authorization)?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
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
            let mut value = header(&credentials.basic())?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
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

    pub(super) async fn body(
        &self,
        mut response: Response,
        limit: u64,
        action: &str,
    ) -> Result<Vec<u8>, RegistryError> {
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

    pub(super) async fn unexpected(&self, response: Response, action: String) -> RegistryError {
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

    pub(super) fn protocol(&self, problem: &str) -> RegistryError {
        RegistryError::Protocol {
            registry: self.to_string(),
            problem: problem.to_owned(),
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// Before another attempt; doubles each time.
pub(super) async fn pause(attempt: u32) {
    tokio::time::sleep(PAUSE * (1 << attempt)).await;
}

pub(super) fn header(text: &str) -> Result<reqwest::header::HeaderValue, RegistryError> {
    text.parse().map_err(|_| RegistryError::Protocol {
        registry: "the registry".into(),
        problem: "a header would have characters that none may have".into(),
    })
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
