//! The place of one tenant: its node while it runs, and what is known of it while it does not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};
use sluice_edge::otlp::OtlpRoutes;
use sluice_edge::status::Phase;
use sluice_edge::{EdgeStatus, StatusHandle};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::health::Chain;
use super::turns::{Facts, Node, PAUSE};

/// Of one tenant.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Held while its node is started or stopped: whoever comes meanwhile waits.
    pub(super) changing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    node: NodeState,
    /// Something that was accepted may lie in its folder, of a node that does not run.
    has_left: bool,
    /// When its tenant sent last.
    asked: Option<Instant>,
    /// When it had its last turn to carry on what was left.
    carried: Option<Instant>,
}

#[derive(Debug, Default)]
enum NodeState {
    #[default]
    Stopped,
    Failed {
        why: String,
        at: Instant,
    },
    Running(Running),
}

/// A node at work.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) routes: watch::Receiver<Option<OtlpRoutes>>,
    pub(super) status: StatusHandle,
    pub(super) task: JoinHandle<Result<(), String>>,
    pub(super) stop: CancellationToken,
    /// Without one it only carries on what was left.
    pub(super) seat: Option<OwnedSemaphorePermit>,
    pub(super) since: Instant,
}

/// The doors of a node, and whether it has a seat.
pub(super) type Current = (watch::Receiver<Option<OtlpRoutes>>, bool);

impl Place {
    /// Of a tenant that has a folder, in which something may lie.
    pub(super) fn with_something_left() -> Self {
        let place = Self::default();
        place.lock().has_left = true;
        place
    }

    pub(super) fn note_asked(&self) {
        self.lock().asked = Some(Instant::now());
    }

    /// Its doors if it has any; an error while it is too early to try again.
    pub(super) async fn current(&self) -> Result<Option<Current>, String> {
        let ended = {
            let mut state = self.lock();
            match &state.node {
                NodeState::Stopped => return Ok(None),
                NodeState::Failed { why, at } if at.elapsed() < PAUSE => return Err(why.clone()),
                NodeState::Failed { .. } => return Ok(None),
                NodeState::Running(running) if !running.task.is_finished() => {
                    return Ok(Some((running.routes.clone(), running.seat.is_some())));
                }
                NodeState::Running(_) => std::mem::take(&mut state.node),
            }
        };
        let why = match ended {
            NodeState::Running(running) => match running.task.await {
                Ok(Err(why)) => why,
                other => format!("{other:?}"),
            },
            _ => String::new(),
        };
        let why = format!("the tenant's chain ended: {why}");
        self.failed(why.clone());
        Err(why)
    }

    pub(super) fn failed(&self, why: String) {
        let at = Instant::now();
        let mut state = self.lock();
        state.node = NodeState::Failed { why, at };
        // Whatever it was, nobody knows what lies there.
        state.has_left = true;
        state.carried = Some(at);
    }

    pub(super) fn runs(&self, running: Running) {
        let mut state = self.lock();
        if running.seat.is_none() {
            state.carried = Some(running.since);
        }
        state.node = NodeState::Running(running);
    }

    /// One that only carried on what was left takes events from now on.
    pub(super) fn take_seat(&self, seat: OwnedSemaphorePermit) {
        if let NodeState::Running(running) = &mut self.lock().node {
            running.seat = Some(seat);
        }
    }

    /// Ends its node, if it runs: what was accepted is sealed, and sent as far as the gateways take it soon. The rest stays on the disk.
    pub(super) async fn stop(&self) {
        let running = {
            let mut state = self.lock();
            match std::mem::take(&mut state.node) {
                NodeState::Running(running) => {
                    state.has_left = true;
                    running
                }
                other => {
                    state.node = other;
                    return;
                }
            }
        };
        running.stop.cancel();
        let ended = match running.task.await {
            Ok(ended) => ended,
            Err(error) => Err(error.to_string()),
        };
        let status = running.status;
        let left = tokio::task::spawn_blocking(move || !is_drained(&status.snapshot())).await;
        let mut state = self.lock();
        // It said for itself what went wrong.
        state.has_left = ended.is_err() || left.unwrap_or(true);
        if running.seat.is_none() {
            state.carried = Some(Instant::now());
        }
    }

    /// Whether nothing is known of it that is worth remembering.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        matches!(state.node, NodeState::Stopped) && !state.has_left
    }

    /// For a decision. Blocks for a moment.
    pub(super) fn facts(&self, is_served: bool) -> Facts {
        let (mut facts, status) = {
            let state = self.lock();
            let (node, status) = match &state.node {
                NodeState::Stopped => (Node::Stopped, None),
                NodeState::Failed { at, .. } => (Node::Failed(at.elapsed()), None),
                NodeState::Running(running) => {
                    let node = match &running.seat {
                        Some(_) => Node::Seated,
                        None => Node::Carrying(running.since.elapsed()),
                    };
                    (node, Some(running.status.clone()))
                }
            };
            let facts = Facts {
                is_served,
                node,
                is_drained: false,
                has_left: state.has_left,
                quiet_for: state.asked.map(|asked| asked.elapsed()),
                carried: state.carried.map(|carried| carried.elapsed()),
            };
            (facts, status)
        };
        facts.is_drained = status.is_some_and(|status| is_drained(&status.snapshot()));
        facts
    }

    /// For people; `None`: it does not run, and nothing is left of it. Blocks for a moment.
    pub(super) fn status(&self, is_served: bool) -> Option<(Chain, Value)> {
        let handle = {
            let state = self.lock();
            match &state.node {
                NodeState::Running(running) => (running.status.clone(), running.seat.is_some()),
                NodeState::Failed { why, .. } if is_served => return Some((Chain::Failed, json!({ "problem": why }))),
                _ if !state.has_left => return None,
                _ if is_served => {
                    let waits = "what was accepted before waits on the disk for its turn";
                    return Some((Chain::Waits, json!({ "waits": waits })));
                }
                _ => {
                    let problem = "the tenant is not served any more: what was accepted of it stays on the disk until it is served again";
                    return Some((Chain::Stranded, json!({ "problem": problem })));
                }
            }
        };
        let (handle, is_seated) = handle;
        let snapshot = handle.snapshot();
        let chain = match snapshot.phase {
            Phase::Starting => Chain::Starts,
            _ => Chain::Runs {
                // One without a seat is not asked to take anything.
                takes: !is_seated || handle.is_ready(),
                is_linked: snapshot.link.as_ref().is_some_and(|link| link.connected),
                degraded: handle.degraded(),
            },
        };
        Some((chain, serde_json::to_value(snapshot).unwrap_or_default()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything can fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether everything that a node accepted is in the cloud. One that still recovers, or waits for room to do so, does not know.
fn is_drained(status: &EdgeStatus) -> bool {
    !matches!(status.phase, Phase::Starting | Phase::Failed)
        && !status.disk_full
        && status.journal.unsealed_records == 0
        && status.spool.batches == 0
        && status.spool.given_up == 0
}

/// All places, as they are shared.
pub(super) type Places = std::collections::BTreeMap<sluice_wire::ids::TenantId, Arc<Place>>;
