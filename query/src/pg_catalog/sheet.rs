//! A table of the catalogue at rest: what the library says of it, to be put right column by column.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;

#[derive(Debug)]
pub(super) struct Sheet {
    fields: Vec<FieldRef>,
    columns: Vec<ArrayRef>,
    rows: usize,
}

impl Sheet {
    /// All rows of a table.
    pub(super) async fn of(ctx: &SessionContext, table: Arc<dyn TableProvider>) -> Result<Sheet> {
        let schema = table.schema();
        let batches = ctx.read_table(table)?.collect().await?;
        Ok(Sheet::from(concat_batches(&schema, &batches)?))
    }

    /// So many rows in which nothing is said yet.
    pub(super) fn blank(schema: &Schema, rows: usize) -> Sheet {
        let fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
        Sheet {
            columns: fields.iter().map(|f| new_null_array(f.data_type(), rows)).collect(),
            fields,
            rows,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn schema(&self) -> Schema {
        Schema::new(self.fields.clone())
    }

    /// A column; of the type that it has already, if the values can be cast to that. A new one comes last.
    pub(super) fn set(&mut self, name: &str, values: ArrayRef) -> Result<()> {
        let Some(at) = self.place(name) else {
            self.fields
                .push(Arc::new(Field::new(name, values.data_type().clone(), true)));
            self.columns.push(values);
            return Ok(());
        };
        self.columns[at] = cast(&values, self.fields[at].data_type())?;
        Ok(())
    }

    /// The same value in each row.
    pub(super) fn fill(&mut self, name: &str, value: &ScalarValue) -> Result<()> {
        let values = value.to_array_of_size(self.rows)?;
        self.set(name, values)
    }

    /// A column of nulls, of another type than the library gives it.
    pub(super) fn empty(&mut self, name: &str, kind: &DataType) {
        let field = Arc::new(Field::new(name, kind.clone(), true));
        let nulls = new_null_array(kind, self.rows);
        match self.place(name) {
            Some(at) => (self.fields[at], self.columns[at]) = (field, nulls),
            None => {
                self.fields.push(field);
                self.columns.push(nulls);
            }
        }
    }

    /// A column as texts; nulls where there is none.
    pub(super) fn texts(&self, name: &str) -> Result<StringArray> {
        let Some(at) = self.place(name) else {
            return Ok(StringArray::new_null(self.rows));
        };
        Ok(cast(&self.columns[at], &DataType::Utf8)?.as_string::<i32>().clone())
    }

    /// Only the rows that are marked.
    pub(super) fn keep(&mut self, marked: &BooleanArray) -> Result<()> {
        *self = Sheet::from(filter_record_batch(&self.batch()?, marked)?);
        Ok(())
    }

    pub(super) fn table(&self) -> Result<MemTable> {
        let batch = self.batch()?;
        MemTable::try_new(batch.schema(), vec![vec![batch]])
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name() == name)
    }

    fn batch(&self) -> Result<RecordBatch> {
        // nulls are put where the library promises that there are none
        let fields: Vec<Field> = self
            .fields
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(RecordBatch::try_new_with_options(
            Arc::new(Schema::new(fields)),
            self.columns.clone(),
            &options,
        )?)
    }
}

impl From<RecordBatch> for Sheet {
    fn from(batch: RecordBatch) -> Sheet {
        Sheet {
            fields: batch.schema().fields().iter().cloned().collect(),
            columns: batch.columns().to_vec(),
            rows: batch.num_rows(),
        }
    }
}
