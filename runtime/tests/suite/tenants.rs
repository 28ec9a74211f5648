//! What belongs to one tenant never reaches another: neither an instance's memory nor the host's state (P10).

use serde_json::json;
use sluice_runtime::{Limits, PluginConfig};

use crate::common::*;

fn counting(mode: &str, limits: Limits) -> PluginConfig {
    let mut config = config("faulty", json!({ "mode": mode }));
    // State outlives a plugin under its name, so every test has its own.
    config.name = format!("{mode}-{}-{}", limits.recycle_after, limits.idle_instances);
    config.limits = limits;
    config
}

/// Runs one batch for each tenant in turn; what the guest counted for each.
fn counts(config: PluginConfig, tenants: &[&str]) -> Vec<i64> {
    let chain = chain([host().load(config).unwrap()]);
    let count = |tenant: &&str| numbers(&chain.run(logs(&["a"]), &of(tenant)).unwrap().batch, "attrs:i:added")[0];
    tenants.iter().map(count).collect()
}

#[test]
fn p10_an_instance_serves_one_tenant() {
    let roomy = counting("count_calls", Limits::default());
    assert_eq!(
        counts(roomy, &["a", "b", "a", "b", "a", "c", "b"]),
        [1, 1, 2, 2, 3, 1, 3]
    );
}

/// With less room than tenants, an instance that gives up its place is gone, not handed on.
#[test]
fn p10_an_instance_without_room_is_dropped_and_not_handed_on() {
    let narrow = Limits {
        idle_instances: 1,
        max_instances: 1,
        ..Limits::default()
    };
    let one = counting("count_calls", narrow);
    assert_eq!(counts(one, &["a", "a", "b", "a", "b", "b"]), [1, 2, 1, 1, 1, 2]);
}

#[test]
fn p10_state_belongs_to_a_tenant_and_outlives_instances() {
    let short_lived = Limits {
        recycle_after: 1,
        ..Limits::default()
    };
    let state = counting("count_in_state", short_lived);
    assert_eq!(counts(state.clone(), &["a", "b", "a", "a", "b"]), [1, 1, 2, 3, 2]);
    // A new version of the plugin under the same name goes on where the old one was; another name begins anew.
    assert_eq!(counts(state.clone(), &["a", "c"]), [4, 1]);
    let mut other = state;
    other.name = "shadow".to_owned();
    assert_eq!(counts(other, &["a"]), [1]);
}

/// Threads of different tenants share the few instances there may be, and nobody sees another's count.
#[test]
fn p10_tenants_in_parallel_do_not_meet() {
    let few = Limits {
        idle_instances: 2,
        max_instances: 3,
        ..Limits::default()
    };
    let chain = chain([host().load(counting("count_in_state", few)).unwrap()]);
    std::thread::scope(|scope| {
        for tenant in ["a", "b", "c", "d", "e"] {
            let chain = &chain;
            scope.spawn(move || {
                for expected in 1..=30 {
                    let outcome = chain.run(logs(&["x"]), &of(tenant)).unwrap();
                    assert_eq!(numbers(&outcome.batch, "attrs:i:added"), [expected], "{tenant}");
                }
            });
        }
    });
    assert_eq!(chain.stats()[0].faults, 0);
}
