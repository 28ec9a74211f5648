//! Errors: by severity, by the status of a span, by the status code of HTTP.

use arrow_buffer::BooleanBuffer;
use sluice_plugin::{Batch, bits};

use crate::rows;

/// First severity of errors in OpenTelemetry.
const ERROR: i64 = 17;
const SERVER_ERRORS: std::ops::Range<i64> = 500..600;
/// The name of today and the one before it.
const STATUS_CODES: [&str; 2] = ["http.response.status_code", "http.status_code"];

pub(super) fn reads() -> Vec<String> {
    let codes = STATUS_CODES.iter();
    let codes = codes.flat_map(|code| ["i", "s"].map(|kind| format!("attrs:{kind}:{code}")));
    ["severity", "status"]
        .map(str::to_owned)
        .into_iter()
        .chain(codes)
        .collect()
}

pub(super) fn rows(batch: &Batch) -> Result<BooleanBuffer, String> {
    let count = batch.rows();
    let mut errors = rows::where_int(&batch.ints("severity")?, count, |severity| severity >= ERROR);
    errors = rows::or(
        errors,
        &bits::where_text(&batch.text("status")?, count, |status| status == "error"),
    );
    for code in STATUS_CODES {
        let numbers = batch.ints(&format!("attrs:i:{code}"))?;
        errors = rows::or(
            errors,
            &rows::where_int(&numbers, count, |code| SERVER_ERRORS.contains(&code)),
        );
        let texts = batch.text(&format!("attrs:s:{code}"))?;
        let server_error = |code: &str| code.parse().is_ok_and(|code| SERVER_ERRORS.contains(&code));
        errors = rows::or(errors, &bits::where_text(&texts, count, server_error));
    }
    Ok(errors)
}
