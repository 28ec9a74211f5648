//! Joining batches: the union of their columns, with rare keys moved out of the way and dictionaries chosen anew.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_schema::{Field, Schema};
use hashbrown::HashMap;

use super::build::{Rest, has_values};
use super::cells::{Cells, RestCells, Texts};
use super::columns::{check_column, rest_name};
use super::text::TextColumn;
use super::{AttrColumn, AttrKind, CORE, CoreType, Group, IpcLimits, LayoutError, expanded_bytes, parse_column};

/// What 32-bit offsets can hold, with room.
const MAX_EXPANDED_BYTES: usize = 1 << 30;

/// How batches are joined.
#[derive(Clone, Debug)]
pub struct ConcatOptions {
    /// Attribute keys on fewer rows than this move to `<group>:*`.
    pub min_rows_per_column: usize,
    /// At most this many attribute columns; the rarest keys move.
    pub max_columns: usize,
    /// What `expanded_bytes` may say of the result; beyond it the caller joins fewer batches.
    pub max_expanded_bytes: usize,
}

impl Default for ConcatOptions {
    fn default() -> Self {
        Self {
            min_rows_per_column: 4,
            max_columns: 512,
            max_expanded_bytes: IpcLimits::default().max_expanded_bytes,
        }
    }
}

/// One column of the result and where it comes from.
struct Source<'a> {
    name: &'a str,
    /// Number of the batch, first row in the result, the column.
    parts: Vec<(usize, &'a ArrayRef)>,
    valid: usize,
}

/// Joins batches in order. Row order is kept; columns without values go away.
pub fn concat(batches: &[RecordBatch], options: &ConcatOptions) -> Result<RecordBatch, LayoutError> {
    let text = batches.iter().map(expanded_bytes).fold(0, usize::saturating_add);
    if text > options.max_expanded_bytes.min(MAX_EXPANDED_BYTES) {
        return Err(LayoutError::Limit {
            what: "bytes of text written out",
            found: text,
            max: options.max_expanded_bytes,
        });
    }
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let starts = starts(batches);
    let sources = sources(batches)?;
    let rare = rare(&sources, options);
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    let mut push = |name: &str, column: ArrayRef| {
        fields.push(Field::new(
            name,
            column.data_type().clone(),
            !matches!(name, "signal" | "time"),
        ));
        columns.push(column);
    };
    for (name, kind) in CORE {
        if let Some(source) = sources.iter().find(|s| s.name == *name) {
            push(name, source.join(batches, &starts, rows, *kind == CoreType::Text)?);
        }
    }
    for wanted in Group::ALL {
        let mut moved = Vec::new();
        for (source, rare) in sources.iter().zip(&rare) {
            match parse_column(source.name) {
                Some(AttrColumn::Typed { group, kind, key }) if group == wanted => {
                    if *rare {
                        source.move_to(&starts, key, kind, &mut moved)?;
                    } else {
                        push(
                            source.name,
                            source.join(batches, &starts, rows, kind == AttrKind::String)?,
                        );
                    }
                }
                Some(AttrColumn::Rest { group }) if group == wanted => source.move_rest(&starts, &mut moved)?,
                _ => {}
            }
        }
        if let Some(column) = rest_column(moved, rows)? {
            push(&rest_name(wanted), column);
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields)),
        columns,
        &options,
    )?)
}

fn starts(batches: &[RecordBatch]) -> Vec<usize> {
    batches
        .iter()
        .scan(0, |next, batch| {
            let start = *next;
            *next += batch.num_rows();
            Some(start)
        })
        .collect()
}

/// The columns of all batches that hold any value, in the order in which they first come.
fn sources(batches: &[RecordBatch]) -> Result<Vec<Source<'_>>, LayoutError> {
    let mut sources: Vec<Source<'_>> = Vec::new();
    let mut index: HashMap<&str, usize> = HashMap::new();
    for (number, batch) in batches.iter().enumerate() {
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            // A column that nobody knows must not vanish on the way.
            check_column(field.name(), field.data_type())?;
            if !has_values(column.as_ref()) {
                continue;
            }
            let at = *index.entry(field.name().as_str()).or_insert_with(|| {
                sources.push(Source {
                    name: field.name(),
                    parts: Vec::new(),
                    valid: 0,
                });
                sources.len() - 1
            });
            sources[at].parts.push((number, column));
            sources[at].valid += column.len() - column.null_count();
        }
    }
    Ok(sources)
}

/// For every source whether its key is too rare for a column.
fn rare(sources: &[Source<'_>], options: &ConcatOptions) -> Vec<bool> {
    let typed = |s: &Source<'_>| matches!(parse_column(s.name), Some(AttrColumn::Typed { .. }));
    let mut rare: Vec<bool> = sources
        .iter()
        .map(|s| typed(s) && s.valid < options.min_rows_per_column)
        .collect();
    let mut kept: Vec<usize> = (0..sources.len())
        .filter(|i| typed(&sources[*i]) && !rare[*i])
        .collect();
    if kept.len() > options.max_columns {
        kept.sort_by_key(|i| std::cmp::Reverse(sources[*i].valid));
        for i in kept.drain(options.max_columns..) {
            rare[i] = true;
        }
    }
    rare
}

/// An entry of `<group>:*` on its way.
struct Entry<'a> {
    row: usize,
    key: &'a str,
    kind: &'a str,
    text: String,
}

fn rest_column(mut entries: Vec<Entry<'_>>, rows: usize) -> Result<Option<ArrayRef>, LayoutError> {
    entries.sort_by_key(|e| e.row);
    let mut rest = Rest::default();
    for entry in &entries {
        rest.put(entry.row, [entry.key, entry.kind, &entry.text]);
    }
    Ok(rest.finish(rows)?)
}

impl<'a> Source<'a> {
    fn join(
        &self,
        batches: &[RecordBatch],
        starts: &[usize],
        rows: usize,
        text: bool,
    ) -> Result<ArrayRef, LayoutError> {
        if text {
            return self.join_text(starts, rows);
        }
        let Some((_, first)) = self.parts.first() else {
            return Err(self.wrong());
        };
        let mut parts = self.parts.iter().peekable();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(batches.len());
        for (number, batch) in batches.iter().enumerate() {
            match parts.next_if(|(part, _)| *part == number) {
                Some((_, column)) => arrays.push(Arc::clone(column)),
                None => arrays.push(new_null_array(first.data_type(), batch.num_rows())),
            }
        }
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        Ok(arrow_select::concat::concat(&arrays)?)
    }

    fn join_text(&self, starts: &[usize], rows: usize) -> Result<ArrayRef, LayoutError> {
        let mut out = TextColumn::default();
        for &(number, column) in &self.parts {
            let texts = Texts::of(column.as_ref()).ok_or_else(|| self.wrong())?;
            texts.each_run(|row, n, text| out.put_run(starts[number] + row, n, text));
        }
        out.finish(rows)?.ok_or_else(|| self.wrong())
    }

    fn move_to(
        &self,
        starts: &[usize],
        key: &'a str,
        kind: AttrKind,
        moved: &mut Vec<Entry<'a>>,
    ) -> Result<(), LayoutError> {
        for &(number, column) in &self.parts {
            let cells = Cells::of(kind, column.as_ref()).ok_or_else(|| self.wrong())?;
            for row in (0..column.len()).filter(|row| cells.is_valid(*row)) {
                let mut text = Vec::new();
                let kind = cells.write_text(row, &mut text);
                let text = String::from_utf8(text).map_err(|_| self.wrong())?;
                moved.push(Entry {
                    row: starts[number] + row,
                    key,
                    kind,
                    text,
                });
            }
        }
        Ok(())
    }

    fn move_rest(&self, starts: &[usize], moved: &mut Vec<Entry<'a>>) -> Result<(), LayoutError> {
        for &(number, column) in &self.parts {
            let cells = RestCells::of(column.as_ref()).ok_or_else(|| self.wrong())?;
            for row in 0..column.len() {
                for [key, kind, text] in cells.entries(row) {
                    moved.push(Entry {
                        row: starts[number] + row,
                        key,
                        kind,
                        text: text.into(),
                    });
                }
            }
        }
        Ok(())
    }

    fn wrong(&self) -> LayoutError {
        LayoutError::Column {
            column: self.name.into(),
            what: "has another type than its name demands",
        }
    }
}
