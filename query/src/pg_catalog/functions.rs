//! Functions that clients call on the catalogue of Postgres and that have one answer here, because there is nothing of the kind: no
//! sequences, no indexes, no descriptions.

use std::sync::Arc;

use arrow::array::StringArray;
use arrow::array::cast::AsArray;
use arrow::datatypes::{DataType, Field, Fields, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility, create_udf,
};
use datafusion::prelude::SessionContext;

use super::SERVER_VERSION;
use super::tables::OWNER;

/// What `current_setting` and `pg_settings` say.
pub(super) const SETTINGS: [(&str, &str); 10] = [
    ("block_size", "8192"),
    ("client_encoding", "UTF8"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("standard_conforming_strings", "on"),
    ("timezone", "UTC"),
];

/// Descriptions and texts of things that are not here.
const NOTHING: [&str; 13] = [
    "col_description",
    "json_build_object",
    "obj_description",
    "pg_get_function_arg_default",
    "pg_get_function_sqlbody",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "pg_relation_filenode",
    "shobj_description",
];
/// Defaults, parts and constraints, of which the library makes empty texts.
const DEFINITIONS: [&str; 3] = ["pg_get_constraintdef", "pg_get_expr", "pg_get_partkeydef"];
/// There is one schema for each kind of thing, and everybody sees it.
const VISIBLE: [&str; 12] = [
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_function_is_visible",
    "pg_opclass_is_visible",
    "pg_operator_is_visible",
    "pg_opfamily_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible",
    "pg_type_is_visible",
];
/// Rows lie in a log, in two stores and in files that many tables share: nobody has asked how much of that is one table.
const SIZES: [&str; 6] = [
    "pg_database_size",
    "pg_indexes_size",
    "pg_relation_size",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
];
/// The number of the one encoding.
const UTF8: i32 = 6;

/// Makes known what is not known yet, and puts right what is.
pub(super) fn register(ctx: &SessionContext) {
    for name in NOTHING {
        known(ctx, name, ScalarValue::Utf8(None));
    }
    for name in VISIBLE {
        known(ctx, name, ScalarValue::Boolean(Some(true)));
    }
    let number = |name: &str| Field::new(name, DataType::Int32, true);
    let pair = DataType::Struct(Fields::from(vec![number("x"), number("n")]));
    known(
        ctx,
        "_pg_expandarray",
        ScalarValue::try_new_null(&pair).unwrap_or(ScalarValue::Null),
    );
    known(ctx, "pg_is_in_recovery", ScalarValue::Boolean(Some(false)));
    known(ctx, "pg_my_temp_schema", ScalarValue::Int32(Some(0)));
    known(ctx, "pg_char_to_encoding", ScalarValue::Int32(Some(UTF8)));
    known(ctx, "pg_tablespace_location", ScalarValue::Utf8(Some(String::new())));
    // the library knows these, and of another server
    let owner = ScalarValue::Utf8(Some(OWNER.to_owned()));
    for name in ["pg_get_userbyid", "session_user"] {
        ctx.register_udf(ScalarUDF::from(Constant::new(name, owner.clone())));
    }
    for name in DEFINITIONS {
        ctx.register_udf(ScalarUDF::from(Constant::new(name, ScalarValue::Utf8(None))));
    }
    for name in SIZES {
        ctx.register_udf(ScalarUDF::from(Constant::new(name, ScalarValue::Int64(None))));
    }
    ctx.register_udf(pg_encoding_to_char());
    ctx.register_udf(pg_size_pretty());
    if ctx.udf("current_setting").is_err() {
        ctx.register_udf(current_setting());
    }
}

fn known(ctx: &SessionContext, name: &'static str, value: ScalarValue) {
    if ctx.udf(name).is_err() {
        ctx.register_udf(ScalarUDF::from(Constant::new(name, value)));
    }
}

/// The same answer whatever it is asked.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl Constant {
    fn new(name: &'static str, value: ScalarValue) -> Constant {
        Constant {
            name,
            value,
            signature: Signature::one_of(
                vec![TypeSignature::VariadicAny, TypeSignature::Nullary],
                Volatility::Stable,
            ),
        }
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

fn pg_encoding_to_char() -> ScalarUDF {
    of_numbers("pg_encoding_to_char", |number| {
        let name = if number == i64::from(UTF8) { "UTF8" } else { "" };
        Some(name.to_owned())
    })
}

/// Bytes as Postgres shows them: with the largest unit that leaves more than a few digits.
fn pg_size_pretty() -> ScalarUDF {
    of_numbers("pg_size_pretty", |bytes| {
        const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
        // below ten of a unit the smaller one says more
        const MOST: i128 = 10 * 1_024;
        let (mut size, mut unit) = (i128::from(bytes), 0);
        while size.abs() >= MOST && unit + 1 < UNITS.len() {
            size = (size + size.signum() * 512) / 1_024;
            unit += 1;
        }
        Some(format!("{size} {}", UNITS[unit]))
    })
}

/// A function from a number to a text about it; null where there is none.
pub(super) fn of_numbers(name: &str, say: impl Fn(i64) -> Option<String> + Send + Sync + 'static) -> ScalarUDF {
    let answer = move |arguments: &[ColumnarValue]| {
        let numbers = ColumnarValue::values_to_arrays(arguments)?;
        let numbers = numbers[0].as_primitive::<Int64Type>().iter();
        let texts: StringArray = numbers.map(|number| say(number?)).collect();
        Ok(ColumnarValue::Array(Arc::new(texts)))
    };
    create_udf(
        name,
        vec![DataType::Int64],
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(answer),
    )
}

fn current_setting() -> ScalarUDF {
    let value = |name: &str| {
        let known = SETTINGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, value)| (*value).to_owned())
    };
    let answer = move |arguments: &[ColumnarValue]| match arguments {
        [ColumnarValue::Scalar(ScalarValue::Utf8(name))] => {
            let value = name.as_deref().and_then(value);
            Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)))
        }
        [ColumnarValue::Array(names)] if names.data_type() == &DataType::Utf8 => {
            let names = names.as_string::<i32>();
            let values: StringArray = names.iter().map(|name| name.and_then(value)).collect();
            Ok(ColumnarValue::Array(Arc::new(values)))
        }
        _ => Err(DataFusionError::Execution("current_setting takes one text".into())),
    };
    let takes = vec![DataType::Utf8];
    create_udf(
        "current_setting",
        takes,
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(answer),
    )
}
