//! The formats of an answer, one file each. All but JSON are written batch by batch, as rows come.

mod arrow_stream;
mod csv;
pub(crate) mod json;
mod ndjson;
pub(crate) mod time;
pub(crate) mod value;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;

/// What a client can ask for by `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
}

/// Writes one answer, piece by piece.
pub(crate) trait Encoder: Send {
    fn begin(&mut self, schema: &Schema, out: &mut Vec<u8>) -> Result<(), ArrowError>;
    fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError>;
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError>;
}

impl Format {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// The writer of a format that streams; JSON is built as a whole.
    pub(crate) fn encoder(self) -> Option<Box<dyn Encoder>> {
        match self {
            Format::Json => None,
            Format::Ndjson => Some(Box::new(ndjson::Ndjson::default())),
            Format::Csv => Some(Box::new(csv::Csv)),
            Format::Arrow => Some(Box::new(arrow_stream::ArrowStream::default())),
        }
    }

    /// The best of what an `Accept` header names; `None`: nothing that we have.
    pub(crate) fn negotiate(accept: &str) -> Option<Format> {
        let mut best: Option<(f32, Format)> = None;
        for part in accept.split(',') {
            let mut pieces = part.split(';').map(str::trim);
            let format = match pieces.next().unwrap_or("").to_ascii_lowercase().as_str() {
                "application/json" | "application/*" | "*/*" | "" => Format::Json,
                "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Format::Ndjson,
                "text/csv" | "text/*" => Format::Csv,
                "application/vnd.apache.arrow.stream" => Format::Arrow,
                _ => continue,
            };
            let weight = pieces
                .find_map(|p| p.strip_prefix("q=")?.parse::<f32>().ok())
                .unwrap_or(1.0);
            if weight > 0.0 && best.is_none_or(|(w, _)| weight > w) {
                best = Some((weight, format));
            }
        }
        best.map(|(_, format)| format)
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn accept_headers_of_real_clients_are_understood() {
        for (accept, want) in [
            ("*/*", Some(Format::Json)),
            ("", Some(Format::Json)),
            ("text/csv", Some(Format::Csv)),
            ("application/vnd.apache.arrow.stream, */*;q=0.1", Some(Format::Arrow)),
            ("application/json;q=0.2, application/x-ndjson", Some(Format::Ndjson)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Some(Format::Json)),
            ("text/html", None),
            ("text/csv;q=0", None),
        ] {
            assert_eq!(Format::negotiate(accept), want, "{accept}");
        }
    }
}
