//! The same rows in many places: memory alone, hot alone, cold alone, and seams between them.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use datafusion::datasource::MemTable;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use sluice_store::provider::VIEWS;
use sluice_store::{
    HotRows, OffsetRange, Pinned, Scope, Stores, Tables, TablesOptions, needed_settings, physical_rules, register_views,
};
use sluice_wire::ids::TenantId;

use crate::common::{Ends, Seeded, claim, drop_to, insert, lake, lakes, partition, records, tenant};

const PARTITIONS: u16 = 3;
const LAST: u64 = 47;
/// Small, so that few rows make many batches.
const BATCH_ROWS: usize = 64;

/// A place to ask.
pub(crate) struct Layout {
    pub(crate) name: String,
    pub(crate) ctx: SessionContext,
    /// Rows that hot and cold serve.
    pub(crate) tiers: (usize, usize),
    _pinned: Pinned,
    _folder: Arc<tempfile::TempDir>,
}

/// One plain table, and every place that must say the same.
pub(crate) struct Fleet {
    pub(crate) plain: SessionContext,
    pub(crate) layouts: Vec<Layout>,
}

impl Fleet {
    /// Where one query is asked: of hot alone, of cold alone and of a seam, the next ones for the next query.
    pub(crate) fn places(&self, number: usize) -> Vec<&Layout> {
        let turn = |kind: &str, number: usize| {
            let of_kind: Vec<&Layout> = self
                .layouts
                .iter()
                .filter(|layout| layout.name.starts_with(kind))
                .collect();
            of_kind[number % of_kind.len()]
        };
        vec![turn("hot", number), turn("cold", number), turn("seam", number)]
    }
}

/// Where the seam lies in one partition.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Cold holds up to here, in commits of this many offsets.
    cold: Option<u64>,
    commit: u64,
    /// Hot holds these.
    hot: Option<(u64, u64)>,
    low: Option<u64>,
}

impl Place {
    const HOT: Place = Place {
        cold: None,
        commit: 1,
        hot: Some((0, LAST)),
        low: None,
    };
    const COLD: Place = Place {
        cold: Some(LAST),
        commit: 11,
        hot: None,
        low: None,
    };

    /// Either store may be the one that lags, but one of them holds the end.
    fn random(rng: &mut Seeded) -> Place {
        let far = LAST / 2 + rng.below(LAST / 3);
        let (cold, high) = if rng.below(2) == 0 { (LAST, far) } else { (far, LAST) };
        let both = cold.min(high);
        let first = 4 + rng.below(both / 2);
        let low = (rng.below(3) > 0).then(|| first + rng.below((both - first) / 2 + 1));
        Place {
            cold: Some(cold),
            commit: 4 + rng.below(9),
            hot: Some((first, high)),
            low: low.or(first.checked_sub(1)),
        }
    }
}

/// The caller whose rows are asked for.
fn owner() -> TenantId {
    tenant(0)
}

fn context() -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(2)
        .with_batch_size(BATCH_ROWS);
    let config = needed_settings(config);
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_physical_optimizer_rules(physical_rules())
        .build();
    SessionContext::new_with_state(state)
}

async fn fill(stores: &Stores, at: u16, place: Place) {
    let p = partition(at);
    let mut next = 0;
    while let Some(cold) = place.cold.filter(|cold| next <= *cold) {
        let last = (next + place.commit - 1).min(cold);
        let range = OffsetRange {
            partition: p,
            first: next,
            last,
        };
        stores.cold.commit(&[range], records(p, next..=last)).await.unwrap();
        next = last + 1;
    }
    if let Some((first, last)) = place.hot {
        claim(stores, p, first).await;
        for first in (first..=last).step_by(5) {
            insert(stores, p, first..=last.min(first + 4)).await.unwrap();
        }
    }
    if let Some(low) = place.low {
        stores.seam.advance(p, low).await.unwrap();
        drop_to(stores, p, low);
    }
}

async fn layout(name: String, folder: Arc<tempfile::TempDir>, stores: &Stores, places: &[Place]) -> Layout {
    for (at, place) in places.iter().enumerate() {
        fill(stores, at as u16, *place).await;
    }
    let ends = Ends::default();
    let all = (0..PARTITIONS).map(|index| (partition(index), LAST + 1));
    ends.0.lock().unwrap().extend(all);
    let options = TablesOptions {
        pin_max_age: Duration::ZERO,
        seam_max_age: Duration::ZERO,
    };
    let tables = Tables::new(stores.clone(), Arc::new(ends), options);
    let pinned = tables.pin().await.unwrap();
    assert_eq!(pinned.completeness().complete, Some(true), "{name} {places:?}");
    let ctx = context();
    register_views(&ctx, &pinned, Scope::Tenant(owner())).await.unwrap();
    let mut tiers = (0, 0);
    for (at, place) in places.iter().enumerate() {
        let served = place
            .hot
            .map(|(first, last)| (place.low.map_or(first, |low| low + 1), last));
        for offset in 0..=LAST {
            let rows: usize = records(partition(at as u16), offset..=offset).iter().map(mine).sum();
            match served.is_some_and(|(first, last)| (first..=last).contains(&offset)) {
                true => tiers.0 += rows,
                false => tiers.1 += rows,
            }
        }
    }
    Layout {
        name,
        ctx,
        tiers,
        _pinned: pinned,
        _folder: folder,
    }
}

fn mine(batch: &RecordBatch) -> usize {
    let owner = owner();
    let tenants = batch["tenant"].as_string::<i32>();
    tenants.iter().filter(|name| *name == Some(owner.as_str())).count()
}

impl Fleet {
    /// The same for the same seed, but for whether there is a server.
    pub(crate) async fn new(seed: u64) -> Fleet {
        let mut rng = Seeded::new(seed);
        let mut seam = || -> Vec<Place> { (0..PARTITIONS).map(|_| Place::random(&mut rng)).collect() };
        let all = |place: Place| vec![place; PARTITIONS as usize];
        let asked = [
            ("hot", all(Place::HOT), true),
            ("cold", all(Place::COLD), false),
            ("seam 1", seam(), true),
            ("seam 2", seam(), false),
            // One store serves one partition whole, the other the next.
            ("seam by partition", vec![Place::HOT, Place::COLD, seam()[0]], true),
        ];
        let mut layouts = Vec::new();
        for (name, places, on_server) in asked {
            for (at, (folder, stores)) in lakes(1 << 30).await.into_iter().enumerate() {
                let store = ["memory", "clickhouse"][at];
                if at == 0 || on_server {
                    layouts.push(layout(format!("{name}, {store}"), Arc::new(folder), &stores, &places).await);
                }
            }
        }
        Fleet {
            plain: plain().await,
            layouts,
        }
    }
}

/// All rows of the caller in one table in memory, filtered in the plainest way, and the views over it.
async fn plain() -> SessionContext {
    let rows: Vec<RecordBatch> = (0..PARTITIONS)
        .flat_map(|index| records(partition(index), 0..=LAST))
        .collect();
    let all = SessionContext::new();
    let table =
        |rows: Vec<RecordBatch>| Arc::new(MemTable::try_new(sluice_wire::events::schema(), vec![rows]).unwrap());
    all.register_table("raw", table(rows)).unwrap();
    let select = async |filter: &str| {
        let text = format!("SELECT * FROM raw WHERE tenant = '{}' AND {filter}", owner());
        all.sql(&text).await.unwrap().collect().await.unwrap()
    };
    let everything = table(select("true").await);
    let events = table(select("signal <> '_batch' AND quarantined_by IS NULL").await);
    let config = SessionConfig::new()
        .with_target_partitions(2)
        .with_batch_size(BATCH_ROWS);
    let config = needed_settings(config);
    let ctx = SessionContext::new_with_config(config);
    all.register_table("events", Arc::clone(&events) as _).unwrap();
    all.register_table("everything", everything).unwrap();
    ctx.register_table("events", events).unwrap();
    for (name, text) in VIEWS {
        let view = all.sql(text).await.unwrap().into_view();
        ctx.register_table(name, view).unwrap();
    }
    ctx
}

/// Places in which one offset is nowhere, or in both stores: what a seam off by one does.
pub(crate) async fn damaged() -> Vec<Layout> {
    let mut layouts = Vec::new();
    let p = partition(2);
    let offset = (20..LAST)
        .find(|offset| records(p, *offset..=*offset).iter().map(mine).sum::<usize>() > 6)
        .unwrap();
    for (name, times) in [("missing", 0), ("twice", 2)] {
        let folder = tempfile::tempdir().unwrap();
        let stores = lake(&folder, 1 << 30).await;
        for (at, place) in [Place::HOT, Place::COLD].into_iter().enumerate() {
            fill(&stores, at as u16, place).await;
        }
        claim(&stores, p, 0).await;
        insert(&stores, p, 0..=offset - 1).await.unwrap();
        let range = OffsetRange {
            partition: p,
            first: offset,
            last: offset,
        };
        let rows = (0..times).flat_map(|_| records(p, offset..=offset)).collect();
        stores.hot.insert(&[HotRows { range, rows }]).await.unwrap();
        insert(&stores, p, offset + 1..=LAST).await.unwrap();
        layouts.push(layout(name.to_owned(), Arc::new(folder), &stores, &[]).await);
    }
    layouts
}
