//! Whether data moves: what `/readyz` says, and why.

use std::collections::BTreeMap;

/// Names that are told; the status has all.
const MAX_NAMES: usize = 5;

/// One tenant's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chain {
    /// It seals what an earlier life accepted, and takes events soon.
    Starts,
    Runs {
        /// Its journal has room, and it is not at its end.
        takes: bool,
        is_linked: bool,
        degraded: Option<String>,
    },
    Failed,
    /// What is left of it waits for a turn.
    Waits,
    /// What is left of it waits for its tenant to be served again.
    Stranded,
}

/// What all of them come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Something is taken here. What one tenant's chain lacks is no reason to send the others elsewhere.
    pub(super) is_ready: bool,
    /// What somebody should look at.
    pub(super) degraded: Vec<String>,
}

impl Health {
    pub(super) fn of(chains: &BTreeMap<String, Chain>) -> Self {
        let named = |is: fn(&Chain) -> bool| -> Vec<&str> {
            let meant = chains.iter().filter(|(_, chain)| is(chain));
            meant.map(|(who, _)| who.as_str()).collect()
        };
        let running = named(|chain| matches!(chain, Chain::Runs { .. }));
        let full = named(|chain| matches!(chain, Chain::Runs { takes: false, .. }));
        let all = [
            (
                full.clone(),
                "take no events now: there is no room, or they are at their end",
            ),
            (
                named(|chain| matches!(chain, Chain::Runs { is_linked: false, .. })),
                "have no link to a gateway: what they take stays on the disk",
            ),
            (
                named(|chain| *chain == Chain::Starts),
                "are starting, and seal what they had accepted before",
            ),
            (named(|chain| *chain == Chain::Failed), "do not run"),
            (
                named(|chain| *chain == Chain::Waits),
                "have left something on the disk, which waits for its turn",
            ),
            (
                named(|chain| *chain == Chain::Stranded),
                "are not served any more, and have left something on the disk",
            ),
        ];
        let told = all.into_iter().filter(|(who, _)| !who.is_empty());
        let mut degraded: Vec<String> = told.map(|(who, what)| tell(&who, chains.len(), what)).collect();
        degraded.extend(chains.iter().filter_map(|(who, chain)| match chain {
            Chain::Runs { degraded, .. } => degraded.as_ref().map(|why| format!("{who}: {why}")),
            _ => None,
        }));
        Self {
            is_ready: running.is_empty() || full.len() < running.len(),
            degraded,
        }
    }

    /// For `/readyz`.
    pub(super) fn line(&self) -> String {
        let word = if self.is_ready { "ready" } else { "takes no events now" };
        match self.degraded.is_empty() {
            true => format!("{word}\n"),
            false => format!("{word}, degraded: {}\n", self.degraded.join("; ")),
        }
    }
}

fn tell(who: &[&str], of: usize, what: &str) -> String {
    let shown = who.iter().take(MAX_NAMES).copied().collect::<Vec<_>>().join(", ");
    let more = if who.len() > MAX_NAMES { ", …" } else { "" };
    format!("{} of {of} chains {what} ({shown}{more})", who.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(chains: &[(&str, Chain)]) -> Health {
        Health::of(
            &chains
                .iter()
                .map(|(who, chain)| ((*who).to_owned(), chain.clone()))
                .collect(),
        )
    }

    #[test]
    fn it_is_said_which_data_does_not_move_and_one_tenant_makes_nobody_unready() {
        let runs = |takes, is_linked| Chain::Runs {
            takes,
            is_linked,
            degraded: None,
        };
        assert_eq!(of(&[]).line(), "ready\n");
        assert_eq!(of(&[("acme", runs(true, true))]).line(), "ready\n");
        let cut = of(&[("acme", runs(true, false)), ("beta", runs(true, true))]);
        assert!(
            cut.is_ready && cut.degraded[0].starts_with("1 of 2 chains have no link"),
            "{cut:?}"
        );
        let full = of(&[("acme", runs(false, true)), ("beta", runs(true, true))]);
        assert!(
            full.is_ready && full.degraded[0].contains("take no events now"),
            "{full:?}"
        );
        let all_full = of(&[("acme", runs(false, true)), ("beta", runs(false, true))]);
        assert!(!all_full.is_ready && all_full.line().starts_with("takes no events now, degraded"));
        let starts = of(&[("acme", Chain::Starts)]);
        assert!(starts.is_ready && starts.degraded.len() == 1, "{starts:?}");
        let left = of(&[
            ("acme", Chain::Failed),
            ("beta", Chain::Waits),
            ("gone", Chain::Stranded),
        ]);
        assert!(left.is_ready && left.degraded.len() == 3, "{left:?}");
        let names: Vec<String> = (0..9).map(|n| format!("t{n}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), Chain::Failed)).collect();
        assert_eq!(of(&many).degraded, ["9 of 9 chains do not run (t0, t1, t2, t3, t4, …)"]);
    }
}
