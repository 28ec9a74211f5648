//! Write a Sluice plugin in Rust.
//!
//! Row by row, for whatever fits into a function of one row:
//!
//! ```
//! use sluice_plugin::prelude::*;
//!
//! #[sluice_plugin(kind = filter, reads = ["severity", "service"])]
//! fn keep(row: Row) -> bool {
//!     row.severity() >= WARN || row.service() == "checkout"
//! }
//! # fn main() {}
//! ```
//!
//! or column by column, for speed: a type that implements [`Plugin`] and is handed to [`export_plugin!`].
//!
//! ```
//! use sluice_plugin::prelude::*;
//!
//! struct Keep;
//!
//! impl Plugin for Keep {
//!     type Config = NoConfig;
//!     fn describe() -> Description {
//!         Description::new("keep", "0.1.0", Kind::Filter).reads(["severity"])
//!     }
//!     fn init(_: NoConfig) -> Result<Self, String> {
//!         Ok(Keep)
//!     }
//!     fn process(&mut self, batch: &Batch, _: &Context) -> Result<Outcome, String> {
//!         let severity = batch.ints("severity")?;
//!         Ok(Outcome::keep_rows(batch.rows(), "low_severity", |row| severity.get(row).unwrap_or(0) >= 13))
//!     }
//! }
//!
//! export_plugin!(Keep);
//! # fn main() {}
//! ```
//!
//! Where even that is too slow, [`bits`] asks a whole column at once.
//!
//! A plugin is a `cdylib` for `wasm32-unknown-unknown` that `sluice plugin build` encodes as a component. On any other target
//! the same code runs natively: unit tests and benches need no Wasm, see [`testing`].

extern crate self as sluice_plugin;

mod batch;
#[doc(hidden)]
pub mod bindings;
pub mod bits;
mod config;
mod draft;
pub mod field;
mod host;
#[doc(hidden)]
pub mod ipc;
mod names;
mod outcome;
mod plugin;
pub mod row;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

#[doc(hidden)]
pub use {arrow_array, arrow_buffer, arrow_schema, schemars, serde, serde_json, wit_bindgen};

pub use batch::{Batch, Ints, Text, dictionary};
pub use bindings::exports::sluice::plugin::guest::{Context, Hints, Kind, Limits, Signal};
pub use config::{Config, NoConfig};
pub use draft::Draft;
pub use field::Field;
pub use host::{clock, log, lookup, matching, random, state};
pub use names::columns_of;
pub use outcome::Outcome;
#[doc(hidden)]
pub use plugin::glue;
pub use plugin::{Description, Plugin};
pub use sluice_plugin_macros::{plugin_config, sluice_plugin};

/// What most plugins need: `use sluice_plugin::prelude::*;`
pub mod prelude {
    pub use crate::row::severity::*;
    pub use crate::row::{Decision, Row, RowMut, Value};
    pub use crate::{
        Batch, Context, Description, Ints, Kind, NoConfig, Outcome, Plugin, Signal, Text, export_plugin, plugin_config,
        sluice_plugin,
    };
}
