//! `information_schema` as clients of Postgres know it: types by the names that Postgres gives them, and rights as they are. What
//! is asked of it is asked of a schema of another name, because the engine has one of its own in the words of its types.

use std::sync::Arc;

use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use super::sheet::Sheet;

const STANDARD: &str = "information_schema";
/// Where the tables lie.
pub(super) const SCHEMA: &str = "pg_information";

/// The name of a table and how its rows are found in the catalogue.
const TABLES: [(&str, &str); 10] = [
    (
        "schemata",
        "SELECT 'sluice' AS catalog_name, nspname AS schema_name, 'sluice' AS schema_owner,
           CAST(NULL AS TEXT) AS default_character_set_name, CAST(NULL AS TEXT) AS sql_path
         FROM pg_catalog.pg_namespace UNION ALL
         SELECT 'sluice', 'information_schema', 'sluice', NULL, NULL",
    ),
    (
        "tables",
        "SELECT 'sluice' AS table_catalog, n.nspname AS table_schema, c.relname AS table_name,
           CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'BASE TABLE' END AS table_type,
           'NO' AS is_insertable_into, 'NO' AS is_typed, CAST(NULL AS TEXT) AS commit_action
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY table_schema, table_name",
    ),
    (
        "views",
        "SELECT 'sluice' AS table_catalog, n.nspname AS table_schema, c.relname AS table_name,
           CAST(NULL AS TEXT) AS view_definition, 'NONE' AS check_option, 'NO' AS is_updatable, 'NO' AS is_insertable_into
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'v'",
    ),
    (
        "columns",
        "SELECT 'sluice' AS table_catalog, n.nspname AS table_schema, c.relname AS table_name, a.attname AS column_name,
           CAST(a.attnum AS INT) AS ordinal_position, CAST(NULL AS TEXT) AS column_default,
           CASE WHEN a.attnotnull THEN 'NO' ELSE 'YES' END AS is_nullable,
           CASE WHEN t.typcategory = 'A' THEN 'ARRAY' ELSE format_type(CAST(a.atttypid AS INT), CAST(NULL AS INT)) END AS data_type,
           CAST(NULL AS INT) AS character_maximum_length, CAST(NULL AS INT) AS character_octet_length,
           CASE t.typname WHEN 'int2' THEN 16 WHEN 'int4' THEN 32 WHEN 'int8' THEN 64 WHEN 'float4' THEN 24 WHEN 'float8' THEN 53 END AS numeric_precision,
           CASE WHEN t.typname IN ('int2', 'int4', 'int8', 'float4', 'float8') THEN 2 END AS numeric_precision_radix,
           CASE WHEN t.typname IN ('int2', 'int4', 'int8') THEN 0 END AS numeric_scale,
           CASE WHEN t.typname IN ('timestamp', 'timestamptz', 'time', 'interval') THEN 6 END AS datetime_precision,
           CAST(NULL AS TEXT) AS collation_name, CAST(NULL AS TEXT) AS domain_name,
           'sluice' AS udt_catalog, 'pg_catalog' AS udt_schema, t.typname AS udt_name,
           'NO' AS is_identity, 'NEVER' AS is_generated, CAST(NULL AS TEXT) AS generation_expression, 'NO' AS is_updatable
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         ORDER BY table_schema, table_name, ordinal_position",
    ),
    (
        "table_privileges",
        "SELECT 'sluice' AS grantor, 'sluice' AS grantee, 'sluice' AS table_catalog, n.nspname AS table_schema,
           c.relname AS table_name, 'SELECT' AS privilege_type, 'NO' AS is_grantable, 'NO' AS with_hierarchy
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
    ),
    (
        "routines",
        "SELECT 'sluice' AS specific_catalog, 'public' AS specific_schema, concat(p.proname, '_', p.oid) AS specific_name,
           'sluice' AS routine_catalog, 'public' AS routine_schema, p.proname AS routine_name, 'FUNCTION' AS routine_type,
           pg_get_function_result(p.oid) AS data_type, 'INTERNAL' AS external_language
         FROM pg_catalog.pg_proc p",
    ),
    (
        "table_constraints",
        "SELECT 'sluice' AS constraint_catalog, '' AS constraint_schema, '' AS constraint_name, 'sluice' AS table_catalog,
           '' AS table_schema, '' AS table_name, '' AS constraint_type, 'NO' AS is_deferrable, 'NO' AS initially_deferred
         WHERE false",
    ),
    (
        "key_column_usage",
        "SELECT 'sluice' AS constraint_catalog, '' AS constraint_schema, '' AS constraint_name, 'sluice' AS table_catalog,
           '' AS table_schema, '' AS table_name, '' AS column_name, CAST(0 AS INT) AS ordinal_position,
           CAST(0 AS INT) AS position_in_unique_constraint
         WHERE false",
    ),
    (
        "constraint_column_usage",
        "SELECT 'sluice' AS table_catalog, '' AS table_schema, '' AS table_name, '' AS column_name,
           'sluice' AS constraint_catalog, '' AS constraint_schema, '' AS constraint_name
         WHERE false",
    ),
    (
        "referential_constraints",
        "SELECT 'sluice' AS constraint_catalog, '' AS constraint_schema, '' AS constraint_name,
           'sluice' AS unique_constraint_catalog, '' AS unique_constraint_schema, '' AS unique_constraint_name,
           '' AS match_option, '' AS update_rule, '' AS delete_rule
         WHERE false",
    ),
];

/// All of them, asked of a session that has the catalogue.
pub(super) async fn schema(ctx: &SessionContext) -> Result<MemorySchemaProvider> {
    let schema = MemorySchemaProvider::new();
    for (name, sql) in TABLES {
        let rows = ctx.sql(sql).await?;
        let sheet = Sheet::of(ctx, rows.into_view()).await?;
        schema.register_table(name.to_owned(), Arc::new(sheet.table()?))?;
    }
    Ok(schema)
}

/// Sends a question about one of the tables there.
pub(super) fn redirect(name: &mut ObjectName) {
    let [
        ..,
        ObjectNamePart::Identifier(schema),
        ObjectNamePart::Identifier(table),
    ] = name.0.as_mut_slice()
    else {
        return;
    };
    let is_ours = TABLES.iter().any(|(ours, _)| table.value.eq_ignore_ascii_case(ours));
    if is_ours && schema.value.eq_ignore_ascii_case(STANDARD) {
        *schema = Ident::new(SCHEMA);
        *table = Ident::new(table.value.to_ascii_lowercase());
    }
}
