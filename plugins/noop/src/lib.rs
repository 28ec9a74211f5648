//! Does nothing: what the way into the sandbox and back costs at least.

use sluice_plugin::{Batch, Context, Description, Kind, NoConfig, Outcome, Plugin, export_plugin};

#[derive(Debug)]
pub struct Noop;

impl Plugin for Noop {
    type Config = NoConfig;

    fn describe() -> Description {
        Description::new("noop", env!("CARGO_PKG_VERSION"), Kind::Enrich).reads(["severity"])
    }

    fn init(_: NoConfig) -> Result<Self, String> {
        Ok(Noop)
    }

    fn process(&mut self, _: &Batch, _: &Context) -> Result<Outcome, String> {
        Ok(Outcome::unchanged())
    }
}

export_plugin!(Noop);
