//! The contract with whoever writes a configuration file, the same for every role: durations and sizes carry units, a mistake is
//! told with its place and a way out, and every key can be listed with its value and where that came from.

mod error;
mod explain;
mod near;
pub mod readable;
pub mod units;

pub use error::ConfigError;
pub use explain::{Setting, explain};

/// Reads a configuration. Rules that a type cannot hold are the caller's; [`ConfigError::value`] tells them.
pub fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::from_toml(text, &error))
}

/// Reads the file that a configuration stands in, and what `parse` makes of its text; mistakes name the file.
pub fn load<T>(path: &std::path::Path, parse: impl FnOnce(&str) -> Result<T, ConfigError>) -> Result<T, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new(format!("cannot be read: {error}")))
        .and_then(|text| parse(&text))
        .map_err(|error| error.in_file(path))
}
