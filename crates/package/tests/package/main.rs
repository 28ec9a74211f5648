//! Packages as publishers and operators meet them: commands, several processes at once, places they travel through.
#![allow(clippy::unwrap_used)]

mod commands;
mod hostile;
mod layout;
mod processes;
mod registry;
mod site;
