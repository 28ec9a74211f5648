//! What the rest of the process says of itself. The query role only hands it on.

/// Asked by `/v1/status`, `/metrics` and `/readyz`.
pub trait StatusSource: Send + Sync + 'static {
    fn status(&self) -> serde_json::Value;
    /// In Prometheus' text format.
    fn metrics(&self) -> String;
    /// Data moves.
    fn ready(&self) -> bool;
}

/// A process that is only a query role has nothing to add.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStatus;

impl StatusSource for NoStatus {
    fn status(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    fn metrics(&self) -> String {
        String::new()
    }

    fn ready(&self) -> bool {
        true
    }
}
