//! Write a Sluice plugin in Rust: columns in, columns out.
//!
//! A plugin is a type that implements [`Plugin`] and is handed to [`export_plugin!`]. It is built for
//! `wasm32-unknown-unknown` as a `cdylib` and then encoded as a component.
//!
//! ```ignore
//! use sluice_plugin::{Batch, Context, Description, Kind, NoConfig, Outcome, Plugin, export_plugin};
//!
//! struct Keep;
//!
//! impl Plugin for Keep {
//!     type Config = NoConfig;
//!     fn describe() -> Description {
//!         Description::new("keep", "0.1.0", Kind::Filter).reads(&["severity"])
//!     }
//!     fn init(_: NoConfig) -> Result<Self, String> {
//!         Ok(Keep)
//!     }
//!     fn process(&mut self, batch: &Batch, _: &Context) -> Result<Outcome, String> {
//!         let severity = batch.ints("severity")?;
//!         Ok(Outcome::keep_rows(batch.rows(), "low_severity", |row| severity.get(row).unwrap_or(0) >= 13))
//!     }
//! }
//!
//! export_plugin!(Keep);
//! ```

extern crate self as sluice_plugin;

mod batch;
#[doc(hidden)]
pub mod ipc;
mod outcome;

#[doc(hidden)]
#[allow(unsafe_code, unreachable_pub, missing_docs, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/released/0.1.0",
        world: "transform",
        pub_export_macro: true,
        export_macro_name: "export_transform",
        default_bindings_module: "sluice_plugin::bindings",
        runtime_path: "sluice_plugin::wit_bindgen::rt",
    });
}

#[doc(hidden)]
pub use wit_bindgen;

pub use batch::{Batch, Ints, Text};
pub use bindings::sluice::plugin::log::Level;
pub use bindings::sluice::plugin::types::{Context, Kind, Signal};
pub use outcome::Outcome;

/// What a plugin does, once per instance.
pub trait Plugin: Sized + 'static {
    /// Read from the JSON of the operator; give it `deny_unknown_fields`.
    type Config: serde::de::DeserializeOwned;
    fn describe() -> Description;
    /// The error is shown to the operator when the plugin is loaded.
    fn init(config: Self::Config) -> Result<Self, String>;
    /// An error is a fault of the plugin: the batch is then treated as the operator chose for faults.
    fn process(&mut self, batch: &Batch, context: &Context) -> Result<Outcome, String>;
}

/// The configuration of a plugin that has none.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Who a plugin is and which columns it touches.
#[derive(Clone, Debug)]
pub struct Description {
    pub name: &'static str,
    pub version: &'static str,
    pub kind: Kind,
    pub reads: Vec<&'static str>,
    pub writes: Vec<&'static str>,
    pub config_schema: &'static str,
}

impl Description {
    pub fn new(name: &'static str, version: &'static str, kind: Kind) -> Self {
        Description {
            name,
            version,
            kind,
            reads: Vec::new(),
            writes: Vec::new(),
            config_schema: "",
        }
    }

    /// Columns handed to the plugin: names, or patterns such as `attrs:s:*`.
    pub fn reads(mut self, columns: &[&'static str]) -> Self {
        self.reads.extend_from_slice(columns);
        self
    }

    /// Columns that the plugin may give back.
    pub fn writes(mut self, columns: &[&'static str]) -> Self {
        self.writes.extend_from_slice(columns);
        self
    }

    /// JSON Schema of the configuration.
    pub fn config_schema(mut self, schema: &'static str) -> Self {
        self.config_schema = schema;
        self
    }
}

/// Writes a line to the host's log.
pub fn log(level: Level, line: &str) {
    bindings::sluice::plugin::log::write(level, line);
}

/// Makes a type that implements [`Plugin`] the component's plugin.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ident) => {
        #[doc(hidden)]
        #[allow(unsafe_code, unreachable_pub)]
        mod sluice_component {
            use super::$plugin as P;
            use $crate::bindings;

            ::std::thread_local! {
                static PLUGIN: ::std::cell::RefCell<::std::option::Option<P>> =
                    const { ::std::cell::RefCell::new(None) };
            }

            struct Component;

            impl bindings::Guest for Component {
                fn describe() -> bindings::Description {
                    $crate::glue::describe::<P>()
                }
                fn init(config: String) -> ::std::result::Result<(), String> {
                    let plugin = $crate::glue::init::<P>(&config)?;
                    PLUGIN.with(|cell| cell.replace(Some(plugin)));
                    Ok(())
                }
                fn process(
                    batch: Vec<u8>,
                    context: bindings::Context,
                ) -> ::std::result::Result<bindings::Outcome, String> {
                    PLUGIN.with(|cell| match cell.borrow_mut().as_mut() {
                        Some(plugin) => $crate::glue::process(plugin, batch, &context),
                        None => Err("process before init".to_owned()),
                    })
                }
            }

            bindings::export_transform!(Component with_types_in bindings);
        }
    };
}

/// Between the generated bindings and the trait; not for direct use.
#[doc(hidden)]
pub mod glue {
    use super::{Batch, Plugin, bindings};

    pub fn describe<P: Plugin>() -> bindings::Description {
        let own = |columns: Vec<&'static str>| columns.into_iter().map(str::to_owned).collect();
        let description = P::describe();
        bindings::Description {
            name: description.name.to_owned(),
            version: description.version.to_owned(),
            kind: description.kind,
            reads: own(description.reads),
            writes: own(description.writes),
            config_schema: description.config_schema.to_owned(),
        }
    }

    pub fn init<P: Plugin>(config: &str) -> Result<P, String> {
        let config = serde_json::from_str(config).map_err(|e| e.to_string())?;
        P::init(config)
    }

    pub fn process<P: Plugin>(
        plugin: &mut P,
        batch: Vec<u8>,
        context: &bindings::Context,
    ) -> Result<bindings::Outcome, String> {
        let batch = Batch::decode(batch)?;
        plugin.process(&batch, context)?.encode(&batch)
    }
}
