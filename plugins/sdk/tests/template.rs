//! The template for plugins in Rust is right as it stands.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../../templates/rust/src/lib.rs"]
mod template;

const SOURCE: &str = include_str!("../../templates/rust/src/lib.rs");

#[test]
fn the_template_does_what_its_fixtures_say() {
    sluice_plugin::testing::check_fixtures::<template::Keep>("../templates/rust/fixtures");
}

#[test]
fn a_filter_of_rows_with_a_configuration_has_at_most_20_lines() {
    assert!(SOURCE.lines().count() <= 20);
}
