//! What a query can see: a session of its own that holds the caller's tables and nothing else. No file system, no addresses, no other
//! catalog; what is not registered here does not exist for the planner, however it is written.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider};
use datafusion::error::Result;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_distributed::{DistributedConfig, DistributedExt};
use sluice_store::hot::clickhouse::StatementLimits;
use sluice_store::{ColdCodec, Pinned, Scope, needed_settings, physical_rules, physical_rules_with, register_views};

use crate::config::LimitsConfig;
use crate::functions::{self, Literals, Plugins, step_bytes};
use crate::memory::Room;
use crate::metered::Metering;
use crate::position::Known;
use crate::scale::{Spreading, Workers};
use crate::tokens::{Identity, Reach};
use crate::yielding::Yielding;

pub(crate) const CATALOG: &str = "sluice";
pub(crate) const SCHEMA: &str = "public";

/// Functions that say something of this process or change something; nothing a query needs.
const WITHHELD: [&str; 1] = ["version"];

/// What a node keeps of the rows that workers have sent for one step of a query, before it stops reading: a part of `limits.memory`.
const PART_OF_MEMORY: u64 = 32;

/// The settings that decide what a plan means: the same wherever a part of it runs.
pub(crate) fn meaning(mut config: SessionConfig) -> SessionConfig {
    config.options_mut().sql_parser.collect_spans = true;
    needed_settings(config)
}

/// Makes sessions. What every session shares (functions, optimizer rules) is made once.
pub(crate) struct Catalog {
    template: SessionState,
    room: Room,
    /// Bytes that one query may read, and the memory that it may have: told to servers that compute a part of it.
    max_scan: u64,
    memory: u64,
    /// How plugins are run over rows, where that is possible.
    plugins: Option<Arc<dyn Plugins>>,
}

/// Whose rows an identity may see. The only place where a token becomes a filter.
pub(crate) fn scope(identity: &Identity) -> Scope {
    if cfg!(feature = "break-tenant") {
        return Scope::All;
    }
    match identity.reach() {
        Reach::Tenant => Scope::Tenant(identity.tenant().clone()),
        Reach::Operator => Scope::All,
    }
}

/// Statements that change anything are refused by the planner too.
pub(crate) fn options() -> SQLOptions {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Catalog")
    }
}

impl Catalog {
    #[cfg(test)]
    pub(crate) fn new(limits: &LimitsConfig) -> Catalog {
        Self::with_workers(limits, None)
    }

    /// With workers, the cold part of each plan is theirs, and the codec is how it goes there.
    pub(crate) fn with_workers(limits: &LimitsConfig, workers: Option<(&Arc<Workers>, ColdCodec)>) -> Catalog {
        let mut config = meaning(SessionConfig::new())
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true);
        let rules = match workers {
            None => physical_rules(),
            Some((workers, codec)) => {
                let mut distributed = DistributedConfig::default();
                let kept = usize::try_from(limits.memory / PART_OF_MEMORY).unwrap_or(usize::MAX);
                distributed.worker_connection_buffer_budget_bytes = kept;
                // A plan for one group of rows has no first half of an aggregate that workers could compute.
                let groups = config.target_partitions().max(2);
                config = config
                    .with_target_partitions(groups)
                    .with_distributed_option_extension(distributed)
                    .with_distributed_user_codec(codec);
                physical_rules_with(Arc::new(Spreading {
                    workers: Arc::clone(workers),
                }))
            }
        };
        let mut builder = SessionStateBuilder::new_with_default_features()
            .with_config(config)
            .with_physical_optimizer_rules(rules)
            .with_physical_optimizer_rule(Arc::new(Literals {
                most: step_bytes(limits.memory),
            }))
            .with_physical_optimizer_rule(Arc::new(Metering { most: limits.max_scan }))
            .with_physical_optimizer_rule(Arc::new(Yielding));
        functions::register(&mut builder, step_bytes(limits.memory));
        Catalog {
            template: builder.build(),
            plugins: None,
            room: Room::new(limits),
            max_scan: limits.max_scan,
            memory: limits.memory,
        }
    }

    pub(crate) fn set_plugins(&mut self, plugins: Arc<dyn Plugins>) {
        self.plugins = Some(plugins);
    }

    /// What every session shares, without anyone's tables.
    #[cfg(test)]
    pub(crate) fn template(&self) -> SessionState {
        self.template.clone()
    }

    /// A session that sees the tables of one scope at one point of the log, for a query that may take so long.
    pub(crate) async fn session(&self, pinned: &Pinned, scope: Scope, time: Duration) -> Result<SessionContext> {
        let schema = Arc::new(MemorySchemaProvider::new());
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(SCHEMA, schema)?;
        let catalogs = MemoryCatalogProviderList::new();
        datafusion::catalog::CatalogProviderList::register_catalog(&catalogs, CATALOG.to_owned(), Arc::new(catalog));
        let config = self.template.config().clone().with_extension(Arc::new(StatementLimits {
            time,
            bytes: self.max_scan,
            memory: self.memory,
        }));
        let state = SessionStateBuilder::new_from_existing(self.template.clone())
            .with_config(config)
            .with_catalog_list(Arc::new(catalogs))
            .with_runtime_env(Arc::new(self.room.environment()?))
            .build();
        let ctx = SessionContext::new_with_state(state);
        for name in WITHHELD {
            ctx.deregister_udf(name);
        }
        let events = pinned.events(scope.clone());
        register_views(&ctx, pinned, scope).await?;
        for (name, function) in functions::tables(&events, self.plugins.as_ref()) {
            ctx.register_udtf(name, function);
        }
        Ok(ctx)
    }
}

/// A table as those see it who list it.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) view: bool,
    pub(crate) schema: SchemaRef,
}

/// The tables of a session, by name.
pub(crate) async fn tables(ctx: &SessionContext) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    let Some(schema) = ctx.catalog(CATALOG).and_then(|c| c.schema(SCHEMA)) else {
        return Ok(tables);
    };
    for name in schema.table_names() {
        if let Some(table) = schema.table(&name).await? {
            // `events` is the one table, whatever it is made of; the others are ways to look at it
            tables.push(Table {
                view: name != "events",
                schema: table.schema(),
                name,
            });
        }
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

/// The names that exist in a session, for hints.
pub(crate) async fn known(ctx: &SessionContext) -> Known {
    let mut known = Known::default();
    let schema = ctx.catalog(CATALOG).and_then(|c| c.schema(SCHEMA));
    if let Some(schema) = schema {
        known.tables = schema.table_names();
        known.tables.sort();
        if let Ok(Some(events)) = schema.table("events").await {
            known.columns = events.schema().fields().iter().map(|f| f.name().clone()).collect();
        }
    }
    let state = ctx.state();
    known.functions = state
        .scalar_functions()
        .keys()
        .chain(state.aggregate_functions().keys())
        .chain(state.window_functions().keys())
        .cloned()
        .collect();
    known
}
