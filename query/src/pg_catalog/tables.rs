//! The tables of the catalogue, with those of our own making in place of some: what is shown is this product and not a server of
//! Postgres. All are made once, so that the numbers of tables are the same for every question.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;

use super::functions::SETTINGS;
use super::routines::Routines;
use super::sheet::Sheet;
use crate::catalog::{CATALOG, SCHEMA};

/// There are no users: whoever has a token is this role, may read and nothing else, and owns what there is.
pub(super) const OWNER: &str = "sluice";
/// The number that the library gives to the owner of everything.
pub(super) const OWNER_NUMBER: i32 = 10;

/// The number of the type `json`.
const JSON: &str = "114";
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
/// Endings of the names of columns that are lists of texts, which the library has as text. Nothing here has options or rights of its own.
const LISTS: [&str; 3] = ["acl", "options", "config"];
/// Things that a server of Postgres comes with and this is without.
const WITHOUT: [&str; 3] = ["pg_extension", "pg_shdescription", "pg_init_privs"];
/// What the library computes anew for each question.
const COMPUTED: [&str; 4] = ["pg_class", "pg_attribute", "pg_namespace", "pg_database"];

/// What the library cannot see in our tables.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Those that are ways to look at another one.
    pub(super) views: BTreeSet<String>,
    /// Tables and columns of theirs that travel as JSON.
    pub(super) json: BTreeSet<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Tables {
    inner: Arc<dyn SchemaProvider>,
    ours: HashMap<String, Arc<dyn TableProvider>>,
}

impl Tables {
    pub(super) async fn over(
        inner: Arc<dyn SchemaProvider>,
        ctx: &SessionContext,
        shown: &Shown,
        routines: &Routines,
    ) -> Result<Tables> {
        let mut making = Making {
            inner: Arc::clone(&inner),
            ctx,
            sheets: HashMap::new(),
        };
        for name in COMPUTED {
            making.sheet(name).await?;
        }
        for name in inner.table_names() {
            making.lists(&name).await?;
        }
        for name in ["pg_constraint", "pg_index"] {
            making.keys(name).await?;
        }
        for name in WITHOUT {
            let sheet = making.sheet(name).await?;
            *sheet = Sheet::blank(&sheet.schema(), 0);
        }
        making.relations(&shown.views).await?;
        making.columns(&shown.json).await?;
        making.people().await?;
        making.database().await?;
        making.functions(routines).await?;
        making.settings().await?;
        let tables = making.sheets.into_iter().map(|(name, sheet)| -> Result<_> {
            let table: Arc<dyn TableProvider> = Arc::new(sheet.table()?);
            Ok((name, table))
        });
        Ok(Tables {
            inner,
            ours: tables.collect::<Result<_>>()?,
        })
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

/// The tables that are not as the library has them.
struct Making<'a> {
    inner: Arc<dyn SchemaProvider>,
    ctx: &'a SessionContext,
    sheets: HashMap<String, Sheet>,
}

impl Making<'_> {
    /// A table as it is so far.
    async fn sheet(&mut self, name: &str) -> Result<&mut Sheet> {
        let sheet = match self.sheets.remove(name) {
            Some(sheet) => sheet,
            None => Sheet::of(self.ctx, self.table(name).await?).await?,
        };
        Ok(self.sheets.entry(name.to_owned()).or_insert(sheet))
    }

    async fn table(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        let missing = || DataFusionError::Internal(format!("the catalogue of Postgres has no {name}"));
        self.inner.table(name).await?.ok_or_else(missing)
    }

    /// Lists of texts get their type.
    async fn lists(&mut self, name: &str) -> Result<()> {
        let Some(table) = self.inner.table(name).await? else {
            return Ok(());
        };
        let schema = table.schema();
        let is_list = |field: &&FieldRef| {
            let ends = LISTS.iter().any(|ending| field.name().ends_with(ending));
            ends && field.data_type() == &DataType::Utf8
        };
        let columns: Vec<String> = schema
            .fields()
            .iter()
            .filter(is_list)
            .map(|f| f.name().clone())
            .collect();
        if columns.is_empty() {
            return Ok(());
        }
        let sheet = self.sheet(name).await?;
        columns.iter().for_each(|column| sheet.empty(column, &texts()));
        Ok(())
    }

    /// Telemetry has no keys and indexes, and those of Postgres' own tables are not here.
    async fn keys(&mut self, name: &str) -> Result<()> {
        let schema = self.table(name).await?.schema();
        let mut sheet = Sheet::blank(&schema, 0);
        for field in schema.fields() {
            if VECTORS.contains(&field.name().as_str()) {
                sheet.empty(field.name(), &list_of(DataType::Int32));
            }
        }
        self.sheets.insert(name.to_owned(), sheet);
        Ok(())
    }

    /// Tables and views, which anyone may read and nobody may write.
    async fn relations(&mut self, views: &BTreeSet<String>) -> Result<()> {
        let public = self.public().await?.to_string();
        let class = self.sheet("pg_class").await?;
        let (names, schemas) = (class.texts("relname")?, class.texts("relnamespace")?);
        let is_view = |at: usize| schemas.value(at) == public && views.contains(names.value(at));
        let kinds: StringArray = (0..class.rows())
            .map(|at| Some(if is_view(at) { "v" } else { "r" }))
            .collect();
        class.set("relkind", Arc::new(kinds))?;
        class.fill("relowner", &ScalarValue::Int32(Some(OWNER_NUMBER)))?;
        // nobody has counted them
        class.fill("reltuples", &ScalarValue::Float64(Some(-1.0)))?;
        class.empty("relpartbound", &DataType::Utf8);
        class.empty("reloptions", &texts());
        class.empty("relacl", &texts());
        class.fill("relacl", &rights())?;

        let tables = self.sheet("pg_tables").await?;
        let (names, schemas) = (tables.texts("tablename")?, tables.texts("schemaname")?);
        let is_table = |at: usize| schemas.value(at) != SCHEMA || !views.contains(names.value(at));
        let marked: BooleanArray = (0..tables.rows()).map(|at| Some(is_table(at))).collect();
        tables.keep(&marked)?;
        tables.fill("tableowner", &text(OWNER))?;

        let shown = self.sheet("pg_views").await?;
        *shown = Sheet::blank(&shown.schema(), views.len());
        shown.fill("schemaname", &text(SCHEMA))?;
        shown.fill("viewowner", &text(OWNER))?;
        shown.set("viewname", Arc::new(views.iter().map(Some).collect::<StringArray>()))
    }

    async fn columns(&mut self, json: &BTreeSet<(String, String)>) -> Result<()> {
        let class = self.sheet("pg_class").await?;
        let (numbers, names) = (class.texts("oid")?, class.texts("relname")?);
        let named: HashMap<&str, &str> = numbers.iter().flatten().zip(names.iter().flatten()).collect();
        let attributes = self.sheet("pg_attribute").await?;
        let (tables, columns) = (attributes.texts("attrelid")?, attributes.texts("attname")?);
        let kinds = attributes.texts("atttypid")?;
        let kinds = (0..attributes.rows()).map(|at| {
            let table = named.get(tables.value(at)).copied().unwrap_or_default();
            let is_json = json.contains(&(table.to_owned(), columns.value(at).to_owned()));
            Some(if is_json { JSON } else { kinds.value(at) })
        });
        let kinds: StringArray = kinds.collect();
        attributes.set("atttypid", Arc::new(kinds))?;
        // without rights of their own, drivers take a table's owner to have all
        attributes.fill("attacl", &rights())
    }

    async fn people(&mut self) -> Result<()> {
        for name in ["pg_roles", "pg_authid"] {
            let schema = self.table(name).await?.schema();
            let mut role = Sheet::blank(&schema, 1);
            role.fill("oid", &ScalarValue::Int32(Some(OWNER_NUMBER)))?;
            role.fill("rolname", &text(OWNER))?;
            role.fill("rolconnlimit", &ScalarValue::Int32(Some(-1)))?;
            for (column, is_so) in [
                ("rolcanlogin", true),
                ("rolinherit", true),
                ("rolsuper", false),
                ("rolcreaterole", false),
                ("rolcreatedb", false),
                ("rolreplication", false),
                ("rolbypassrls", false),
            ] {
                role.fill(column, &ScalarValue::Boolean(Some(is_so)))?;
            }
            self.sheets.insert(name.to_owned(), role);
        }
        Ok(())
    }

    /// The one that a client can connect to.
    async fn database(&mut self) -> Result<()> {
        let databases = self.sheet("pg_database").await?;
        let names = databases.texts("datname")?;
        databases.keep(&names.iter().map(|name| Some(name == Some(CATALOG))).collect())?;
        for column in ["datcollate", "datctype"] {
            databases.fill(column, &text("C"))?;
        }
        databases.fill("datlocprovider", &text("c"))?;
        databases.empty("datacl", &texts());
        Ok(())
    }

    async fn functions(&mut self, routines: &Routines) -> Result<()> {
        let public = self.public().await?;
        let functions = self.sheet("pg_proc").await?;
        *functions = routines.sheet(&functions.schema(), public)?;
        let languages = self.sheet("pg_language").await?;
        let names = languages.texts("lanname")?;
        languages.keep(&names.iter().map(|name| Some(name == Some("internal"))).collect())
    }

    async fn settings(&mut self) -> Result<()> {
        let schema = self.table("pg_settings").await?.schema();
        let mut sheet = Sheet::blank(&schema, SETTINGS.len());
        let column = |of: fn(&(&'static str, &'static str)) -> &'static str| -> ArrayRef {
            Arc::new(
                SETTINGS
                    .iter()
                    .map(|setting| Some(of(setting)))
                    .collect::<StringArray>(),
            )
        };
        sheet.set("name", column(|(name, _)| *name))?;
        for name in ["setting", "boot_val", "reset_val"] {
            sheet.set(name, column(|(_, value)| *value))?;
        }
        self.sheets.insert("pg_settings".to_owned(), sheet);
        Ok(())
    }

    /// The number of our schema.
    async fn public(&mut self) -> Result<i32> {
        let schemas = self.sheet("pg_namespace").await?;
        let (names, numbers) = (schemas.texts("nspname")?, schemas.texts("oid")?);
        let at = names.iter().position(|name| name == Some(SCHEMA));
        let number = at.and_then(|at| numbers.value(at).parse().ok());
        number.ok_or_else(|| DataFusionError::Internal("the catalogue of Postgres has no schema".into()))
    }
}

fn text(text: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(text.to_owned()))
}

/// Reading, and nothing else.
fn rights() -> ScalarValue {
    let rights = text(&format!("{OWNER}=r/{OWNER}"));
    ScalarValue::List(ScalarValue::new_list_nullable(&[rights], &DataType::Utf8))
}

fn texts() -> DataType {
    list_of(DataType::Utf8)
}

fn list_of(kind: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(kind, true)))
}
