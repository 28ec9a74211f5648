//! The tables of the catalogue, with those of our own making in place of some: what is shown is this product and not a server of Postgres.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::error::Result;

use super::functions::SETTINGS;

/// Lists of numbers, which the library has as text.
const VECTORS: [&str; 10] = [
    "indkey",
    "indcollation",
    "indclass",
    "indoption",
    "conkey",
    "confkey",
    "conpfeqop",
    "conppeqop",
    "conffeqop",
    "conexclop",
];

#[derive(Debug)]
pub(super) struct Tables {
    inner: Arc<dyn SchemaProvider>,
    ours: HashMap<&'static str, Arc<dyn TableProvider>>,
}

impl Tables {
    pub(super) async fn over(inner: Arc<dyn SchemaProvider>) -> Result<Tables> {
        let mut ours: HashMap<&'static str, Arc<dyn TableProvider>> = HashMap::new();
        for name in ["pg_constraint", "pg_index"] {
            if let Some(table) = inner.table(name).await? {
                ours.insert(name, Arc::new(empty(&table.schema())?));
            }
        }
        if let Some(table) = inner.table("pg_settings").await? {
            ours.insert("pg_settings", Arc::new(settings(&table.schema())?));
        }
        Ok(Tables { inner, ours })
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.ours.get(name) {
            Some(table) => Ok(Some(Arc::clone(table))),
            None => self.inner.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.inner.table_exist(name)
    }
}

/// Telemetry has no keys and indexes, and those of Postgres' own tables are not here.
fn empty(schema: &Schema) -> Result<MemTable> {
    let fields = schema.fields().iter().map(|field| -> FieldRef {
        match VECTORS.contains(&field.name().as_str()) {
            true => Arc::new(Field::new_list(
                field.name(),
                Field::new_list_field(DataType::Int32, true),
                true,
            )),
            false => Arc::clone(field),
        }
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    MemTable::try_new(Arc::clone(&schema), vec![vec![RecordBatch::new_empty(schema)]])
}

fn settings(schema: &Arc<Schema>) -> Result<MemTable> {
    let column = |field: &FieldRef| -> ArrayRef {
        match field.name().as_str() {
            "name" => Arc::new(SETTINGS.iter().map(|(name, _)| Some(*name)).collect::<StringArray>()),
            "setting" => Arc::new(SETTINGS.iter().map(|(_, value)| Some(*value)).collect::<StringArray>()),
            _ => new_null_array(field.data_type(), SETTINGS.len()),
        }
    };
    let batch = RecordBatch::try_new(Arc::clone(schema), schema.fields().iter().map(column).collect())?;
    MemTable::try_new(Arc::clone(schema), vec![vec![batch]])
}
