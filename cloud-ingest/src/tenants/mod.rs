//! What tenants share, and how: quotas that hold each to what it may use, and fairness where more comes than there is room for.
//!
//! [`meter`] counts against the limits of the folder of tenants, [`account`] by account for each; [`quotas`] is its driver, for the gateway and for the OTLP door.
//! [`shares`] divides the memory for batches; [`turns`] says whose batch is next where they queue, `gate` is its driver.

mod account;
mod bucket;
mod day;
mod gate;
mod meter;
mod metrics;
mod quotas;
mod shares;
mod turns;

pub(crate) use gate::Gate;
pub use meter::{Limit, Over, TenantStatus};
pub use metrics::{Metric, metrics};
pub use quotas::{Charge, Quotas};
pub(crate) use shares::{Claim, Presence, Shares};
