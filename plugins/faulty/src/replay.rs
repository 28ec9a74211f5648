//! Answers what the first body of the batch says, bit by bit: a test on the host's side writes it.

use serde::Deserialize;
use sluice_plugin::Batch;
use sluice_plugin::bindings::exports::sluice::plugin::guest::{DropCount, Outcome, Quarantined};

/// Lists of bytes are hexadecimal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    selection: Option<String>,
    columns: Option<String>,
    /// The bits of the number, so that it can be any.
    weight: Option<u64>,
    drops: Vec<(String, u64)>,
    /// Rows and reason.
    quarantine: Option<(String, String)>,
}

pub(crate) fn answer(batch: &Batch) -> Result<Outcome, String> {
    let body = batch.text("body")?;
    let answer: Answer = serde_json::from_str(body.get(0).unwrap_or_default()).map_err(|e| e.to_string())?;
    Ok(Outcome {
        selection: answer.selection.as_deref().map(bytes).transpose()?,
        columns: answer.columns.as_deref().map(bytes).transpose()?,
        weight: answer.weight.map(f64::from_bits),
        drops: answer
            .drops
            .into_iter()
            .map(|(reason, rows)| DropCount { reason, rows })
            .collect(),
        quarantine: answer
            .quarantine
            .map(|(rows, reason)| {
                Ok::<_, String>(Quarantined {
                    rows: bytes(&rows)?,
                    reason,
                })
            })
            .transpose()?,
    })
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let digit = |c: u8| (c as char).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
    hex.as_bytes()
        .chunks(2)
        .map(pair)
        .collect::<Option<_>>()
        .ok_or_else(|| "no hexadecimal".to_owned())
}
