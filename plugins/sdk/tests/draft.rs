//! Changes of columns and of rows against the same changes of JSON rows, over random batches in every layout.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use sluice_plugin::field::NONE;
use sluice_plugin::prelude::*;
use sluice_plugin::testing::{Defaults, Layout, batch};
use sluice_plugin::{Draft, Field, columns_of};
use sluice_plugin_fixture::{normal, rows};

const FIELDS: [&str; 8] = [
    "attrs.a",
    "attrs.b",
    "service",
    "resource.x",
    "scope.y",
    "name",
    "severity",
    "severity_text",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn json(&mut self) -> Json {
        match self.below(6) {
            0 | 1 => json!(format!("t{}", self.below(3))),
            2 => json!(self.below(3)),
            3 => json!(self.below(3) as f64 + 0.5),
            4 => json!(self.below(2) == 0),
            _ => json!("t4"),
        }
    }

    /// Of any type that an attribute can have.
    fn attribute(&mut self) -> Json {
        match self.below(8) {
            0 => json!([self.below(3)]),
            1 => json!({"$bytes": "AAEC"}),
            2 => Json::Null,
            _ => self.json(),
        }
    }

    fn row(&mut self) -> Json {
        let mut row = Map::new();
        for group in ["attrs", "resource", "scope", "attrs:*", "scope:*"] {
            if self.below(3) == 0 {
                continue;
            }
            let keys: &[&str] = match group {
                "attrs" => &["a", "b"],
                "attrs:*" => &["a", "other"],
                "scope:*" => &["y", "other"],
                _ => &["x", "y", "service.name"],
            };
            let mut attributes = Map::new();
            for key in keys {
                if self.below(2) == 0 {
                    attributes.insert((*key).to_owned(), self.attribute());
                }
            }
            row.insert(group.to_owned(), attributes.into());
        }
        // One key has one value.
        for group in ["attrs", "scope"] {
            let taken: Vec<String> = row
                .get(group)
                .and_then(Json::as_object)
                .map(|attributes| attributes.keys().cloned().collect())
                .unwrap_or_default();
            if let Some(Json::Object(rare)) = row.get_mut(&format!("{group}:*")) {
                rare.retain(|key, _| !taken.contains(key));
            }
        }
        if self.below(2) == 0 {
            row.insert("name".to_owned(), json!(format!("n{}", self.below(3))));
        }
        if self.below(2) == 0 {
            row.insert("severity".to_owned(), json!(self.below(24)));
        }
        row.into()
    }
}

fn value(json: &Json) -> Value<'static> {
    match json {
        Json::String(text) => Value::from(text.clone()),
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) if number.is_f64() => Value::Double(number.as_f64().unwrap()),
        Json::Number(number) => Value::Int(number.as_i64().unwrap()),
        _ => Value::Absent,
    }
}

/// The same change of a row in its compared form.
fn set(row: &mut Map<String, Json>, field: &str, new: &Json) {
    let (group, key) = match field {
        "service" => ("resource", "service.name"),
        field => match field.split_once('.') {
            Some(parts) => parts,
            None => {
                let text = value(new).text().into_owned();
                let new = match field {
                    "severity" => value(new).as_i64().map(Json::from),
                    _ if new.is_null() => None,
                    _ => Some(Json::from(text)),
                };
                match new {
                    Some(new) => row.insert(field.to_owned(), new),
                    None => row.remove(field),
                };
                return;
            }
        },
    };
    // `normal` shows a service that is text as a column.
    if let Some(service) = row.remove("service") {
        let resource = row.entry("resource").or_insert_with(|| json!({}));
        resource
            .as_object_mut()
            .unwrap()
            .insert("service.name".to_owned(), service);
    }
    let attributes = row.entry(group).or_insert_with(|| json!({})).as_object_mut().unwrap();
    match new {
        Json::Null => attributes.remove(key),
        new => attributes.insert(key.to_owned(), new.clone()),
    };
    *row = normal(row);
}

fn made(given: &[Json], layout: Layout) -> Batch {
    let defaults = Defaults {
        signal: "log".to_owned(),
        time: 1,
    };
    Batch::from(batch(given.into(), &defaults, layout).unwrap())
}

fn shown(batch: &Batch) -> Vec<Map<String, Json>> {
    let rows = rows(batch.records()).unwrap();
    rows.iter()
        .map(|row| {
            let mut row = normal(row);
            row.retain(|key, _| !["signal", "time"].contains(&key.as_str()));
            row
        })
        .collect()
}

#[test]
fn fields_are_read_and_assigned_as_rows_say() {
    let mut random = Random(1);
    for round in 0..400 {
        let layout = [Layout::Plain, Layout::Dictionary][round % 2];
        let count = 1 + random.below(20);
        let given: Vec<Json> = (0..count).map(|_| random.row()).collect();
        let batch = made(&given, layout);
        let mut model: Vec<_> = given.iter().map(|row| normal(row.as_object().unwrap())).collect();
        let mut draft = Draft::new(&batch);
        for _ in 0..1 + random.below(6) {
            let name = FIELDS[random.below(FIELDS.len())];
            let field = Field::parse(name).unwrap();
            let mut values: Vec<Json> = (0..random.below(4)).map(|_| random.json()).collect();
            values.push(Json::Null);
            let places: Vec<u32> = (0..count)
                .map(|_| match random.below(values.len() + 1) {
                    0 => NONE,
                    place => place as u32 - 1,
                })
                .collect();
            let new: Vec<Value<'_>> = values.iter().map(value).collect();
            draft.assign(&field, &new, &places).unwrap();
            for (row, place) in model.iter_mut().zip(&places).filter(|(_, place)| **place != NONE) {
                set(row, name, &values[*place as usize]);
            }
            let read = field.read(draft.batch());
            let distinct = read.distinct();
            let (values, places) = read.values();
            for row in 0..count {
                let text = read.get(row).is_present().then(|| read.get(row).text());
                assert!(read.is_present(row) || text.is_none());
                let value = (places[row] != NONE).then(|| values[places[row] as usize].clone());
                assert_eq!(value.unwrap_or_default(), read.get(row));
                let place = distinct.of_row[row];
                assert_eq!((place != NONE).then(|| distinct.texts[place as usize].clone()), text);
            }
        }
        assert_eq!(shown(draft.batch()), model, "round {round}, {layout:?}, {given:?}");
        // Columns that nothing was assigned to are not given back.
        for (name, column) in draft.clone().finish().columns() {
            assert!(
                batch
                    .column(name)
                    .is_none_or(|before| !std::sync::Arc::ptr_eq(before, column))
            );
        }
    }
}

#[test]
fn rows_are_changed_as_rows_say() {
    const ATTRIBUTES: [&str; 5] = ["attrs.a", "attrs.b", "service", "resource.x", "scope.y"];
    let columns: Vec<String> = ATTRIBUTES
        .iter()
        .flat_map(|name| columns_of(name))
        .chain(columns_of("resource.service.name"))
        .collect();
    let mut random = Random(2);
    for round in 0..400 {
        let layout = [Layout::Plain, Layout::Dictionary][round % 2];
        let count = 1 + random.below(20);
        let given: Vec<Json> = (0..count).map(|_| random.row()).collect();
        let batch = made(&given, layout);
        let mut model: Vec<_> = given.iter().map(|row| normal(row.as_object().unwrap())).collect();
        // For each row some fields, each once: reading shows the row as it came.
        let changes: Vec<BTreeMap<&str, Json>> = (0..count)
            .map(|_| {
                let change = |random: &mut Random| {
                    let new = if random.below(4) == 0 {
                        Json::Null
                    } else {
                        random.json()
                    };
                    (ATTRIBUTES[random.below(5)], new)
                };
                (0..random.below(4)).map(|_| change(&mut random)).collect()
            })
            .collect();
        let outcome = sluice_plugin::row::change(&batch, &columns, &columns, |row| {
            for (field, new) in &changes[row.index()] {
                let new = value(new);
                match *field {
                    "service" => match new {
                        Value::Absent => row.remove_resource("service.name"),
                        new => row.set_resource("service.name", new),
                    },
                    "attrs.a" => row.set_attr("a", new),
                    "attrs.b" => row.set_attr("b", new),
                    "resource.x" => row.set_resource("x", new),
                    _ => row.set_scope("y", new),
                }
            }
        })
        .unwrap();
        for (row, changes) in model.iter_mut().zip(&changes) {
            for (field, new) in changes {
                set(row, field, new);
            }
        }
        let mut draft = Draft::new(&batch);
        for (name, column) in outcome.columns() {
            draft.put(name, column.clone()).unwrap();
        }
        assert_eq!(
            shown(draft.batch()),
            model,
            "round {round}, {layout:?}, {given:?}, {changes:?}"
        );
    }
}
