//! The edge from outside: real requests over real sockets, real files, processes that are killed.
#![allow(clippy::unwrap_used)]

mod accept;
mod client;
mod cloud;
mod crash;
mod damage;
mod doors;
mod full_disk;
mod full_start;
mod hostile;
mod link;
mod node;
mod order;
mod packages;
mod plugins;
mod program;
mod reload;
mod shadow;
mod spool_tools;
mod tap;
