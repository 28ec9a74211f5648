//! The host's log. Long lines are cut and lines above the operator's rate are counted instead of written.

use std::fmt::Display;

pub use crate::bindings::sluice::plugin::log::Level;

pub fn debug(line: impl Display) {
    write(Level::Debug, line);
}

pub fn info(line: impl Display) {
    write(Level::Info, line);
}

pub fn warn(line: impl Display) {
    write(Level::Warn, line);
}

pub fn error(line: impl Display) {
    write(Level::Error, line);
}

pub fn write(level: Level, line: impl Display) {
    let line = line.to_string();
    #[cfg(target_arch = "wasm32")]
    crate::bindings::sluice::plugin::log::write(level, &line);
    #[cfg(not(target_arch = "wasm32"))]
    super::native::with(|host| host.log.push((level, line)));
}
