//! Texts that repeat as numbers of one list of texts for a whole insert. The server keeps such columns in that way, too: what comes
//! written out, row by row, it must look up, row by row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, MapArray, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema};
use arrow::error::ArrowError;
use hashbrown::HashMap;

use super::schema;

/// A column of more different texts, or longer ones, stays as it is: a server works through the list with each batch.
const MAX_TEXTS: usize = 1024;
const MAX_BYTES: usize = 64 << 10;

/// The same batches, with columns of few texts and names of attributes as numbers. Each column has one list of texts for all batches:
/// some readers take the first that comes for all that follow.
pub(super) fn numbered(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
    let Some(first) = batches.first() else {
        return Ok(Vec::new());
    };
    let plain = first.schema();
    let mut fields = Vec::with_capacity(plain.fields().len());
    let mut columns: Vec<Vec<ArrayRef>> = batches
        .iter()
        .map(|_| Vec::with_capacity(plain.fields().len()))
        .collect();
    for (at, field) in plain.fields().iter().enumerate() {
        let written: Vec<&ArrayRef> = batches.iter().map(|batch| batch.column(at)).collect();
        let numbered = match field.data_type() {
            DataType::Utf8 if schema::has_few_texts(field.name()) => texts(&written),
            DataType::Map(..) => names(&written)?,
            _ => None,
        };
        let numbered = numbered.unwrap_or_else(|| written.into_iter().map(Arc::clone).collect());
        let kind = numbered
            .first()
            .map_or(field.data_type(), |column| column.data_type())
            .clone();
        fields.push(Field::new(field.name(), kind, field.is_nullable()));
        for (batch, column) in columns.iter_mut().zip(numbered) {
            batch.push(column);
        }
    }
    let schema = Arc::new(Schema::new(fields));
    columns
        .into_iter()
        .map(|columns| RecordBatch::try_new(Arc::clone(&schema), columns))
        .collect()
}

/// Different texts, in the order in which they came.
#[derive(Default)]
struct List<'a> {
    texts: Vec<&'a str>,
    bytes: usize,
    numbers: HashMap<&'a str, i32>,
}

impl<'a> List<'a> {
    /// `guess` is looked at first. `None`: there are too many.
    fn number(&mut self, text: &'a str, guess: Option<i32>) -> Option<i32> {
        if let Some(guess) = guess
            && self.texts.get(guess as usize) == Some(&text)
        {
            return Some(guess);
        }
        if let Some(number) = self.numbers.get(text) {
            return Some(*number);
        }
        self.bytes += text.len();
        if self.texts.len() == MAX_TEXTS || self.bytes > MAX_BYTES {
            return None;
        }
        let number = self.texts.len() as i32;
        self.texts.push(text);
        self.numbers.insert(text, number);
        Some(number)
    }

    fn array(&self) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(&self.texts))
    }
}

/// `None`: the texts are too many.
fn texts(columns: &[&ArrayRef]) -> Option<Vec<ArrayRef>> {
    let mut list = List::default();
    let mut all = Vec::with_capacity(columns.len());
    for column in columns {
        let column = column.as_string::<i32>();
        let mut numbers = Vec::with_capacity(column.len());
        let mut last = None;
        for row in 0..column.len() {
            if column.is_valid(row) {
                last = Some(list.number(column.value(row), last)?);
            }
            // Null stays null whatever number stands there.
            numbers.push(last.unwrap_or(0));
        }
        all.push(Int32Array::new(numbers.into(), column.nulls().cloned()));
    }
    let list = list.array();
    let array = |numbers| Arc::new(DictionaryArray::<Int32Type>::new(numbers, Arc::clone(&list))) as ArrayRef;
    Some(all.into_iter().map(array).collect())
}

/// Maps whose keys are numbers. `None`: the keys are too many.
fn names(columns: &[&ArrayRef]) -> Result<Option<Vec<ArrayRef>>, ArrowError> {
    let mut list = List::default();
    let numbers: Option<Vec<Int32Array>> = columns.iter().map(|column| keys(column.as_map(), &mut list)).collect();
    let Some(numbers) = numbers else {
        return Ok(None);
    };
    let list = list.array();
    let maps = columns.iter().zip(numbers).map(|(column, numbers)| {
        let map = column.as_map();
        let keys = DictionaryArray::<Int32Type>::try_new(numbers, Arc::clone(&list))?;
        let (DataType::Map(field, is_sorted), DataType::Struct(members)) = (map.data_type(), map.entries().data_type())
        else {
            return Err(ArrowError::SchemaError("a map has no entries".to_owned()));
        };
        let name = members[0].as_ref().clone().with_data_type(keys.data_type().clone());
        let members = Fields::from([Arc::new(name), Arc::clone(&members[1])]);
        let entries = StructArray::try_new(members, vec![Arc::new(keys), Arc::clone(map.values())], None)?;
        let field = field.as_ref().clone().with_data_type(entries.data_type().clone());
        let map = MapArray::try_new(
            Arc::new(field),
            map.offsets().clone(),
            entries,
            map.nulls().cloned(),
            *is_sorted,
        )?;
        Ok(Arc::new(map) as ArrayRef)
    });
    maps.collect::<Result<_, _>>().map(Some)
}

/// The number of each entry's key. Rows mostly have the keys of the row before, in the same order.
fn keys<'a>(map: &'a MapArray, list: &mut List<'a>) -> Option<Int32Array> {
    let keys = map.keys().as_string::<i32>();
    let mut numbers: Vec<i32> = Vec::with_capacity(keys.len());
    let mut number = |from: usize, to: usize, before: usize| {
        for entry in from..to {
            let guess = numbers.get(before + entry - from).copied();
            numbers.push(list.number(keys.value(entry), guess)?);
        }
        Some(())
    };
    let offsets = map.value_offsets();
    let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
    // A slice of a map keeps the entries of the rows around it.
    number(0, first, 0)?;
    let mut before = 0;
    for row in offsets.windows(2) {
        let (from, to) = (row[0] as usize, row[1] as usize);
        number(from, to, before)?;
        before = from;
    }
    number(last, keys.len(), 0)?;
    Some(Int32Array::from(numbers))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::MapBuilder;
    use arrow::array::StringBuilder;
    use proptest::prelude::*;

    use super::*;

    type Row = (Option<String>, Vec<(String, Option<String>)>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let services: StringArray = rows.iter().map(|(service, _)| service.as_deref()).collect();
        let mut attrs = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for (_, entries) in rows {
            for (key, value) in entries {
                attrs.keys().append_value(key);
                attrs.values().append_option(value.as_deref());
            }
            attrs.append(true).unwrap();
        }
        RecordBatch::try_from_iter_with_nullable([
            ("service", Arc::new(services) as ArrayRef, true),
            (
                "body",
                Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "as it is"))),
                false,
            ),
            ("attrs", Arc::new(attrs.finish()), false),
        ])
        .unwrap()
    }

    /// Written out again, a row at a time.
    fn rows(batch: &RecordBatch) -> Vec<Row> {
        let services = batch.column(0).as_dictionary::<Int32Type>();
        let texts = services.values().as_string::<i32>();
        let attrs = batch.column(2).as_map();
        let row = |row: usize| {
            let service = services.key(row).map(|number| texts.value(number).to_owned());
            let entries = attrs.value(row);
            let keys = entries.column(0).as_dictionary::<Int32Type>();
            let (names, values) = (keys.values().as_string::<i32>(), entries.column(1).as_string::<i32>());
            let entry = |at: usize| {
                let value = values.is_valid(at).then(|| values.value(at).to_owned());
                (names.value(keys.key(at).unwrap()).to_owned(), value)
            };
            (service, (0..entries.len()).map(entry).collect())
        };
        (0..batch.num_rows()).map(row).collect()
    }

    fn any_row() -> impl Strategy<Value = Row> {
        let text = || "[a-c]{0,2}";
        let entries = proptest::collection::vec((text(), proptest::option::of(text())), 0..4);
        (proptest::option::of(text()), entries)
    }

    #[test]
    fn too_many_texts_stay_as_they_are() {
        let row = |n: usize| (Some(format!("service {n}")), vec![(format!("key {n}"), None)]);
        for (count, is_numbered) in [(MAX_TEXTS, true), (MAX_TEXTS + 1, false)] {
            let rows: Vec<Row> = (0..count).map(row).collect();
            let plain = [batch(&rows[..1]), batch(&rows)];
            let all = numbered(&plain).unwrap();
            assert_eq!(all == plain, !is_numbered);
            assert_eq!(all[0].schema(), all[1].schema());
        }
    }

    proptest! {
        #[test]
        fn numbered_batches_say_what_was_written_with_one_list_for_all(
            batches in proptest::collection::vec((proptest::collection::vec(any_row(), 1..6), 0usize..3), 1..4),
        ) {
            // Slices as well: what surrounds them is not theirs.
            let written: Vec<(Vec<Row>, RecordBatch)> = batches
                .into_iter()
                .map(|(rows, from)| {
                    let from = from.min(rows.len() - 1);
                    let whole = batch(&rows);
                    (rows[from..].to_vec(), whole.slice(from, rows.len() - from))
                })
                .collect();
            let plain: Vec<RecordBatch> = written.iter().map(|(_, batch)| batch.clone()).collect();
            let all = numbered(&plain).unwrap();
            let lists = |batch: &RecordBatch| {
                let keys = batch.column(2).as_map().keys().as_dictionary::<Int32Type>().values().to_data();
                [batch.column(0).as_dictionary::<Int32Type>().values().to_data(), keys]
            };
            for ((expected, _), batch) in written.iter().zip(&all) {
                prop_assert_eq!(&rows(batch), expected);
                prop_assert!(lists(batch).iter().zip(lists(&all[0])).all(|(list, first)| list.ptr_eq(&first)));
                prop_assert_eq!(batch.column(1).data_type(), &DataType::Utf8);
            }
        }
    }
}
