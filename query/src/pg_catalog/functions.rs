//! Functions that clients call on the catalogue of Postgres and that have one answer here, because there is nothing of the kind: no
//! sequences, no indexes, no descriptions.

use std::sync::Arc;

use arrow::array::StringArray;
use arrow::array::cast::AsArray;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, create_udf,
};
use datafusion::prelude::SessionContext;

use super::SERVER_VERSION;

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

/// Makes known what is not known yet.
pub(super) fn register(ctx: &SessionContext) {
    let nothing = [
        "col_description",
        "json_build_object",
        "obj_description",
        "pg_get_constraintdef",
        "pg_get_functiondef",
        "pg_get_indexdef",
        "pg_get_ruledef",
        "pg_get_serial_sequence",
        "pg_get_triggerdef",
        "pg_get_viewdef",
        "shobj_description",
    ];
    let number = |name: &str| Field::new(name, DataType::Int32, true);
    let pair = Fields::from(vec![number("x"), number("n")]);
    let constants = nothing.map(|name| (name, ScalarValue::Utf8(None))).into_iter().chain([
        ("pg_collation_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_type_is_visible", ScalarValue::Boolean(Some(true))),
        (
            "_pg_expandarray",
            ScalarValue::try_new_null(&DataType::Struct(pair)).unwrap_or(ScalarValue::Null),
        ),
    ]);
    for (name, value) in constants {
        if ctx.udf(name).is_err() {
            ctx.register_udf(ScalarUDF::from(Constant::new(name, value)));
        }
    }
    if ctx.udf("current_setting").is_err() {
        ctx.register_udf(current_setting());
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
            signature: Signature::variadic_any(Volatility::Stable),
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
