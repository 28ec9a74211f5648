//! The fixtures beside this plugin, as `sluice plugin test` runs them.

use sample::Sample;

#[test]
fn fixtures_hold() {
    sluice_plugin::testing::check_fixtures::<Sample>("fixtures");
}
