//! Scale-out: the cold part of a query runs on other machines, its workers.
//!
//! # What goes where
//!
//! A query is planned here, as ever: pinned to one point of the log, in the scope of its tenant, without what is erased. In the plan
//! `plan` then finds the steps that read nothing but cold files and take each group of rows by itself: scans, filters, projections, the
//! first half of aggregates, the first rows of an order. Where such steps stand over hot and cold rows together, they are divided, and
//! hot stays here. Each such fragment becomes one step `ColdOnWorkers` (`spread`), with a part for each worker: the same steps over
//! some of the files, and all of those files are of the version that the query pinned. `share` gives a file to the same worker each
//! time, because that one has its footer in memory and its parts on disk. Everything above (joins, windows, the second half of
//! aggregates, orders, limits) runs here, so workers never talk to each other, and only to nodes that show the secret.
//!
//! # By which engine
//!
//! `datafusion-distributed` is the workers' side: their gRPC service, the life of a task, plans and rows on the wire, and what a worker
//! reports at the end. It knows ordinary physical plans and needs no scheduler and no state, which `ballista` does. Its own planner is
//! not used: it distributes whole plans and reads every leaf on workers, and hot rows, which only this node has, must stay; and a part
//! that fails has to be run again here, of which it knows nothing. `part` drives one task of it instead.
//!
//! # What holds
//!
//! * Tenant, erasures, snapshot: rules on rows and names of files travel as parts of the plan (`sluice_store`'s codec); credentials do
//!   not. A worker reads a lake of its own and refuses a scan of another table, and any step that is not one of those above (`session`).
//! * A part whose worker cannot be reached, is busy or short of memory, refuses it, or is lost before it gave a row, runs here. A worker
//!   that is lost later ends the query with an error: rows that were given cannot be taken back. A part is whole only once the head of it
//!   (`at_work`) said that its rows came to their end, and how many they are, and as many came; a step that panics ends none.
//! * What goes wrong with the query itself on a worker, such as a value that cannot be cast, is met again here if no row was given, and
//!   else told as it is.
//! * A worker that was not reached is left alone for longer each time, and one of another build, lake or secret for a minute (`absence`).
//! * `limits.max_scan`: each part stops at it by itself, and what all parts and this node read together is compared when a part ends, or
//!   fails and says what it read. A query that reads more gets no answer, though by then its workers may have read up to as many times as
//!   much as there are of them; what a worker read before it was lost is not known.
//! * `limits.memory`, `spill`, `total_memory`: of each part on its worker, by the settings of that, and of the query here. Together
//!   they may take more than one query may take on one machine.
//! * `limits.timeout`, `max_rows`, concurrency and turns are decided here. A query that ends, for whatever reason, ends its parts. A
//!   worker that took a part, is there and gives nothing costs the whole timeout: a first half of an aggregate may well be that slow.
//! * What joins learn from their other side while they run does not reach the files that workers read. What an order or an aggregate
//!   of a part learns does.
//!
//! `peers` are the workers as this node knows them; `service`, `session` and `at_work` are a worker; `secret` is what both show.

mod absence;
mod at_work;
mod dial;
mod out;
mod part;
mod peers;
mod plan;
mod secret;
mod service;
mod session;
mod share;
mod spread;
#[cfg(test)]
mod tests;

pub use self::peers::PeerError;
pub(crate) use self::peers::Workers;
pub(crate) use self::plan::Spreading;
pub use self::secret::SecretError;
pub use self::service::WorkerService;
pub(crate) use self::spread::ColdOnWorkers;

/// How a node says how many bytes a part may read.
const MAX_SCAN: &str = "x-sluice-max-scan";
/// How a node says of which build it is: plans of another one may mean something else.
const BUILD: &str = "x-sluice-build";
/// Of this program: its version, and a mark that changes with the code that plans mean something to (`build.rs`).
const THIS_BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("SLUICE_MEANING"));
/// Larger parts run here. One names its files, some hundred bytes for each, and its filters for each scan.
const MAX_PART_BYTES: usize = 64 << 20;
