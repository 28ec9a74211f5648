//! The edge from outside: real requests over real sockets, real files, processes that are killed.
#![allow(clippy::unwrap_used)]

mod accept;
mod client;
mod cloud;
mod crash;
mod damage;
mod doors;
mod filelog;
mod filelog_crash;
mod full_disk;
mod full_start;
mod hostile;
mod json_lines;
mod link;
mod node;
mod order;
mod packages;
mod plugins;
mod program;
mod reload;
mod rows;
mod scrape;
mod shadow;
mod site;
mod sources;
mod spool_tools;
mod standing;
mod syslog;
mod tap;
