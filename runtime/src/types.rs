//! Which type a column has by its name (crates/wire/FORMAT.md), for columns that a plugin adds to a batch.

use std::sync::Arc;

use arrow_schema::{DataType, Field};
use sluice_wire::layout;

/// The type without dictionary; `None` for a name that is no column.
pub(crate) fn expected_type(name: &str) -> Option<DataType> {
    core_type(name).or_else(|| attribute_type(name))
}

fn core_type(name: &str) -> Option<DataType> {
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    Some(match name {
        "time" | "observed_time" | "start_time" | "duration_ns" | "value_int" => DataType::Int64,
        "severity" | "scale" | "positive_offset" | "negative_offset" => DataType::Int32,
        "time_unset" | "monotonic" => DataType::Boolean,
        "flags"
        | "dropped_attributes"
        | "dropped_events"
        | "dropped_links"
        | "resource_dropped_attributes"
        | "scope_dropped_attributes" => DataType::UInt32,
        "count" | "zero_count" => DataType::UInt64,
        "value" | "sum" | "min" | "max" | "zero_threshold" | "weight" => DataType::Float64,
        "trace_id" => DataType::FixedSizeBinary(16),
        "span_id" | "parent_span_id" => DataType::FixedSizeBinary(8),
        "bounds" => list(DataType::Float64),
        "buckets" | "positive_buckets" | "negative_buckets" => list(DataType::UInt64),
        "resource_schema_url"
        | "scope_name"
        | "scope_version"
        | "scope_schema_url"
        | "entity_refs"
        | "name"
        | "body"
        | "body_type"
        | "severity_text"
        | "kind"
        | "status"
        | "status_message"
        | "trace_state"
        | "span_events"
        | "links"
        | "unit"
        | "description"
        | "metadata"
        | "metric_type"
        | "temporality"
        | "quantiles"
        | "exemplars"
        | "duplicate_attrs" => DataType::Utf8,
        _ => return None,
    })
}

fn attribute_type(name: &str) -> Option<DataType> {
    let (group, rest) = name.split_once(':')?;
    if !matches!(group, "attrs" | "resource" | "scope") {
        return None;
    }
    if rest == "*" {
        let entry = DataType::Struct(layout::rest_fields());
        return Some(DataType::new_list(entry, false));
    }
    let (kind, _key) = rest.split_once(':')?;
    Some(match kind {
        "s" | "j" => DataType::Utf8,
        "i" => DataType::Int64,
        "d" => DataType::Float64,
        "b" | "n" => DataType::Boolean,
        "y" => DataType::Binary,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_types() {
        assert_eq!(expected_type("weight"), Some(DataType::Float64));
        assert_eq!(expected_type("attrs:s:a:b"), Some(DataType::Utf8));
        assert_eq!(expected_type("resource:i:n"), Some(DataType::Int64));
        assert!(matches!(expected_type("scope:*"), Some(DataType::List(entry)) if !entry.is_nullable()));
        for unknown in ["attrs:x:a", "other:s:a", "attrs:s", "colour", "signal"] {
            assert_eq!(expected_type(unknown), None, "{unknown}");
        }
    }
}
