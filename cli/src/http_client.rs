//! Finds a running node and speaks HTTP to it: what `sluice sql` and `sluice status` share.

mod connector;

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use self::connector::Connector;

/// The ready file that `sluice up` writes into its data folder.
const READY_FILE: &str = "ready.json";
const JSON: &str = "application/json";
const DEFAULT_URL: &str = "http://127.0.0.1:7080";

/// Where the node is and who asks. Without any of these, the node that runs on `--data` is found by itself.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Connect {
    /// Data folder of a running `sluice up`
    #[arg(long, value_name = "DIR", default_value = "./sluice-data")]
    pub(crate) data: PathBuf,
    /// Address of the HTTP API, such as http://127.0.0.1:7080
    #[arg(long, env = "SLUICE_URL")]
    pub(crate) url: Option<String>,
    /// File that holds the token (the variable SLUICE_TOKEN may hold the token itself)
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates (PEM) that an https address is trusted by
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
struct Ready {
    #[serde(default)]
    listen: std::collections::BTreeMap<String, String>,
    token_file: Option<PathBuf>,
}

/// A connection to one node.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    base: String,
    bearer: Option<HeaderValue>,
    client: Client<Connector, Full<Bytes>>,
}

impl Connect {
    /// Resolves address and token. A token is only ever sent to the node that it was found for, or that was named together with it.
    pub(crate) fn client(&self) -> Result<HttpClient> {
        let ready = self.ready()?;
        let found = ready
            .as_ref()
            .and_then(|r| r.listen.get("http"))
            .map(|a| format!("http://{}", reachable(a)));
        let base = match (&self.url, &found) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(found)) => found.clone(),
            (None, None) => DEFAULT_URL.to_owned(),
        };
        let of_ready = ready
            .and_then(|r| r.token_file)
            .filter(|_| found.as_ref() == Some(&base));
        let token = match (&self.token_file, std::env::var("SLUICE_TOKEN"), of_ready) {
            (Some(path), _, _) => Some(read_token(path)?),
            (None, Ok(token), _) if !token.trim().is_empty() => Some(token),
            (None, _, Some(path)) => Some(read_token(&self.beside_data(path))?),
            _ => None,
        };
        HttpClient::new(base, token.as_deref(), self.ca_file.as_deref())
    }

    /// The address of another door of the node that was found, if one was.
    pub(crate) fn door(&self, name: &str) -> Option<String> {
        let ready = self.ready().ok()??;
        if self.url.is_some() {
            return None;
        }
        ready
            .listen
            .get(name)
            .map(|address| format!("http://{}", reachable(address)))
    }

    fn ready(&self) -> Result<Option<Ready>> {
        let path = self.data.join(READY_FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not a ready file", path.display()))
                .map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// A relative path in the ready file is meant from where the node was started, or from its data folder.
    fn beside_data(&self, path: PathBuf) -> PathBuf {
        if path.is_absolute() || path.exists() {
            return path;
        }
        self.data.join(path)
    }
}

/// A node that listens everywhere is asked on loopback.
fn reachable(address: &str) -> String {
    match address.parse::<std::net::SocketAddr>() {
        Ok(mut a) if a.ip().is_unspecified() => {
            a.set_ip(match a.ip() {
                IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
            a.to_string()
        }
        _ => address.to_owned(),
    }
}

fn read_token(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the token file {}", path.display()))?;
    Ok(text.trim().to_owned())
}

impl HttpClient {
    pub(crate) fn new(base: String, token: Option<&str>, ca: Option<&Path>) -> Result<HttpClient> {
        let uri: Uri = base.parse().with_context(|| format!("`{base}` is not an address"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
            bail!("`{base}` is not of the form http://HOST:PORT or https://HOST:PORT");
        }
        if uri.scheme_str() == Some("https") && ca.is_none() {
            bail!("--ca-file says which certificates an https address is trusted by");
        }
        let bearer = token
            .map(|token| HeaderValue::from_str(&format!("Bearer {}", token.trim())))
            .transpose()
            .context("the token has characters that a token cannot have")?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        let client = Client::builder(TokioExecutor::new()).build(Connector::new(ca)?);
        Ok(HttpClient { base, bearer, client })
    }

    /// Where this client asks.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Response<Incoming>> {
        self.send(Method::GET, path, JSON, JSON, Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, accept: &str, json: Vec<u8>) -> Result<Response<Incoming>> {
        self.send(Method::POST, path, JSON, accept, json.into()).await
    }

    /// The same with a body of another kind.
    pub(crate) async fn post_as(
        &self,
        path: &str,
        kind: &str,
        accept: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        self.send(Method::POST, path, kind, accept, body).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        accept: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("sluice/", env!("CARGO_PKG_VERSION")));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request.body(Full::new(body)).context("request")?;
        self.client.request(request).await.map_err(|error| {
            let unreachable = error.is_connect();
            let context = if unreachable {
                format!(
                    "nothing answers at {} (is `sluice up` running? --data or --url say where)",
                    self.base
                )
            } else {
                format!("{} broke the connection off", self.base)
            };
            anyhow::Error::new(error).context(context)
        })
    }
}

/// A whole body, up to a limit.
pub(crate) async fn read_all(response: Response<Incoming>, most: usize) -> Result<Bytes> {
    match Limited::new(response.into_body(), most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => bail!("the answer broke off or is longer than {most} bytes: {error}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_running_node_is_found_and_its_token_goes_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token"), "slq_secret\n").unwrap();
        fs::write(
            dir.path().join(READY_FILE),
            r#"{"listen":{"http":"0.0.0.0:9999","otlp-grpc":"127.0.0.1:1"},"token_file":"token","pid":7}"#,
        )
        .unwrap();
        let mut connect = Connect {
            data: dir.path().to_owned(),
            url: None,
            token_file: None,
            ca_file: None,
        };
        let client = connect.client().unwrap();
        assert_eq!(client.base(), "http://127.0.0.1:9999");
        assert_eq!(client.bearer.unwrap(), "Bearer slq_secret");

        connect.url = Some("http://elsewhere:7080/".into());
        let client = connect.client().unwrap();
        assert_eq!(client.base(), "http://elsewhere:7080");
        assert!(client.bearer.is_none());

        connect.url = Some("elsewhere".into());
        assert!(connect.client().is_err());
    }
}
