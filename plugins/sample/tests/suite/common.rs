//! Batches, a memory as the host has it, and numbers that look random.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::types::UInt16Type;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray,
};
use sample::{Memory, Sample};
use serde_json::Value;
use sluice_plugin::{Batch, Context, Hints, Outcome, Signal};

/// One row, with what the sampler looks at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event {
    pub(crate) trace: Option<u128>,
    pub(crate) trace_state: Option<String>,
    pub(crate) service: &'static str,
    pub(crate) name: Option<String>,
    pub(crate) body: Option<String>,
    pub(crate) severity: Option<i32>,
    pub(crate) status: Option<&'static str>,
    pub(crate) duration_ns: Option<i64>,
    pub(crate) weight: Option<f64>,
    pub(crate) attrs: Vec<(&'static str, &'static str)>,
    pub(crate) http_status: Option<i64>,
    /// What is summed up.
    pub(crate) value: f64,
}

pub(crate) fn batch(events: &[Event]) -> Batch {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    let traces = events.iter().map(|event| event.trace.map(|trace| trace.to_be_bytes()));
    let traces = FixedSizeBinaryArray::try_from_sparse_iter_with_size(traces, 16).unwrap();
    columns.push(("trace_id".to_owned(), Arc::new(traces)));
    let mut dictionary = |name: &str, values: Vec<Option<&str>>| {
        let array: DictionaryArray<UInt16Type> = values.into_iter().collect();
        columns.push((name.to_owned(), Arc::new(array)));
    };
    dictionary(
        "resource:s:service.name",
        events.iter().map(|e| Some(e.service)).collect(),
    );
    dictionary("status", events.iter().map(|e| e.status).collect());
    dictionary("trace_state", events.iter().map(|e| e.trace_state.as_deref()).collect());
    for key in events
        .iter()
        .flat_map(|e| e.attrs.iter().map(|(key, _)| *key))
        .collect::<std::collections::BTreeSet<_>>()
    {
        let value = |e: &Event| e.attrs.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
        let values: StringArray = events.iter().map(value).collect();
        columns.push((format!("attrs:s:{key}"), Arc::new(values)));
    }
    let text =
        |of: fn(&Event) -> Option<&str>| -> ArrayRef { Arc::new(events.iter().map(of).collect::<StringArray>()) };
    columns.push(("name".to_owned(), text(|e| e.name.as_deref())));
    columns.push(("body".to_owned(), text(|e| e.body.as_deref())));
    let severity: Int32Array = events.iter().map(|e| e.severity).collect();
    columns.push(("severity".to_owned(), Arc::new(severity)));
    let duration: Int64Array = events.iter().map(|e| e.duration_ns).collect();
    columns.push(("duration_ns".to_owned(), Arc::new(duration)));
    let http: Int64Array = events.iter().map(|e| e.http_status).collect();
    columns.push(("attrs:i:http.response.status_code".to_owned(), Arc::new(http)));
    let weight: Float64Array = events.iter().map(|e| e.weight).collect();
    columns.push(("weight".to_owned(), Arc::new(weight)));
    // As the wire has it: a column that no row needs is absent.
    columns.retain(|(_, array)| array.logical_null_count() < array.len());
    Batch::from(RecordBatch::try_from_iter(columns).unwrap())
}

/// A kept row: its place in the batch, and how many events it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) row: usize,
    pub(crate) weight: f64,
}

/// What stays of a batch, as the host makes it of the answer.
pub(crate) fn kept(batch: &Batch, outcome: &Outcome) -> Vec<Kept> {
    let column = |name: &str| {
        let given = outcome
            .columns()
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, array)| array);
        given.or_else(|| batch.column(name)).cloned()
    };
    let weights = column("weight");
    let weights = weights.as_ref().map(|weights| weights.as_primitive::<Float64Type>());
    let factor = outcome.weight_factor().unwrap_or(1.0);
    let dropped: u64 = outcome.drops().iter().map(|(_, rows)| rows).sum();
    let rows = (0..batch.rows()).filter(|row| outcome.selection().is_none_or(|selection| selection.value(*row)));
    let weight = |row: usize| weights.filter(|w| w.is_valid(row)).map_or(1.0, |w| w.value(row)) * factor;
    let kept: Vec<Kept> = rows
        .map(|row| Kept {
            row,
            weight: weight(row),
        })
        .collect();
    assert_eq!(kept.len() as u64 + dropped, batch.rows() as u64, "the drops add up");
    assert!(outcome.weight_factor().is_none() || outcome.columns().iter().all(|(name, _)| name != "weight"));
    assert!(kept.iter().all(|kept| kept.weight.is_finite() && kept.weight >= 1.0));
    kept
}

pub(crate) fn dropped(outcome: &Outcome, reason: &str) -> u64 {
    outcome
        .drops()
        .iter()
        .find(|(own, _)| own == reason)
        .map_or(0, |(_, rows)| *rows)
}

pub(crate) fn context(now_s: f64) -> Context {
    Context {
        now: (now_s * 1e9) as u64,
        ..Context::default()
    }
}

pub(crate) fn spans(now_s: f64) -> Context {
    Context {
        signal: Signal::Span,
        ..context(now_s)
    }
}

pub(crate) fn with_hints(context: Context, share: f64, row_bytes: f64) -> Context {
    Context {
        hints: Hints { share, row_bytes },
        ..context
    }
}

/// The memory of a node, shared by its instances.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    now_s: f64,
    room: usize,
    values: BTreeMap<Vec<u8>, (Vec<u8>, f64)>,
}

impl Default for State {
    fn default() -> Self {
        State {
            now_s: 0.0,
            room: 100_000,
            values: BTreeMap::new(),
        }
    }
}

impl Node {
    pub(crate) fn at(&self, now_s: f64) {
        let mut state = self.0.borrow_mut();
        state.now_s = now_s;
        state.values.retain(|_, (_, until)| *until > now_s);
    }

    /// Keys that it has, and at most may have.
    pub(crate) fn limit(&self, keys: usize) {
        self.0.borrow_mut().room = keys;
    }

    pub(crate) fn keys(&self) -> usize {
        self.0.borrow().values.len()
    }

    /// An instance of the plugin on this node.
    pub(crate) fn instance(&self, config: &Value) -> Sample {
        let config = serde_json::from_value(config.clone()).unwrap();
        Sample::new(config, Some(Box::new(self.clone())), entropy()).unwrap()
    }
}

impl State {
    fn put(&mut self, entries: Vec<(Vec<u8>, Vec<u8>)>, until: f64) -> Result<(), String> {
        let fresh = entries.iter().filter(|(key, _)| !self.values.contains_key(key)).count();
        if self.values.len() + fresh > self.room {
            return Err("full".to_owned());
        }
        self.values
            .extend(entries.into_iter().map(|(key, value)| (key, (value, until))));
        Ok(())
    }
}

impl Memory for Node {
    fn get(&self, keys: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
        let state = self.0.borrow();
        keys.iter()
            .map(|key| state.values.get(key).map(|(value, _)| value.clone()))
            .collect()
    }

    fn put(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl_s: Option<u32>) -> Result<(), String> {
        let mut state = self.0.borrow_mut();
        let until = ttl_s.map_or(f64::INFINITY, |ttl_s| state.now_s + f64::from(ttl_s));
        state.put(entries, until)
    }

    fn insert(&self, keys: &[Vec<u8>], ttl_s: u32) -> Result<Vec<bool>, String> {
        let new = |key: &Vec<u8>| {
            let was = self.0.borrow().values.contains_key(key);
            self.put(vec![(key.clone(), Vec::new())], Some(ttl_s)).map(|()| !was)
        };
        keys.iter().map(new).collect()
    }

    fn add(&self, key: &[u8], delta: i64) -> Result<i64, String> {
        let mut state = self.0.borrow_mut();
        let (old, until) = match state.values.get(key) {
            Some((value, until)) => (i64::from_le_bytes(value.as_slice().try_into().unwrap()), *until),
            None => (0, f64::INFINITY),
        };
        let sum = old + delta;
        state.put(vec![(key.to_vec(), sum.to_le_bytes().to_vec())], until)?;
        Ok(sum)
    }
}

/// The same numbers in every run.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// As splitmix64 does it.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From 0 to 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / 2f64.powi(53)
    }

    pub(crate) fn trace(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// About as many of `n` as come up with this chance.
    pub(crate) fn binomial(&mut self, n: f64, chance: f64) -> f64 {
        let normal: f64 = (0..12).map(|_| self.share()).sum::<f64>() - 6.0;
        let spread = (n * chance * (1.0 - chance)).sqrt();
        (n * chance + normal * spread).round().clamp(0.0, n)
    }
}

pub(crate) fn entropy() -> Box<dyn FnMut() -> u64> {
    let mut random = Random(42);
    Box::new(move || random.next())
}
