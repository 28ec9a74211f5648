//! An answer that is kept as it passes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::{Stream, StreamExt};
use sluice_store::Inputs;

use super::budget::size;
use super::{Answers, Asked};

/// Rows on their way, and what of them is kept so far.
pub(super) struct Remembering {
    rows: SendableRecordBatchStream,
    kept: Option<Kept>,
    answers: Arc<Answers>,
}

pub(super) struct Kept {
    pub(super) asked: Asked,
    pub(super) inputs: Inputs,
    pub(super) rows: Vec<RecordBatch>,
    /// Bytes that may still come.
    left: u64,
}

impl Remembering {
    pub(super) fn new(
        answers: &Arc<Answers>,
        asked: Asked,
        inputs: Inputs,
        rows: SendableRecordBatchStream,
        left: u64,
    ) -> Remembering {
        let kept = Kept {
            asked,
            inputs,
            rows: Vec::new(),
            left,
        };
        Remembering {
            rows,
            kept: Some(kept),
            answers: Arc::clone(answers),
        }
    }
}

impl Stream for Remembering {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.rows.poll_next_unpin(cx));
        match &next {
            Some(Ok(batch)) => {
                self.kept = self.kept.take().and_then(|mut kept| {
                    kept.left = kept.left.checked_sub(size(batch))?;
                    kept.rows.push(batch.clone());
                    Some(kept)
                });
            }
            Some(Err(_)) => self.kept = None,
            None => {
                if let Some(kept) = self.kept.take() {
                    let schema = self.rows.schema();
                    self.answers.keep(kept, schema);
                }
            }
        }
        Poll::Ready(next)
    }
}

impl RecordBatchStream for Remembering {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }
}
