//! The way from a gateway to the authority: HTTPS with the gateway's own certificate. Files are read for each request, so that rotated
//! ones are used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sluice_ingest::config::GatewaySettings;
use sluice_ingest::gateway::{Authority, AuthorityError, RenewalRequest};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::serve::{Answer, Ask, MAX_BODY_BYTES, Refusal};

/// Less than a gateway waits.
const PATIENCE: Duration = Duration::from_secs(10);
const USUAL_PORT: u16 = 7444;

/// Asks `sluice ca serve`.
#[derive(Clone, Debug)]
pub(crate) struct HttpsAuthority {
    host: String,
    port: u16,
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl HttpsAuthority {
    /// The one that a gateway's settings name, if they name one.
    pub(crate) fn of(settings: &GatewaySettings) -> Result<Option<Self>> {
        if settings.authority.is_empty() {
            return Ok(None);
        }
        let url: http::Uri = settings.authority.parse().context("gateway.authority")?;
        let Some(host) = url.host().filter(|_| url.scheme_str() == Some("https")) else {
            bail!("gateway.authority is not of the form https://HOST:PORT");
        };
        Ok(Some(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_u16().unwrap_or(USUAL_PORT),
            certificate: settings.certificate.clone(),
            key: settings.key.clone(),
            ca: settings.ca.clone(),
        }))
    }

    fn tls(&self) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(&self.ca)? {
            roots.add(authority?)?;
        }
        let chain = CertificateDer::pem_file_iter(&self.certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    async fn post(&self, body: Vec<u8>) -> Result<(StatusCode, Bytes)> {
        let this = self.clone();
        let tls = tokio::task::spawn_blocking(move || this.tls())
            .await?
            .context("certificate of the gateway")?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let stream = tls.connect(ServerName::try_from(self.host.clone())?, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post("/v1/renew")
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // It ends when the answer is read, or because it broke.
            ended = connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(error.into()),
            },
        }
    }
}

#[async_trait]
impl Authority for HttpsAuthority {
    async fn renew(&self, request: RenewalRequest) -> Result<Vec<Bytes>, AuthorityError> {
        let away = |why: String| AuthorityError::Away(format!("{}:{}: {why}", self.host, self.port));
        let ask = Ask {
            certificates: request.certificates.iter().map(hex::encode).collect(),
            request: hex::encode(&request.request),
            scheme: request.scheme,
            proof: hex::encode(&request.proof),
        };
        let body = serde_json::to_vec(&ask).map_err(|error| away(error.to_string()))?;
        let answered = tokio::time::timeout(PATIENCE, self.post(body)).await;
        let answered = answered.map_err(|_| away(format!("no answer in {} s", PATIENCE.as_secs())))?;
        let (status, body) = answered.map_err(|error| away(format!("{error:#}")))?;
        if status == StatusCode::OK {
            let answer: Answer = serde_json::from_slice(&body).map_err(|error| away(error.to_string()))?;
            let certificates = answer.certificates.iter().map(|der| hex::decode(der).map(Bytes::from));
            return certificates
                .collect::<Result<_, _>>()
                .map_err(|error| away(error.to_string()));
        }
        let told = serde_json::from_slice(&body).map(|Refusal { reason }| reason);
        let reason = told.unwrap_or_else(|_| format!("it answers {status}"));
        Err(match status {
            StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => AuthorityError::Refused(reason),
            StatusCode::TOO_MANY_REQUESTS => AuthorityError::Later(reason),
            _ => away(reason),
        })
    }
}
