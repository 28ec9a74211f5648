//! The nodes of the tenants: started when their tenant sends, or when something is left of an earlier life; stopped when their place is
//! needed by others, when their tenant is not served any more, and with the process. Who runs is decided by `turns`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;
use sluice_edge::otlp::OtlpRoutes;
use sluice_edge::{EdgeConfig, EdgeNode};
use sluice_tenants::Tenancy;
use sluice_wire::ids::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::health::{Chain, Health};
use super::place::{Place, Places, Running};
use super::turns::{self, Facts, Step};

/// How long a request waits for a node that is sealing what an earlier life accepted.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whose turn it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Others may be quicker to take a seat that was given up.
const SEAT_ATTEMPTS: usize = 3;

/// What stands for a tenant's name in the paths of its certificate and key.
pub(super) const TENANT: &str = "{tenant}";

/// What every node has.
pub(super) struct EdgesSettings {
    pub(super) template: EdgeConfig,
    /// Of a data folder for each tenant.
    pub(super) folder: PathBuf,
    pub(super) max_tenants: usize,
}

pub(super) struct Edges {
    settings: EdgesSettings,
    tenancy: Arc<Tenancy>,
    places: Mutex<Places>,
    seats: Arc<Semaphore>,
    /// When it was found last that nobody gives up a seat.
    full: Mutex<Option<Instant>>,
    stop: CancellationToken,
}

/// All nodes at one look.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) chains: BTreeMap<String, Chain>,
    /// What each says of itself.
    pub(super) nodes: BTreeMap<String, Value>,
}

impl Edges {
    /// With everything that earlier lives left in the folder.
    pub(super) fn open(settings: EdgesSettings, tenancy: Arc<Tenancy>) -> Self {
        let left = names_in(&settings.folder).into_iter();
        let places = left.map(|tenant| (tenant, Arc::new(Place::with_something_left())));
        Self {
            places: Mutex::new(places.collect()),
            seats: Arc::new(Semaphore::new(settings.max_tenants)),
            settings,
            tenancy,
            full: Mutex::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Carries on what earlier lives accepted, whoever sends now, and ends the nodes of tenants that are not served any more; until the
    /// process ends.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = looks.tick() => self.look_after().await,
            }
        }
    }

    async fn look_after(&self) {
        for place in self.all().into_values() {
            if let Ok(_changing) = place.changing.try_lock() {
                // One that ended by itself is noted; it said why.
                drop(place.current().await);
            }
        }
        let steps = turns::steps(&self.facts().await)
            .into_iter()
            .map(|step| self.perform(step));
        join_all(steps).await;
        let mut places = self.lock();
        // Nobody else has it, and nobody can get it meanwhile.
        places.retain(|_, place| Arc::strong_count(place) > 1 || !place.is_empty());
    }

    async fn perform(&self, step: Step) {
        let (Step::Stop(who) | Step::Carry(who)) = &step;
        let Some(place) = self.lock().get(who).cloned() else {
            return;
        };
        // Somebody asks for it at the moment: it is looked at again.
        let Ok(_changing) = place.changing.try_lock() else {
            return;
        };
        match &step {
            Step::Stop(_) => place.stop().await,
            Step::Carry(_) => {
                if let Ok(None) = place.current().await {
                    // It says for itself what went wrong.
                    drop(self.start(who, &place, None).await);
                }
            }
        }
    }

    /// The doors of a tenant's node, which is started if it is not there; else why there is none.
    pub(super) async fn routes(&self, tenant: &TenantId) -> Result<OtlpRoutes, String> {
        let place = Arc::clone(self.lock().entry(tenant.clone()).or_default());
        place.note_asked();
        let mut routes = {
            let _changing = place.changing.lock().await;
            match place.current().await? {
                Some((routes, true)) => routes,
                Some((routes, false)) => {
                    place.take_seat(self.seat().await?);
                    routes
                }
                None => {
                    let seat = self.seat().await?;
                    self.start(tenant, &place, Some(seat)).await?
                }
            }
        };
        let ready = routes.wait_for(Option::is_some);
        match tokio::time::timeout(PATIENCE, ready).await {
            Ok(Ok(routes)) => routes.clone().ok_or_else(|| "is not ready".to_owned()),
            Ok(Err(_)) => Err("the tenant's chain has ended, it is started again in a moment".to_owned()),
            Err(_) => Err("the tenant's chain is starting".to_owned()),
        }
    }

    /// A free seat, or that of a tenant that does not need it.
    async fn seat(&self) -> Result<OwnedSemaphorePermit, String> {
        for _ in 0..SEAT_ATTEMPTS {
            if let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() {
                return Ok(seat);
            }
            let looked = *self.full();
            if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
                break;
            }
            let Some(who) = turns::gives_way(&self.facts().await) else {
                *self.full() = Some(Instant::now());
                break;
            };
            tracing::info!(tenant = %who, "gives its seat to one that sends");
            self.perform(Step::Stop(who)).await;
        }
        let max = self.settings.max_tenants;
        Err(format!(
            "{max} tenants are served here already: raise otlp.max_tenants, or send elsewhere"
        ))
    }

    /// Whoever calls holds `changing` of the place.
    async fn start(
        &self,
        tenant: &TenantId,
        place: &Place,
        seat: Option<OwnedSemaphorePermit>,
    ) -> Result<watch::Receiver<Option<OtlpRoutes>>, String> {
        if self.stop.is_cancelled() {
            return Err("the process is ending".to_owned());
        }
        let node = match EdgeNode::build(self.settings.of(tenant)).await {
            Ok(node) => node,
            Err(error) => {
                let why = format!("the tenant's chain does not start: {:#}", anyhow::Error::from(error));
                tracing::error!(%tenant, why);
                place.failed(why.clone());
                return Err(why);
            }
        };
        let (routes, status, stop, who) = (
            node.otlp_routes(),
            node.status(),
            self.stop.child_token(),
            tenant.clone(),
        );
        let told = stop.clone();
        let task = tokio::spawn(async move {
            let ended = node
                .run(told)
                .await
                .map_err(|error| format!("{:#}", anyhow::Error::from(error)));
            if let Err(error) = &ended {
                tracing::error!(tenant = %who, error, "a tenant's chain ended");
            }
            ended
        });
        place.runs(Running {
            routes: routes.clone(),
            status,
            task,
            stop,
            seat,
            since: Instant::now(),
        });
        Ok(routes)
    }

    /// Ends all nodes: what was accepted is sealed, and sent as far as the gateways take it soon.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let all = self.all();
        join_all(all.values().map(|place| async move {
            let _changing = place.changing.lock().await;
            place.stop().await;
        }))
        .await;
    }

    /// Blocks for a moment.
    pub(super) fn look(&self) -> Look {
        let mut look = Look::default();
        for (who, place) in self.all() {
            if let Some((chain, node)) = place.status(self.is_served(&who)) {
                look.chains.insert(who.to_string(), chain);
                look.nodes.insert(who.to_string(), node);
            }
        }
        look
    }

    /// Reads counters of nodes, which may wait for a lock that a disk holds.
    async fn facts(&self) -> BTreeMap<TenantId, Facts> {
        let all: Vec<_> = self
            .all()
            .into_iter()
            .map(|(who, place)| (self.is_served(&who), who, place))
            .collect();
        let facts = tokio::task::spawn_blocking(move || -> BTreeMap<TenantId, Facts> {
            let of = |(served, who, place): (bool, TenantId, Arc<Place>)| (who, place.facts(served));
            all.into_iter().map(of).collect()
        });
        // Nothing is known, so nothing is done.
        facts.await.unwrap_or_default()
    }

    fn is_served(&self, tenant: &TenantId) -> bool {
        self.tenancy.current().tenants.admit(tenant).is_ok()
    }

    fn all(&self) -> Places {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Each change is complete before anything can fail.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn full(&self) -> MutexGuard<'_, Option<Instant>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look {
    pub(super) fn health(&self) -> Health {
        Health::of(&self.chains)
    }
}

impl EdgesSettings {
    fn of(&self, tenant: &TenantId) -> EdgeConfig {
        let mut config = self.template.clone();
        config.tenant = tenant.to_string();
        config.data_dir = self.folder.join(tenant.as_str());
        for door in [
            &mut config.listen.otlp_grpc,
            &mut config.listen.otlp_http,
            &mut config.listen.http,
        ] {
            door.clear();
        }
        config.admin.tap = false;
        for path in [&mut config.link.certificate, &mut config.link.key] {
            *path = PathBuf::from(path.to_string_lossy().replace(TENANT, tenant.as_str()));
        }
        config
    }
}

/// Folders whose name is one of a tenant.
fn names_in(folder: &Path) -> Vec<TenantId> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.flatten().filter(|entry| entry.path().is_dir());
    names
        .filter_map(|entry| TenantId::new(entry.file_name().to_str()?).ok())
        .collect()
}
