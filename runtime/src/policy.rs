//! What becomes of a batch whose plugin failed. Pure.

use std::fmt;

/// What a plugin says it is; decides what its failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Mask,
    Sample,
    Enrich,
    Filter,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Mask => "mask",
            Kind::Sample => "sample",
            Kind::Enrich => "enrich",
            Kind::Filter => "filter",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The operator's choice for a plugin that is not a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFault {
    /// Rows stay, marked, and are shown in the table `quarantined`.
    Quarantine,
    /// Rows stay as if the plugin were not there.
    Bypass,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The events are refused; unmasked data goes nowhere.
    Refuse,
    Quarantine,
    Bypass,
}

/// A mask always fails closed. The others do what the operator chose; a sampler or an enricher that fails costs bytes
/// or context and so lets rows pass by default, a filter may guard something and so marks them.
pub(crate) fn verdict(kind: Kind, on_fault: Option<OnFault>) -> Verdict {
    match (kind, on_fault) {
        (Kind::Mask, _) => Verdict::Refuse,
        (_, Some(OnFault::Quarantine)) | (Kind::Filter, None) => Verdict::Quarantine,
        (_, Some(OnFault::Bypass)) | (Kind::Sample | Kind::Enrich, None) => Verdict::Bypass,
    }
}

/// Whether a failed call is tried once more: only if the instance had served before, because then its state may be to
/// blame. A fresh instance that fails would fail again.
pub(crate) fn retry(attempt: u32, instance_was_fresh: bool) -> bool {
    attempt == 1 && !instance_was_fresh
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p11_no_setting_opens_a_mask() {
        for choice in [None, Some(OnFault::Bypass), Some(OnFault::Quarantine)] {
            assert_eq!(verdict(Kind::Mask, choice), Verdict::Refuse);
        }
    }

    #[test]
    fn the_choice_of_the_operator_wins_elsewhere() {
        for kind in [Kind::Sample, Kind::Enrich, Kind::Filter] {
            assert_eq!(verdict(kind, Some(OnFault::Bypass)), Verdict::Bypass);
            assert_eq!(verdict(kind, Some(OnFault::Quarantine)), Verdict::Quarantine);
        }
    }

    #[test]
    fn a_batch_is_tried_at_most_twice() {
        assert!(retry(1, false));
        assert!(!retry(1, true));
        assert!(!retry(2, false));
    }
}
