//! The QUIC gateway: takes batches from edges, validates them, appends them to the log, acknowledges what is durable.
//!
//! Who an edge is comes from its certificate alone. What is said is decided by the pure `sluice_wire::session::Server`;
//! here are the sockets, the certificates, the limits on memory and the call of the log. Any gateway serves any edge.

mod admission;
mod authority;
mod batch;
mod clock;
mod config;
mod deny;
mod identity;
mod listener;
mod reload;
mod renewal;
mod session;
mod status;
mod tls;
mod trust;

pub use admission::ReadPosition;
pub use authority::{Authority, AuthorityError, RenewalRequest};
pub use clock::{SystemClock, WallClock};
pub(crate) use config::{DEFAULT_EDGE_STATE, DEFAULT_GRACE, DEFAULT_MAX_LAG, MIN_EDGE_STATE};
pub use config::{GatewayConfig, GatewayError};
pub use deny::{DenyError, DenyList};
pub use identity::{IdentityError, PeerIdentity, identity_of};
pub use listener::Gateway;
pub use status::{GatewayStatus, StatusHandle};
pub use tls::TlsError;
