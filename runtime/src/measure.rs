//! What a chain costs on given batches: for benches, and for `bench` of a plugin's author.

use arrow_array::RecordBatch;

use crate::call::Call;
use crate::chain::{Chain, Refused};
use crate::clock::{ThreadTime, WallTime};

/// The cost of running batches through a chain on one thread.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Cost {
    pub rows: u64,
    pub rows_left: u64,
    /// Processor seconds, hand-over included.
    pub cpu_s: f64,
    pub wall_s: f64,
}

impl Cost {
    pub fn rows_per_s(&self) -> f64 {
        self.rows as f64 / self.wall_s.max(f64::EPSILON)
    }

    /// Processor seconds for a million rows.
    pub fn cpu_s_per_million(&self) -> f64 {
        self.cpu_s * 1e6 / (self.rows.max(1) as f64)
    }
}

/// Runs the batches `rounds` times, after one round that is not measured.
pub fn measure(chain: &Chain, batches: &[RecordBatch], call: &Call<'_>, rounds: usize) -> Result<Cost, Refused> {
    for batch in batches {
        chain.run(batch.clone(), call)?;
    }
    let (thread, wall) = (ThreadTime::now(), WallTime::now());
    let (mut rows, mut rows_left) = (0, 0);
    for batch in std::iter::repeat_n(batches, rounds).flatten() {
        rows += batch.num_rows() as u64;
        rows_left += chain.run(batch.clone(), call)?.batch.num_rows() as u64;
    }
    Ok(Cost {
        rows,
        rows_left,
        cpu_s: thread.elapsed().as_secs_f64(),
        wall_s: wall.elapsed().as_secs_f64(),
    })
}
