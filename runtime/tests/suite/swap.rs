//! A version in the place of another while batches are at work, and back again by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow_array::RecordBatch;
use serde_json::json;
use sluice_runtime::{
    Candidate, Chain, Edition, OnFault, PROBATION_BATCHES, PROBATION_FAULTS, Place, Plugin, PluginStats, Standing, What,
};

use crate::common::*;

/// A place with this plugin, called version `version`.
fn place(plugin: &Arc<Plugin>, version: &str) -> Place {
    Place {
        edition: Edition {
            plugin: plugin.clone(),
            version: version.to_owned(),
        },
        settings: String::new(),
        enabled: true,
        blocked: None,
        shadow: None,
        before: None,
    }
}

/// A plugin under the name of the place that it is for.
fn named(name: &str, component: &str, json: serde_json::Value) -> Arc<Plugin> {
    let mut config = config("faulty", json);
    config.component = released_or_built(component);
    config.name = name.to_owned();
    config.limits.deadline = std::time::Duration::from_secs(5);
    config.on_fault = Some(OnFault::Quarantine);
    host().load(config).unwrap()
}

/// Fails on a batch with a body `poison`.
fn poisoned(name: &str, component: &str) -> Arc<Plugin> {
    named(name, component, json!({"mode": "trap", "only": "poison"}))
}

/// Rows without a severity: the sampler keeps errors whatever its rate.
fn traces(rows: usize) -> RecordBatch {
    with(
        &logs(&vec!["x"; rows]).project(&[0, 1, 2]).unwrap(),
        "trace_id",
        trace_ids(rows),
    )
}

fn of<'a>(stats: &'a [PluginStats], version: &str) -> &'a PluginStats {
    stats.iter().find(|stats| stats.version == version).unwrap()
}

fn happened(chain: &Chain) -> Vec<What> {
    chain.events_after(0).iter().map(|event| event.what).collect()
}

/// Says that it is over when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One of the two drops everything, and which one it is changes all the time: a batch that sees one of each is seen.
#[test]
fn p2_a_batch_is_served_by_the_versions_that_it_began_with_and_no_row_is_lost() {
    let sample = |name: &str, rate: f64| named(name, "sample", json!({ "rate": rate }));
    let arrangements = [
        [place(&sample("a", 1.0), "keep"), place(&sample("b", 0.0), "drop")],
        [place(&sample("a", 0.0), "drop"), place(&sample("b", 1.0), "keep")],
    ];
    let chain = Chain::default();
    chain.set(arrangements[0].to_vec()).unwrap();
    let batch = traces(50);
    let (over, rows) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let outcome = chain.run(batch.clone(), CALL).unwrap();
                    assert_eq!((outcome.batch.num_rows(), outcome.quarantined), (0, 0));
                    let dropped: Vec<u64> = outcome.dropped.iter().map(|dropped| dropped.rows).collect();
                    assert_eq!(dropped, [50], "each row is dropped once");
                    rows.fetch_add(50, Ordering::SeqCst);
                }
            });
        }
        // However this ends, so do the others.
        let end = End(&over);
        for round in 0..500 {
            chain.set(arrangements[round % 2].to_vec()).unwrap();
            let before = rows.load(Ordering::SeqCst);
            while rows.load(Ordering::SeqCst) == before && !over.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
        drop(end);
    });
    let stats = chain.stats();
    let dropped = |stats: &PluginStats| stats.dropped.iter().map(|(_, rows)| rows).sum::<u64>();
    assert_eq!(stats.iter().map(dropped).sum::<u64>(), rows.into_inner());
    for stats in &stats {
        assert_eq!(stats.rows_in, stats.rows_out + dropped(stats), "{stats:?}");
        // What the first one drops never comes to the second.
        let served = (stats.name.as_str(), stats.version.as_str()) != ("b", "keep");
        assert_eq!(stats.batches > 0, served, "{stats:?}");
    }
}

#[test]
fn p2_a_version_that_faults_at_once_is_taken_back_and_no_row_is_lost_or_set_aside() {
    let (good, bad) = (
        named("f", "faulty", json!({"mode": "ok"})),
        named("f", "faulty", json!({"mode": "trap"})),
    );
    let chain = Chain::default();
    chain.set(vec![place(&good, "1.0.0")]).unwrap();
    chain.run(logs(&["a"; 3]), CALL).unwrap();
    chain.set(vec![place(&bad, "1.1.0")]).unwrap();
    assert_eq!(chain.stats()[0].state, Standing::Probation);
    for _ in 0..5 {
        let outcome = chain.run(logs(&["a"; 3]), CALL).unwrap();
        assert_eq!((outcome.batch, outcome.quarantined), (logs(&["a"; 3]), 0));
    }
    let stats = chain.stats();
    let (old, new) = (of(&stats, "1.0.0"), of(&stats, "1.1.0"));
    assert_eq!(
        (old.state, old.rows_in, old.rows_out, old.batches, old.faults),
        (Standing::Current, 18, 18, 6, 0)
    );
    assert_eq!(old.rolled_back_from.as_deref(), Some("1.1.0"));
    assert_eq!(
        (new.state, new.rows_in, new.faults, new.rescued),
        (Standing::RolledBack, 0, 1, 1)
    );
    assert!(new.last_fault.as_ref().unwrap().starts_with("trap"));
    assert_eq!(happened(&chain), [What::Added, What::Replaced, What::RolledBack]);
    let event = &chain.events_after(2)[0];
    assert_eq!(
        (event.version.as_str(), event.other.as_deref()),
        ("1.1.0", Some("1.0.0"))
    );
    // The same wish again is no new wish.
    chain.set(vec![place(&bad, "1.1.0")]).unwrap();
    assert!(Arc::ptr_eq(&chain.slots()[0].current().plugin, &good));
}

#[test]
fn a_version_on_probation_is_taken_back_with_its_third_fault_and_stays_once_it_has_proven_itself() {
    let good = named("f", "faulty", json!({"mode": "ok"}));
    let new = poisoned("f", "faulty");
    let run = |chain: &Chain, body: &str| chain.run(logs(&[body]), CALL).unwrap().quarantined;
    let chain = Chain::default();
    chain.set(vec![place(&good, "1")]).unwrap();
    chain.set(vec![place(&new, "2")]).unwrap();
    for fault in 1..=PROBATION_FAULTS {
        assert_eq!(run(&chain, "fine"), 0);
        assert!(Arc::ptr_eq(&chain.slots()[0].current().plugin, &new), "fault {fault}");
        assert_eq!(
            run(&chain, "poison"),
            0,
            "the old version serves what the new one cannot"
        );
    }
    assert!(Arc::ptr_eq(&chain.slots()[0].current().plugin, &good));

    let chain = Chain::default();
    chain.set(vec![place(&good, "1")]).unwrap();
    chain.set(vec![place(&new, "2")]).unwrap();
    for _ in 0..PROBATION_BATCHES {
        assert_eq!(chain.stats()[0].state, Standing::Probation);
        run(&chain, "fine");
    }
    assert_eq!(chain.stats()[0].state, Standing::Current);
    assert_eq!(*happened(&chain).last().unwrap(), What::Proven);
    assert_eq!(run(&chain, "poison"), 1, "from now on it fails as any plugin does");
    assert!(Arc::ptr_eq(&chain.slots()[0].current().plugin, &new));
}

#[test]
fn a_batch_that_both_versions_fail_on_says_nothing_about_the_new_one() {
    let (old, new) = (poisoned("f", "faulty"), poisoned("f", "faulty"));
    let chain = Chain::default();
    chain.set(vec![place(&old, "1")]).unwrap();
    chain.set(vec![place(&new, "2")]).unwrap();
    for _ in 0..2 * PROBATION_FAULTS {
        assert_eq!(chain.run(logs(&["poison"]), CALL).unwrap().quarantined, 1);
        assert_eq!(chain.run(logs(&["fine"]), CALL).unwrap().quarantined, 0);
    }
    assert!(Arc::ptr_eq(&chain.slots()[0].current().plugin, &new));
    assert_eq!(chain.stats()[0].state, Standing::Probation);
}

#[test]
fn p11_while_a_new_mask_fails_only_the_old_mask_with_the_same_settings_lets_data_pass() {
    let mask = named("m", "mask", json!({}));
    let bad = named("m", "faulty_mask", json!({"mode": "trap"}));
    let filter = named("m", "faulty", json!({"mode": "ok"}));
    let secret = || logs(&["to kim@example.com"]);
    let after = |before: &Place, after: Place| {
        let chain = Chain::default();
        chain.set(vec![before.clone()]).unwrap();
        chain.set(vec![after]).unwrap();
        let first = chain.run(secret(), CALL);
        let second = chain.run(secret(), CALL);
        (first.is_ok(), second.is_ok(), first.or(second))
    };
    let (first, second, outcome) = after(&place(&mask, "1"), place(&bad, "2"));
    assert!(first && second);
    assert_eq!(texts(&outcome.unwrap().batch, "body"), [Some("to [email]".to_owned())]);

    let mut otherwise = place(&bad, "2");
    otherwise.settings = "asked for more".to_owned();
    let (first, second, refused) = after(&place(&mask, "1"), otherwise);
    assert!(!first && !second, "the old settings are not what is asked for now");
    assert_eq!(refused.unwrap_err().plugin, "m");

    let (first, second, _) = after(&place(&filter, "1"), place(&bad, "2"));
    assert!(!first && !second, "a filter hides nothing");
    let also_bad = named("m", "faulty_mask", json!({"mode": "trap"}));
    let (first, second, _) = after(&place(&also_bad, "1"), place(&bad, "2"));
    assert!(!first && !second);
    // Rows that were set aside are masked by it, too.
    let aside = named("f", "faulty", json!({"mode": "trap"}));
    let chain = Chain::default();
    chain.set(vec![place(&aside, "1"), place(&mask, "1")]).unwrap();
    chain.set(vec![place(&aside, "1"), place(&bad, "2")]).unwrap();
    for _ in 0..3 {
        let outcome = chain.run(secret(), CALL).unwrap();
        assert_eq!(outcome.quarantined, 1);
        assert_eq!(texts(&outcome.batch, "body"), [Some("to [email]".to_owned())]);
    }
}

#[test]
fn the_kill_switch_and_the_order_of_places_take_effect_with_the_next_batch() {
    let (a, b) = (
        named("a", "sample", json!({"rate": 0.0})),
        named("b", "sample", json!({"rate": 0.0})),
    );
    let batch = traces(4);
    let by = |chain: &Chain| {
        let outcome = chain.run(batch.clone(), CALL).unwrap();
        let plugins: Vec<String> = outcome.dropped.into_iter().map(|dropped| dropped.plugin).collect();
        (outcome.batch.num_rows(), plugins)
    };
    let chain = Chain::default();
    chain.set(vec![place(&a, "1"), place(&b, "1")]).unwrap();
    assert_eq!(by(&chain), (0, vec!["a".to_owned()]));
    chain.set(vec![place(&b, "1"), place(&a, "1")]).unwrap();
    assert_eq!(by(&chain), (0, vec!["b".to_owned()]));
    let off = |plugin| Place {
        enabled: false,
        ..place(plugin, "1")
    };
    chain.set(vec![off(&b), place(&a, "1")]).unwrap();
    assert_eq!(by(&chain), (0, vec!["a".to_owned()]));
    chain.set(vec![off(&b)]).unwrap();
    assert_eq!(by(&chain), (4, vec![]));
    let stats = chain.stats();
    assert_eq!(
        (stats.len(), stats[0].rows_in, stats[0].state),
        (1, 4, Standing::Disabled)
    );
    let expected = [What::Added, What::Added, What::Disabled, What::Removed];
    assert_eq!(happened(&chain), expected);
}

#[test]
fn p11_a_blocked_mask_refuses_and_other_kinds_fail_as_they_do() {
    let blocked = |plugin| Place {
        blocked: Some("revoked by acme".to_owned()),
        ..place(plugin, "1")
    };
    let mask = named("m", "mask", json!({}));
    let chain = Chain::default();
    chain.set(vec![place(&mask, "1")]).unwrap();
    chain.set(vec![blocked(&mask)]).unwrap();
    let refused = chain.run(logs(&["kim@example.com"]), CALL).unwrap_err();
    assert_eq!(refused.fault, "may not run: revoked by acme");
    assert!(refused.retryable, "the events are not to blame");
    assert_eq!(chain.stats()[0].blocked.as_deref(), Some("revoked by acme"));
    chain.set(vec![place(&mask, "1")]).unwrap();
    assert!(chain.run(logs(&["kim@example.com"]), CALL).is_ok());
    // What may not run stands by for nothing.
    chain.set(vec![blocked(&mask)]).unwrap();
    chain
        .set(vec![place(&named("m", "faulty_mask", json!({"mode": "trap"})), "2")])
        .unwrap();
    assert!(chain.run(logs(&["kim@example.com"]), CALL).is_err());
    chain
        .set(vec![blocked(&named("f", "faulty", json!({"mode": "ok"})))])
        .unwrap();
    assert_eq!(chain.run(logs(&["x"]), CALL).unwrap().quarantined, 1);
}

fn revoked() -> Option<String> {
    Some("revoked by acme".to_owned())
}

/// Each version for itself, wherever it is: none that may not run comes to serve by the failure of another.
#[test]
fn p12_a_version_that_stands_by_or_was_rolled_back_to_is_taken_back_like_any_other() {
    let secret = || logs(&["to kim@example.com"]);
    let mask = || named("m", "mask", json!({}));
    let bad = || named("m", "faulty_mask", json!({"mode": "trap"}));
    // It stands by: it does not step in.
    let (old, new) = (mask(), bad());
    let chain = Chain::default();
    chain.set(vec![place(&old, "1")]).unwrap();
    chain.set(vec![place(&new, "2")]).unwrap();
    chain.block(|plugin| Arc::ptr_eq(plugin, &old).then(revoked).flatten());
    assert_eq!(
        chain.stats()[0].state,
        Standing::Current,
        "no version stands by any more"
    );
    for _ in 0..2 * PROBATION_FAULTS {
        assert_eq!(chain.run(secret(), CALL).unwrap_err().plugin, "m");
    }
    assert!(Arc::ptr_eq(&chain.slots()[0].current().plugin, &new));
    // It serves again after a rollback: nothing serves, although it is not what is wanted.
    let (old, new) = (mask(), bad());
    let chain = Chain::default();
    chain.set(vec![place(&old, "1")]).unwrap();
    chain.set(vec![place(&new, "2")]).unwrap();
    assert!(chain.run(secret(), CALL).is_ok());
    assert!(Arc::ptr_eq(&chain.slots()[0].current().plugin, &old));
    let only_old = |plugin: &Arc<Plugin>| Arc::ptr_eq(plugin, &old).then(revoked).flatten();
    chain.block(only_old);
    // The same wish again, for which nothing is held against the version that failed.
    chain.set(vec![place(&new, "2")]).unwrap();
    let refused = chain.run(secret(), CALL).unwrap_err();
    assert_eq!(refused.fault, "may not run: revoked by acme");
    assert_eq!(of(&chain.stats(), "1").state, Standing::Blocked);
    chain.block(|_| None);
    assert!(chain.run(secret(), CALL).is_ok());
    let last = happened(&chain);
    assert_eq!(last[last.len() - 2..], [What::Blocked, What::Unblocked]);
}

#[test]
fn p12_a_candidate_that_is_taken_back_runs_no_more_and_its_batches_go_on() {
    let (current, candidate) = (
        named("f", "faulty", json!({"mode": "ok"})),
        named("f", "faulty", json!({"mode": "ok"})),
    );
    let mut beside = place(&current, "1");
    beside.shadow = Some(Candidate {
        edition: place(&candidate, "2").edition,
        share: 1.0,
    });
    let chain = Chain::default();
    chain.set(vec![beside]).unwrap();
    chain.block(|plugin| Arc::ptr_eq(plugin, &candidate).then(revoked).flatten());
    assert!(chain.slots()[0].shadow().is_none());
    assert_eq!(chain.run(logs(&["x"]), CALL).unwrap().quarantined, 0);
    assert_eq!(chain.stats().len(), 1);
}

#[test]
fn a_version_that_had_not_proven_itself_finds_its_predecessor_again_in_a_new_life() {
    let (old, new) = (named("f", "faulty", json!({"mode": "ok"})), poisoned("f", "faulty"));
    let mut again = place(&new, "2");
    again.before = Some(place(&old, "1").edition);
    let chain = Chain::default();
    chain.set(vec![again.clone()]).unwrap();
    assert_eq!(of(&chain.stats(), "2").state, Standing::Probation);
    assert_eq!(of(&chain.stats(), "1").state, Standing::Previous);
    assert_eq!(chain.run(logs(&["poison"]), CALL).unwrap().quarantined, 0);
    assert!(Arc::ptr_eq(&chain.slots()[0].current().plugin, &old));
    // A filter stands by for no mask, in this life or another.
    let mask = named("f", "faulty_mask", json!({"mode": "trap"}));
    let mut behind = place(&mask, "2");
    behind.before = again.before;
    let chain = Chain::default();
    chain.set(vec![behind]).unwrap();
    assert!(chain.run(logs(&["x"]), CALL).is_err());
}
