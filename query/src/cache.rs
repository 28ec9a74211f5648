//! Answers that are given again. A dashboard asks the same again and again, of many people at once; as long as what the query reads is
//! the same, so is what it is answered.
//!
//! An answer belongs to the text of a query with its parameters, asked for one scope, and to the inputs that its plan reads
//! (`sluice_store::inputs`): those are looked at each time, for the point of the log that the query pinned. So a new row, a hand-off, an
//! erasure or the retention that touches what the query reads makes another answer, and nothing has to be told to this cache.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility, WindowFunctionDefinition};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt, stream};
use sluice_store::{Inputs, Scope};

use crate::config::CacheConfig;
use crate::engine::{Dialect, Question};

/// Answers of one tenant are no larger than this share of what it may fill, so that one does not push out all others.
const LARGEST: u64 = 8;
/// Small answers are kept by the thousand; finding the oldest looks at all of them.
const MAX_ANSWERS: usize = 4096;
/// What an answer takes beside its rows and its text, about.
const OVERHEAD: u64 = 512;

/// What was asked, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    scope: Scope,
    postgres: bool,
    sql: Arc<str>,
    params: Arc<[ScalarValue]>,
}

#[derive(Debug)]
pub(crate) struct Answers {
    most: u64,
    tenant_most: u64,
    state: Mutex<State>,
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    next: u64,
    of_scope: HashMap<Scope, u64>,
    held: HashMap<Asked, Held>,
}

#[derive(Debug)]
struct Held {
    inputs: Inputs,
    schema: SchemaRef,
    rows: Arc<[RecordBatch]>,
    bytes: u64,
    used: u64,
}

impl Asked {
    /// `None`: the same question may be answered differently by the same rows.
    pub(crate) fn of(scope: &Scope, question: &Question, plan: &LogicalPlan) -> Option<Asked> {
        // what is visited returns no error
        let steady = is_steady(plan).unwrap_or(false);
        steady.then(|| Asked {
            scope: scope.clone(),
            postgres: question.dialect == Dialect::Postgres,
            sql: question.sql.as_str().into(),
            params: question.params.as_slice().into(),
        })
    }

    fn bytes(&self) -> u64 {
        let params: usize = self.params.iter().map(ScalarValue::size).sum();
        (self.sql.len() + params) as u64 + OVERHEAD
    }
}

/// Whether nothing in a plan depends on the clock, on chance, on the session or on other tables than that of the rows.
fn is_steady(plan: &LogicalPlan) -> Result<bool> {
    let mut steady = true;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            steady &= match scan.source.get_logical_plan() {
                Some(inner) => is_steady(&inner)?,
                None => source_as_provider(&scan.source).is_ok_and(|table| sluice_store::is_rows(&table)),
            };
        }
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                steady &= match part {
                    Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                    Expr::AggregateFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                    Expr::WindowFunction(call) => match &call.fun {
                        WindowFunctionDefinition::AggregateUDF(f) => f.signature().volatility == Volatility::Immutable,
                        WindowFunctionDefinition::WindowUDF(f) => f.signature().volatility == Volatility::Immutable,
                    },
                    Expr::HigherOrderFunction(..) | Expr::ScalarVariable(..) => false,
                    _ => true,
                };
                Ok(match steady {
                    true => TreeNodeRecursion::Continue,
                    false => TreeNodeRecursion::Stop,
                })
            })
        })
    })?;
    Ok(steady)
}

impl Answers {
    pub(crate) fn new(config: &CacheConfig) -> Arc<Answers> {
        Arc::new(Answers {
            most: config.answers,
            tenant_most: config.tenant_answers.min(config.answers),
            state: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// What was answered before, or the rows as they are made.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        asked: Option<Asked>,
        frame: &DataFrame,
    ) -> Result<SendableRecordBatchStream> {
        let plan = frame.create_physical_plan().await?;
        let known = asked.and_then(|asked| Some((asked, sluice_store::inputs(&plan)?)));
        if let Some((asked, inputs)) = &known
            && let Some(rows) = self.recall(asked, *inputs)
        {
            return Ok(rows);
        }
        let rows = execute_stream(plan, Arc::new(frame.task_ctx()))?;
        Ok(match known {
            Some((asked, inputs)) => self.remember(asked, inputs, rows),
            None => rows,
        })
    }

    /// What was answered before, if the plan still reads the same.
    fn recall(&self, asked: &Asked, inputs: Inputs) -> Option<SendableRecordBatchStream> {
        let recalled = self.lock().recall(asked, inputs);
        let counter = if recalled.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        let (schema, rows) = recalled?;
        let rows = stream::iter((0..rows.len()).map(move |at| Ok(rows[at].clone())));
        Some(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// Keeps the rows that a stream gives, if it gives all of them and they are not too many.
    fn remember(
        self: &Arc<Self>,
        asked: Asked,
        inputs: Inputs,
        rows: SendableRecordBatchStream,
    ) -> SendableRecordBatchStream {
        let left = (self.tenant_most / LARGEST).checked_sub(asked.bytes());
        let Some(left) = left else { return rows };
        Box::pin(Remembering {
            rows,
            kept: Some(Kept {
                asked,
                inputs,
                rows: Vec::new(),
                left,
            }),
            answers: Arc::clone(self),
        })
    }

    /// Bytes that are held.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn keep(&self, kept: Kept, schema: SchemaRef) {
        let Kept {
            asked, inputs, rows, ..
        } = kept;
        let bytes = rows.iter().map(size).sum::<u64>() + asked.bytes();
        let mut state = self.lock();
        state.forget(&asked);
        let of_scope = state.of_scope.get(&asked.scope).copied().unwrap_or(0);
        if of_scope + bytes > self.tenant_most {
            state.make_room(Some(&asked.scope), of_scope + bytes - self.tenant_most);
        }
        if state.bytes + bytes > self.most {
            let over = state.bytes + bytes - self.most;
            state.make_room(None, over);
        }
        while state.held.len() >= MAX_ANSWERS {
            state.make_room(None, 1);
        }
        state.next += 1;
        let used = state.next;
        state.bytes += bytes;
        *state.of_scope.entry(asked.scope.clone()).or_default() += bytes;
        let held = Held {
            inputs,
            schema,
            rows: rows.into(),
            bytes,
            used,
        };
        state.held.insert(asked, held);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything can fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn recall(&mut self, asked: &Asked, inputs: Inputs) -> Option<(SchemaRef, Arc<[RecordBatch]>)> {
        self.next += 1;
        let held = self.held.get_mut(asked)?;
        if held.inputs != inputs {
            return None;
        }
        held.used = self.next;
        Some((Arc::clone(&held.schema), Arc::clone(&held.rows)))
    }

    fn forget(&mut self, asked: &Asked) {
        let Some(held) = self.held.remove(asked) else { return };
        self.bytes -= held.bytes;
        if let Some(bytes) = self.of_scope.get_mut(&asked.scope) {
            *bytes -= held.bytes;
            if *bytes == 0 {
                self.of_scope.remove(&asked.scope);
            }
        }
    }

    /// Forgets what was not used for longest, of one scope or of all, until so many bytes are free.
    fn make_room(&mut self, scope: Option<&Scope>, bytes: u64) {
        let mut freed = 0;
        while freed < bytes {
            let of_scope = self
                .held
                .iter()
                .filter(|(asked, _)| scope.is_none_or(|scope| *scope == asked.scope));
            let Some((oldest, held)) = of_scope.min_by_key(|(_, held)| held.used) else {
                return;
            };
            freed += held.bytes;
            let oldest = oldest.clone();
            self.forget(&oldest);
        }
    }
}

/// Rows on their way, and what of them is kept so far.
struct Remembering {
    rows: SendableRecordBatchStream,
    kept: Option<Kept>,
    answers: Arc<Answers>,
}

struct Kept {
    asked: Asked,
    inputs: Inputs,
    rows: Vec<RecordBatch>,
    left: u64,
}

fn size(batch: &RecordBatch) -> u64 {
    batch.get_array_memory_size() as u64
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

#[cfg(test)]
mod tests;
