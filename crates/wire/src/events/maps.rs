//! Attribute columns folded into the table's text maps.

use std::sync::Arc;

use arrow_array::{ArrayRef, MapArray, StructArray};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

use super::columns::{map_entries, map_field};
use crate::layout::cells::GroupCells;
use crate::layout::text::strings;
use crate::value::type_name;

/// A map column in the making.
#[derive(Debug)]
pub(super) struct MapBuilder {
    offsets: Vec<i32>,
    entries: usize,
    keys: TextBuffer,
    values: TextBuffer,
}

#[derive(Debug)]
struct TextBuffer {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl TextBuffer {
    fn end(&mut self) {
        // Past 2 GiB the numbers are wrong, and `strings` refuses the column by its length.
        self.offsets.push(self.data.len() as i32);
    }
}

impl MapBuilder {
    pub(super) fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        let text = || TextBuffer {
            offsets: vec![0],
            data: Vec::new(),
        };
        Self {
            offsets,
            entries: 0,
            keys: text(),
            values: text(),
        }
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.values.data.extend_from_slice(value.as_bytes());
        self.end_entry(key);
    }

    /// Ends an entry whose value was appended to `values.data`.
    fn end_entry(&mut self, key: &str) {
        self.keys.data.extend_from_slice(key.as_bytes());
        self.keys.end();
        self.values.end();
        self.entries += 1;
    }

    pub(super) fn end_row(&mut self) {
        self.offsets.push(self.entries as i32);
    }

    pub(super) fn finish(self) -> Result<ArrayRef, ArrowError> {
        let keys = strings(self.keys.offsets, self.keys.data, None)?;
        let values = strings(self.values.offsets, self.values.data, None)?;
        let entries = StructArray::try_new(map_entries(), vec![Arc::new(keys), Arc::new(values)], None)?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Ok(Arc::new(MapArray::try_new(
            Arc::new(map_field()),
            offsets,
            entries,
            None,
            false,
        )?))
    }
}

/// The map of a group, and the map of the types that are not `string`.
pub(super) fn fold_group(cells: &GroupCells<'_>, rows: usize) -> Result<[ArrayRef; 2], ArrowError> {
    let (mut map, mut types) = (MapBuilder::new(rows), MapBuilder::new(rows));
    for row in 0..rows {
        for (key, _, column) in &cells.columns {
            if column.is_valid(row) {
                let kind = column.write_text(row, &mut map.values.data);
                map.end_entry(key);
                if kind != type_name::STRING {
                    types.put(key, kind);
                }
            }
        }
        for [key, kind, text] in cells.rest.iter().flat_map(|rest| rest.entries(row)) {
            map.put(key, text);
            if kind != type_name::STRING {
                types.put(key, kind);
            }
        }
        map.end_row();
        types.end_row();
    }
    Ok([map.finish()?, types.finish()?])
}
