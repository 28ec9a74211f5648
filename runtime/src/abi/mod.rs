//! The border to a guest, in words that do not depend on the version of the contract. One module for each version that was
//! ever released translates between them and the bindings made from its WIT.

mod v0_1;
mod v1_0;

use std::time::Duration;

use sluice_wire::Signal;
use wasmtime::component::{Component, Linker};

use crate::call::Hints;
use crate::capability::Grants;
use crate::component::ContractVersion;
use crate::host_state::HostState;
use crate::policy::Kind;

type Store = wasmtime::Store<HostState>;

/// What a plugin says of itself, checked in nothing but its types.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Description {
    pub name: String,
    pub version: String,
    pub kind: Kind,
    /// Columns that it is given, or patterns of them.
    pub reads: Vec<String>,
    /// Columns that it may give back.
    pub writes: Vec<String>,
    /// JSON Schema of its configuration; empty if there is none.
    pub config_schema: String,
}

/// What a guest is told with a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) signal: Signal,
    pub(crate) now_ns: u64,
    pub(crate) deadline: Duration,
    pub(crate) max_output: usize,
    /// What its instance may grow to while it works on this batch.
    pub(crate) max_memory: usize,
    pub(crate) hints: Hints,
}

impl Context {
    fn deadline_us(&self) -> u64 {
        u64::try_from(self.deadline.as_micros()).unwrap_or(u64::MAX)
    }
}

/// What a guest gave back, not checked yet.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) selection: Option<Vec<u8>>,
    pub(crate) columns: Option<Vec<u8>>,
    pub(crate) weight: Option<f64>,
    pub(crate) drops: Vec<DropCount>,
    pub(crate) quarantine: Option<Quarantined>,
}

impl Outcome {
    /// Bytes that a guest chose to give back.
    pub(crate) fn bytes(&self) -> usize {
        let list = |list: &Option<Vec<u8>>| list.as_ref().map_or(0, Vec::len);
        let drops: usize = self
            .drops
            .iter()
            .map(|drop| drop.reason.len() + size_of::<DropCount>())
            .sum();
        let quarantine = self.quarantine.as_ref().map_or(0, |q| q.rows.len() + q.reason.len());
        list(&self.selection) + list(&self.columns) + drops + quarantine
    }
}

#[derive(Debug)]
pub(crate) struct DropCount {
    pub(crate) reason: String,
    pub(crate) rows: u64,
}

#[derive(Debug)]
pub(crate) struct Quarantined {
    pub(crate) rows: Vec<u8>,
    pub(crate) reason: String,
}

/// A component whose imports are satisfied by what one plugin was granted.
pub(crate) enum Prepared {
    V0_1(v0_1::TransformPre<HostState>),
    V1_0(v1_0::TransformPre<HostState>),
}

impl Prepared {
    /// Offers the component what was granted and nothing else; the error names what is missing.
    pub(crate) fn new(
        engine: &wasmtime::Engine,
        component: &Component,
        contract: ContractVersion,
        grants: &Grants,
    ) -> wasmtime::Result<Prepared> {
        let mut linker: Linker<HostState> = Linker::new(engine);
        if contract.major == 0 {
            v0_1::offer(&mut linker, grants)?;
            let pre = linker.instantiate_pre(component)?;
            Ok(Prepared::V0_1(v0_1::TransformPre::new(pre)?))
        } else {
            v1_0::offer(&mut linker, grants)?;
            let pre = linker.instantiate_pre(component)?;
            Ok(Prepared::V1_0(v1_0::TransformPre::new(pre)?))
        }
    }

    pub(crate) fn instantiate(&self, store: &mut Store) -> wasmtime::Result<Guest> {
        Ok(match self {
            Prepared::V0_1(pre) => Guest::V0_1(pre.instantiate(store)?),
            Prepared::V1_0(pre) => Guest::V1_0(pre.instantiate(store)?),
        })
    }
}

/// The exports of one instance.
pub(crate) enum Guest {
    V0_1(v0_1::Transform),
    V1_0(v1_0::Transform),
}

impl Guest {
    pub(crate) fn describe(&self, store: &mut Store) -> wasmtime::Result<Description> {
        match self {
            Guest::V0_1(guest) => v0_1::describe(guest, store),
            Guest::V1_0(guest) => v1_0::describe(guest, store),
        }
    }

    pub(crate) fn init(&self, store: &mut Store, config: &str) -> wasmtime::Result<Result<(), String>> {
        match self {
            Guest::V0_1(guest) => guest.call_init(store, config),
            Guest::V1_0(guest) => guest.sluice_plugin_guest().call_init(store, config),
        }
    }

    pub(crate) fn process(
        &self,
        store: &mut Store,
        batch: &[u8],
        context: &Context,
    ) -> wasmtime::Result<Result<Outcome, String>> {
        match self {
            Guest::V0_1(guest) => v0_1::process(guest, store, batch, context),
            Guest::V1_0(guest) => v1_0::process(guest, store, batch, context),
        }
    }
}
