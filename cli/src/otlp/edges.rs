//! The nodes of the tenants: started when their tenant first sends, or when an earlier life left something; stopped with the process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_edge::otlp::OtlpRoutes;
use sluice_edge::{EdgeConfig, EdgeNode, StatusHandle};
use sluice_wire::ids::TenantId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A node that could not be started, or ended, is started again after this.
const PAUSE: Duration = Duration::from_secs(5);
/// How long a request waits for a node that is sealing what an earlier life accepted.
const PATIENCE: Duration = Duration::from_secs(5);

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
    places: Mutex<BTreeMap<TenantId, Arc<Place>>>,
    stop: CancellationToken,
}

/// Of one tenant.
#[derive(Default)]
struct Place {
    /// Held while its node is being started: whoever comes meanwhile waits.
    starting: tokio::sync::Mutex<()>,
    state: Mutex<PlaceState>,
}

#[derive(Default)]
enum PlaceState {
    #[default]
    Empty,
    Running(Running),
    Failed {
        why: String,
        at: Instant,
    },
}

struct Running {
    routes: watch::Receiver<Option<OtlpRoutes>>,
    status: StatusHandle,
    task: JoinHandle<Result<(), String>>,
}

impl Edges {
    pub(super) fn new(settings: EdgesSettings) -> Self {
        Self {
            settings,
            places: Mutex::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Starts the nodes that an earlier life had. One that does not start is told, and no reason not to serve the others.
    pub(super) async fn resume(&self) {
        for tenant in names_in(&self.settings.folder) {
            if let Err(problem) = self.routes(&tenant).await {
                tracing::error!(%tenant, problem, "what was accepted of a tenant waits on the disk");
            }
        }
    }

    /// The doors of a tenant's node, which is started if it is not there; else why there is none.
    pub(super) async fn routes(&self, tenant: &TenantId) -> Result<OtlpRoutes, String> {
        let place = self.place(tenant)?;
        let mut routes = {
            let _starting = place.starting.lock().await;
            match place.running().await? {
                Some(routes) => routes,
                None => self.start(tenant, &place).await?,
            }
        };
        let ready = routes.wait_for(Option::is_some);
        match tokio::time::timeout(PATIENCE, ready).await {
            Ok(Ok(routes)) => routes.clone().ok_or_else(|| "is not ready".to_owned()),
            Ok(Err(_)) => Err("the tenant's chain has ended, it is started again in a moment".to_owned()),
            Err(_) => Err("the tenant's chain is starting".to_owned()),
        }
    }

    fn place(&self, tenant: &TenantId) -> Result<Arc<Place>, String> {
        let mut places = self.lock();
        if let Some(place) = places.get(tenant) {
            return Ok(Arc::clone(place));
        }
        // One that failed makes room for others.
        if places.len() >= self.settings.max_tenants {
            places.retain(|_, place| !place.has_failed());
        }
        if places.len() >= self.settings.max_tenants {
            let max = self.settings.max_tenants;
            return Err(format!(
                "{max} tenants are served here already: raise otlp.max_tenants, or send elsewhere"
            ));
        }
        let place = Arc::new(Place::default());
        places.insert(tenant.clone(), Arc::clone(&place));
        Ok(place)
    }

    async fn start(&self, tenant: &TenantId, place: &Place) -> Result<watch::Receiver<Option<OtlpRoutes>>, String> {
        if self.stop.is_cancelled() {
            return Err("the process is ending".to_owned());
        }
        let node = match EdgeNode::build(self.settings.of(tenant)).await {
            Ok(node) => node,
            Err(error) => {
                let why = format!("the tenant's chain does not start: {:#}", anyhow::Error::from(error));
                tracing::error!(%tenant, why);
                place.set(PlaceState::Failed {
                    why: why.clone(),
                    at: Instant::now(),
                });
                return Err(why);
            }
        };
        let (routes, status, stop, who) = (node.otlp_routes(), node.status(), self.stop.clone(), tenant.clone());
        let task = tokio::spawn(async move {
            let ended = node
                .run(stop)
                .await
                .map_err(|error| format!("{:#}", anyhow::Error::from(error)));
            if let Err(error) = &ended {
                tracing::error!(tenant = %who, error, "a tenant's chain ended");
            }
            ended
        });
        place.set(PlaceState::Running(Running {
            routes: routes.clone(),
            status,
            task,
        }));
        Ok(routes)
    }

    /// Ends all nodes: what was accepted is sealed, and sent as far as the gateways take it soon.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let places: Vec<_> = std::mem::take(&mut *self.lock()).into_values().collect();
        for place in places {
            if let PlaceState::Running(running) = place.take() {
                // It says for itself what went wrong.
                drop(running.task.await);
            }
        }
    }

    /// What each node says of itself.
    pub(super) fn status(&self) -> BTreeMap<String, Value> {
        let places: Vec<_> = self
            .lock()
            .iter()
            .map(|(who, place)| (who.clone(), Arc::clone(place)))
            .collect();
        places
            .into_iter()
            .map(|(who, place)| (who.to_string(), place.status()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, Arc<Place>>> {
        // Each change is complete before anything can fail.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Its doors if it has any; an error while it is too early to try again.
    async fn running(&self) -> Result<Option<watch::Receiver<Option<OtlpRoutes>>>, String> {
        let ended = {
            let mut state = self.lock();
            match &*state {
                PlaceState::Empty => return Ok(None),
                PlaceState::Failed { why, at } if at.elapsed() < PAUSE => return Err(why.clone()),
                PlaceState::Failed { .. } => return Ok(None),
                PlaceState::Running(running) if !running.task.is_finished() => return Ok(Some(running.routes.clone())),
                PlaceState::Running(_) => std::mem::take(&mut *state),
            }
        };
        let why = match ended {
            PlaceState::Running(running) => match running.task.await {
                Ok(Err(why)) => why,
                other => format!("{other:?}"),
            },
            _ => String::new(),
        };
        let why = format!("the tenant's chain ended: {why}");
        self.set(PlaceState::Failed {
            why: why.clone(),
            at: Instant::now(),
        });
        Err(why)
    }

    fn has_failed(&self) -> bool {
        matches!(&*self.lock(), PlaceState::Failed { .. })
    }

    fn status(&self) -> Value {
        let handle = match &*self.lock() {
            PlaceState::Running(running) => running.status.clone(),
            PlaceState::Failed { why, .. } => return json!({ "problem": why }),
            PlaceState::Empty => return json!({ "problem": "is starting" }),
        };
        serde_json::to_value(handle.snapshot()).unwrap_or_default()
    }

    fn set(&self, state: PlaceState) {
        *self.lock() = state;
    }

    fn take(&self) -> PlaceState {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, PlaceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
