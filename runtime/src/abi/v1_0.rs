//! Contract 1.0: `guest` as an interface, and the host's capabilities as imports of which only those are there that were
//! granted.

use sluice_wire::Signal;
use wasmtime::component::{HasSelf, Linker};

use super::{Context, Description, DropCount, Outcome, Quarantined, Store};
use crate::capability::matcher::{Hit, Syntax};
use crate::capability::state::{StateProblem, TooMuch};
use crate::capability::{Capability, Grants};
use crate::host_state::HostState;
use crate::log::Level;
use crate::policy::Kind;

#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/plugin.wit",
        world: "transform",
        imports: { default: trappable },
    });
}

use bindings::exports::sluice::plugin::guest;
use bindings::sluice::plugin::{clock, log, lookup, match_, random, state};
pub(crate) use bindings::{Transform, TransformPre};

pub(super) fn offer(linker: &mut Linker<HostState>, grants: &Grants) -> wasmtime::Result<()> {
    for capability in &grants.capabilities {
        match capability {
            Capability::Log => log::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?,
            Capability::Clock => clock::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?,
            Capability::Random => random::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?,
            Capability::State => state::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?,
            Capability::Lookup => lookup::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?,
            Capability::Match => match_::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?,
        }
    }
    Ok(())
}

pub(super) fn describe(guest: &Transform, store: &mut Store) -> wasmtime::Result<Description> {
    let description = guest.sluice_plugin_guest().call_describe(store)?;
    Ok(Description {
        name: description.name,
        version: description.version,
        kind: match description.kind {
            guest::Kind::Mask => Kind::Mask,
            guest::Kind::Sample => Kind::Sample,
            guest::Kind::Enrich => Kind::Enrich,
            guest::Kind::Filter => Kind::Filter,
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
    let context = guest::Context {
        signal: match context.signal {
            Signal::Log => guest::Signal::Log,
            Signal::Span => guest::Signal::Span,
            Signal::Metric => guest::Signal::Metric,
        },
        now: context.now_ns,
        limits: guest::Limits {
            deadline: context.deadline_us(),
            output: context.max_output as u64,
        },
        hints: guest::Hints {
            share: context.hints.share,
            row_bytes: context.hints.row_bytes,
        },
    };
    let answer = guest.sluice_plugin_guest().call_process(store, batch, context)?;
    Ok(answer.map(|outcome| Outcome {
        selection: outcome.selection,
        columns: outcome.columns,
        weight: outcome.weight,
        drops: drops(outcome.drops),
        quarantine: outcome.quarantine.map(|quarantined| Quarantined {
            rows: quarantined.rows,
            reason: quarantined.reason,
        }),
    }))
}

fn drops(counts: Vec<guest::DropCount>) -> Vec<DropCount> {
    let neutral = |count: guest::DropCount| DropCount {
        reason: count.reason,
        rows: count.rows,
    };
    counts.into_iter().map(neutral).collect()
}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, line: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.write_log(level, &line);
        Ok(())
    }
}

impl clock::Host for HostState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.now_ms())
    }
}

impl random::Host for HostState {
    fn number(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random()?.number())
    }

    fn bytes(&mut self, count: u32) -> wasmtime::Result<Vec<u8>> {
        self.random()?.bytes(count).map_err(wasmtime::Error::msg)
    }
}

/// Keys looked at between two looks at the deadline.
const KEYS_AT_ONCE: usize = 256;

impl state::Host for HostState {
    fn get(&mut self, keys: Vec<Vec<u8>>) -> wasmtime::Result<Vec<Option<Vec<u8>>>> {
        let Some(space) = self.space() else {
            return Ok(vec![None; keys.len()]);
        };
        let limit_bytes = self.most_to_guest();
        let mut room = limit_bytes;
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_AT_ONCE) {
            self.look_at_the_time()?;
            let found = space
                .get(keys, self.now_ms(), room)
                .map_err(|_| TooMuch { limit_bytes })?;
            room -= found.iter().flatten().map(Vec::len).sum::<usize>();
            values.extend(found);
        }
        Ok(values)
    }

    fn put(&mut self, entries: Vec<state::Entry>, ttl: Option<u32>) -> wasmtime::Result<Result<(), state::Problem>> {
        let Some(space) = self.space() else {
            return Ok(Err(outside_of_a_batch()));
        };
        let entries: Vec<(Vec<u8>, Vec<u8>)> = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        Ok(space.put(&entries, ttl, self.now_ms()).map_err(state::Problem::from))
    }

    fn insert(&mut self, keys: Vec<Vec<u8>>, ttl: Option<u32>) -> wasmtime::Result<Result<Vec<bool>, state::Problem>> {
        let Some(space) = self.space() else {
            return Ok(Err(outside_of_a_batch()));
        };
        Ok(space.insert(&keys, ttl, self.now_ms()).map_err(state::Problem::from))
    }

    fn add(&mut self, key: Vec<u8>, delta: i64) -> wasmtime::Result<Result<i64, state::Problem>> {
        let Some(space) = self.space() else {
            return Ok(Err(outside_of_a_batch()));
        };
        Ok(space.add(&key, delta, self.now_ms()).map_err(state::Problem::from))
    }

    fn remove(&mut self, keys: Vec<Vec<u8>>) -> wasmtime::Result<()> {
        if let Some(space) = self.space() {
            space.remove(&keys);
        }
        Ok(())
    }
}

/// State belongs to the tenant of a batch; `describe` and `init` have none.
fn outside_of_a_batch() -> state::Problem {
    state::Problem::Invalid("there is state only while a batch is processed".to_owned())
}

impl From<StateProblem> for state::Problem {
    fn from(problem: StateProblem) -> Self {
        match problem {
            StateProblem::Full => state::Problem::Full,
            StateProblem::Invalid(what) => state::Problem::Invalid(what),
        }
    }
}

impl lookup::Host for HostState {
    fn tables(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.granted_tables().names())
    }

    fn fields(&mut self, table: String) -> wasmtime::Result<Result<Vec<String>, String>> {
        Ok(self.granted_tables().fields(&table))
    }

    fn find(
        &mut self,
        table: String,
        keys: Vec<String>,
        fields: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Option<String>>, String>> {
        let late = || self.deadline.passed();
        Ok(self
            .granted_tables()
            .find(&table, &keys, &fields, self.most_to_guest(), &late))
    }
}

impl match_::Host for HostState {
    fn compile(&mut self, patterns: Vec<match_::Pattern>) -> wasmtime::Result<Result<u32, String>> {
        let syntax = |syntax| match syntax {
            match_::Syntax::Literal => Syntax::Literal,
            match_::Syntax::LiteralAnyCase => Syntax::LiteralAnyCase,
            match_::Syntax::Regex => Syntax::Regex,
        };
        let patterns: Vec<(Syntax, String)> = patterns.into_iter().map(|p| (syntax(p.syntax), p.text)).collect();
        let (sets, deadline) = self.pattern_sets();
        Ok(sets.compile(&patterns, &|| deadline.passed()))
    }

    fn find(
        &mut self,
        patterns: u32,
        offsets: Vec<i32>,
        bytes: Vec<u8>,
    ) -> wasmtime::Result<Result<Vec<match_::Hit>, String>> {
        let (sets, deadline) = self.pattern_sets();
        Ok(sets.find(patterns, &offsets, &bytes, &|| deadline.passed()).map(hits))
    }

    fn find_in_column(&mut self, patterns: u32, column: String) -> wasmtime::Result<Result<Vec<match_::Hit>, String>> {
        let texts = match self.column(&column) {
            Ok(texts) => texts,
            Err(what) => return Ok(Err(what)),
        };
        let (sets, deadline) = self.pattern_sets();
        let found = sets.find_in_column(patterns, &texts, &|| deadline.passed());
        Ok(found.map_err(|what| format!("column `{column}`: {what}")).map(hits))
    }
}

fn hits(found: Vec<Hit>) -> Vec<match_::Hit> {
    let bound = |hit: Hit| match_::Hit {
        text: hit.text,
        pattern: hit.pattern,
        start: hit.start,
        end: hit.end,
    };
    found.into_iter().map(bound).collect()
}
