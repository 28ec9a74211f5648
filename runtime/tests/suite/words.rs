//! Whose words are told: what stands ahead of a mask sees what the mask hides, so nothing that it says itself goes further (P11).

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_runtime::{Candidate, Chain, ChainOutcome, Edition, OnFault, Place, Plugin};

use crate::common::*;

/// Letters that a reason may have, and none that the mask would find.
const CANARY: &str = "canary-4711 of kim";
/// Every way in which a guest can say what it was given.
const TALKATIVE: [&str; 3] = ["tell_body", "aside_with_body", "named_like_body"];

fn talkative(mode: &str) -> Arc<Plugin> {
    let mut config = config("faulty", json!({ "mode": mode }));
    config.name = "f".to_owned();
    config.on_fault = Some(OnFault::Quarantine);
    config.limits.deadline = Duration::from_secs(5);
    host().load(config).unwrap()
}

/// Takes away the canary in the rows, as a mask would.
fn mask() -> Arc<Plugin> {
    load(
        "mask",
        json!({ "custom": [{ "name": "canary", "pattern": "canary.*" }] }),
    )
}

fn place(plugin: &Arc<Plugin>) -> Place {
    Place {
        edition: Edition {
            plugin: plugin.clone(),
            version: plugin.version().to_owned(),
        },
        settings: String::new(),
        enabled: true,
        blocked: None,
        shadow: None,
        before: None,
    }
}

/// All that is told of a batch beside its rows.
fn told(chain: &Chain, outcome: &ChainOutcome) -> String {
    let reasons = texts(&outcome.batch, "quarantine_reason");
    format!("{reasons:?} {:?} {:?}", chain.stats(), chain.events_after(0))
}

#[test]
fn p11_what_stands_ahead_of_a_mask_is_told_of_in_the_words_of_the_host() {
    for mode in TALKATIVE {
        let alone = chain([talkative(mode)]);
        let outcome = alone.run(logs(&[CANARY]), CALL).unwrap();
        assert!(
            told(&alone, &outcome).contains(CANARY),
            "{mode}: without a mask its words help"
        );
        let behind = chain([mask(), talkative(mode)]);
        let outcome = behind.run(logs(&["x"]), CALL).unwrap();
        assert!(!told(&behind, &outcome).contains("not kept"), "{mode}: behind it, too");

        let ahead = chain([talkative(mode), mask()]);
        let outcome = ahead.run(logs(&[CANARY]), CALL).unwrap();
        assert_eq!(outcome.quarantined, 1, "{mode}");
        let told = told(&ahead, &outcome);
        assert!(!told.contains("4711") && told.contains("not kept"), "{mode}: {told}");
        assert!(
            !format!("{:?}", outcome.batch).contains("4711"),
            "{mode}: the row is masked"
        );
        // A mask that hides nothing of this batch does not speak for it.
        let off = mask();
        off.set_enabled(false);
        let open = chain([talkative(mode), off]);
        let outcome = open.run(logs(&[CANARY]), CALL).unwrap();
        assert!(self::told(&open, &outcome).contains(CANARY), "{mode}");
    }
}

#[test]
fn p11_nor_does_a_rollback_or_a_candidate_tell_what_they_were_given() {
    let good = talkative("ok");
    for mode in TALKATIVE {
        let chain = Chain::default();
        chain.set(vec![place(&good), place(&mask())]).unwrap();
        let mut new = place(&talkative(mode));
        new.edition.version = "2".to_owned();
        chain.set(vec![new, place(&mask())]).unwrap();
        let outcome = chain.run(logs(&[CANARY]), CALL).unwrap();
        assert!(
            !format!("{:?} {:?}", chain.stats(), chain.events_after(0)).contains("4711"),
            "{mode}"
        );
        assert!(!format!("{:?}", outcome.batch).contains("4711"), "{mode}");

        let chain = Chain::default();
        let mut beside = place(&good);
        beside.shadow = Some(Candidate {
            edition: place(&talkative(mode)).edition,
            share: 1.0,
        });
        chain.set(vec![beside, place(&mask())]).unwrap();
        chain.run(logs(&[CANARY]), CALL).unwrap();
        let begun = Instant::now();
        let report = loop {
            let report = chain.stats()[0].shadow.clone().unwrap();
            if report.waiting == 0 {
                break report;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{report:?}");
            std::thread::yield_now();
        };
        assert_eq!(report.faults_candidate + report.batches, 1, "{mode}: {report:?}");
        assert!(!format!("{report:?}").contains("4711"), "{mode}: {report:?}");
    }
}
