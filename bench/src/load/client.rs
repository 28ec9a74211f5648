//! An OTLP client that sends prepared bytes over gRPC or HTTP and tells what became of them.

use std::io::{self, Write};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::corpus::Signal;

/// An answer longer than this is no OTLP answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Where to send and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// `http://HOST:PORT`, without the path.
    pub endpoint: String,
    pub protocol: Protocol,
    pub compression: Compression,
    /// Sent as a bearer token.
    pub token: Option<String>,
    /// A request without an answer for so long counts as unknown.
    pub timeout: Duration,
}

impl Target {
    pub fn new(protocol: Protocol, endpoint: impl Into<String>) -> Target {
        Target {
            endpoint: endpoint.into(),
            protocol,
            compression: Compression::None,
            token: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, but for `rejected` of its events.
    Accepted { rejected: u64, note: String },
    /// The receiver said no.
    Refused { code: String, message: String },
    /// No answer, or one that does not say whether the events were taken.
    Unknown { message: String },
}

impl Outcome {
    pub fn is_accepted(&self) -> bool {
        matches!(self, Outcome::Accepted { .. })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("`{endpoint}` is no address of a receiver, write http://HOST:PORT")]
    Endpoint {
        endpoint: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the token cannot be sent in a header")]
    Token,
}

/// One sender. Connects when it first sends, and again when the connection is lost.
#[derive(Debug)]
pub struct Client {
    inner: Inner,
    timeout: Duration,
}

#[derive(Debug)]
enum Inner {
    Grpc {
        grpc: Box<tonic::client::Grpc<Channel>>,
        token: Option<MetadataValue<tonic::metadata::Ascii>>,
    },
    Http {
        client: Box<hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>>,
        base: String,
        token: Option<String>,
        compression: Compression,
    },
}

impl Client {
    pub fn connect(target: &Target) -> Result<Client, ClientError> {
        let bad = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Endpoint {
            endpoint: target.endpoint.clone(),
            source,
        };
        let uri: Uri = target.endpoint.parse().map_err(|e| bad(Box::new(e)))?;
        let inner = match target.protocol {
            Protocol::Grpc => {
                let channel = Endpoint::from(uri)
                    .connect_timeout(target.timeout)
                    .tcp_nodelay(true)
                    .connect_lazy();
                let mut grpc = tonic::client::Grpc::new(channel);
                grpc = match target.compression {
                    Compression::None => grpc,
                    Compression::Gzip => grpc.send_compressed(CompressionEncoding::Gzip),
                    Compression::Zstd => grpc.send_compressed(CompressionEncoding::Zstd),
                };
                let token = target.token.as_ref().map(|t| format!("Bearer {t}").parse());
                Inner::Grpc {
                    grpc: Box::new(grpc),
                    token: token.transpose().map_err(|_| ClientError::Token)?,
                }
            }
            Protocol::Http => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
                Inner::Http {
                    client: Box::new(client),
                    base: target.endpoint.trim_end_matches('/').to_owned(),
                    token: target.token.clone(),
                    compression: target.compression,
                }
            }
        };
        Ok(Client {
            inner,
            timeout: target.timeout,
        })
    }

    /// Sends once; never tries again by itself.
    pub async fn send(&mut self, signal: Signal, body: Bytes) -> Outcome {
        let sending = async {
            match &mut self.inner {
                Inner::Grpc { grpc, token } => send_grpc(grpc, token.clone(), signal, body).await,
                Inner::Http {
                    client,
                    base,
                    token,
                    compression,
                } => match http_request(base, token.as_deref(), *compression, signal, body) {
                    Ok(request) => send_http(client, request).await,
                    Err(error) => Outcome::Refused {
                        code: "not sent".to_owned(),
                        message: error.to_string(),
                    },
                },
            }
        };
        let limit = self.timeout;
        tokio::time::timeout(limit, sending)
            .await
            .unwrap_or_else(|_| Outcome::Unknown {
                message: format!("no answer within {} s", limit.as_secs_f64()),
            })
    }
}

async fn send_grpc(
    grpc: &mut tonic::client::Grpc<Channel>,
    token: Option<MetadataValue<tonic::metadata::Ascii>>,
    signal: Signal,
    body: Bytes,
) -> Outcome {
    if let Err(error) = grpc.ready().await {
        return Outcome::Unknown {
            message: format!("not connected: {error}"),
        };
    }
    let mut request = tonic::Request::new(body);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token);
    }
    let path = PathAndQuery::from_static(signal.grpc_path());
    match grpc.unary(request, path, Raw).await {
        Ok(answer) => accepted(&answer.into_inner()),
        Err(status) => refusal(&status),
    }
}

/// Codes that only a receiver gives, and only when it took nothing.
fn refusal(status: &Status) -> Outcome {
    let message = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument
        | Code::ResourceExhausted
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::Unimplemented
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::NotFound => Outcome::Refused {
            code: format!("{:?}", status.code()),
            message,
        },
        _ => Outcome::Unknown { message },
    }
}

fn http_request(
    base: &str,
    token: Option<&str>,
    compression: Compression,
    signal: Signal,
    body: Bytes,
) -> io::Result<Request<Full<Bytes>>> {
    let mut request =
        Request::post(format!("{base}{}", signal.http_path())).header(header::CONTENT_TYPE, "application/x-protobuf");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = match compression {
        Compression::None => body,
        Compression::Gzip => {
            request = request.header(header::CONTENT_ENCODING, "gzip");
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&body)?;
            Bytes::from(encoder.finish()?)
        }
        Compression::Zstd => {
            request = request.header(header::CONTENT_ENCODING, "zstd");
            Bytes::from(zstd::encode_all(&body[..], 1)?)
        }
    };
    request.body(Full::new(body)).map_err(io::Error::other)
}

async fn send_http(
    client: &hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Outcome {
    let answer = match client.request(request).await {
        Ok(answer) => answer,
        Err(error) => {
            return Outcome::Unknown {
                message: format!("not connected: {}", causes(&error)),
            };
        }
    };
    let status = answer.status();
    let body = match Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        // The status line of a success is the acknowledgement; what follows only adds detail.
        Err(_) if status.is_success() => Bytes::new(),
        Err(error) => {
            return Outcome::Unknown {
                message: format!("answer broke off: {error}"),
            };
        }
    };
    if status.is_success() {
        return accepted(&body);
    }
    let message = format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(300)]));
    if status.is_client_error() {
        Outcome::Refused {
            code: status.as_u16().to_string(),
            message,
        }
    } else {
        Outcome::Unknown { message }
    }
}

/// An error of the HTTP client says little by itself.
fn causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", causes(source)),
        None => error.to_string(),
    }
}

/// All three export answers have the same shape on the wire.
#[derive(prost::Message)]
struct ExportAnswer {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

fn accepted(answer: &[u8]) -> Outcome {
    let partial = <ExportAnswer as prost::Message>::decode(answer)
        .unwrap_or_default()
        .partial_success
        .unwrap_or_default();
    Outcome::Accepted {
        rejected: u64::try_from(partial.rejected).unwrap_or(0),
        note: partial.error_message,
    }
}

/// Passes bytes through: the corpus is protobuf already.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
