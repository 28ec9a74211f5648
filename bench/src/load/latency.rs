//! Latencies in a fixed number of buckets: 32 to each doubling, so a percentile is right to about 3 %.

use std::time::Duration;

use serde::Serialize;

const STEPS: u32 = 32;
const DOUBLINGS: u32 = 40;

/// A histogram of durations from a microsecond to days.
#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    longest: Duration,
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LatencySummary {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies {
            buckets: vec![0; (STEPS * DOUBLINGS) as usize],
            count: 0,
            longest: Duration::ZERO,
        }
    }
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)] += 1;
        self.count += 1;
        self.longest = self.longest.max(latency);
    }

    pub fn merge(&mut self, other: &Latencies) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    /// Milliseconds that this share of all requests took at most.
    pub fn percentile(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let longest = self.longest.as_secs_f64() * 1000.0;
                return (upper_bound(index) as f64 / 1000.0).min(longest);
            }
        }
        0.0
    }

    pub fn summary(&self) -> LatencySummary {
        LatencySummary {
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            max: self.longest.as_secs_f64() * 1000.0,
        }
    }
}

/// Values below 32 have a bucket each; above, the five bits after the highest one choose the step.
fn bucket(micros: u64) -> usize {
    let doubling = micros.max(1).ilog2().saturating_sub(STEPS.ilog2());
    let step = (micros >> doubling) as u32;
    let index = if doubling == 0 { step } else { doubling * STEPS + step };
    (index as usize).min((STEPS * DOUBLINGS) as usize - 1)
}

fn upper_bound(index: usize) -> u64 {
    let (doubling, step) = (index as u32 / STEPS, index as u32 % STEPS);
    match doubling {
        0 | 1 => u64::from(index as u32 + 1),
        _ => u64::from(STEPS + step + 1) << (doubling - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_close_from_above() {
        let mut latencies = Latencies::default();
        for micros in 1..=100_000 {
            latencies.record(Duration::from_micros(micros));
        }
        for share in [0.001, 0.01, 0.5, 0.9, 0.99, 1.0] {
            let exact = 100.0 * share;
            let found = latencies.percentile(share);
            assert!(
                found >= exact * 0.999 && found <= exact * 1.07 + 0.002,
                "{share}: {found} for {exact}"
            );
        }
    }

    #[test]
    fn nothing_is_out_of_range() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::MAX);
        assert!(latencies.summary().p50 <= 0.002);
    }
}
