//! What a plugin is, and how it becomes the exports of a component.

use crate::bindings::exports::sluice::plugin::guest;
use crate::{Batch, Config, Context, Hints, Kind, Limits, Outcome, Signal, names};

/// What a plugin does, once per instance.
pub trait Plugin: Sized + 'static {
    /// Read from the JSON of the operator; [`plugin_config`](crate::plugin_config) makes a struct one, [`NoConfig`](crate::NoConfig)
    /// is for plugins without.
    type Config: Config;
    fn describe() -> Description;
    /// The columns that it needs with its configuration, in the notation of [`Description::reads`], if these are fewer than
    /// `describe` declares. Fewer columns are faster. A column whose values it changes in some rows is among them: what it is not
    /// given it cannot give back.
    fn needs(&self) -> Option<Vec<String>> {
        None
    }
    /// The error is shown to the operator when the plugin is loaded.
    fn init(config: Self::Config) -> Result<Self, String>;
    /// An error is a fault of the plugin: the batch is then treated as the operator chose for faults.
    fn process(&mut self, batch: &Batch, context: &Context) -> Result<Outcome, String>;
}

/// Who a plugin is and which columns it touches.
#[derive(Clone, Debug)]
pub struct Description {
    pub name: String,
    pub version: String,
    pub kind: Kind,
    pub reads: Vec<String>,
    pub writes: Vec<String>,
}

impl Description {
    pub fn new(name: &str, version: &str, kind: Kind) -> Self {
        Description {
            name: name.to_owned(),
            version: version.to_owned(),
            kind,
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }

    /// Columns handed to the plugin, fewer are faster: core columns (`severity`), `service`, `host`, attributes by key
    /// (`attrs.http.route`, `resource.k8s.pod.name`, `scope.…`), columns and patterns as the contract has them (`attrs:s:*`).
    pub fn reads<C: AsRef<str>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        names::add(&mut self.reads, columns);
        self
    }

    /// Columns that the plugin may give back, in the same notation.
    pub fn writes<C: AsRef<str>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        names::add(&mut self.writes, columns);
        self
    }
}

impl Default for Context {
    /// A batch of logs at the time 0 with the host's default limits for a batch of 8,192 rows and no wishes.
    fn default() -> Self {
        Context {
            signal: Signal::Log,
            now: 0,
            limits: Limits {
                deadline: 20_000 + 5 * 8192,
                output: 8 * 1024 * 1024,
            },
            hints: Hints {
                share: 1.0,
                row_bytes: 0.0,
            },
        }
    }
}

/// Makes a type that implements [`Plugin`] the component's plugin.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ident) => {
        // Natively there is no host to call it, and several plugins may be linked into one program.
        #[cfg(target_arch = "wasm32")]
        #[doc(hidden)]
        #[allow(unsafe_code, unreachable_pub, clippy::all)]
        mod sluice_component {
            use super::$plugin as P;
            use $crate::bindings;
            use $crate::bindings::exports::sluice::plugin::guest;

            ::std::thread_local! {
                static PLUGIN: ::std::cell::RefCell<::std::option::Option<$crate::glue::Started<P>>> =
                    const { ::std::cell::RefCell::new(None) };
            }

            struct Component;

            impl guest::Guest for Component {
                fn describe() -> guest::Description {
                    PLUGIN.with(|cell| $crate::glue::describe(cell.borrow().as_ref()))
                }
                fn init(config: ::std::string::String) -> ::std::result::Result<(), ::std::string::String> {
                    let started = $crate::glue::start::<P>(&config)?;
                    PLUGIN.with(|cell| cell.replace(Some(started)));
                    Ok(())
                }
                fn process(
                    batch: ::std::vec::Vec<u8>,
                    context: guest::Context,
                ) -> ::std::result::Result<guest::Outcome, ::std::string::String> {
                    PLUGIN.with(|cell| match cell.borrow_mut().as_mut() {
                        Some(started) => $crate::glue::process(started, batch, &context),
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
    use super::{Batch, Plugin, guest, names};
    use crate::config;

    /// A plugin that has its configuration, and the columns that it is given.
    #[derive(Debug)]
    pub struct Started<P> {
        plugin: P,
        reads: Vec<String>,
    }

    pub fn describe<P: Plugin>(started: Option<&Started<P>>) -> guest::Description {
        let mut description = P::describe();
        if let Some(started) = started {
            description.reads.clone_from(&started.reads);
        }
        guest::Description {
            name: description.name,
            version: description.version,
            kind: description.kind,
            reads: description.reads,
            writes: description.writes,
            config_schema: config::schema::<P::Config>(),
        }
    }

    /// Columns that a plugin may name, and the bytes of a name, as the host has it.
    const MAX_COLUMNS: usize = 256;
    const MAX_NAME: usize = 512;

    /// The columns that a plugin needs with its configuration: all that it declares where they are too many to be named.
    pub fn reads<P: Plugin>(plugin: &P) -> Vec<String> {
        let Some(needs) = plugin.needs() else {
            return P::describe().reads;
        };
        let mut reads = Vec::new();
        names::add(&mut reads, needs);
        if reads.len() > MAX_COLUMNS || reads.iter().any(|name| name.len() > MAX_NAME) {
            return P::describe().reads;
        }
        reads
    }

    pub fn init<P: Plugin>(config: &str) -> Result<P, String> {
        P::init(config::read(config)?)
    }

    pub fn start<P: Plugin>(config: &str) -> Result<Started<P>, String> {
        let plugin = init::<P>(config)?;
        let reads = reads(&plugin);
        Ok(Started { plugin, reads })
    }

    pub fn process<P: Plugin>(
        started: &mut Started<P>,
        batch: Vec<u8>,
        context: &guest::Context,
    ) -> Result<guest::Outcome, String> {
        let batch = Batch::decode(batch)?;
        let outcome = started.plugin.process(&batch, context)?;
        outcome.check_reads(&batch, &started.reads)?;
        outcome.encode(&batch)
    }
}
