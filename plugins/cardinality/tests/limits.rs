//! That limits hold: by fixture, over many batches and instances, over windows, and when there is no room.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use cardinality::Cardinality;
use sluice_plugin::serde_json::Value;
use sluice_plugin::testing::{Host, Layout, Tester, check_fixtures, json};

const SECOND: u64 = 1_000_000_000;
/// The beginning of an hour.
const START: u64 = 1_767_225_600 * SECOND;

#[test]
fn fixtures() {
    check_fixtures::<Cardinality>("fixtures");
}

#[test]
fn only_the_limited_fields_are_handed_over() {
    let check = |limit: Value, expected: &[&str]| {
        Host::reset();
        let tester = tester(json!({"limits": [limit]}), Layout::Dictionary);
        let batch = tester.batch(
            json!([{"name": "n", "service": "s", "severity": 9, "resource": {"user": 1},
            "attrs": {"user": "u", "user.id": 7, "use": true}, "attrs:*": {"user": "rare"}}]),
        );
        let given = tester.hand_over(&batch).unwrap();
        let fields = given.records().schema_ref().fields();
        let names: BTreeSet<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, expected.iter().copied().collect());
    };
    check(json!({"key": "name", "max": 1}), &["name"]);
    check(json!({"key": "attrs.user", "max": 1}), &["attrs:*", "attrs:s:user"]);
    check(
        json!({"key": "attrs.user*", "max": 1, "per_service": true}),
        &["attrs:*", "attrs:s:user", "attrs:i:user.id", "resource:s:service.name"],
    );
}

fn users(from: usize, to: usize) -> Value {
    (from..to)
        .map(|n| json!({"attrs": {"user": format!("u{n}")}}))
        .collect()
}

fn tester(config: Value, layout: Layout) -> Tester<Cardinality> {
    let mut tester = Tester::<Cardinality>::new(config).unwrap();
    tester.layout = layout;
    tester.at(START);
    tester
}

/// The texts of `attrs.user` that stay.
fn through(tester: &mut Tester<Cardinality>, rows: Value) -> BTreeSet<String> {
    let actual = tester.run(rows);
    assert_eq!(actual.error, None);
    let user = |row: &sluice_plugin::testing::Row| row.get("attrs")?.get("user")?.as_str().map(str::to_owned);
    actual.rows.iter().filter_map(user).collect()
}

#[test]
fn a_limit_holds_over_batches_and_instances_and_ends_with_its_window() {
    for layout in [Layout::Plain, Layout::Dictionary] {
        Host::reset();
        let config = json!({"window_seconds": 3600, "limits": [{"key": "attrs.user", "max": 100, "action": "remove"}]});
        let mut instances = [tester(config.clone(), layout), tester(config.clone(), layout)];
        let mut let_through = BTreeSet::new();
        for batch in 0..20 {
            let rows = users(batch * 10, batch * 10 + 30);
            let_through.extend(through(&mut instances[batch % 2], rows));
        }
        assert_eq!(let_through.len(), 100);
        // An instance that knows nothing lets through the same ones.
        let mut fresh = tester(config, layout);
        assert_eq!(through(&mut fresh, users(0, 300)), let_through);
        fresh.at(START + 3599 * SECOND);
        assert_eq!(through(&mut fresh, users(250, 300)).len(), 0);
        fresh.at(START + 3600 * SECOND);
        assert_eq!(through(&mut fresh, users(250, 400)).len(), 100);
    }
}

#[test]
fn the_state_of_a_window_is_forgotten() {
    Host::reset();
    // Room for some 400 values: without forgetting, the third window would find none.
    Host::set_state_bytes(100 * 1024);
    let config = json!({"window_seconds": 60, "limits": [{"key": "attrs.user", "max": 200, "action": "remove"}]});
    let mut tester = tester(config, Layout::Plain);
    for window in 0..50u64 {
        tester.at(START + window * 180 * SECOND);
        assert_eq!(through(&mut tester, users(0, 300)).len(), 200, "window {window}");
    }
}

#[test]
fn without_room_new_values_are_over_the_limit_and_it_is_told_once() {
    Host::reset();
    Host::set_state_bytes(2000);
    let config = json!({"limits": [{"key": "attrs.user", "max": 1000, "action": "remove"}]});
    let mut tester = tester(config, Layout::Plain);
    let first = through(&mut tester, users(0, 5));
    assert_eq!(first.len(), 5);
    for _ in 0..3 {
        assert_eq!(through(&mut tester, users(0, 500)), first);
    }
    let told = Host::take_log();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].1.contains("no room in the state"));
}

#[test]
fn services_have_numbers_of_their_own() {
    Host::reset();
    let config = json!({"limits": [{"key": "attrs.user", "max": 10, "per_service": true, "action": "drop"}]});
    let mut tester = tester(config, Layout::Dictionary);
    let row = |n: usize| json!({"service": format!("s{}", n % 3), "attrs": {"user": format!("u{}", n / 3)}});
    let actual = tester.run((0..90).map(row).collect());
    assert_eq!(actual.rows.len(), 30);
    assert_eq!(actual.drops["cardinality"], 60);
    // The same users of services without a name.
    assert_eq!(tester.run(users(0, 50)).rows.len(), 10);
}

#[test]
fn wrong_configurations_are_told_with_their_key() {
    let check = |config, expected: &str| {
        let error = Tester::<Cardinality>::new(config).err().unwrap();
        assert!(error.contains(expected), "{error}");
    };
    check(json!({}), "missing field `limits`");
    check(json!({"limits": []}), "limits: give at least one");
    check(
        json!({"window_seconds": 0, "limits": [{"key": "name", "max": 1}]}),
        "window_seconds: 0",
    );
    check(
        json!({"limits": [{"key": "body", "max": 1}]}),
        "limits[0].key: `body` cannot be limited",
    );
    check(json!({"limits": [{"key": "a*b", "max": 1}]}), "limits[0].key: ");
    check(
        json!({"limits": [{"key": "attrs.a", "max": 2_000_000}]}),
        "limits[0].max: ",
    );
    check(
        json!({"limits": [{"key": "name", "max": 1, "action": "remove"}]}),
        "limits[0].action: the name",
    );
    check(
        json!({"limits": [{"key": "name", "max": 1, "action": "replaced"}]}),
        "did you mean `replace`?",
    );
}

#[test]
fn a_value_is_refused_only_when_its_service_is_full_and_one_that_was_let_through_stays_so() {
    const MAX: usize = 7;
    let mut seed = 9u64;
    let mut below = |bound: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    for round in 0..20 {
        Host::reset();
        let layout = [Layout::Plain, Layout::Dictionary][round % 2];
        let config = json!({"limits": [{"key": "attrs.user", "max": MAX, "per_service": true}]});
        // Several instances, of which one is exchanged now and then.
        let mut instances: Vec<_> = (0..3).map(|_| tester(config.clone(), layout)).collect();
        let mut admitted: BTreeSet<(String, String)> = BTreeSet::new();
        for _ in 0..30 {
            if below(5) == 0 {
                instances[below(3) as usize] = tester(config.clone(), layout);
            }
            let pairs: Vec<(String, String)> = (0..below(12))
                .map(|_| (format!("s{}", below(3)), format!("u{}", below(15))))
                .collect();
            let rows = pairs
                .iter()
                .map(|(service, user)| json!({"service": service, "attrs": {"user": user}}))
                .collect();
            let actual = instances[below(3) as usize].run(rows);
            assert_eq!((actual.error.as_ref(), actual.rows.len()), (None, pairs.len()));
            let before = admitted.clone();
            let mut refused = Vec::new();
            for (row, pair) in actual.rows.iter().zip(&pairs) {
                match row["attrs"]["user"].as_str() {
                    Some("[other]") => refused.push(pair),
                    user => {
                        assert_eq!(user, Some(pair.1.as_str()));
                        admitted.insert(pair.clone());
                    }
                }
            }
            for pair in refused {
                let of_service = admitted.iter().filter(|(service, _)| *service == pair.0).count();
                assert!(
                    !before.contains(pair) && !admitted.contains(pair),
                    "{pair:?} is let through and refused"
                );
                assert_eq!(of_service, MAX, "{pair:?} is refused with {of_service} values");
            }
        }
        for service in ["s0", "s1", "s2"] {
            assert_eq!(admitted.iter().filter(|(other, _)| other == service).count(), MAX);
        }
    }
}
