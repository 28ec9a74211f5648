//! Packages through places.
