//! A guest that misbehaves as its configuration says: `{"mode": "loop"}`. Only for tests.
//!
//! Built twice, as a filter (`faulty`) and as a mask (`faulty_mask`), because a host treats their failures differently.

mod abuse;
mod replay;

use std::cell::RefCell;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{Field, Schema};
use sluice_plugin::bindings::exports::sluice::plugin::guest::{
    Context, Description, DropCount, Guest, Outcome, Quarantined,
};
use sluice_plugin::bindings::sluice::plugin::state;
use sluice_plugin::{Batch, Kind, log};

#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    mode: String,
    /// Calls that an instance serves well before it misbehaves.
    #[serde(default)]
    after: u64,
    /// Batches that all its instances together serve well for one tenant before it misbehaves.
    #[serde(default)]
    after_all: i64,
    /// Text of a body that brings the fault about; without it every batch does.
    #[serde(default)]
    only: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    config: Config,
    calls: u64,
    leak: Vec<Vec<u8>>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

struct Faulty;

impl Guest for Faulty {
    fn describe() -> Description {
        Description {
            name: "faulty".to_owned(),
            version: "1.0.0".to_owned(),
            kind: if cfg!(feature = "mask") {
                Kind::Mask
            } else {
                Kind::Filter
            },
            reads: vec!["body".to_owned(), "severity".to_owned()],
            writes: [
                "body",
                "severity",
                "weight",
                "signal",
                "buckets",
                "scope:*",
                "attrs:*:added*",
            ]
            .map(str::to_owned)
            .to_vec(),
            config_schema: String::new(),
        }
    }

    fn init(config: String) -> Result<(), String> {
        let config: Config = serde_json::from_str(&config).map_err(|e| e.to_string())?;
        match config.mode.as_str() {
            "init_loop" => spin(),
            "init_trap" => panic!("init"),
            _ => {}
        }
        STATE.with_borrow_mut(|state| state.config = config);
        Ok(())
    }

    fn process(batch: Vec<u8>, _: Context) -> Result<Outcome, String> {
        let batch = Batch::decode(batch)?;
        let (config, calls) = STATE.with_borrow_mut(|state| {
            state.calls += 1;
            (state.config.clone(), state.calls)
        });
        if config.after_all > 0 && counted()? <= config.after_all {
            return Ok(unchanged());
        }
        if calls <= config.after || !chosen(&batch, config.only.as_deref())? {
            return Ok(unchanged());
        }
        misbehave(&config.mode, &batch, calls)
    }
}

fn chosen(batch: &Batch, only: Option<&str>) -> Result<bool, String> {
    let Some(only) = only else {
        return Ok(true);
    };
    let body = batch.text("body")?;
    Ok((0..batch.rows()).any(|row| body.get(row) == Some(only)))
}

/// What a careless guest repeats.
fn first_body(batch: &Batch) -> Result<String, String> {
    Ok(batch.text("body")?.get(0).unwrap_or_default().to_owned())
}

/// Counts in what outlives the instance.
fn counted() -> Result<i64, String> {
    state::add(b"calls", 1).map_err(|e| format!("{e:?}"))
}

fn misbehave(mode: &str, batch: &Batch, calls: u64) -> Result<Outcome, String> {
    let rows = batch.rows();
    match mode {
        "ok" => Ok(unchanged()),
        "replay" => replay::answer(batch),
        "loop" => spin(),
        "memory" => loop {
            STATE.with_borrow_mut(|state| state.leak.push(vec![1; 1 << 20]));
        },
        "leak" => {
            STATE.with_borrow_mut(|state| state.leak.push(vec![1; 1 << 20]));
            Ok(unchanged())
        }
        "recurse" => Err(recurse(calls).to_string()),
        "trap" => panic!("on purpose"),
        "error" => Err("no \u{1b}[31mreason\n".repeat(1000)),
        "flood" => {
            let line = "x".repeat(10_000);
            (0..1000).for_each(|_| log::warn(&line));
            Ok(unchanged())
        }
        "huge_output" => Ok(Outcome {
            columns: Some(vec![0; 6 << 20]),
            ..unchanged()
        }),
        "huge_list" => Ok(Outcome {
            drops: vec![
                DropCount {
                    reason: String::new(),
                    rows: 0
                };
                200_000
            ],
            ..unchanged()
        }),
        "count_calls" => columns(
            batch,
            "attrs:i:added",
            Arc::new(Int64Array::from(vec![calls as i64; rows])),
        ),
        "count_in_state" => {
            let sum = counted()?;
            columns(batch, "attrs:i:added", Arc::new(Int64Array::from(vec![sum; rows])))
        }
        "weigh" => Ok(Outcome {
            weight: Some(2.5),
            ..unchanged()
        }),
        "weigh_little" => Ok(Outcome {
            weight: Some(0.5),
            ..unchanged()
        }),
        "quarantine_odd" => Ok(Outcome {
            quarantine: Some(Quarantined {
                rows: bits(rows, |row| row % 2 == 1),
                reason: "odd".to_owned(),
            }),
            ..unchanged()
        }),
        "tell_body" => Err(format!("cannot handle {}", first_body(batch)?)),
        "aside_with_body" => Ok(Outcome {
            quarantine: Some(Quarantined {
                rows: bits(rows, |_| true),
                reason: first_body(batch)?,
            }),
            ..unchanged()
        }),
        "drop_third" => Ok(Outcome {
            selection: Some(bits(rows, |row| row % 3 != 0)),
            drops: vec![DropCount {
                reason: "third".to_owned(),
                rows: rows.div_ceil(3) as u64,
            }],
            ..unchanged()
        }),
        _ => match abuse::attempt(mode) {
            Some(said) => columns(batch, "attrs:s:added", Arc::new(StringArray::from(vec![said; rows]))),
            None => lie(mode, batch),
        },
    }
}

/// Answers that do not fit the batch.
fn lie(mode: &str, batch: &Batch) -> Result<Outcome, String> {
    let rows = batch.rows();
    let texts = |rows: usize| Arc::new(StringArray::from(vec!["text"; rows])) as ArrayRef;
    let numbers = || Arc::new(Int64Array::from(vec![7; rows])) as ArrayRef;
    let column = |name: &str, values: ArrayRef| Field::new(name, values.data_type().clone(), true);
    match mode {
        "more_rows" => ipc(vec![column("body", texts(rows + 1))], vec![texts(rows + 1)]),
        "no_rows" => ipc(vec![column("body", texts(0))], vec![texts(0)]),
        "other_type" => columns(batch, "body", numbers()),
        "other_new_type" => columns(batch, "attrs:d:added", numbers()),
        "undeclared" => columns(batch, "name", texts(rows)),
        "protected" => columns(batch, "signal", texts(rows)),
        "named_like_body" => columns(batch, &format!("attrs:i:added {}", first_body(batch)?), texts(rows)),
        "no_such_column" => columns(batch, "attrs:q:added", texts(rows)),
        "weight_nan" => columns(batch, "weight", Arc::new(Float64Array::from(vec![f64::NAN; rows]))),
        "weight_negative" => columns(batch, "weight", Arc::new(Float64Array::from(vec![-1.0; rows]))),
        "twice" => ipc(
            vec![column("body", texts(rows)), column("body", texts(rows))],
            vec![texts(rows), texts(rows)],
        ),
        "garbage" => Ok(with_columns((0..5000u32).map(|i| ((i * 7919) >> 3) as u8).collect())),
        "empty" => Ok(with_columns(Vec::new())),
        "huge_length" => {
            let mut bytes = encoded(batch, texts(rows))?;
            bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
            Ok(with_columns(bytes))
        }
        "truncated" => {
            let mut bytes = encoded(batch, texts(rows))?;
            bytes.truncate(bytes.len() / 2);
            Ok(with_columns(bytes))
        }
        "bad_offsets" => {
            let marker: Vec<u8> = [4i32, 8, 12].iter().flat_map(|o| o.to_le_bytes()).collect();
            let bytes = replaced(encoded(batch, texts(rows))?, &marker, &[0xff, 0xff, 0xff, 0x7f])?;
            Ok(with_columns(bytes))
        }
        "bad_utf8" => {
            let bytes = replaced(encoded(batch, texts(rows))?, b"texttext", &[0xff, 0xfe])?;
            Ok(with_columns(bytes))
        }
        "selection_short" => Ok(Outcome {
            selection: Some(Vec::new()),
            ..unchanged()
        }),
        "selection_long" => Ok(Outcome {
            selection: Some(vec![0xff; rows]),
            ..unchanged()
        }),
        "drops_uncounted" => Ok(Outcome {
            selection: Some(bits(rows, |row| row > 0)),
            ..unchanged()
        }),
        "drops_invented" => Ok(Outcome {
            drops: vec![DropCount {
                reason: "x".to_owned(),
                rows: 1,
            }],
            ..unchanged()
        }),
        "bad_reason" => Ok(Outcome {
            selection: Some(bits(rows, |row| row > 0)),
            drops: vec![DropCount {
                reason: "a/b\n".to_owned(),
                rows: 1,
            }],
            ..unchanged()
        }),
        other => Err(format!("no mode {other}")),
    }
}

fn unchanged() -> Outcome {
    Outcome {
        selection: None,
        columns: None,
        weight: None,
        drops: Vec::new(),
        quarantine: None,
    }
}

fn with_columns(bytes: Vec<u8>) -> Outcome {
    Outcome {
        columns: Some(bytes),
        ..unchanged()
    }
}

fn bits(rows: usize, set: impl FnMut(usize) -> bool) -> Vec<u8> {
    BooleanBuffer::collect_bool(rows, set).sliced().as_slice().to_vec()
}

fn columns(batch: &Batch, name: &str, values: ArrayRef) -> Result<Outcome, String> {
    sluice_plugin::Outcome::unchanged().column(name, values).encode(batch)
}

fn encoded(batch: &Batch, values: ArrayRef) -> Result<Vec<u8>, String> {
    columns(batch, "body", values)?
        .columns
        .ok_or_else(|| "nothing".to_owned())
}

fn ipc(fields: Vec<Field>, values: Vec<ArrayRef>) -> Result<Outcome, String> {
    let rows = values.first().map_or(0, |values| values.len());
    sluice_plugin::ipc::write(&Schema::new(fields), &values, rows).map(with_columns)
}

fn replaced(mut bytes: Vec<u8>, marker: &[u8], by: &[u8]) -> Result<Vec<u8>, String> {
    let at = bytes
        .windows(marker.len())
        .position(|window| window == marker)
        .ok_or("the marker is not there")?;
    bytes[at..at + by.len()].copy_from_slice(by);
    Ok(bytes)
}

fn spin() -> ! {
    loop {
        std::hint::black_box(0);
    }
}

fn recurse(depth: u64) -> u64 {
    if std::hint::black_box(depth) == 0 {
        return 0;
    }
    recurse(depth + 1) + std::hint::black_box(depth)
}

#[cfg(target_arch = "wasm32")]
mod exported {
    #![allow(unsafe_code, unreachable_pub)]
    use super::Faulty;
    use sluice_plugin::bindings;
    bindings::export_transform!(Faulty with_types_in bindings);
}
