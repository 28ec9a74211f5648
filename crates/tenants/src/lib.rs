//! The contract with whoever runs the cloud: which tenants there are, what each may use, and the keys that stand for them.
//!
//! [`folder`] writes it, for the commands; [`Tenancy`] reads it, for the roles, and follows its changes. FORMAT.md describes the files.

mod error;
pub mod folder;
mod keys;
mod tenancy;
mod tenants;

pub use error::TenantsError;
pub use folder::{Folder, KEYS_FILE, TENANTS_FILE};
pub use keys::{Key, KeyRefusal, Keys, Scope, looks_like_a_key};
pub use tenancy::{Snapshot, Tenancy};
pub use tenants::{State, Tenant, Tenants};
