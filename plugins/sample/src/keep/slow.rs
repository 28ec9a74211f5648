//! The slowest of each kind of span: those above a quantile of their service and name.
//!
//! The threshold of a group follows its durations by stochastic approximation: it rises by `step * quantile` with a span above
//! it and sinks by `step * (1 - quantile)` with one below, so it comes to rest where the quantile is. That takes one number
//! a group, adapts, and survives that two instances write at the same time: an update is lost, not the threshold.

use std::collections::HashMap;

use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use sluice_plugin::{Batch, Ints};

use crate::memory::{Memory, Space};
use crate::pattern;
use crate::rows;

/// Groups are kept in so many values of the host, each with so many groups of 20 bytes: 1,024 groups in some 28 KiB.
const PAGES: u64 = 32;
const PAGE_GROUPS: usize = 32;
/// Spans of a group before its threshold means anything.
const LEAST_SPANS: u32 = 200;
/// A group that was silent for so long makes room for another.
const SILENT_S: u32 = 600;
const TTL_S: u32 = 86_400;
/// Steps in octaves: from the largest at the beginning down to one that follows changes within some thousand spans and
/// leaves the threshold within a tenth of an octave.
const FIRST_STEP: f32 = 1.0;
const LAST_STEP: f32 = 0.05;
const STEP_SPANS: f32 = 40.0;

/// What is known of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Group {
    id: u64,
    /// Octaves of nanoseconds.
    threshold: f32,
    spans: u32,
    /// Seconds since 1970.
    last: u32,
}

impl Group {
    const BYTES: usize = 20;

    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.id.to_le_bytes());
        to.extend_from_slice(&self.threshold.to_le_bytes());
        to.extend_from_slice(&self.spans.to_le_bytes());
        to.extend_from_slice(&self.last.to_le_bytes());
    }

    fn read(bytes: &[u8; Group::BYTES]) -> Group {
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let low = u64::from(u32::from_le_bytes(four(0)));
        Group {
            id: low | u64::from(u32::from_le_bytes(four(4))) << 32,
            threshold: f32::from_le_bytes(four(8)),
            spans: u32::from_le_bytes(four(12)),
            last: u32::from_le_bytes(four(16)),
        }
    }

    fn observe(&mut self, octaves: f32, quantile: f32) {
        let step = (STEP_SPANS / (self.spans as f32 + 1.0)).clamp(LAST_STEP, FIRST_STEP);
        if self.spans == 0 {
            self.threshold = octaves;
        } else if octaves > self.threshold {
            self.threshold += step * quantile;
        } else {
            self.threshold -= step * (1.0 - quantile);
        }
        self.spans = self.spans.saturating_add(1);
    }
}

#[derive(Debug)]
pub(super) struct Slowest {
    quantile: f32,
}

impl Slowest {
    pub(super) fn new(quantile: f64) -> Result<Slowest, String> {
        if !(0.5..=0.9999).contains(&quantile) {
            return Err(format!("keep_slow.quantile = {quantile} is not between 0.5 and 0.9999"));
        }
        Ok(Slowest {
            quantile: quantile as f32,
        })
    }

    /// Spans above the threshold that their group had before this batch.
    pub(super) fn rows(&mut self, batch: &Batch, memory: &dyn Memory, now_ns: u64) -> Result<BooleanBuffer, String> {
        let count = batch.rows();
        let durations = batch.ints("duration_ns")?;
        let mut slow = BooleanBufferBuilder::new(count);
        slow.append_n(count, false);
        if let Ints::Absent = durations {
            return Ok(slow.finish());
        }
        let services = batch.text("resource:s:service.name")?;
        let services = rows::map_text(&services, count, 1, |service| pattern::hash(service.as_bytes()));
        let names = rows::map_text(&batch.text("name")?, count, 2, |name| pattern::hash(name.as_bytes()));
        let mut rows_by_group: HashMap<u64, Vec<(usize, f32)>> = HashMap::new();
        for row in 0..count {
            if let Some(ns) = durations.get(row).and_then(|ns| u64::try_from(ns).ok()) {
                let id = pattern::mix(services[row], names[row]);
                rows_by_group.entry(id).or_default().push((row, octaves(ns)));
            }
        }
        let mut by_page: HashMap<u64, Vec<u64>> = HashMap::new();
        for id in rows_by_group.keys() {
            by_page.entry(id % PAGES).or_default().push(*id);
        }
        let now_s = u32::try_from(now_ns / 1_000_000_000).unwrap_or(u32::MAX);
        let by_page: Vec<(u64, Vec<u64>)> = by_page.into_iter().collect();
        let keys: Vec<_> = by_page.iter().map(|(page, _)| Space::Slow.key(*page)).collect();
        let mut changed = Vec::with_capacity(keys.len());
        for ((key, value), (_, ids)) in keys.iter().zip(memory.get(&keys)).zip(&by_page) {
            let mut groups = read_page(value.as_deref().unwrap_or_default());
            for id in ids {
                let Some(group) = seat(&mut groups, *id, now_s) else {
                    continue;
                };
                let before = *group;
                for (row, octaves) in &rows_by_group[id] {
                    if before.spans >= LEAST_SPANS && *octaves > before.threshold {
                        slow.set_bit(*row, true);
                    }
                    group.observe(*octaves, self.quantile);
                }
                group.last = now_s;
            }
            changed.push((key.clone(), write_page(&groups)));
        }
        // Without room in the host the thresholds stay as they were; there may be none.
        let _ = memory.put(changed, Some(TTL_S));
        Ok(slow.finish())
    }
}

/// The group's place: its own, a free one, or that of the group that was silent for longest, if that is long enough.
fn seat(groups: &mut Vec<Group>, id: u64, now_s: u32) -> Option<&mut Group> {
    let place = match groups.iter().position(|group| group.id == id) {
        Some(place) => place,
        None => {
            let fresh = Group {
                id,
                threshold: 0.0,
                spans: 0,
                last: now_s,
            };
            if groups.len() < PAGE_GROUPS {
                groups.push(fresh);
                groups.len() - 1
            } else {
                let silent = (0..groups.len()).min_by_key(|place| groups[*place].last)?;
                if groups[silent].last.saturating_add(SILENT_S) > now_s {
                    return None;
                }
                groups[silent] = fresh;
                silent
            }
        }
    };
    groups.get_mut(place)
}

fn read_page(bytes: &[u8]) -> Vec<Group> {
    let (groups, _) = bytes.as_chunks::<{ Group::BYTES }>();
    groups.iter().map(Group::read).collect()
}

fn write_page(groups: &[Group]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(groups.len() * Group::BYTES);
    groups.iter().for_each(|group| group.write(&mut bytes));
    bytes
}

/// The binary logarithm with straight lines between powers of two: it orders durations as they are, and is cheap.
fn octaves(ns: u64) -> f32 {
    let ns = ns.max(1);
    let whole = ns.ilog2();
    let fraction = (ns << ns.leading_zeros() << 1) as f64 / 2f64.powi(64);
    (f64::from(whole) + fraction) as f32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Numbers that look random and are the same in every run.
    fn uniform(seed: u64, n: u64) -> f64 {
        (pattern::mix(seed, n) >> 11) as f64 / 2f64.powi(53)
    }

    #[test]
    fn the_threshold_comes_to_rest_at_the_quantile_and_follows_it() {
        for quantile in [0.9, 0.99, 0.999] {
            let mut group = Group {
                id: 1,
                threshold: 0.0,
                spans: 0,
                last: 0,
            };
            for (scale, from) in [(1e6, 0), (5e6, 1_000_000), (1e6, 2_000_000)] {
                let mut above = 0;
                for n in 0..140_000u64 {
                    // A long tail: a tenth of the requests takes ten times the typical time and more.
                    let ns = scale * uniform(1, from + n).max(1e-9).powf(-1.0);
                    let octaves = octaves(ns as u64);
                    if n >= 40_000 {
                        above += usize::from(octaves > group.threshold);
                    }
                    group.observe(octaves, quantile as f32);
                }
                let share = f64::from(above as u32) / 100_000.0;
                assert!(
                    share < (1.0 - quantile) * 1.5 + 1e-4 && share > (1.0 - quantile) * 0.4,
                    "{quantile}, {scale}: {share}"
                );
            }
        }
    }

    #[test]
    fn octaves_order_durations() {
        let all = [0, 1, 2, 3, 4, 1000, 1023, 1024, 1_000_000, 1 << 40, u64::MAX];
        assert!(all.windows(2).all(|pair| octaves(pair[0]) <= octaves(pair[1])));
        assert_eq!(octaves(1 << 30), 30.0);
        assert_eq!(octaves(3 << 29), 30.5);
    }

    #[test]
    fn pages_are_bounded_and_silent_groups_make_room() {
        let mut groups = Vec::new();
        for id in 0..PAGE_GROUPS as u64 {
            assert!(seat(&mut groups, id, 1000 + id as u32).is_some());
        }
        assert_eq!(read_page(&write_page(&groups)), groups);
        assert!(seat(&mut groups, 99, 1000 + SILENT_S - 1).is_none());
        assert_eq!(seat(&mut groups, 99, 1000 + SILENT_S).unwrap().spans, 0);
        assert!(
            !groups.iter().any(|group| group.id == 0),
            "the one that was silent for longest is gone"
        );
        assert_eq!(groups.len(), PAGE_GROUPS);
    }
}
