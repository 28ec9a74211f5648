//! Neighbouring rows gathered under the resource, scope and metric that they share.

use crate::otlp::writer::bytes_always;

/// A request in the making: what is open at each level, and what is done.
#[derive(Default)]
pub(super) struct Groups {
    done: Vec<u8>,
    resource: Level,
    scope: Level,
    metric: Option<Metric>,
}

/// The message that is open: what tells it from others, and its rows so far.
#[derive(Default)]
struct Level {
    head: Option<Vec<u8>>,
    rows: Vec<u8>,
}

/// What tells one metric from another, and where its data points go.
#[derive(PartialEq)]
pub(super) struct Identity {
    /// Name, description, unit and metadata.
    pub(super) head: Vec<u8>,
    /// The field of `Metric` that holds the points.
    pub(super) field: u32,
    /// Temporality and whether it is monotonic.
    pub(super) tail: Vec<u8>,
}

struct Metric {
    identity: Identity,
    points: Vec<u8>,
}

impl Groups {
    /// `head` is the message of the resource but for its scopes.
    pub(super) fn enter_resource(&mut self, head: Vec<u8>) {
        if self.resource.head.as_ref() != Some(&head) {
            self.close_resource();
            self.resource.head = Some(head);
        }
    }

    /// `head` is the message of the scope but for its records.
    pub(super) fn enter_scope(&mut self, head: Vec<u8>) {
        if self.scope.head.as_ref() != Some(&head) {
            self.close_scope();
            self.scope.head = Some(head);
        }
    }

    pub(super) fn enter_metric(&mut self, identity: Identity) {
        if self.metric.as_ref().is_none_or(|m| m.identity != identity) {
            self.close_metric();
            self.metric = Some(Metric {
                identity,
                points: Vec::new(),
            });
        }
    }

    /// Where log records and spans go.
    pub(super) fn records(&mut self) -> &mut Vec<u8> {
        &mut self.scope.rows
    }

    /// Where data points go, in the metric that was entered last.
    pub(super) fn points(&mut self) -> &mut Vec<u8> {
        match &mut self.metric {
            Some(metric) => &mut metric.points,
            None => &mut self.scope.rows,
        }
    }

    fn close_metric(&mut self) {
        let Some(Metric { identity, points }) = self.metric.take() else {
            return;
        };
        let mut data = points;
        data.extend_from_slice(&identity.tail);
        let mut message = identity.head;
        bytes_always(&mut message, identity.field, &data);
        bytes_always(&mut self.scope.rows, 2, &message);
    }

    fn close_scope(&mut self) {
        self.close_metric();
        self.scope.close_into(&mut self.resource.rows, 2);
    }

    fn close_resource(&mut self) {
        self.close_scope();
        self.resource.close_into(&mut self.done, 1);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.close_resource();
        self.done
    }
}

impl Level {
    fn close_into(&mut self, parent: &mut Vec<u8>, field: u32) {
        if let Some(mut message) = self.head.take() {
            message.append(&mut self.rows);
            bytes_always(parent, field, &message);
        }
    }
}
