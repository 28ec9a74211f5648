//! End to end: real processes, asked as a user asks them.
#![allow(clippy::unwrap_used)]

mod again;
mod apply;
mod authors;
mod canary;
mod certificates;
mod chaos;
mod clickhouse;
mod crash;
mod crowd;
mod doors;
mod engines;
mod flight;
mod hostile;
mod hostile_sql;
mod identical;
mod link;
mod order;
mod otlp;
mod outages;
mod postgres;
mod python;
mod quarantine;
mod readers;
mod restart;
mod scale;
mod sessions;
mod siege;
mod tenants;
mod terminal;
