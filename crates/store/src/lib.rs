//! Contract 3: the tables. Hot rows in memory or on a ClickHouse server, cold rows in a Delta table, the seam between them, and the providers that make one
//! table of both. TABLES.md describes the columns as they are stored.

pub mod cold;
mod durable;
pub mod erase;
pub mod hot;
mod lake;
pub mod physical;
pub mod provider;
pub mod reading;
mod rows;
pub mod seam;
mod search;
mod state;
mod stores;

pub use cold::{ColdError, ColdTable, CommitError};
pub use erase::{Erasures, Retention, Rule};
pub use hot::{ClickHouseHot, EmbeddedHot, Hot, HotError, HotRows};
pub use lake::{Lake, LakeError, S3Options};
pub use provider::{
    ColdCodec, Completeness, FileToRead, Inputs, LookError, Looks, PinError, Pinned, Scope, Tables, TablesOptions,
    TimeBounds, TimeRange, cold_files, inputs, is_cold_scan, is_rows, needed_settings, of_files, physical_rules,
    physical_rules_with, register_views, time_bounds, to_travel,
};
pub use reading::{CacheOptions, Caches, Reads};
pub use rows::{OffsetRange, RowsError};
pub use seam::{Claim, Position, Seam, SeamError, SeamRecord};
pub use search::{MAX_ASKED_BYTES, Search};
pub use state::{StateError, StateObjects};
pub use stores::{LogEnds, Skip, StoreError, Stores};
