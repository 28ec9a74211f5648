//! Contract 0.1: the first one, whose only capability is `log`.

use sluice_wire::Signal;
use wasmtime::component::{HasSelf, Linker};

use super::{Context, Description, DropCount, Outcome, Quarantined, Store};
use crate::capability::{Capability, Grants};
use crate::host_state::HostState;
use crate::log::Level;
use crate::policy::Kind;

#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
mod bindings {
    wasmtime::component::bindgen!({ path: "../wit/released/0.1.0", world: "transform" });
}

use bindings::sluice::plugin::{log, types};
pub(crate) use bindings::{Transform, TransformPre};

pub(super) fn offer(linker: &mut Linker<HostState>, grants: &Grants) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    if grants.capabilities.contains(&Capability::Log) {
        log::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    }
    Ok(())
}

impl types::Host for HostState {}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, line: String) {
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.write_log(level, &line);
    }
}

pub(super) fn describe(guest: &Transform, store: &mut Store) -> wasmtime::Result<Description> {
    let description = guest.call_describe(store)?;
    Ok(Description {
        name: description.name,
        version: description.version,
        kind: match description.kind {
            types::Kind::Mask => Kind::Mask,
            types::Kind::Sample => Kind::Sample,
            types::Kind::Enrich => Kind::Enrich,
            types::Kind::Filter => Kind::Filter,
        },
        reads: description.reads,
        writes: description.writes,
        config_schema: description.config_schema,
    })
}

pub(super) fn process(
    guest: &Transform,
    store: &mut Store,
    batch: &[u8],
    context: &Context,
) -> wasmtime::Result<Result<Outcome, String>> {
    let context = types::Context {
        signal: match context.signal {
            Signal::Log => types::Signal::Log,
            Signal::Span => types::Signal::Span,
            Signal::Metric => types::Signal::Metric,
        },
        now: context.now_ns,
        budget: context.deadline_us(),
    };
    let answer = guest.call_process(store, batch, context)?;
    Ok(answer.map(|outcome| Outcome {
        selection: outcome.selection,
        columns: outcome.columns,
        weight: None,
        drops: drops(outcome.drops),
        quarantine: outcome.quarantine.map(|quarantined| Quarantined {
            rows: quarantined.rows,
            reason: quarantined.reason,
        }),
    }))
}

fn drops(counts: Vec<types::DropCount>) -> Vec<DropCount> {
    let neutral = |count: types::DropCount| DropCount {
        reason: count.reason,
        rows: count.rows,
    };
    counts.into_iter().map(neutral).collect()
}
