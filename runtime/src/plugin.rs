//! One plugin: its component, its instances, its breaker and its counts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow_array::RecordBatch;
use sluice_wire::Signal;

use crate::abi::{Context, Description, Prepared};
use crate::answer::{self, Answer};
use crate::breaker::Breaker;
use crate::call::Call;
use crate::clock::{ThreadTime, WallTime};
use crate::columns;
use crate::component::ComponentInfo;
use crate::engine::{Compiled, Engine};
use crate::fault::{Fault, Words};
use crate::host_state::{Now, Shared};
use crate::instance::Instance;
use crate::limits::Limits;
use crate::load::{About, LoadError, PluginConfig};
use crate::lock;
use crate::policy::{self, Kind, OnFault, Verdict};
use crate::pool::{Pool, Wear};
use crate::probe;
use crate::slices;
use crate::stats::{Counters, PluginStats};

/// A loaded plugin. Calls may come from many threads.
pub struct Plugin {
    name: String,
    about: About,
    limits: Limits,
    on_fault: Option<OnFault>,
    signals: Vec<Signal>,
    config: String,
    engine: Arc<Engine>,
    compiled: Arc<Compiled>,
    prepared: Prepared,
    shared: Arc<Shared>,
    started: WallTime,
    enabled: AtomicBool,
    blocked: Mutex<Option<String>>,
    pool: Pool,
    breaker: Mutex<Breaker>,
    counters: Arc<Mutex<Counters>>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("about", &self.about)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// Why a plugin gave no answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) verdict: Verdict,
}

impl Plugin {
    /// The configuration was checked by the caller, as far as that goes without running anything.
    pub(crate) fn load(
        engine: Arc<Engine>,
        compiled: Arc<Compiled>,
        prepared: Prepared,
        shared: Arc<Shared>,
        config: PluginConfig,
    ) -> Result<Plugin, LoadError> {
        let plugin = config.name;
        let limits = config.limits;
        let config_text = match config.config {
            serde_json::Value::Null => "{}".to_owned(),
            value => value.to_string(),
        };
        let start = |source| LoadError::Start {
            plugin: plugin.clone(),
            source,
        };
        let mut instance = engine.instantiate(&prepared, &limits, &shared).map_err(start)?;
        let description = instance.describe().map_err(start)?;
        let wrong = |what| LoadError::Description {
            plugin: plugin.clone(),
            what,
        };
        let mut about = About::new(description).map_err(wrong)?;
        match instance.init(&config_text) {
            Ok(()) => {}
            Err(Fault::Failed(what)) => return Err(LoadError::Config { plugin, what }),
            Err(source) => return Err(start(source)),
        }
        about.narrow(instance.describe().map_err(start)?).map_err(wrong)?;
        Ok(Plugin {
            name: plugin,
            about,
            on_fault: config.on_fault,
            signals: config.signals,
            config: config_text,
            engine,
            compiled,
            prepared,
            shared,
            started: WallTime::now(),
            enabled: AtomicBool::new(config.enabled),
            blocked: Mutex::default(),
            pool: Pool::new(&limits, instance),
            limits,
            breaker: Mutex::new(Breaker::default()),
            counters: Arc::default(),
        })
    }

    /// Its name in the chain.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name that the component gives itself.
    pub fn component_name(&self) -> &str {
        &self.about.description.name
    }

    pub fn version(&self) -> &str {
        &self.about.description.version
    }

    pub fn kind(&self) -> Kind {
        self.about.description.kind
    }

    /// JSON Schema of its configuration; empty if it gives none.
    pub fn config_schema(&self) -> &str {
        &self.about.description.config_schema
    }

    /// All that the component says of itself.
    pub fn description(&self) -> &Description {
        &self.about.description
    }

    /// What the component is and imports.
    pub fn component(&self) -> &ComponentInfo {
        self.compiled.info()
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The kill switch; takes effect with the next batch.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::SeqCst);
    }

    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::SeqCst)
    }

    /// Takes back that it may run, with the reason, or gives it back. Takes effect with the next call: what it is asked then
    /// fails as its kind does.
    pub fn set_blocked(&self, reason: Option<String>) {
        *lock(&self.blocked) = reason;
    }

    /// Why it may not run.
    pub fn blocked(&self) -> Option<String> {
        lock(&self.blocked).clone()
    }

    pub fn stats(&self) -> PluginStats {
        let mut stats =
            lock(&self.counters).snapshot(&self.name, self.version(), self.kind(), self.enabled(), self.breaker());
        stats.log_lines_cut = self.log_lines_cut();
        stats
    }

    pub(crate) fn applies_to(&self, signal: Signal) -> bool {
        self.enabled() && (self.signals.is_empty() || self.signals.contains(&signal))
    }

    pub(crate) fn breaker(&self) -> &'static str {
        lock(&self.breaker).as_str()
    }

    pub(crate) fn log_lines_cut(&self) -> u64 {
        self.shared.log.lines_cut()
    }

    /// They outlive the plugin: what batches at work still count is shown after it was replaced.
    pub(crate) fn counters(&self) -> &Arc<Mutex<Counters>> {
        &self.counters
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut lock(&self.counters));
    }

    /// Runs the plugin over a batch, in slices if it is large. `words` says whose words a fault may be told in.
    pub(crate) fn apply(&self, batch: &RecordBatch, call: &Call<'_>, words: Words) -> Result<Answer, Failure> {
        if let Some(reason) = self.blocked() {
            return Err(self.failure(Fault::Blocked(reason)));
        }
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
        let answer = if self.kind() == Kind::Mask {
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
                let fault = match (self.kind(), words) {
                    (Kind::Mask, _) | (_, Words::OfHost) => fault.without_text(),
                    (_, Words::OfGuest) => fault,
                };
                let probe = lock(&self.breaker).failure(permit);
                if let Some(probe) = probe {
                    let passed = self.passes_probe(call);
                    lock(&self.breaker).probed(probe, passed, self.started.elapsed_ms());
                }
                tracing::warn!(plugin = self.name, %fault, rows = batch.num_rows(), "plugin fault");
                self.count(|counters| {
                    counters.faults += 1;
                    counters.last_fault = Some(fault.to_string());
                });
                Err(self.failure(fault))
            }
        }
    }

    /// What a fault means for a batch of this plugin.
    pub(crate) fn failure(&self, fault: Fault) -> Failure {
        Failure {
            fault,
            verdict: policy::verdict(self.kind(), self.on_fault),
        }
    }

    fn apply_slices(&self, batch: &RecordBatch, call: &Call<'_>) -> Result<Answer, Fault> {
        let declared = columns::select(batch, |name| self.about.hands_over(name)).map_err(input)?;
        let bytes = columns::encoded_bytes(&declared);
        let rows = batch.num_rows();
        let slices = self
            .limits
            .slices(bytes, columns::values(&declared))
            .clamp(1, rows.max(1));
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
        slices::join(answers).map_err(input)
    }

    /// One hand-over, tried again on a fresh instance where that may help.
    fn apply_slice(
        &self,
        batch: &RecordBatch,
        declared: &RecordBatch,
        bytes: usize,
        call: &Call<'_>,
    ) -> Result<Answer, Fault> {
        let input = columns::encode(declared, bytes).map_err(input)?;
        let context = self.context(batch, declared, input.len(), call);
        let mut attempt = 1;
        loop {
            let mut lease = self.pool.acquire(call.tenant, attempt > 1, || self.start())?;
            let fresh = lease.instance.calls() == 0;
            let now = Now {
                tenant: call.tenant,
                now_ns: call.now_ns,
                batch: declared,
            };
            let answer = lease
                .instance
                .process(&input, &context, now)
                .and_then(|outcome| answer::check(outcome, batch, &self.about.writes));
            let memory = lease.instance.memory_bytes() as u64;
            self.count(|counters| counters.memory_bytes = counters.memory_bytes.max(memory));
            match answer {
                Ok(answer) => {
                    lease.release();
                    return Ok(answer);
                }
                Err(fault) => {
                    drop(lease);
                    if !policy::retry(attempt, fresh) {
                        return Err(fault);
                    }
                    self.count(|counters| counters.restarts += 1);
                    attempt += 1;
                }
            }
        }
    }

    /// Whether it does its work on a harmless batch, on an instance of its own that is thrown away, so that the breaker can tell bad
    /// batches from a bad plugin. For the tenant whose batch failed: what the plugin remembers may be what it fails with.
    fn passes_probe(&self, call: &Call<'_>) -> bool {
        let work = || -> Result<(), Fault> {
            let batch = probe::batch(call.signal, call.now_ns).map_err(input)?;
            let declared = columns::select(&batch, |name| self.about.hands_over(name)).map_err(input)?;
            let bytes = columns::encode(&declared, columns::encoded_bytes(&declared)).map_err(input)?;
            let now = Now {
                tenant: call.tenant,
                now_ns: call.now_ns,
                batch: &declared,
            };
            let mut instance = self.start()?;
            let outcome = instance.process(&bytes, &self.context(&batch, &declared, bytes.len(), call), now)?;
            let answer = answer::check(outcome, &batch, &self.about.writes)?;
            answer::carry_out(answer, &batch).map(drop)
        };
        catch_unwind(AssertUnwindSafe(work)).is_ok_and(|result| result.is_ok())
    }

    fn context(&self, batch: &RecordBatch, declared: &RecordBatch, input_bytes: usize, call: &Call<'_>) -> Context {
        let values = columns::values(declared);
        Context {
            signal: call.signal,
            now_ns: call.now_ns,
            deadline: self.limits.deadline_for(batch.num_rows(), input_bytes, values),
            max_output: self.limits.output_for(input_bytes, values),
            max_memory: self.limits.memory_for(input_bytes),
            hints: call.hints,
        }
    }

    /// A fresh instance with its configuration.
    fn start(&self) -> Result<Instance, Fault> {
        let mut instance = self.engine.instantiate(&self.prepared, &self.limits, &self.shared)?;
        instance
            .init(&self.config)
            .map_err(|fault| Fault::Start(fault.to_string()))?;
        Ok(instance)
    }
}

fn input(error: arrow_schema::ArrowError) -> Fault {
    Fault::Input(error.to_string())
}

/// A mask that sets rows aside would let them through as they came.
fn masked(answer: Answer) -> Result<Answer, Fault> {
    match answer.quarantine {
        None => Ok(answer),
        Some(_) => Err(Fault::Invalid("a mask may not quarantine".to_owned())),
    }
}
