//! The doors: how events come in. Each reads a request within limits, hands it to the intake and answers in the manner of
//! its protocol.

mod body;
pub(crate) mod otlp_grpc;
pub(crate) mod otlp_http;
mod reply;
