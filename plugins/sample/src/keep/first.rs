//! The first event of each pattern: what a service never said before is worth keeping, however low the rate.
//!
//! A pattern is the service, the template of the name and the template of the body. What was seen is known to the host, so
//! that instances agree; an instance remembers a part of it in order to ask seldom.

use std::collections::HashMap;

use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use sluice_plugin::Batch;

use crate::config::First;
use crate::memory::{self, Memory, Space};
use crate::pattern;
use crate::rows;
use crate::units;

/// Patterns that an instance remembers, 32 KiB; one takes the place of another with the same low bits.
const REMEMBERED: usize = 4096;
const NANOS: u64 = 1_000_000_000;
const HOUR_S: u64 = 3600;

#[derive(Debug)]
pub(super) struct FirstOfPattern {
    ttl_s: u32,
    per_hour: u32,
    remembered: Vec<u64>,
    /// Until when, nanoseconds since 1970. What the host forgets in the meantime is noticed at most half of the time to live later.
    remembered_until: u64,
    /// The hour whose count was begun in the host.
    hour: u64,
}

impl FirstOfPattern {
    pub(super) fn new(config: &First) -> Result<FirstOfPattern, String> {
        let ttl_ns = units::nanoseconds(&config.ttl).map_err(|e| format!("keep_first.ttl: {e}"))?;
        let ttl_s = u32::try_from(ttl_ns / NANOS).unwrap_or(u32::MAX);
        if ttl_s == 0 {
            return Err("keep_first.ttl: less than a second".to_owned());
        }
        Ok(FirstOfPattern {
            ttl_s,
            per_hour: config.per_hour,
            remembered: vec![0; REMEMBERED],
            remembered_until: 0,
            hour: 0,
        })
    }

    /// Adds the first rows of patterns to the rows kept for other reasons.
    pub(super) fn also(
        &mut self,
        batch: &Batch,
        kept: BooleanBuffer,
        memory: &dyn Memory,
        now_ns: u64,
    ) -> Result<BooleanBuffer, String> {
        if now_ns >= self.remembered_until {
            self.remembered.fill(0);
            self.remembered_until = now_ns.saturating_add(u64::from(self.ttl_s) * NANOS / 2);
        }
        let unknown = self.unknown(batch, &kept)?;
        if unknown.is_empty() {
            return Ok(kept);
        }
        let new = self.new_ones(&unknown, memory, now_ns / NANOS / HOUR_S);
        if new.is_empty() {
            return Ok(kept);
        }
        let mut keep = BooleanBufferBuilder::new(kept.len());
        keep.append_buffer(&kept);
        for row in new {
            keep.set_bit(row, true);
        }
        Ok(keep.finish())
    }

    /// Patterns that this instance does not remember, each with its first row.
    fn unknown(&self, batch: &Batch, kept: &BooleanBuffer) -> Result<Vec<(u64, usize)>, String> {
        let count = batch.rows();
        let services = batch.text("resource:s:service.name")?;
        let services = rows::map_text(&services, count, 1, |service| pattern::hash(service.as_bytes()));
        let names = rows::map_text(&batch.text("name")?, count, 2, pattern::fingerprint);
        let body = batch.text("body")?;
        let bodies = rows::map_text(&body, count, 3, pattern::fingerprint);
        let mut unknown = Vec::new();
        let mut places: HashMap<u64, ()> = HashMap::new();
        for row in 0..count {
            // 0 means: nothing remembered.
            let pattern = pattern::mix(pattern::mix(services[row], names[row]), bodies[row]).max(1);
            let known = self.remembered[pattern as usize % REMEMBERED] == pattern;
            if !known && !kept.value(row) && places.insert(pattern, ()).is_none() {
                unknown.push((pattern, row));
            }
        }
        Ok(unknown)
    }

    /// The rows of those patterns that nobody has seen, as many as an hour may have.
    fn new_ones(&mut self, unknown: &[(u64, usize)], memory: &dyn Memory, hour: u64) -> Vec<usize> {
        let count_key = Space::Hour.key(hour);
        if self.hour != hour {
            // Two hours, so that a batch at the turn still finds its number. Without room nothing is counted.
            let _ = memory::begin(memory, std::slice::from_ref(&count_key), 2 * HOUR_S as u32);
            self.hour = hour;
        }
        let keys: Vec<_> = unknown
            .iter()
            .map(|(pattern, _)| Space::Pattern.key(*pattern))
            .collect();
        // What is over the limit must not become known, so what is known is asked for first.
        let known = memory.get(&keys);
        let news: Vec<usize> = (0..keys.len())
            .filter(|at| known.get(*at).is_none_or(Option::is_none))
            .collect();
        for (at, (pattern, _)) in unknown.iter().enumerate() {
            if known.get(at).is_some_and(Option::is_some) {
                self.remembered[*pattern as usize % REMEMBERED] = *pattern;
            }
        }
        let used = memory.add(&count_key, 0).unwrap_or(0);
        let room = usize::try_from(i64::from(self.per_hour) - used).unwrap_or(0);
        let news = &news[..news.len().min(room)];
        if news.is_empty() {
            return Vec::new();
        }
        let keys: Vec<_> = news.iter().map(|at| keys[*at].clone()).collect();
        // Without room in the host no pattern can be called new.
        let Ok(new) = memory.insert(&keys, self.ttl_s) else {
            return Vec::new();
        };
        let mut first = Vec::new();
        for (at, new) in news.iter().zip(new) {
            let (pattern, row) = unknown[*at];
            self.remembered[pattern as usize % REMEMBERED] = pattern;
            if new {
                first.push(row);
            }
        }
        let _ = memory.add(&count_key, first.len() as i64);
        first
    }
}
