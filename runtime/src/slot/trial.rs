//! The trial of a new version: for its first batches the version before it stands by, serves what the new one fails on, and takes
//! the place back if it fails too often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow_array::RecordBatch;

use super::{Edition, Serving, Slot};
use crate::answer::Answer;
use crate::call::Call;
use crate::event::{ChainEvent, What};
use crate::fault::{Fault, Words};
use crate::lock;
use crate::plugin::{Failure, Plugin};
use crate::policy::{Kind, Verdict};

/// Batches that a new version must serve before the one before it is let go.
pub const PROBATION_BATCHES: u32 = 100;
/// Batches on probation that it may fail and the version before it serve; then the place goes back. A version that never
/// served any goes back with the first.
pub const PROBATION_FAULTS: u32 = 3;

#[derive(Debug)]
pub(super) struct Probation {
    pub(super) previous: Edition,
    served: AtomicU32,
    failed: AtomicU32,
}

/// Who answered, and what.
pub(crate) struct Served<'a> {
    pub(crate) plugin: &'a Plugin,
    pub(crate) answer: Result<Answer, Failure>,
}

impl Slot {
    /// Runs a batch through the version that serves it, and through the one before it where that one failed on probation.
    pub(crate) fn serve<'a>(
        &self,
        serving: &'a Arc<Serving>,
        batch: &RecordBatch,
        call: &Call<'_>,
        words: Words,
    ) -> Served<'a> {
        let current = &*serving.current.plugin;
        let answer = current.apply(batch, call, words);
        let Some(probation) = &serving.probation else {
            return Served {
                plugin: current,
                answer,
            };
        };
        let failure = match answer {
            Ok(answer) => {
                if probation.served.fetch_add(1, Ordering::SeqCst) + 1 >= PROBATION_BATCHES {
                    self.prove(serving);
                }
                return Served {
                    plugin: current,
                    answer: Ok(answer),
                };
            }
            // That it may not run says nothing about how it works, and going back is the operator's to say.
            Err(failure) if matches!(failure.fault, Fault::Blocked(_)) => {
                return Served {
                    plugin: current,
                    answer: Err(failure),
                };
            }
            Err(failure) => failure,
        };
        let previous = &*probation.previous.plugin;
        match previous.apply(batch, call, words) {
            Ok(answer) => {
                current.count(|counters| counters.rescued += 1);
                self.failed(serving, probation, &failure);
                Served {
                    plugin: previous,
                    answer: Ok(answer),
                }
            }
            // Both fail: the batch is to blame, not the update. The stricter one decides.
            Err(second) if second.verdict == Verdict::Refuse => Served {
                plugin: previous,
                answer: Err(second),
            },
            Err(_) => Served {
                plugin: current,
                answer: Err(failure),
            },
        }
    }

    /// The new version has shown that it works; the one before it is let go.
    fn prove(&self, serving: &Arc<Serving>) {
        let mut inner = lock(&self.inner);
        if !inner.on_probation_with(serving) {
            return;
        }
        let version = &serving.current.version;
        self.events.push(ChainEvent::new(What::Proven, &self.name, version));
        tracing::info!(plugin = self.name, %version, "new version works");
        let shadow = inner.serving.shadow.clone();
        inner.replace(Serving {
            current: serving.current.clone(),
            shadow,
            probation: None,
        });
    }

    fn failed(&self, serving: &Arc<Serving>, probation: &Probation, failure: &Failure) {
        let failed = probation.failed.fetch_add(1, Ordering::SeqCst) + 1;
        let never_served = probation.proved_nothing();
        if failed < PROBATION_FAULTS && !never_served {
            return;
        }
        let mut inner = lock(&self.inner);
        if !inner.on_probation_with(serving) {
            return;
        }
        let (from, to) = (&serving.current.version, &probation.previous.version);
        let fault = failure.fault.to_string();
        tracing::warn!(
            plugin = self.name,
            version = %from,
            back_to = %to,
            fault,
            "new version fails, the place goes back"
        );
        let mut event = ChainEvent::new(What::RolledBack, &self.name, from);
        event.other = Some(to.clone());
        event.fault = Some(fault);
        inner.rolled_back_from = Some(from.clone());
        let shadow = inner.serving.shadow.clone();
        inner.replace(Serving {
            current: probation.previous.clone(),
            shadow,
            probation: None,
        });
        // Whoever is told must find the place as the event says.
        drop(inner);
        self.events.push(event);
    }
}

impl Probation {
    pub(super) fn of(previous: Edition) -> Probation {
        Probation {
            previous,
            served: AtomicU32::new(0),
            failed: AtomicU32::new(0),
        }
    }

    /// Whether the new version has served nothing yet.
    pub(super) fn proved_nothing(&self) -> bool {
        self.served.load(Ordering::SeqCst) == 0
    }
}

/// Whether the version before may serve where the new one fails: it may run at all, and what a mask shall hide only another mask
/// may hide, and only as the operator says now.
pub(super) fn may_stand_by(previous: &Plugin, new: &Plugin, same_settings: bool) -> bool {
    previous.blocked().is_none() && (new.kind() != Kind::Mask || (previous.kind() == Kind::Mask && same_settings))
}
