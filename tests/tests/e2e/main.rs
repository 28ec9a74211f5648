//! End to end: real processes, asked as a user asks them.
#![allow(clippy::unwrap_used)]

mod again;
mod authors;
mod canary;
mod certificates;
mod chaos;
mod clickhouse;
mod crash;
mod doors;
mod engines;
mod hostile;
mod hostile_sql;
mod identical;
mod order;
mod otlp;
mod postgres;
mod python;
mod quarantine;
mod restart;
mod siege;
mod tenants;
