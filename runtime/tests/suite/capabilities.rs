//! The host's capabilities as a guest meets them: what is not granted is not there, what is absurd is refused, and nothing
//! that a guest does with them hurts anyone else (P10).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use sluice_runtime::{Capability, ComponentError, ContractVersion, Grants, LoadError, OnFault, TableSource, inspect};

use crate::common::*;

/// What the host said to a guest that tried this, or the fault that ended it.
fn attempt(mode: &str) -> Result<String, String> {
    let mut config = config("faulty", json!({ "mode": mode }));
    config.name = format!("try.{mode}");
    config.on_fault = Some(OnFault::Bypass);
    // What is tested is what the host says, on however slow a machine.
    config.limits.deadline = Duration::from_secs(5);
    let chain = chain([host().load(config).unwrap()]);
    let outcome = chain.run(logs(&["a secret", "b", "secret secret"]), CALL).unwrap();
    assert_eq!(outcome.batch.num_rows(), 3, "{mode}: no row is lost");
    match chain.stats().remove(0).last_fault {
        Some(fault) => Err(fault),
        None => Ok(texts(&outcome.batch, "attrs:s:added")[0].clone().unwrap()),
    }
}

#[test]
fn p10_abuse_of_a_capability_is_refused_in_words() {
    let good = chain([golden("sample", json!({"rate": 1.0}))]);
    for (mode, expected) in [
        // The time of the batch, and no finer than milliseconds.
        ("clock", "1760000000000"),
        ("empty_key", "refused: a key has 0 bytes"),
        ("giant_key", "refused: a key has 100000 bytes"),
        ("giant_value", "refused: a value has 70000 bytes"),
        ("state_full", "refused after 17: full"),
        ("many_patterns", "refused: 1000 patterns"),
        ("exponential_regex", "refused: "),
        ("look_around", "refused: "),
        ("unknown_set", "refused: there is no set 99"),
        ("negative_offsets", "refused: offset 1 is -1"),
        ("falling_offsets", "refused: offset 2 is 1"),
        ("offsets_beyond", "refused: the texts end at byte 2147483647 of 1"),
        ("no_offsets", "allowed: 0"),
        ("cut_character", "refused: offset 1 is 1, in the middle of a character"),
        (
            "undeclared_column",
            "refused: this batch has no column `time`, or the plugin does not declare",
        ),
        ("number_column", "refused: column `severity`"),
        ("declared_column", "allowed: 3"),
        ("unknown_table", "refused: there is no table `passwd`"),
    ] {
        let said = attempt(mode).unwrap_or_else(|fault| panic!("{mode}: {fault}"));
        assert!(said.starts_with(expected), "{mode}: {said}");
        assert_eq!(good.run(logs(&["x"; 5]), CALL).unwrap().batch.num_rows(), 5, "{mode}");
    }
}

#[test]
fn p10_what_is_absurd_is_a_fault() {
    for (mode, expected) in [
        ("giant_request", "gave the host more than"),
        (
            "state_read_bomb",
            "the values asked for at once have more than 16777216 bytes",
        ),
        ("random_bomb", "4294967295 random bytes at once"),
        ("impossible_patterns", "trap: "),
        ("endless_match", "used more than"),
    ] {
        let fault = attempt(mode).expect_err(mode);
        assert!(fault.contains(expected), "{mode}: {fault}");
    }
}

fn refusal(config: sluice_runtime::PluginConfig) -> LoadError {
    host().load(config).unwrap_err()
}

#[test]
fn p10_a_capability_that_is_not_granted_is_not_there() {
    let component = component("faulty");
    let info = inspect(&component).unwrap();
    assert_eq!(info.contract, ContractVersion::V1_0);
    assert_eq!(info.capabilities, BTreeSet::from(Capability::ALL));
    assert_eq!(info.bytes, component.len());
    for missing in Capability::ALL {
        let mut config = config("faulty", json!({"mode": "ok"}));
        config.grants.capabilities.remove(&missing);
        let error = refusal(config);
        assert!(
            matches!(&error, LoadError::Component { source: ComponentError::NotGranted(c), .. } if *c == missing),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains(&format!("uses `{missing}`, which is not granted; grant it"))
        );
    }
    // An old component is asked the same.
    let mut mask = golden_config("mask", json!({}));
    mask.grants = Grants::none();
    let uses = inspect(&mask.component).unwrap().capabilities;
    assert!(uses.is_subset(&BTreeSet::from([Capability::Log])));
    assert_eq!(host().load(mask).is_ok(), uses.is_empty());
}

#[test]
fn what_is_granted_badly_is_told_before_anything_runs() {
    let mut table = config("faulty", json!({"mode": "ok"}));
    table.grants.tables = vec![TableSource {
        name: "hosts".to_owned(),
        path: "/nowhere/hosts.csv".into(),
        key: None,
    }];
    let error = refusal(table).to_string();
    assert!(
        error.contains("plugin `faulty`: table `hosts`, /nowhere/hosts.csv: "),
        "{error}"
    );
    let mut state = config("faulty", json!({"mode": "ok"}));
    state.grants.state_bytes = usize::MAX;
    let error = refusal(state).to_string();
    assert!(
        error.contains("limits: state_bytes = 18446744073709551615 is not between 1024 and"),
        "{error}"
    );
}

#[test]
fn a_component_describes_itself_without_a_chain() {
    let description = host().describe(&component("faulty")).unwrap();
    assert_eq!(
        (description.name.as_str(), description.version.as_str()),
        ("faulty", "1.0.0")
    );
    assert_eq!(description.reads, ["body", "severity"]);
    let old = host().describe(&golden_component("mask")).unwrap();
    assert_eq!(old.kind, sluice_runtime::Kind::Mask);
    assert!(host().describe(b"\0asm").is_err());
}
