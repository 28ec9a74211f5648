//! What measurements, the load generator and the end-to-end tests share: a corpus of distinct events, a client that
//! sends it over OTLP and remembers what was acknowledged, a handle on a real `sluice` process, and an oracle that
//! compares what was acknowledged with what SQL returns.

pub mod audit;
pub mod chaos;
pub mod corpus;
pub mod disk;
pub mod engines;
pub mod fleet;
pub mod load;
pub mod oracle;
pub mod payload;
pub mod ports;
pub mod process;
pub mod relay;
