//! One plugin: its component, its instances, its breaker and its counts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use sluice_wire::Signal;

use crate::abi;
use crate::answer::{self, Answer};
use crate::breaker::Breaker;
use crate::call::Call;
use crate::capability::Grants;
use crate::clock::{ThreadTime, WallTime};
use crate::columns;
use crate::engine::{Compiled, ComponentError, Engine, Instance};
use crate::fault::Fault;
use crate::limits::Limits;
use crate::lock;
use crate::log::LogSink;
use crate::pattern::Patterns;
use crate::policy::{self, Kind, OnFault, Verdict};
use crate::stats::{Counters, PluginStats};

/// Share of its memory that an instance may fill before it is replaced: a guest that leaks is recycled before it fails.
const HIGH_WATER_PERCENT: usize = 75;

/// One entry of the chain, as configured.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// Its name in this chain; it appears in counts and in refusals.
    pub name: String,
    pub component: Vec<u8>,
    pub config: serde_json::Value,
    pub limits: Limits,
    /// What becomes of rows when the plugin fails; a mask refuses them whatever stands here.
    pub on_fault: Option<OnFault>,
    pub enabled: bool,
    /// Signals that it is applied to; empty means all.
    pub signals: Vec<Signal>,
    /// What of the host it may use.
    pub grants: Grants,
}

/// Why a plugin cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("plugin `{plugin}`: {source}")]
    Component { plugin: String, source: ComponentError },
    #[error("plugin `{plugin}`: {source}")]
    Engine {
        plugin: String,
        source: crate::engine::EngineError,
    },
    #[error("plugin `{plugin}`: limits: {what}")]
    Limits { plugin: String, what: String },
    #[error("plugin `{plugin}`: description: {what}")]
    Description { plugin: String, what: String },
    #[error("plugin `{plugin}` refuses its configuration: {what}")]
    Config { plugin: String, what: String },
    #[error("plugin `{plugin}`: {source}")]
    Start { plugin: String, source: Fault },
    #[error("a plugin's name must be 1 to {MAX_NAME} letters, digits, `_`, `.` or `-`: {name:?}")]
    Name { name: String },
}

/// Bytes of a name.
const MAX_NAME: usize = 64;

/// A loaded plugin. Calls may come from many threads.
#[derive(Debug)]
pub struct Plugin {
    name: String,
    about: About,
    limits: Limits,
    on_fault: Option<OnFault>,
    signals: Vec<Signal>,
    config: String,
    engine: Arc<Engine>,
    compiled: Arc<Compiled>,
    log: Arc<LogSink>,
    started: WallTime,
    enabled: AtomicBool,
    pool: Mutex<Pool>,
    returned: Condvar,
    breaker: Mutex<Breaker>,
    counters: Mutex<Counters>,
}

/// What the component says of itself.
#[derive(Clone, Debug)]
struct About {
    name: String,
    version: String,
    kind: Kind,
    reads: Patterns,
    writes: Patterns,
    config_schema: String,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Instance>,
    /// Instances that exist, idle ones included.
    alive: usize,
}

/// Why a plugin gave no answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) verdict: Verdict,
}

impl Plugin {
    /// The limits were checked by the caller.
    pub(crate) fn load(
        engine: Arc<Engine>,
        compiled: Arc<Compiled>,
        config: PluginConfig,
    ) -> Result<Plugin, LoadError> {
        let plugin = config.name;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if plugin.is_empty() || plugin.len() > MAX_NAME || !plugin.bytes().all(named) {
            return Err(LoadError::Name { name: plugin });
        }
        let limits = config.limits;
        let log = Arc::new(LogSink::new(&plugin, limits.log_bytes, limits.log_lines_per_second));
        let config_text = match config.config {
            serde_json::Value::Null => "{}".to_owned(),
            value => value.to_string(),
        };
        let start = |source| LoadError::Start {
            plugin: plugin.clone(),
            source,
        };
        let mut instance = engine.instantiate(&compiled, &limits, &log).map_err(start)?;
        let description = instance.describe().map_err(start)?;
        let about = About::new(description).map_err(|what| LoadError::Description {
            plugin: plugin.clone(),
            what,
        })?;
        match instance.init(&config_text) {
            Ok(()) => {}
            Err(Fault::Failed(what)) => return Err(LoadError::Config { plugin, what }),
            Err(source) => return Err(start(source)),
        }
        Ok(Plugin {
            name: plugin,
            about,
            limits,
            on_fault: config.on_fault,
            signals: config.signals,
            config: config_text,
            engine,
            compiled,
            log,
            started: WallTime::now(),
            enabled: AtomicBool::new(config.enabled),
            pool: Mutex::new(Pool {
                idle: vec![instance],
                alive: 1,
            }),
            returned: Condvar::new(),
            breaker: Mutex::new(Breaker::default()),
            counters: Mutex::new(Counters::default()),
        })
    }

    /// Its name in the chain.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name that the component gives itself.
    pub fn component_name(&self) -> &str {
        &self.about.name
    }

    pub fn version(&self) -> &str {
        &self.about.version
    }

    pub fn kind(&self) -> Kind {
        self.about.kind
    }

    /// JSON Schema of its configuration; empty if it gives none.
    pub fn config_schema(&self) -> &str {
        &self.about.config_schema
    }

    /// The kill switch; takes effect with the next batch.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::SeqCst);
    }

    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::SeqCst)
    }

    pub fn stats(&self) -> PluginStats {
        let breaker = lock(&self.breaker).as_str();
        let mut stats = lock(&self.counters).snapshot(
            &self.name,
            &self.about.version,
            self.about.kind,
            self.enabled(),
            breaker,
        );
        stats.log_lines_cut = self.log.lines_cut();
        stats
    }

    pub(crate) fn applies_to(&self, signal: Signal) -> bool {
        self.enabled() && (self.signals.is_empty() || self.signals.contains(&signal))
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut lock(&self.counters));
    }

    /// Runs the plugin over a batch, in slices if it is large.
    pub(crate) fn apply(&self, batch: &RecordBatch, call: &Call<'_>) -> Result<Answer, Failure> {
        let Some(permit) = lock(&self.breaker).admit(self.started.elapsed_ms()) else {
            let faults = lock(&self.breaker).faults_in_a_row();
            return Err(self.failure(Fault::Open(faults)));
        };
        let thread = ThreadTime::now();
        // Whatever a guest's answer does to the code that reads it stays a fault of the guest.
        let answer = catch_unwind(AssertUnwindSafe(|| {
            self.apply_slices(batch, call)
                .and_then(|answer| answer::carry_out(answer, batch))
        }))
        .unwrap_or_else(|_| Err(Fault::Invalid("an answer that cannot be handled".to_owned())));
        let answer = if self.about.kind == Kind::Mask {
            answer.and_then(masked)
        } else {
            answer
        };
        let cpu_ns = u64::try_from(thread.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.count(|counters| counters.cpu_ns = counters.cpu_ns.saturating_add(cpu_ns));
        match answer {
            Ok(answer) => {
                lock(&self.breaker).success(permit);
                Ok(answer)
            }
            Err(fault) => {
                let fault = if self.about.kind == Kind::Mask {
                    fault.without_text()
                } else {
                    fault
                };
                lock(&self.breaker).failure(permit, self.started.elapsed_ms());
                tracing::warn!(plugin = self.name, %fault, rows = batch.num_rows(), "plugin fault");
                self.count(|counters| {
                    counters.faults += 1;
                    counters.last_fault = Some(fault.to_string());
                });
                Err(self.failure(fault))
            }
        }
    }

    fn failure(&self, fault: Fault) -> Failure {
        Failure {
            fault,
            verdict: policy::verdict(self.about.kind, self.on_fault),
        }
    }

    fn apply_slices(&self, batch: &RecordBatch, call: &Call<'_>) -> Result<Answer, Fault> {
        let declared = columns::select(batch, &self.about.reads).map_err(input)?;
        let bytes = columns::encoded_bytes(&declared);
        let rows = batch.num_rows();
        let slices = bytes.div_ceil(self.limits.max_input_bytes).clamp(1, rows.max(1));
        if slices == 1 {
            return self.apply_slice(batch, &declared, bytes, call);
        }
        let per_slice = rows.div_ceil(slices);
        let mut answers = Vec::with_capacity(slices);
        for from in (0..rows).step_by(per_slice) {
            let length = per_slice.min(rows - from);
            let own = batch.slice(from, length);
            let declared = declared.slice(from, length);
            let bytes = columns::encoded_bytes(&declared);
            let answer = self.apply_slice(&own, &declared, bytes, call)?;
            answers.push((own, answer));
        }
        join(answers).map_err(input)
    }

    /// One hand-over, tried again on a fresh instance where that may help.
    fn apply_slice(
        &self,
        batch: &RecordBatch,
        declared: &RecordBatch,
        bytes: usize,
        call: &Call<'_>,
    ) -> Result<Answer, Fault> {
        let input_bytes = columns::encode(declared, bytes).map_err(input)?;
        let budget = self.limits.deadline_for(batch.num_rows());
        let max_output = self.limits.output_for(input_bytes.len());
        let mut attempt = 1;
        loop {
            let mut instance = self.acquire(attempt > 1)?;
            let fresh = instance.calls() == 0;
            let context = context(call, budget);
            let answer = instance
                .process(&input_bytes, context, budget, max_output)
                .and_then(|outcome| answer::check(outcome, batch, &self.about.writes));
            let memory = instance.memory_bytes() as u64;
            self.count(|counters| counters.memory_bytes = counters.memory_bytes.max(memory));
            match answer {
                Ok(answer) => {
                    self.release(instance);
                    return Ok(answer);
                }
                Err(fault) => {
                    self.discard(instance);
                    if !policy::retry(attempt, fresh) {
                        return Err(fault);
                    }
                    attempt += 1;
                }
            }
        }
    }

    /// An idle instance or a new one; waits while too many are at work.
    fn acquire(&self, fresh: bool) -> Result<Instance, Fault> {
        let mut pool = lock(&self.pool);
        loop {
            if !fresh && let Some(instance) = pool.idle.pop() {
                return Ok(instance);
            }
            if pool.alive < self.limits.max_instances {
                pool.alive += 1;
                break;
            }
            // Only idle instances are in the way of a fresh one.
            if fresh && let Some(old) = pool.idle.pop() {
                drop(old);
                break;
            }
            pool = self
                .returned
                .wait(pool)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        drop(pool);
        let place = Place { plugin: self };
        let mut instance = self.engine.instantiate(&self.compiled, &self.limits, &self.log)?;
        instance
            .init(&self.config)
            .map_err(|fault| Fault::Start(fault.to_string()))?;
        std::mem::forget(place);
        Ok(instance)
    }

    fn release(&self, instance: Instance) {
        let high_water = self.limits.memory_bytes / 100 * HIGH_WATER_PERCENT;
        let worn = instance.calls() >= self.limits.recycle_after || instance.memory_bytes() > high_water;
        let mut pool = lock(&self.pool);
        if worn || pool.idle.len() >= self.limits.idle_instances {
            drop(pool);
            self.discard(instance);
        } else {
            pool.idle.push(instance);
            drop(pool);
            self.returned.notify_one();
        }
    }

    fn discard(&self, instance: Instance) {
        drop(instance);
        drop(Place { plugin: self });
    }
}

/// A place among the instances; given back when dropped.
struct Place<'a> {
    plugin: &'a Plugin,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut pool = lock(&self.plugin.pool);
        pool.alive = pool.alive.saturating_sub(1);
        drop(pool);
        self.plugin.returned.notify_one();
    }
}

impl About {
    fn new(description: abi::Description) -> Result<About, String> {
        const MAX_TEXT: usize = 64;
        for (what, text) in [("name", &description.name), ("version", &description.version)] {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-+".contains(&byte);
            if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(allowed) {
                return Err(format!(
                    "its {what} must be 1 to {MAX_TEXT} letters, digits, `_`, `.`, `-` or `+`"
                ));
            }
        }
        Ok(About {
            name: description.name,
            version: description.version,
            kind: match description.kind {
                abi::Kind::Mask => Kind::Mask,
                abi::Kind::Sample => Kind::Sample,
                abi::Kind::Enrich => Kind::Enrich,
                abi::Kind::Filter => Kind::Filter,
            },
            reads: Patterns::new(description.reads)?,
            writes: Patterns::new(description.writes)?,
            config_schema: description.config_schema,
        })
    }
}

fn context(call: &Call<'_>, budget: Duration) -> abi::Context {
    abi::Context {
        signal: match call.signal {
            Signal::Log => abi::Signal::Log,
            Signal::Span => abi::Signal::Span,
            Signal::Metric => abi::Signal::Metric,
        },
        now: call.now_ns,
        budget: u64::try_from(budget.as_micros()).unwrap_or(u64::MAX),
    }
}

fn input(error: arrow_schema::ArrowError) -> Fault {
    Fault::Input(error.to_string())
}

/// The answers for the slices of a batch as one.
fn join(answers: Vec<(RecordBatch, Answer)>) -> Result<Answer, arrow_schema::ArrowError> {
    let mut joined = Answer::default();
    let keep = |a: &Answer| a.keep.clone();
    joined.keep = join_bits(&answers, keep, true);
    let quarantined = |a: &Answer| a.quarantine.as_ref().map(|(rows, _)| rows.clone());
    if let Some(rows) = join_bits(&answers, quarantined, false) {
        let reason = answers.iter().find_map(|(_, answer)| answer.quarantine.as_ref());
        joined.quarantine = reason.map(|(_, reason)| (rows, reason.clone()));
    }
    let mut names: Vec<String> = Vec::new();
    for (_, answer) in &answers {
        for (reason, rows) in &answer.drops {
            *joined.drops.entry(reason.clone()).or_default() += rows;
        }
        for field in answer.columns.iter().flat_map(|c| c.schema_ref().fields()) {
            if !names.contains(field.name()) {
                names.push(field.name().clone());
            }
        }
    }
    if !names.is_empty() {
        let mut stacked: Vec<(String, ArrayRef, bool)> = Vec::with_capacity(names.len());
        for name in names {
            let pieces: Vec<Option<&ArrayRef>> = answers
                .iter()
                .map(|(batch, answer)| {
                    let changed = answer.columns.as_ref();
                    changed
                        .and_then(|columns| columns.column_by_name(&name))
                        .or_else(|| batch.column_by_name(&name))
                })
                .collect();
            let lengths = answers.iter().map(|(batch, _)| batch.num_rows());
            stacked.push((name, columns::stack_column(&pieces, lengths)?, true));
        }
        joined.columns = Some(RecordBatch::try_from_iter_with_nullable(stacked)?);
    }
    Ok(joined)
}

fn join_bits(
    answers: &[(RecordBatch, Answer)],
    bits: impl Fn(&Answer) -> Option<BooleanBuffer>,
    default: bool,
) -> Option<BooleanBuffer> {
    answers.iter().find_map(|(_, answer)| bits(answer))?;
    let rows = answers.iter().map(|(batch, _)| batch.num_rows()).sum();
    let mut all = BooleanBufferBuilder::new(rows);
    for (batch, answer) in answers {
        match bits(answer) {
            Some(bits) => all.append_buffer(&bits),
            None => all.append_n(batch.num_rows(), default),
        }
    }
    Some(all.finish())
}
/// A mask that sets rows aside would let them through as they came.
fn masked(answer: Answer) -> Result<Answer, Fault> {
    match answer.quarantine {
        None => Ok(answer),
        Some(_) => Err(Fault::Invalid("a mask may not quarantine".to_owned())),
    }
}
