//! The functions of this product under `pg_proc`, where the library shows those of a server of Postgres: what is listed can be called.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, StringArray};
use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Documentation, ScalarUDF, Signature, TypeSignature, Volatility};

use super::functions::of_numbers;
use super::sheet::Sheet;
use super::tables::OWNER_NUMBER;

/// Numbers of functions begin here: above those of Postgres' own objects and of the tables of this catalogue.
const FIRST: i32 = 1 << 20;
/// `any` and `record` of Postgres: what a function gives depends on what it is given.
const ANY: i32 = 2276;
const RECORD: i32 = 2249;
/// The language called `internal`.
const INTERNAL: i32 = 12;

#[derive(Debug, PartialEq, Eq)]
struct Routine {
    kind: &'static str,
    /// As people read it, not as a parser does.
    arguments: String,
    of_rows: bool,
    volatility: &'static str,
}

/// The functions of a session, by name.
#[derive(Debug)]
pub(super) struct Routines(BTreeMap<String, Routine>);

impl Routines {
    /// Those of `state`. `tables` are the names of functions that stand in the place of a table.
    pub(super) fn of<'a>(state: &SessionState, tables: impl Iterator<Item = &'a str>) -> Routines {
        let mut all = BTreeMap::new();
        for (name, f) in state.scalar_functions() {
            all.insert(name.clone(), Routine::new("f", f.documentation(), f.signature()));
        }
        for (name, f) in state.window_functions() {
            all.insert(name.clone(), Routine::new("w", f.documentation(), f.signature()));
        }
        for (name, f) in state.aggregate_functions() {
            all.insert(name.clone(), Routine::new("a", f.documentation(), f.signature()));
        }
        for name in tables {
            all.entry(name.to_owned()).or_insert_with(|| Routine {
                kind: "f",
                arguments: "…".to_owned(),
                of_rows: true,
                volatility: "s",
            });
        }
        Routines(all)
    }

    /// The same under `pg_proc`, all in the schema of this number.
    pub(super) fn sheet(&self, schema: &Schema, public: i32) -> Result<Sheet> {
        let count = self.0.len();
        let mut sheet = Sheet::blank(schema, count);
        let texts = |of: fn(&Routine) -> &str| -> ArrayRef {
            Arc::new(
                self.0
                    .values()
                    .map(|routine| Some(of(routine)))
                    .collect::<StringArray>(),
            )
        };
        let of_rows: BooleanArray = self.0.values().map(|routine| Some(routine.of_rows)).collect();
        let gives: Int32Array = self
            .0
            .values()
            .map(|r| Some(if r.of_rows { RECORD } else { ANY }))
            .collect();
        sheet.set("oid", Arc::new((FIRST..).take(count).map(Some).collect::<Int32Array>()))?;
        sheet.set("proname", Arc::new(self.0.keys().map(Some).collect::<StringArray>()))?;
        sheet.set("prosrc", Arc::new(self.0.keys().map(Some).collect::<StringArray>()))?;
        sheet.set("prokind", texts(|routine| routine.kind))?;
        sheet.set("provolatile", texts(|routine| routine.volatility))?;
        sheet.set("proretset", Arc::new(of_rows))?;
        sheet.set("prorettype", Arc::new(gives))?;
        for (name, number) in [
            ("pronamespace", public),
            ("proowner", OWNER_NUMBER),
            ("prolang", INTERNAL),
            ("procost", 1),
            ("prorows", 0),
            ("provariadic", 0),
            ("pronargs", 0),
            ("pronargdefaults", 0),
        ] {
            sheet.fill(name, &ScalarValue::Int32(Some(number)))?;
        }
        for name in ["prosecdef", "proleakproof", "proisstrict"] {
            sheet.fill(name, &ScalarValue::Boolean(Some(false)))?;
        }
        for (name, text) in [("proparallel", "s"), ("proargtypes", ""), ("prosupport", "-")] {
            sheet.fill(name, &ScalarValue::Utf8(Some(text.to_owned())))?;
        }
        Ok(sheet)
    }

    /// What clients call to read of a function's arguments and of what it gives.
    pub(super) fn functions(&self) -> [ScalarUDF; 3] {
        let numbered = || (FIRST..).map(i64::from).zip(self.0.values());
        let arguments: HashMap<i64, String> = numbered().map(|(n, r)| (n, r.arguments.clone())).collect();
        let gives = |routine: &Routine| if routine.of_rows { "SETOF record" } else { "any" }.to_owned();
        let gives: HashMap<i64, String> = numbered().map(|(n, r)| (n, gives(r))).collect();
        let told =
            |name: &str, texts: HashMap<i64, String>| of_numbers(name, move |number| texts.get(&number).cloned());
        [
            told("pg_get_function_arguments", arguments.clone()),
            told("pg_get_function_identity_arguments", arguments),
            told("pg_get_function_result", gives),
        ]
    }
}

impl Routine {
    fn new(kind: &'static str, documentation: Option<&Documentation>, signature: &Signature) -> Routine {
        let documented = documentation.and_then(|d| within_brackets(&d.syntax_example));
        // one that looks at its arguments itself says nothing of them
        let arguments = documented.unwrap_or_else(|| match &signature.type_signature {
            TypeSignature::UserDefined => "…".to_owned(),
            known => known.to_string_repr().join(" | "),
        });
        Routine {
            kind,
            arguments,
            of_rows: false,
            volatility: match signature.volatility {
                Volatility::Immutable => "i",
                Volatility::Stable => "s",
                Volatility::Volatile => "v",
            },
        }
    }
}

/// `a, b` of `name(a, b)`; the name may be the first of several.
fn within_brackets(example: &str) -> Option<String> {
    let (name, rest) = example.trim().split_once('(')?;
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let (within, after) = rest.rsplit_once(')')?;
    (is_name && after.is_empty()).then(|| within.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_documentation() {
        assert_eq!(within_brackets("date_bin(a, b[, c])").as_deref(), Some("a, b[, c]"));
        assert_eq!(within_brackets("date_bin(f(x), y)").as_deref(), Some("f(x), y"));
        assert_eq!(within_brackets("now()").as_deref(), Some(""));
        assert_eq!(within_brackets("CASE WHEN (a) THEN b END"), None);
        assert_eq!(within_brackets("date_bin"), None);
    }
}
