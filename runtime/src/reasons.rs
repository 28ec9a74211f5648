//! The names under which events are counted. Plugins choose reasons, and each stays in counts for the life of the node, so their
//! number and length have a limit.

use std::collections::BTreeSet;
use std::sync::Mutex;

use sluice_wire::counts::{Counts, Dropped};

use crate::lock;

/// Pairs of a plugin and a reason that one node counts apart; a chain of sixteen plugins with sixteen reasons each.
pub const MAX_REASONS: usize = 256;
/// Bytes of a reason.
pub const MAX_REASON_BYTES: usize = 128;
/// What all further reasons of a plugin are counted under.
pub const OTHER: &str = "other";

/// The pairs seen so far.
#[derive(Debug, Default)]
pub struct Reasons {
    seen: Mutex<BTreeSet<(String, String)>>,
}

impl Reasons {
    /// The name to count under: the reason, cut to its limit, or `other` when there are too many.
    pub fn name(&self, plugin: &str, reason: &str) -> String {
        let reason = cut(reason);
        if reason == OTHER {
            return reason.to_owned();
        }
        let mut seen = lock(&self.seen);
        let pair = (plugin.to_owned(), reason.to_owned());
        if seen.contains(&pair) {
            return pair.1;
        }
        if seen.len() >= MAX_REASONS {
            return OTHER.to_owned();
        }
        let name = pair.1.clone();
        seen.insert(pair);
        name
    }

    /// Renames what is beyond the limit; the sum stays.
    pub fn limit(&self, list: &mut Vec<Dropped>) {
        for entry in list.iter_mut() {
            entry.reason = self.name(&entry.plugin, &entry.reason);
        }
        // Those that have the same name now become one.
        let mut counts = Counts::default();
        counts.merge(&Counts {
            dropped: std::mem::take(list),
            ..Counts::default()
        });
        *list = counts.dropped;
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_REASON_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p15_invented_reasons_are_counted_apart_up_to_a_limit_and_the_rest_together() {
        let reasons = Reasons::default();
        let mut list: Vec<Dropped> = (0..1000)
            .map(|n| Dropped {
                plugin: format!("p{}", n % 2),
                reason: format!("reason {n}"),
                rows: 1,
            })
            .collect();
        reasons.limit(&mut list);
        assert_eq!(list.len(), MAX_REASONS + 2);
        assert_eq!(list.iter().map(|d| d.rows).sum::<u64>(), 1000);
        let other = |plugin: &str| {
            list.iter()
                .find(|d| d.plugin == plugin && d.reason == OTHER)
                .map(|d| d.rows)
        };
        assert_eq!((other("p0"), other("p1")), (Some(372), Some(372)));
        // What was known stays known.
        assert_eq!(reasons.name("p0", "reason 0"), "reason 0");
        assert_eq!(reasons.name("p0", "something new"), OTHER);
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let reasons = Reasons::default();
        let name = reasons.name("p", &"ä".repeat(100));
        assert_eq!(name, "ä".repeat(MAX_REASON_BYTES / 2));
        assert_eq!(
            reasons.name("p", &format!("a{}", "ä".repeat(100))).len(),
            MAX_REASON_BYTES - 1
        );
    }
}
