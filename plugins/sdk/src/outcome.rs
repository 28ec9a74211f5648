//! What a plugin answers.

use arrow_array::ArrayRef;
use arrow_buffer::BooleanBuffer;
use arrow_schema::{Field, Schema};

use crate::{Batch, bindings};

/// What became of a batch; the default is: unchanged.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    selection: Option<BooleanBuffer>,
    columns: Vec<(String, ArrayRef)>,
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

    /// Keeps the rows whose bit is set; the others are counted under `reason`.
    pub fn select(mut self, keep: BooleanBuffer, reason: &str) -> Self {
        let dropped = (keep.len() - keep.count_set_bits()) as u64;
        if dropped > 0 {
            self.selection = Some(keep);
            self.drops.push((reason.to_owned(), dropped));
        }
        self
    }

    /// Replaces or adds a column, with as many rows as the batch has.
    pub fn column(mut self, name: impl Into<String>, values: ArrayRef) -> Self {
        self.columns.push((name.into(), values));
        self
    }

    /// Sets the rows whose bit is set aside.
    pub fn quarantine(mut self, rows: BooleanBuffer, reason: &str) -> Self {
        if rows.count_set_bits() > 0 {
            self.quarantine = Some((rows, reason.to_owned()));
        }
        self
    }

    pub fn encode(self, batch: &Batch) -> Result<bindings::Outcome, String> {
        Ok(bindings::Outcome {
            selection: self.selection.map(bytes),
            columns: encode_columns(self.columns, batch)?,
            drops: self
                .drops
                .into_iter()
                .map(|(reason, rows)| bindings::sluice::plugin::types::DropCount { reason, rows })
                .collect(),
            quarantine: self
                .quarantine
                .map(|(rows, reason)| bindings::sluice::plugin::types::Quarantined {
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
