//! What a worker does with a part that arrives: looks whether it is one of those that are sent to workers, ties its steps together anew,
//! meters it, and runs it inside this machine's limits.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::ensure_coop::EnsureCooperative;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{
    DistributedExt, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse, WorkerQueryContext, WorkerSessionBuilder,
};
use http::HeaderMap;
use sluice_store::{ColdCodec, is_cold_scan};

use super::at_work::{AtWorkExec, Places};
use super::{BUILD, MAX_SCAN, THIS_BUILD};
use crate::catalog;
use crate::config::LimitsConfig;
use crate::functions::{self, step_bytes};
use crate::memory::Room;
use crate::metered::Metering;
use crate::yielding::Yielding;

/// Steps that a part consists of, above its scans.
const STEPS: [&str; 10] = [
    "AggregateExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "FilterExec",
    "LocalLimitExec",
    "ProjectionExec",
    "SortExec",
    "SortExec(TopK)",
    "SortPreservingMergeExec",
    "UnionExec",
];

/// Makes the session of each part.
pub(super) struct Sessions {
    codec: ColdCodec,
    room: Room,
    max_scan: u64,
    memory: u64,
    threads: usize,
    places: Arc<Places>,
}

impl Sessions {
    pub(super) fn new(codec: ColdCodec, limits: &LimitsConfig, places: Arc<Places>, threads: usize) -> Sessions {
        Sessions {
            codec,
            room: Room::new(limits),
            max_scan: limits.max_scan,
            memory: limits.memory,
            threads,
            places,
        }
    }

    fn session(&self, context: WorkerQueryContext) -> Result<SessionState> {
        let WorkerQueryContext { mut builder, headers } = context;
        let build = headers.get(BUILD).and_then(|value| value.to_str().ok());
        if build != Some(THIS_BUILD) {
            let build = build.unwrap_or("unknown");
            // Whoever sends it learns so that nothing of its build can be run here.
            return Err(DataFusionError::Configuration(format!(
                "the part is of the build {build}, and this worker is of {THIS_BUILD}"
            )));
        }
        let most = told(&headers, MAX_SCAN).unwrap_or(self.max_scan).min(self.max_scan);
        let places = Arc::clone(&self.places);
        let config = builder.config().take().unwrap_or_default();
        let config = catalog::meaning(config)
            .with_target_partitions(self.threads)
            .with_distributed_user_codec(self.codec.clone())
            .with_distributed_worker_plan_rewrite_handler(
                move |event: WorkerPlanRewriteEvent<'_>| -> Result<WorkerPlanRewriteEventResponse> {
                    let plan = accept(event.plan, most, event.session_config.options());
                    let plan = plan.inspect_err(|_| places.refuses())?;
                    let head = AtWorkExec::new(plan, Arc::clone(&places));
                    Ok(WorkerPlanRewriteEventResponse::new(Arc::new(head)))
                },
            );
        functions::register(&mut builder, step_bytes(self.memory));
        let environment = Arc::new(self.room.environment()?);
        Ok(builder.with_config(config).with_runtime_env(environment).build())
    }
}

#[async_trait]
impl WorkerSessionBuilder for Sessions {
    async fn build_session_state(&self, context: WorkerQueryContext) -> Result<SessionState> {
        let session = self.session(context);
        if session.is_err() {
            self.places.refuses();
        }
        session
    }
}

fn told(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn refusal(why: String) -> DataFusionError {
    DataFusionError::Plan(why)
}

/// The part as it is run here.
fn accept(plan: Arc<dyn ExecutionPlan>, most: u64, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
    check(&plan)?;
    let rules: [Arc<dyn PhysicalOptimizerRule + Send + Sync>; 4] = [
        Arc::new(EnsureCooperative::new()),
        Arc::new(FilterPushdown::new_post_optimization()),
        Arc::new(Metering { most }),
        Arc::new(Yielding),
    ];
    rules.iter().try_fold(plan, |plan, rule| rule.optimize(plan, options))
}

/// Whoever holds the secret may have cold rows computed here, and nothing else: no other files, no other addresses.
fn check(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    plan.apply(|node| {
        if is_cold_scan(node) {
            return Ok(TreeNodeRecursion::Jump);
        }
        match STEPS.contains(&node.name()) {
            true if node.children().is_empty() => Err(refusal(format!("{} reads nothing", node.name()))),
            true => Ok(TreeNodeRecursion::Continue),
            false => Err(refusal(format!("a worker does not run {}", node.name()))),
        }
    })
    .map(|_| ())
}
