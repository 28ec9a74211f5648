//! What clients of Postgres ask of its catalogue: the names and types of our tables under `pg_catalog`, the functions around them, and
//! the SQL that they are asked in. It holds no rows of anyone, so all tenants share one.
//!
//! `tables` shows what there is and `sheet` is one of them in the making; `routines` are the functions under `pg_proc`, `information` is
//! the standard's own schema; `functions` are called by clients, and `rewrite` says otherwise what the planner does not know.
//!
//! There are no indexes, keys, sizes, comments and users, and the answers say so: nothing, null, or the one role `sluice`, which reads.
//! Not answered: definitions of views (null; SQLAlchemy's `get_view_definition` takes that for no view), `tableoid` (psql's `\dd` and
//! `\dL`), `format` (`\dX`), and `DatabaseMetaData.getUDTs`, whose text is deeper than a query may be.

mod functions;
mod information;
mod rewrite;
mod routines;
mod sheet;
mod tables;

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Int32Array, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemTable, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider,
};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, TableType, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_postgres::pgwire::api::Type;
use sluice_store::hot::clickhouse::StatementLimits;

use crate::catalog::{CATALOG, SCHEMA};
use crate::completeness::function;
use crate::error::{Kind, QueryError};
use crate::guard;
use crate::pg::is_json;
use routines::Routines;
use tables::{Shown, Tables};

/// The release of Postgres whose catalogue this is like. Clients choose their questions by it.
pub(crate) const SERVER_VERSION: &str = "16.6";
const PG_CATALOG: &str = "pg_catalog";
/// Whoever says one of these, or a word that begins with `pg_`, asks the catalogue.
const CATALOG_WORDS: [&str; 15] = [
    "information_schema",
    "current_schema",
    "current_schemas",
    "current_setting",
    "generate_subscripts",
    "parse_ident",
    "quote_ident",
    "current_database",
    "current_catalog",
    "current_user",
    "session_user",
    "version",
    "format_type",
    "regclass",
    "regtype",
];

/// Made once: its numbers for tables stay the same from one question to the next.
#[derive(Debug)]
pub(crate) struct PgCatalog {
    parser: PostgresCompatibilityParser,
    /// Functions and types of Postgres on top of ours.
    state: SessionState,
    tables: Arc<dyn SchemaProvider>,
    information: Arc<dyn SchemaProvider>,
}

impl PgCatalog {
    /// `session` is one of ours: what tables there are is read from it, and none of their rows.
    pub(crate) async fn new(session: &SessionContext) -> Result<PgCatalog> {
        let (names, mut shown) = (MemorySchemaProvider::new(), Shown::default());
        let schema = session.catalog(CATALOG).and_then(|c| c.schema(SCHEMA));
        if let Some(schema) = schema {
            for name in schema.table_names() {
                if let Some(table) = schema.table(&name).await? {
                    if table.table_type() == TableType::View {
                        shown.views.insert(name.clone());
                    }
                    let schema = table.schema();
                    let json = schema.fields().iter().filter(|field| is_json(field.data_type()));
                    shown
                        .json
                        .extend(json.map(|field| (name.clone(), field.name().clone())));
                    let empty = RecordBatch::new_empty(Arc::clone(&schema));
                    names.register_table(name, Arc::new(MemTable::try_new(schema, vec![vec![empty]])?))?;
                }
            }
        }
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(SCHEMA, Arc::new(names))?;
        let catalog: Arc<dyn CatalogProvider> = Arc::new(catalog);
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::clone(&catalog));
        let state = SessionStateBuilder::new_from_existing(session.state())
            .with_catalog_list(Arc::new(catalogs))
            // They hold the rows of whoever asked first.
            .with_table_functions(std::collections::HashMap::new())
            .build();
        let ctx = SessionContext::new_with_state(state);
        setup_pg_catalog(&ctx, CATALOG, EmptyContextProvider).map_err(|error| *error)?;
        functions::register(&ctx);
        ctx.register_udf(version());
        ctx.register_udf(to_regtype());
        let session = session.state();
        let table_functions = session.table_functions().keys().map(String::as_str);
        // made for the queries that name it
        let routines = Routines::of(&session, table_functions.chain([function::NAME]));
        for function in routines.functions() {
            ctx.register_udf(function);
        }
        let tables = catalog
            .schema(PG_CATALOG)
            .ok_or_else(|| DataFusionError::Internal("the catalogue of Postgres was not made".into()))?;
        let tables: Arc<dyn SchemaProvider> = Arc::new(Tables::over(tables, &ctx, &shown, &routines).await?);
        catalog.register_schema(PG_CATALOG, Arc::clone(&tables))?;
        let information: Arc<dyn SchemaProvider> = Arc::new(information::schema(&ctx).await?);
        Ok(PgCatalog {
            parser: PostgresCompatibilityParser::new(),
            state: ctx.state(),
            tables,
            information,
        })
    }

    /// One reading statement, and whether it needs the catalogue's names. What means the same here as on the other doors is read
    /// as there, so that it gets the same answer.
    pub(crate) fn parse(&self, sql: &str, session: &SessionContext) -> Result<(Statement, bool), QueryError> {
        let words = Tokenizer::new(&PostgreSqlDialect {}, sql)
            .tokenize()
            .unwrap_or_default();
        guard::measure(&words)?;
        if asks_catalog(&words) {
            return Ok((self.parse_foreign(sql)?, true));
        }
        match guard::parse(sql, &session.state().config_options().sql_parser) {
            Ok(statement) => Ok((statement, false)),
            // Written in a way that only Postgres reads; if not even that, the first refusal names the place.
            Err(refusal) if refusal.kind == Kind::Syntax => match self.parse_foreign(sql) {
                Ok(statement) => Ok((statement, true)),
                Err(_) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        }
    }

    fn parse_foreign(&self, sql: &str) -> Result<Statement, QueryError> {
        let without = rewrite::without_objects(sql);
        let parsed = self.parser.parse(without.as_deref().unwrap_or(sql));
        let mut statements = parsed.map_err(|error| crate::position::syntax(sql, &error.to_string()).because(error))?;
        let more = statements.len().saturating_sub(1);
        let first = (!statements.is_empty()).then(|| {
            let mut first = statements.remove(0);
            rewrite::rewrite(&mut first);
            Statement::Statement(Box::new(first))
        });
        guard::one(first, more)
    }

    /// The same session with the catalogue beside its own tables.
    pub(crate) fn extend(&self, session: &SessionContext) -> Result<SessionContext> {
        let catalogs = Arc::clone(session.state().catalog_list());
        if let Some(catalog) = catalogs.catalog(CATALOG) {
            catalog.register_schema(PG_CATALOG, Arc::clone(&self.tables))?;
            catalog.register_schema(information::SCHEMA, Arc::clone(&self.information))?;
        }
        let mut table_functions = self.state.table_functions().clone();
        table_functions.extend(session.state().table_functions().clone());
        // The limits of this query, and not of the one that the catalogue was made in.
        let mut config = self.state.config().clone();
        if let Some(limits) = session.state().config().get_extension::<StatementLimits>() {
            config = config.with_extension(limits);
        }
        let state = SessionStateBuilder::new_from_existing(self.state.clone())
            .with_config(config)
            .with_catalog_list(catalogs)
            .with_runtime_env(session.runtime_env())
            .with_table_functions(table_functions)
            .build();
        Ok(SessionContext::new_with_state(state))
    }
}

fn asks_catalog(words: &[Token]) -> bool {
    words.iter().any(|token| match token {
        Token::Word(word) => {
            let word = word.value.to_ascii_lowercase();
            word.starts_with("pg_") || word.starts_with("_pg_") || CATALOG_WORDS.contains(&word.as_str())
        }
        _ => false,
    })
}

/// What clients take the release from. It says nothing of this process.
fn version() -> ScalarUDF {
    let text = format!("PostgreSQL {SERVER_VERSION} (Sluice)");
    let answer = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(text.clone()))));
    create_udf(
        "version",
        Vec::new(),
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(answer),
    )
}

/// The number of a type by its name, by which drivers find out what a server knows; null: it does not know it.
fn to_regtype() -> ScalarUDF {
    let answer = |arguments: &[ColumnarValue]| match arguments {
        [ColumnarValue::Scalar(ScalarValue::Utf8(name))] => {
            let number = name.as_deref().and_then(type_number);
            Ok(ColumnarValue::Scalar(ScalarValue::Int32(number)))
        }
        [ColumnarValue::Array(names)] if names.data_type() == &DataType::Utf8 => {
            let names = names.as_string::<i32>();
            let numbers: Int32Array = names.iter().map(|name| name.and_then(type_number)).collect();
            Ok(ColumnarValue::Array(Arc::new(numbers)))
        }
        _ => Err(DataFusionError::Execution("to_regtype takes one text".into())),
    };
    let takes = vec![DataType::Utf8];
    create_udf(
        "to_regtype",
        takes,
        DataType::Int32,
        Volatility::Stable,
        Arc::new(answer),
    )
}

/// Types of Postgres itself have numbers below this one.
const LAST_TYPE: u32 = 6_200;

fn type_number(name: &str) -> Option<i32> {
    let known = (1..LAST_TYPE)
        .filter_map(Type::from_oid)
        .find(|known| known.name() == name)?;
    i32::try_from(known.oid()).ok()
}
