//! `cargo test` runs the plugin natively; `sluice plugin test` runs the same fixtures through the component.

use sluice_plugin::testing::{Tester, check_fixtures, json};
use {{crate}}::Keep;

#[test]
fn fixtures() {
    check_fixtures::<Keep>("fixtures");
}

#[test]
fn without_configuration_only_warnings_and_worse_stay() {
    let mut keep = Tester::<Keep>::new(json!({})).expect("the configuration is right");
    let after = keep.run(json!([
        {"severity": 9, "service": "shop"},
        {"severity": 13, "service": "shop"},
        {"service": "shop"},
    ]));
    assert_eq!(after.rows.len(), 1);
    assert_eq!(after.drops["filtered"], 2);
}
