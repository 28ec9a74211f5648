//! What a change of the chain was, on one line for the log. Pure.

use std::sync::Arc;

use sluice_runtime::Chain;

/// One place as it was or is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    name: String,
    version: String,
    /// The same for the same plugin with the same configuration.
    plugin: usize,
    enabled: bool,
}

pub(super) fn look(chain: &Chain) -> Vec<Seen> {
    let seen = |slot: &Arc<sluice_runtime::Slot>| {
        let current = slot.current();
        Seen {
            name: slot.name().to_owned(),
            version: current.version,
            plugin: Arc::as_ptr(&current.plugin) as usize,
            enabled: current.plugin.enabled(),
        }
    };
    chain.slots().iter().map(seen).collect()
}

/// Every place with its version, and what is new of it: `mask 1.0.0, sample 1.2.0 -> 1.3.0`.
pub(super) fn change(before: &[Seen], after: &[Seen]) -> String {
    let was = |now: &Seen| before.iter().find(|was| was.name == now.name);
    let mut parts: Vec<String> = after
        .iter()
        .map(|now| {
            let (name, version) = (&now.name, &now.version);
            let mut text = match was(now) {
                None => format!("{name} {version} (new)"),
                Some(was) if was.version != *version => format!("{name} {} -> {version}", was.version),
                Some(was) if was.plugin != now.plugin => format!("{name} {version} (loaded anew)"),
                Some(_) => format!("{name} {version}"),
            };
            match (was(now).is_none_or(|was| was.enabled), now.enabled) {
                (_, false) => text.push_str(" (switched off)"),
                (false, true) => text.push_str(" (switched on)"),
                (true, true) => {}
            }
            text
        })
        .collect();
    let gone = before.iter().filter(|was| after.iter().all(|now| now.name != was.name));
    parts.extend(gone.map(|was| format!("{} {} (removed)", was.name, was.version)));
    if parts.is_empty() {
        return "no plugins".to_owned();
    }
    let stayed: Vec<&String> = before
        .iter()
        .filter_map(|was| after.iter().any(|now| now.name == was.name).then_some(&was.name))
        .collect();
    let stays: Vec<&String> = after.iter().filter_map(|now| was(now).map(|_| &now.name)).collect();
    if stayed != stays {
        parts.push("in another order".to_owned());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, version: &str, plugin: usize) -> Seen {
        Seen {
            name: name.to_owned(),
            version: version.to_owned(),
            plugin,
            enabled: true,
        }
    }

    #[test]
    fn a_line_tells_every_place_and_what_is_new_of_it() {
        let off = |place: Seen| Seen {
            enabled: false,
            ..place
        };
        let before = [
            seen("mask", "1.0.0", 1),
            seen("sample", "1.2.0", 2),
            seen("gone", "3.0.0", 3),
            off(seen("f", "1.0.0", 4)),
        ];
        let check = |after: &[Seen], text: &str| assert_eq!(change(&before, after), text);
        check(
            &[
                seen("mask", "1.0.0", 1),
                seen("sample", "1.3.0", 5),
                seen("f", "1.0.0", 6),
                seen("n", "0.1.0", 7),
            ],
            "mask 1.0.0, sample 1.2.0 -> 1.3.0, f 1.0.0 (loaded anew) (switched on), n 0.1.0 (new), gone 3.0.0 (removed)",
        );
        check(
            &[
                seen("sample", "1.2.0", 2),
                off(seen("mask", "1.0.0", 1)),
                seen("gone", "3.0.0", 3),
                off(seen("f", "1.0.0", 4)),
            ],
            "sample 1.2.0, mask 1.0.0 (switched off), gone 3.0.0, f 1.0.0 (switched off), in another order",
        );
        assert_eq!(change(&[], &[]), "no plugins");
    }
}
