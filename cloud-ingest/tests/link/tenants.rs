//! P13, P15: who is served, what each tenant may use, and that a noisy one does no harm to others. R4 of the failure matrix.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_ingest::gateway::GatewayConfig;
use sluice_tenants::{Folder, State, TENANTS_FILE, Tenancy, Tenant};
use sluice_wire::envelope::Envelope;
use sluice_wire::ids::{StreamId, TenantId};
use sluice_wire::session::frame::{Frame, RefusedCode, Verdict};

use crate::failing_log::large;
use crate::peer::{Peer, Session, batch, preamble, stream};
use crate::pki::{Spec, uri};
use crate::{World, nack, until};

/// A gateway with a folder of tenants: `noisy`, `quiet`, and one that is suspended.
struct Cloud {
    world: World,
    dir: tempfile::TempDir,
}

fn id(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn of(tenant: &str) -> StreamId {
    stream(tenant, "site-1")
}

impl Cloud {
    fn new(noisy: Tenant, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::lock(dir.path()).unwrap();
        let mut tenants = folder.tenants().unwrap();
        tenants.insert(id("noisy"), noisy);
        tenants.insert(id("quiet"), Tenant::default());
        let away = Tenant {
            state: State::Suspended,
            ..Tenant::default()
        };
        tenants.insert(id("away"), away);
        folder.save_tenants(&tenants).unwrap();
        let tenancy = Arc::new(Tenancy::open_without_keys(dir.path()).unwrap());
        let day_file = dir.path().join("today.json");
        let world = World::with(|config| {
            config.tenants = Some(tenancy);
            config.day_file = Some(day_file);
            change(config);
        });
        Self { world, dir }
    }

    fn set(&self, tenant: &str, change: impl FnOnce(&mut Tenant)) {
        let folder = Folder::lock(self.dir.path()).unwrap();
        let mut tenants = folder.tenants().unwrap();
        change(tenants.get_mut(&id(tenant)).unwrap());
        folder.save_tenants(&tenants).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(TENANTS_FILE)
    }

    async fn open(&self, tenant: &str) -> Result<(Peer, Session), String> {
        let spec = Spec {
            names: vec![uri(&format!("sluice://{tenant}/site-1"))],
            serial: 0x3000 + tenant.len() as u64,
            ..Spec::default()
        };
        let peer = self.world.peer(&self.world.pki.issue(tenant, &spec));
        let session = peer.open(self.world.gateway, of(tenant)).await?;
        Ok((peer, session))
    }

    fn sent_by(&self, tenant: &str) -> HashSet<u64> {
        let records = self.world.log.records();
        let ids = records
            .into_iter()
            .map(|r| Envelope::parse(r.envelope).unwrap().header.id);
        ids.filter(|id| id.stream.tenant.as_str() == tenant)
            .map(|id| id.seq)
            .collect()
    }
}

async fn acked(session: &mut Session, batch: &bytes::Bytes) {
    session.send(batch).await;
    let answer = session.frame().await.unwrap();
    assert!(matches!(answer, Frame::Ack(_)), "{answer:?}");
}

#[tokio::test]
async fn p15_r4_who_is_far_over_its_quota_waits_and_loses_nothing_and_others_do_not_notice() {
    // After the first batch, minutes of nothing.
    let limits = Tenant {
        bytes_per_second: 1,
        burst: Duration::from_secs(1),
        ..Tenant::default()
    };
    let cloud = Cloud::new(limits, |_| {});
    let (_noisy_peer, mut noisy) = cloud.open("noisy").await.unwrap();
    let (_quiet_peer, mut quiet) = cloud.open("quiet").await.unwrap();
    acked(&mut noisy, &batch(of("noisy"), 0)).await;
    for seq in 0..20 {
        for _ in 0..20 {
            noisy.send(&batch(of("noisy"), 1)).await;
            let held = nack(&mut noisy).await;
            assert!(held.reason.contains("bytes_per_second"), "{held:?}");
            // A minute at most, and half as much again.
            assert!(
                matches!(held.verdict, Verdict::Retry { after_ms: 50..=90_000 }),
                "{held:?}"
            );
        }
        acked(&mut quiet, &batch(of("quiet"), seq)).await;
    }
    let status = cloud.world.status.snapshot();
    let (noisy_status, quiet_status) = (&status.tenants["noisy"], &status.tenants["quiet"]);
    assert!(
        noisy_status.held_bytes_per_second == 400 && noisy_status.taken == 1,
        "{noisy_status:?}"
    );
    assert_eq!((quiet_status.taken, quiet_status.events), (20, 60));
    assert_eq!(
        quiet_status.held_events_per_second + quiet_status.held_bytes_per_second + quiet_status.held_memory,
        0
    );
    // An operator raises the limit: what was held comes through, without a restart.
    cloud.set("noisy", |tenant| tenant.bytes_per_second = 0);
    let came_through = async {
        loop {
            noisy.send(&batch(of("noisy"), 1)).await;
            match noisy.frame().await.unwrap() {
                Frame::Ack(ack) => break assert_eq!(ack.seq, 1),
                Frame::Nack(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(crate::PATIENCE, came_through).await.unwrap();
    assert_eq!(cloud.sent_by("noisy"), HashSet::from([0, 1]));
}

#[tokio::test]
async fn p15_whoever_has_batches_decoded_that_are_refused_pays_for_the_work() {
    // After the first batch, minutes of nothing.
    let limits = Tenant {
        bytes_per_second: 1,
        burst: Duration::from_secs(1),
        ..Tenant::default()
    };
    let cloud = Cloud::new(limits, |_| {});
    let (_noisy_peer, mut noisy) = cloud.open("noisy").await.unwrap();
    noisy.send(&batch(of("quiet"), 0)).await;
    let refused = nack(&mut noisy).await;
    assert!(refused.reason.contains("another stream"), "{refused:?}");
    noisy.send(&batch(of("noisy"), 1)).await;
    let held = nack(&mut noisy).await;
    assert!(held.reason.contains("bytes_per_second"), "{held:?}");
    let status = cloud.world.status.snapshot();
    assert_eq!(status.refused_foreign, 1);
    let noisy = &status.tenants["noisy"];
    assert_eq!((noisy.refused, noisy.taken, noisy.bytes), (1, 0, 0));
    assert_eq!(noisy.refused_bytes, batch(of("quiet"), 0).len() as u64);
    assert!(
        !status.tenants.contains_key("quiet"),
        "of another tenant nothing is taken"
    );
}

#[tokio::test]
async fn p15_the_bytes_of_a_day_are_counted_over_a_restart() {
    let length = |seq| batch(of("noisy"), seq).len() as u64;
    let limits = Tenant {
        bytes_per_day: length(0) + 1,
        ..Tenant::default()
    };
    let cloud = Cloud::new(limits, |_| {});
    let (_peer, mut session) = cloud.open("noisy").await.unwrap();
    acked(&mut session, &batch(of("noisy"), 0)).await;
    acked(&mut session, &batch(of("noisy"), 1)).await;
    session.send(&batch(of("noisy"), 2)).await;
    let held = nack(&mut session).await;
    assert!(held.reason.contains("bytes_per_day"), "{held:?}");
    // A minute at most, although midnight is further: the limit may be raised meanwhile.
    assert!(
        matches!(held.verdict, Verdict::Retry { after_ms: ..=90_000 }),
        "{held:?}"
    );
    let today = cloud.world.status.snapshot().tenants["noisy"].bytes_today;
    assert_eq!(today, length(0) + length(1));
    cloud.world.shutdown.cancel();
    cloud.world.running.await.unwrap();
    let file: String = std::fs::read_to_string(cloud.dir.path().join("today.json")).unwrap();
    assert!(file.contains(&format!("\"noisy\":{today}")), "{file}");
    let next = Tenancy::open_without_keys(cloud.dir.path()).unwrap();
    let day_file = cloud.dir.path().join("today.json");
    let again = World::with(|config| {
        config.tenants = Some(Arc::new(next));
        config.day_file = Some(day_file);
    });
    let spec = Spec {
        names: vec![uri("sluice://noisy/site-1")],
        ..Spec::default()
    };
    let peer = again.peer(&again.pki.issue("noisy", &spec));
    let mut session = peer.open(again.gateway, of("noisy")).await.unwrap();
    session.send(&batch(of("noisy"), 2)).await;
    assert!(nack(&mut session).await.reason.contains("bytes_per_day"));
}

#[tokio::test]
async fn p13_tenants_that_are_suspended_or_unknown_are_refused_cut_off_and_let_in_again() {
    let cloud = Cloud::new(Tenant::default(), |_| {});
    for tenant in ["away", "nobody"] {
        assert!(cloud.open(tenant).await.is_err(), "{tenant} was let in");
    }
    let (_quiet_peer, mut quiet) = cloud.open("quiet").await.unwrap();
    let (_noisy_peer, noisy) = cloud.open("noisy").await.unwrap();
    cloud.set("noisy", |tenant| tenant.state = State::Suspended);
    let (code, reason) = noisy.closed().await;
    assert_eq!(
        (code, reason.as_str()),
        (u64::from(RefusedCode::Identity.number()), "tenant is suspended")
    );
    let status = cloud.world.status.snapshot();
    assert_eq!((status.refused_tenant, status.cut_tenant), (2, 1));
    // A file that cannot be used changes nothing, and is told.
    let good = std::fs::read(cloud.file()).unwrap();
    std::fs::write(cloud.file(), "version = 1\n[tenant.quiet]\nstate = \"gone\"\n").unwrap();
    until(|| {
        cloud
            .world
            .status
            .snapshot()
            .problems
            .iter()
            .any(|p| p.contains("tenants.toml"))
    })
    .await;
    acked(&mut quiet, &batch(of("quiet"), 0)).await;
    std::fs::write(cloud.file(), good).unwrap();
    cloud.set("noisy", |tenant| tenant.state = State::Active);
    let back = async {
        loop {
            if let Ok(back) = cloud.open("noisy").await {
                break back;
            }
        }
    };
    let (_peer, mut back) = tokio::time::timeout(crate::PATIENCE, back).await.unwrap();
    acked(&mut back, &batch(of("noisy"), 0)).await;
    assert!(cloud.world.status.snapshot().problems.is_empty());
}

#[tokio::test]
async fn p15_r4_whoever_fills_the_memory_leaves_room_for_others() {
    let cloud = Cloud::new(Tenant::default(), |config| {
        config.max_total_bytes = 8 << 20;
        config.max_batch_bytes = 1 << 20;
    });
    let (_noisy_peer, mut noisy) = cloud.open("noisy").await.unwrap();
    let (_quiet_peer, mut quiet) = cloud.open("quiet").await.unwrap();
    // Announced and never sent on, until there is no room for more.
    let mut stalled = Vec::new();
    for seq in 0..12 {
        let mut stream = noisy.connection.open_uni().await.unwrap();
        stream.write_all(&preamble(seq, 1 << 20).encode()).await.unwrap();
        stalled.push(stream);
    }
    for _ in 0..8 {
        let refused = nack(&mut noisy).await;
        assert!(refused.reason.contains("memory"), "{refused:?}");
    }
    for seq in 0..40 {
        acked(&mut quiet, &batch(of("quiet"), seq)).await;
    }
    let tenants = cloud.world.status.snapshot().tenants;
    assert_eq!((tenants["noisy"].held_memory, tenants["quiet"].held_memory), (8, 0));
}

#[tokio::test]
async fn p15_r4_where_the_log_is_slow_a_quiet_tenant_waits_for_few_batches_of_a_noisy_one() {
    const NOISY: u64 = 30;
    // One of these is on its way into the log at once.
    let cloud = Cloud::new(Tenant::default(), |config| config.max_append_bytes = 64 << 10);
    let (_noisy_peer, noisy) = cloud.open("noisy").await.unwrap();
    let (_quiet_peer, mut quiet) = cloud.open("quiet").await.unwrap();
    let world = &cloud.world;
    world.log.open.send_replace(false);
    for seq in 0..NOISY {
        noisy.send(&large(of("noisy"), seq)).await;
    }
    until(|| world.status.snapshot().batches_received == NOISY).await;
    assert_eq!(*world.log.begun.borrow(), 1, "on their way into the log");
    quiet.send(&large(of("quiet"), 0)).await;
    until(|| world.status.snapshot().batches_received == NOISY + 1).await;
    world.log.open.send_replace(true);
    assert!(matches!(quiet.frame().await.unwrap(), Frame::Ack(_)));
    until(|| world.log.records().len() as u64 == NOISY + 1).await;
    let order: Vec<_> = world
        .log
        .records()
        .iter()
        .map(|r| r.head.clone().unwrap().id.stream.tenant)
        .collect();
    let before = order.iter().position(|tenant| tenant.as_str() == "quiet").unwrap();
    // The one at work, and two turns of the other tenant: so many does a batch of this size need.
    assert!(before <= 5, "waited for {before} of {NOISY}");
}
