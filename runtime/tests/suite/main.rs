//! The plugin host with real components: the shipped plugins and hostile ones.
//! Components are read from `plugins/dist`; `cargo xtask guests` builds them.
#![allow(clippy::unwrap_used)]

mod answers;
mod capabilities;
mod common;
mod compile;
mod fixtures;
mod forbidden;
mod hostile;
mod instances;
mod large;
mod mask;
mod sample;
mod shadow;
mod swap;
mod tenants;
mod words;
