//! The number that decides about each row, and what samplers before this one said about it.

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, Float64Array};
use arrow_buffer::BooleanBuffer;
use sluice_plugin::Batch;

use crate::config::WithoutTrace;
use crate::consistent::{self, Arrived, RANGE};
use crate::field::Field;
use crate::pattern;
use crate::rows;

/// Draws for the rows of one batch.
#[derive(Debug)]
pub(crate) struct Draws {
    /// 56 bits a row, of rows that take part.
    randomness: Vec<u64>,
    /// Rows that take part; the others are kept.
    pub(crate) drawn: BooleanBuffer,
    /// Rows whose draw is their own: nobody else draws the same.
    pub(crate) alone: BooleanBuffer,
}

impl Draws {
    pub(crate) fn new(
        batch: &Batch,
        arrived: Option<&[Arrived]>,
        without_trace: WithoutTrace,
        hash_by: &[Field],
        entropy: &mut dyn FnMut() -> u64,
    ) -> Result<Draws, String> {
        let count = batch.rows();
        let mut randomness = vec![0; count];
        let mut drawn = BooleanBuffer::new_unset(count);
        if let Some(ids) = batch.column("trace_id") {
            let ids = ids
                .as_fixed_size_binary_opt()
                .filter(|ids| ids.value_length() == 16)
                .ok_or("trace_id is not 16 bytes")?;
            let (ids16, _) = ids.value_data().as_chunks::<16>();
            consistent::randomness_of_all(ids16, &mut randomness);
            drawn = rows::present(ids);
        }
        if let Some(arrived) = arrived {
            for (randomness, arrived) in randomness.iter_mut().zip(arrived) {
                *randomness = arrived.randomness.unwrap_or(*randomness);
            }
        }
        let mut alone = BooleanBuffer::new_unset(count);
        let rest = !&drawn;
        if without_trace == WithoutTrace::Keep || rest.count_set_bits() == 0 {
            return Ok(Draws {
                randomness,
                drawn,
                alone,
            });
        }
        if without_trace == WithoutTrace::Hash {
            let mut own = vec![0; count];
            hash_by.iter().for_each(|field| field.hash_into(batch, &mut own));
            rest.set_indices()
                .for_each(|row| randomness[row] = own[row] & (RANGE - 1));
        } else {
            let seed = entropy();
            rest.set_indices()
                .for_each(|row| randomness[row] = pattern::mix(seed, row as u64) & (RANGE - 1));
            alone = rest;
        }
        Ok(Draws {
            randomness,
            drawn: BooleanBuffer::new_set(count),
            alone,
        })
    }

    pub(crate) fn of(&self, row: usize) -> u64 {
        self.randomness[row]
    }

    pub(crate) fn all(&self) -> &[u64] {
        &self.randomness
    }
}

/// What the trace states of a batch say; none if none of them says anything.
pub(crate) fn arrived(batch: &Batch) -> Result<Option<Vec<Arrived>>, String> {
    let states = batch.text("trace_state")?;
    let Some(values) = states.values() else {
        return Ok(None);
    };
    if !values.iter().flatten().any(|state| state.contains("ot=")) {
        return Ok(None);
    }
    Ok(Some(rows::map_text(
        &states,
        batch.rows(),
        Arrived::default(),
        Arrived::of,
    )))
}

/// How many events the rows stood for before.
#[derive(Debug)]
pub(crate) struct Before<'a> {
    column: Option<&'a Float64Array>,
    arrived: Option<&'a [Arrived]>,
}

impl<'a> Before<'a> {
    pub(crate) fn new(batch: &'a Batch, arrived: Option<&'a [Arrived]>) -> Before<'a> {
        Before {
            column: batch
                .column("weight")
                .and_then(|column| column.as_primitive_opt::<Float64Type>()),
            arrived,
        }
    }

    pub(crate) fn is_one(&self) -> bool {
        self.column.is_none() && self.arrived.is_none()
    }

    /// The larger of what the column and the trace state say: both come of the same draw.
    pub(crate) fn weight(&self, row: usize, draws: &Draws) -> Option<f64> {
        let column = self
            .column
            .filter(|column| column.is_valid(row))
            .map(|column| column.value(row));
        let arrived = self.arrived.and_then(|arrived| arrived[row].weight(draws.of(row)));
        match (column, arrived) {
            (Some(column), Some(arrived)) => Some(column.max(arrived)),
            (column, arrived) => column.or(arrived),
        }
    }
}
