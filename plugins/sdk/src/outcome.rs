//! What a plugin answers.

use arrow_array::{Array, ArrayRef};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{Field, Schema};

use crate::bindings::exports::sluice::plugin::guest;
use crate::{Batch, names};

/// What became of a batch; the default is: unchanged.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    selection: Option<BooleanBuffer>,
    columns: Vec<(String, ArrayRef)>,
    weight: Option<f64>,
    drops: Vec<(String, u64)>,
    quarantine: Option<(BooleanBuffer, String)>,
}

impl Outcome {
    pub fn unchanged() -> Self {
        Outcome::default()
    }

    /// Keeps the rows for which `keep` answers true; the others are counted under `reason`.
    pub fn keep_rows(rows: usize, reason: &str, keep: impl FnMut(usize) -> bool) -> Self {
        Outcome::default().select(BooleanBuffer::collect_bool(rows, keep), reason)
    }

    /// Keeps the rows whose bit is set; the others are counted under `reason`. Called again, for another reason, it counts
    /// the rows that no earlier reason has dropped.
    pub fn select(mut self, keep: BooleanBuffer, reason: &str) -> Self {
        let (before, keep) = match self.selection.take() {
            Some(selection) => (selection.count_set_bits(), &selection & &keep),
            None => (keep.len(), keep),
        };
        let dropped = (before - keep.count_set_bits()) as u64;
        if dropped > 0 {
            match self.drops.iter_mut().find(|(known, _)| known == reason) {
                Some((_, rows)) => *rows += dropped,
                None => self.drops.push((reason.to_owned(), dropped)),
            }
        }
        if !self.drops.is_empty() {
            self.selection = Some(keep);
        }
        self
    }

    /// A selection whose drops are counted already.
    pub(crate) fn selected(mut self, keep: BooleanBuffer, drops: Vec<(&str, u64)>) -> Self {
        self.selection = Some(keep);
        self.drops = drops
            .into_iter()
            .map(|(reason, rows)| (reason.to_owned(), rows))
            .collect();
        self
    }

    /// Replaces or adds a column, with as many rows as the batch has.
    pub fn column(mut self, name: impl Into<String>, values: ArrayRef) -> Self {
        self.columns.push((name.into(), values));
        self
    }

    /// Every row that stays stands for this many times as many events as before; finite and at least 1. Needs `weight` among
    /// the columns written, and goes without that column: rows of different weights give the column instead.
    pub fn weight(mut self, factor: f64) -> Self {
        self.weight = (factor != 1.0).then_some(factor);
        self
    }

    /// Sets the rows whose bit is set aside.
    pub fn quarantine(mut self, rows: BooleanBuffer, reason: &str) -> Self {
        if rows.count_set_bits() > 0 {
            self.quarantine = Some((rows, reason.to_owned()));
        }
        self
    }

    /// Which rows stay; `None`: all.
    pub fn selection(&self) -> Option<&BooleanBuffer> {
        self.selection.as_ref()
    }

    /// The columns given back.
    pub fn columns(&self) -> &[(String, ArrayRef)] {
        &self.columns
    }

    pub fn weight_factor(&self) -> Option<f64> {
        self.weight
    }

    /// Rows dropped by reason.
    pub fn drops(&self) -> &[(String, u64)] {
        &self.drops
    }

    /// Rows set aside, and why.
    pub fn quarantined(&self) -> Option<(&BooleanBuffer, &str)> {
        self.quarantine.as_ref().map(|(rows, reason)| (rows, reason.as_str()))
    }

    /// A column that is given back takes the place of the old one in every row. Who was not given the old one and has nothing for
    /// some rows would take away what they had.
    pub(crate) fn check_reads(&self, batch: &Batch, reads: &[String]) -> Result<(), String> {
        let unread = |name: &str| batch.column(name).is_none() && !names::declared(reads, name);
        match self
            .columns
            .iter()
            .find(|(name, column)| column.logical_null_count() > 0 && unread(name))
        {
            None => Ok(()),
            Some((name, _)) => Err(format!(
                "gives back `{name}` with rows that have no value, but does not read it: they would lose the value that they have; \
                 add \"{name}\" to `reads`, and to `needs` if there are any"
            )),
        }
    }

    #[doc(hidden)]
    pub fn encode(self, batch: &Batch) -> Result<guest::Outcome, String> {
        Ok(guest::Outcome {
            selection: self.selection.map(bytes),
            columns: encode_columns(self.columns, batch)?,
            weight: self.weight,
            drops: self
                .drops
                .into_iter()
                .map(|(reason, rows)| guest::DropCount { reason, rows })
                .collect(),
            quarantine: self.quarantine.map(|(rows, reason)| guest::Quarantined {
                rows: bytes(rows),
                reason,
            }),
        })
    }
}

fn bytes(bits: BooleanBuffer) -> Vec<u8> {
    bits.sliced().as_slice().to_vec()
}

fn encode_columns(columns: Vec<(String, ArrayRef)>, batch: &Batch) -> Result<Option<Vec<u8>>, String> {
    if columns.is_empty() {
        return Ok(None);
    }
    let mut fields = Vec::with_capacity(columns.len());
    let mut values = Vec::with_capacity(columns.len());
    for (name, array) in columns {
        let nullable = match batch.records().schema_ref().field_with_name(&name) {
            Ok(field) => field.is_nullable(),
            Err(_) => true,
        };
        fields.push(Field::new(name, array.data_type().clone(), nullable));
        values.push(array);
    }
    if let Some(short) = values.iter().find(|array| array.len() != batch.rows()) {
        return Err(format!(
            "a column of {} rows for a batch of {}",
            short.len(),
            batch.rows()
        ));
    }
    crate::ipc::write(&Schema::new(fields), &values, batch.rows()).map(Some)
}
