//! The plugin host with real components: the shipped plugins and hostile ones.
//! Components are read from `plugins/dist`; `cargo xtask guests` builds them.
#![allow(clippy::unwrap_used)]

mod common;
mod forbidden;
mod hostile;
mod mask;
mod sample;
mod shadow;
mod swap;
