//! The standard plugins that are part of the program. They are trusted as its own code is, and they are there when their
//! components were at hand while the program was built.

include!(concat!(env!("OUT_DIR"), "/standard_plugins.rs"));

/// Their names, also those that this program was built without.
pub(crate) const STANDARD: [&str; 5] = ["mask", "sample", "enrich", "filter", "cardinality"];

/// The component of a standard plugin, if it is here.
pub(super) fn component(name: &str) -> Option<&'static [u8]> {
    COMPONENTS
        .iter()
        .find(|(standard, _)| *standard == name)
        .map(|(_, component)| *component)
}
