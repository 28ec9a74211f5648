//! What a client asks before it asks for rows: catalogs, schemas, tables and their columns, types, and what this server can do.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    GetCatalogsBuilder, GetDbSchemasBuilder, GetTablesBuilder, SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo,
    XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Command, CommandGetTables, Nullable, Searchable, SqlInfo, SqlSupportedTransaction, XdbcDataType,
    XdbcDatetimeSubcode,
};
use tonic::Status;

use super::{Door, answer, failure};
use crate::catalog::{CATALOG, SCHEMA};
use crate::tokens::Identity;

/// The Arrow columns of a command's answer; `None`: the command asks for nothing of the kind.
pub(super) fn schema(command: &Command) -> Result<Option<SchemaRef>, Status> {
    Ok(Some(match command {
        Command::CommandGetCatalogs(_) => GetCatalogsBuilder::new().schema(),
        Command::CommandGetDbSchemas(asked) => GetDbSchemasBuilder::from(asked.clone()).schema(),
        Command::CommandGetTables(asked) => GetTablesBuilder::from(asked.clone()).schema(),
        Command::CommandGetTableTypes(asked) => asked.into_builder().schema(),
        Command::CommandGetSqlInfo(_) => sql_info()?.schema(),
        Command::CommandGetXdbcTypeInfo(_) => types()?.schema(),
        Command::CommandGetPrimaryKeys(_) => primary_keys(),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => foreign_keys(),
        _ => return Ok(None),
    }))
}

/// The rows of a command's answer.
pub(super) async fn rows(door: &Door, who: &Identity, command: Command) -> Result<Option<RecordBatch>, Status> {
    let made = match command {
        Command::CommandGetCatalogs(_) => {
            let mut builder = GetCatalogsBuilder::new();
            builder.append(CATALOG);
            builder.build()
        }
        Command::CommandGetDbSchemas(asked) => {
            let mut builder = GetDbSchemasBuilder::from(asked);
            builder.append(CATALOG, SCHEMA);
            builder.build()
        }
        Command::CommandGetTables(asked) => tables(door, who, asked).await?,
        Command::CommandGetTableTypes(asked) => {
            let mut builder = asked.into_builder();
            for kind in ["TABLE", "VIEW"] {
                builder.append(kind);
            }
            builder.build()
        }
        Command::CommandGetSqlInfo(asked) => sql_info()?.record_batch(asked.info),
        Command::CommandGetXdbcTypeInfo(asked) => types()?.record_batch(asked.data_type),
        // telemetry has no keys
        Command::CommandGetPrimaryKeys(_) => Ok(RecordBatch::new_empty(primary_keys())),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => Ok(RecordBatch::new_empty(foreign_keys())),
        _ => return Ok(None),
    };
    made.map(Some).map_err(failure::of_flight)
}

async fn tables(
    door: &Door,
    who: &Identity,
    asked: CommandGetTables,
) -> Result<Result<RecordBatch, FlightError>, Status> {
    let mut builder = GetTablesBuilder::from(asked);
    for table in door.engine.tables(who).await.map_err(failure::of_query)? {
        let kind = if table.view { "VIEW" } else { "TABLE" };
        let columns = answer::schema(&table.schema);
        if let Err(error) = builder.append(CATALOG, SCHEMA, table.name, kind, &columns) {
            return Ok(Err(error));
        }
    }
    Ok(builder.build())
}

fn sql_info() -> Result<SqlInfoData, Status> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Sluice");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(
        SqlInfo::FlightSqlServerTransaction,
        SqlSupportedTransaction::None as i32,
    );
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    info.build().map_err(failure::of_flight)
}

fn types() -> Result<XdbcTypeInfoData, Status> {
    let quoted = Some("'".to_owned());
    let mut builder = XdbcTypeInfoDataBuilder::new();
    let plain = |name: &str, kind: XdbcDataType, size: i32| XdbcTypeInfo {
        type_name: name.into(),
        data_type: kind,
        sql_data_type: kind,
        column_size: Some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        ..XdbcTypeInfo::default()
    };
    for (name, kind, size) in [
        ("BOOLEAN", XdbcDataType::XdbcBit, 1),
        ("TINYINT", XdbcDataType::XdbcTinyint, 8),
        ("SMALLINT", XdbcDataType::XdbcSmallint, 16),
        ("INTEGER", XdbcDataType::XdbcInteger, 32),
        ("BIGINT", XdbcDataType::XdbcBigint, 64),
        ("REAL", XdbcDataType::XdbcReal, 24),
        ("DOUBLE", XdbcDataType::XdbcDouble, 53),
    ] {
        builder.append(XdbcTypeInfo {
            unsigned_attribute: Some(false),
            num_prec_radix: Some(2),
            ..plain(name, kind, size)
        });
    }
    for (name, kind) in [
        ("VARCHAR", XdbcDataType::XdbcVarchar),
        ("BYTEA", XdbcDataType::XdbcVarbinary),
    ] {
        builder.append(XdbcTypeInfo {
            literal_prefix: quoted.clone(),
            literal_suffix: quoted.clone(),
            case_sensitive: true,
            ..plain(name, kind, i32::MAX)
        });
    }
    for (name, kind, size, code) in [
        // the library has one name for each number, and 1 is both year and date
        ("DATE", XdbcDataType::XdbcDate, 10, XdbcDatetimeSubcode::XdbcSubcodeYear),
        (
            "TIMESTAMP",
            XdbcDataType::XdbcTimestamp,
            29,
            XdbcDatetimeSubcode::XdbcSubcodeTimestamp,
        ),
    ] {
        builder.append(XdbcTypeInfo {
            literal_prefix: quoted.clone(),
            literal_suffix: quoted.clone(),
            sql_data_type: XdbcDataType::XdbcDatetime,
            datetime_subcode: Some(code),
            ..plain(name, kind, size)
        });
    }
    builder.build().map_err(failure::of_flight)
}

/// As `FlightSql.proto` has them.
fn primary_keys() -> SchemaRef {
    let text = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        text("key_name", true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

fn foreign_keys() -> SchemaRef {
    let text = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}
