//! Follows a text of JSON to know under which key each value stands.

use crate::find::Facts;
use crate::keys::Keys;

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Any text; JSON may stand in it.
    Free,
    /// The text of a typed value, in which `$bytes` are bytes.
    Value,
    /// A JSON array of objects whose own numbers and ids have a meaning (`time`, `span_id`); only their attributes and
    /// texts are masked.
    Records,
    /// A JSON object of arrays of pairs `[key, value]`.
    Pairs,
}

/// Follows JSON to know the key of each value.
pub(crate) struct Walk {
    shape: Shape,
    frames: Vec<Frame>,
}

struct Frame {
    object: bool,
    /// What the key says of the value that comes next, or the key of the array of its values.
    facts: Facts,
    bytes: bool,
    own: bool,
    /// Values passed in an array.
    passed: usize,
}

impl Walk {
    pub(crate) fn new(shape: Shape, facts: Facts) -> Self {
        Walk {
            shape,
            frames: vec![Frame {
                object: false,
                facts,
                bytes: false,
                own: false,
                passed: 0,
            }],
        }
    }

    fn top(&self) -> Option<&Frame> {
        self.frames.last()
    }

    pub(crate) fn facts(&self) -> Facts {
        self.top().map(|frame| frame.facts).unwrap_or_default()
    }

    pub(crate) fn open(&mut self, object: bool) {
        let own = self.top().is_some_and(|frame| frame.own);
        self.frames.push(Frame {
            object,
            facts: self.facts(),
            bytes: false,
            own,
            passed: 0,
        });
    }

    pub(crate) fn close(&mut self) {
        if self.frames.len() > 1 {
            self.frames.pop();
        }
        self.passed();
    }

    pub(crate) fn passed(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.passed += 1;
        }
    }

    pub(crate) fn key(&mut self, key: &str, keys: &Keys) {
        let outer = self
            .frames
            .len()
            .checked_sub(2)
            .map(|at| self.frames[at].facts)
            .unwrap_or_default();
        let records = self.shape == Shape::Records && self.frames.len() == 3;
        let typed = self.shape != Shape::Free;
        if let Some(frame) = self.frames.last_mut() {
            frame.facts = keys.facts(key);
            // What is masked or kept as a whole stays so within.
            frame.facts.always |= outer.always;
            frame.facts.never |= outer.never;
            frame.bytes = typed && matches!(key, "$bytes" | "$double");
            frame.own = records && !matches!(key, "attributes" | "filtered_attributes" | "name" | "trace_state");
        }
    }

    /// Whether a value may stand next: in an array, or behind a key.
    pub(crate) fn expects_value(&self) -> bool {
        self.frames.len() > 1
    }

    /// Whether bytes have a form of their own here.
    pub(crate) fn typed(&self) -> bool {
        self.shape != Shape::Free
    }

    /// Whether the value is one of a record's own, or its key is in `never`.
    pub(crate) fn kept(&self) -> bool {
        self.top().is_some_and(|frame| frame.own || frame.facts.never)
    }

    /// Whether this is the text of bytes or of a double that JSON lacks, which are no text.
    pub(crate) fn is_bytes(&self, raw: &str) -> bool {
        self.top().is_some_and(|frame| frame.bytes)
            && raw
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
    }

    /// Whether this is the first of a pair `[key, value]`.
    pub(crate) fn is_pair_key(&self) -> bool {
        self.shape == Shape::Pairs
            && self.frames.len() == 4
            && self.top().is_some_and(|frame| !frame.object && frame.passed == 0)
    }

    pub(crate) fn key_of_pair(&mut self, key: &str, keys: &Keys) {
        if let Some(frame) = self.frames.last_mut() {
            frame.facts = keys.facts(key);
        }
    }
}
