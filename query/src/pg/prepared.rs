//! A statement that a client sent ahead of its values: what it asks for and gives back, and its values when they come.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use async_trait::async_trait;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use datafusion_postgres::arrow_pg::datatypes::into_pg_type;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::results::FieldInfo;
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::{ClientInfo, Type};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};

use super::command::{self, Command};
use super::handler::{session, usable};
use super::{Door, failure, rows};
use crate::engine::Dialect;
use crate::shape::Shape;

/// A statement that was read, and planned if it is a query.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) sql: Arc<str>,
    pub(super) command: Command,
    pub(super) shape: Option<Shape>,
}

/// Plans a query for its parameters and columns.
pub(super) struct Parser {
    door: Arc<Door>,
}

impl Parser {
    pub(super) fn new(door: Arc<Door>) -> Parser {
        Parser { door }
    }
}

impl Prepared {
    /// Columns of its answer.
    pub(super) fn columns(&self) -> usize {
        match (&self.shape, &self.command) {
            (Some(shape), _) => shape.schema.fields().len(),
            (None, Command::Show { .. }) => 1,
            _ => 0,
        }
    }
}

#[async_trait]
impl QueryParser for Parser {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let session = session(client)?;
        let sql = match command::split(sql).as_slice() {
            [] => return Ok(None),
            // the text as it came, so that places in it are right
            [_] => sql.trim_end().trim_end_matches(';'),
            _ => {
                return Err(failure::refused(
                    "42601",
                    "cannot insert multiple commands into a prepared statement",
                ));
            }
        };
        let command = command::of(sql);
        usable(client, &command)?;
        let shape = match command {
            Command::Query => {
                let declared = types.iter().map(declared).collect();
                let shape = self
                    .door
                    .engine
                    .shape(&session.who, sql, Dialect::Postgres, declared)
                    .await;
                Some(shape.map_err(|error| failure::of_query(error, sql, ""))?)
            }
            _ => None,
        };
        Ok(Some(Prepared {
            sql: sql.into(),
            command,
            shape,
        }))
    }

    fn get_parameter_types(&self, prepared: &Prepared) -> PgWireResult<Vec<Type>> {
        let shape = prepared.shape.as_ref();
        Ok(shape.map_or_else(Vec::new, |shape| shape.params.iter().map(wire_type).collect()))
    }

    fn get_result_schema(&self, prepared: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        let format = format.unwrap_or(&Format::UnifiedText);
        match (&prepared.shape, &prepared.command) {
            (Some(shape), _) => rows::fields(&shape.schema, format),
            (None, Command::Show { name }) => Ok(vec![rows::named(name, format.format_for(0))]),
            _ => Ok(Vec::new()),
        }
    }
}

/// The values of a portal, which are as many as its statement takes.
pub(super) fn parameters(portal: &Portal<Prepared>, shape: &Shape) -> PgWireResult<Vec<ScalarValue>> {
    let types: Vec<Type> = shape.params.iter().map(wire_type).collect();
    let wanted: Vec<Option<&DataType>> = shape.params.iter().map(Some).collect();
    let types: Vec<Option<&Type>> = types.iter().map(Some).collect();
    let values = deserialize_parameters_with_server_types(portal, &wanted, &types).map_err(|error| match error {
        PgWireError::UserError(info) => PgWireError::UserError(info),
        other => failure::refused("22P02", &format!("a parameter cannot be read: {other}")),
    })?;
    match values {
        ParamValues::List(values) => Ok(values.into_iter().map(|value| value.value).collect()),
        ParamValues::Map(_) => Err(failure::refused("0A000", "parameters are $1, $2, …")),
    }
}

fn wire_type(kind: &DataType) -> Type {
    match into_pg_type(kind) {
        Ok(kind) if kind != Type::UNKNOWN => kind,
        _ => Type::TEXT,
    }
}

/// What a client calls its parameter's type in our types; `None`: it leaves that to us, or it is a type that has no one counterpart.
fn declared(kind: &Option<Type>) -> Option<DataType> {
    Some(match kind.clone()? {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::TEXT | Type::VARCHAR => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => return None,
    })
}
