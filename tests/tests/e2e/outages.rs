//! Broker, ClickHouse and S3 each go away under load, and the broker's disk is full: edges go on accepting, status and metrics say what is
//! wrong, and everything catches up by itself. On engines of its own, because others would feel it.
//!
//! An engine stays away until that is felt and said, and for half a minute at least; `SLUICE_TEST_OUTAGE_SECONDS=300` keeps it away for longer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_bench::audit::Audit;
use sluice_bench::chaos::Programs;
use sluice_bench::disk::SmallDisk;
use sluice_bench::engines::{Engine, Engines};
use sluice_bench::fleet::{Fleet, Load, Part, Shape, Twins};
use sluice_bench::load::Observer;
use sluice_bench::oracle::Oracle;
use sluice_bench::process::get;
use sluice_tests::python::must_not_skip;
use sluice_tests::{SOON, binary, eventually, program};

const SEED: u64 = 20_261_122;
const EVENTS_PER_SECOND: f64 = 1_000.0;
/// Events that are acknowledged to senders while an engine is away, at least.
const MEANWHILE: u64 = 2_000;
/// A broker's disk: it holds some minutes of this load.
const BROKER_DISK_MIB: u64 = 256;

struct Site {
    fleet: Fleet,
    engines: Engines,
    oracle: Arc<Oracle>,
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_p4_an_engine_that_is_away_is_noticed_and_nothing_is_lost() {
    if !engines_can_start() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let engines = Engines::start(&program("xtask").unwrap(), folder.path()).await.unwrap();
    let (mut site, senders) = Site::start(engines, folder.path()).await;
    for engine in Engine::ALL {
        site.outage(engine).await;
    }
    site.holds(senders).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_p4_a_broker_whose_disk_is_full_is_noticed_and_nothing_is_lost() {
    if !engines_can_start() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("engines");
    // Outlives whoever writes there, which would keep it from being unmounted.
    let Some(disk) = SmallDisk::mount(&data.join(Engine::Kafka.name()), BROKER_DISK_MIB).unwrap() else {
        eprintln!("NOT RUN: this machine does not let us mount a small file system");
        assert!(
            !must_not_skip(),
            "a machine that must not skip lets us mount a small file system"
        );
        return;
    };
    let engines = Engines::start_on(&program("xtask").unwrap(), folder.path(), Some(&data)).await;
    let (mut site, senders) = Site::start(engines.unwrap(), folder.path()).await;
    site.full_disk_of_the_broker(&disk).await;
    site.holds(senders).await;
}

fn engines_can_start() -> bool {
    let is_known = std::env::var_os("SLUICE_ENGINES_DIR").is_some() || must_not_skip();
    if !is_known {
        eprintln!("NOT RUN: this test starts engines of its own, and $SLUICE_ENGINES_DIR does not say where they are");
    }
    is_known
}

/// Events that go on coming until they are told to stop.
struct Senders {
    stop: Arc<AtomicBool>,
    loads: Vec<Load>,
}

impl Site {
    /// A fleet on these engines under load, of which something has arrived.
    async fn start(engines: Engines, folder: &Path) -> (Site, Senders) {
        let programs = Programs {
            sluice: binary().unwrap(),
            edge: program("sluice-edge").unwrap(),
        };
        let fleet = Fleet::start(&programs, &engines, &Shape::default(), folder).await;
        let site = Site {
            fleet: fleet.unwrap(),
            engines,
            oracle: Arc::new(Oracle::new(SEED)),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let observer = Arc::clone(&site.oracle) as Arc<dyn Observer>;
        let loads = site.fleet.load(SEED, EVENTS_PER_SECOND, 20, &observer, &stop).unwrap();
        site.all_is_queryable().await;
        (site, Senders { stop, loads })
    }

    /// Ends the load; every event that was acknowledged is in both tiers once, and none was refused.
    async fn holds(&mut self, senders: Senders) {
        senders.stop.store(true, Ordering::Relaxed);
        for load in senders.loads {
            load.await.unwrap().unwrap();
        }
        self.fleet.arrive(&self.engines, 2 * SOON).await.unwrap();
        let sql = self.fleet.sql().unwrap();
        let audit = Audit::of(&sql, &self.oracle, |_| true, SOON).await.unwrap();
        let twins = Twins::read(&self.engines, &self.fleet.places).await.unwrap();
        eprintln!("{audit}\n{twins}");
        assert!(audit.holds(), "{audit}");
        // A writer that comes back behind cold begins above it: what is older lies in cold alone then.
        assert!(twins.agree() && twins.alike > 0, "{twins}");
        assert_eq!(audit.verdict.refused_requests, 0, "an edge refused events: {audit}");
    }

    /// A broker with nowhere to write ends by itself; whoever is called for that frees the disk and starts it.
    async fn full_disk_of_the_broker(&mut self, disk: &SmallDisk) {
        self.engines.expect_end(Engine::Kafka).await.unwrap();
        disk.fill().unwrap();
        let begun = Instant::now();
        self.acknowledged(MEANWHILE).await;
        self.broker_is_missed().await;
        disk.free().unwrap();
        // It may still stand there with a disk that it has given up.
        self.engines.kill(Engine::Kafka).await.unwrap();
        self.comes_back(Engine::Kafka, begun).await;
    }

    async fn outage(&mut self, engine: Engine) {
        let held = std::env::var("SLUICE_TEST_OUTAGE_SECONDS").ok();
        let held = Duration::from_secs(held.map_or(30, |seconds| seconds.parse().unwrap()));
        let before = self.troubles(engine).await;
        let begun = Instant::now();
        self.engines.kill(engine).await.unwrap();
        self.acknowledged(MEANWHILE).await;
        match engine {
            Engine::Kafka => self.broker_is_missed().await,
            Engine::ClickHouse => self.clickhouse_is_missed().await,
            Engine::S3 => {}
        }
        let said = || async {
            let now = self.troubles(engine).await;
            if now > before {
                Ok(now)
            } else {
                Err(format!("{now} as before"))
            }
        };
        eventually(&format!("metrics that tell that {engine} is away"), said)
            .await
            .unwrap();
        if let Some(left) = held.checked_sub(begun.elapsed()) {
            tokio::time::sleep(left).await;
            self.acknowledged(MEANWHILE).await;
        }
        self.comes_back(engine, begun).await;
    }

    /// Starts an engine that has been away since then: all processes have lived through it, and catch up by themselves.
    async fn comes_back(&mut self, engine: Engine, since: Instant) {
        self.fleet.all_run().unwrap();
        let away = since.elapsed();
        self.engines.start_again(engine).await.unwrap();
        let back = Instant::now();
        self.all_is_queryable().await;
        self.fleet.all_run().unwrap();
        eprintln!(
            "{engine} was away for {:.1} s; all that had been accepted was queryable {:.1} s after it answered again",
            away.as_secs_f64(),
            back.elapsed().as_secs_f64()
        );
    }

    /// What the metrics of those who need an engine count of its absence.
    async fn troubles(&self, engine: Engine) -> f64 {
        let names: &[(Part, &str)] = match engine {
            Engine::Kafka => &[(Part::Gateway(1), "sluice_log_up"), (Part::Hot(1), "sluice_log_up")],
            Engine::ClickHouse => &[
                (Part::Hot(1), "sluice_hot_busy_total"),
                (Part::Hot(1), "sluice_hot_doubts_total"),
                (Part::Hot(2), "sluice_hot_busy_total"),
                (Part::Hot(2), "sluice_hot_doubts_total"),
            ],
            Engine::S3 => &[(Part::Cold, "sluice_cold_failures_total")],
        };
        let mut sum = 0.0;
        for (part, name) in names {
            let value = self.fleet.metric(*part, name).await.unwrap();
            let value = value.unwrap_or_else(|| panic!("{part} has no {name}"));
            // Of what is up, its absence counts.
            sum += if name.ends_with("_up") { 1.0 - value } else { value };
        }
        sum
    }

    /// The edges keep what the log does not take, and the gateways say why.
    async fn broker_is_missed(&self) {
        let says = || async {
            let status = self
                .fleet
                .status(Part::Gateway(1))
                .await
                .map_err(|error| error.to_string())?;
            match status.pointer("/log_trouble") {
                Some(Value::String(why)) if !why.is_empty() => Ok(why.clone()),
                other => Err(format!("{other:?}")),
            }
        };
        let why = eventually("a gateway that says what is wrong", says).await.unwrap();
        eprintln!("the gateway says: {why}");
        let url = self
            .fleet
            .processes
            .process(Part::Gateway(1))
            .unwrap()
            .url("http")
            .unwrap();
        let ready = get(&format!("{url}/readyz"), None).await.unwrap();
        assert_eq!(ready.status, 503, "{}", ready.text());
        assert!(self.fleet.held_at_edges().await.unwrap() > 0, "the edges hold nothing");
    }

    /// Queries are answered by cold alone, and say so; the gateways go on acknowledging.
    async fn clickhouse_is_missed(&self) {
        let sql = self.fleet.sql().unwrap();
        let from_cold = || async {
            let answer = sql
                .ask("SELECT count(*) FROM events")
                .await
                .map_err(|error| error.to_string())?;
            let is_said = answer.completeness.get("hot_unreachable") == Some(&Value::Bool(true));
            match answer.count() {
                Ok(count) if is_said && count > 0 => Ok(()),
                other => Err(format!("{other:?}, {}", answer.completeness)),
            }
        };
        eventually("an answer of cold alone", from_cold).await.unwrap();
    }

    async fn acknowledged(&self, events: u64) {
        let goal = self.oracle.acknowledged_events() + events;
        let reached = || async {
            match self.oracle.acknowledged_events() {
                now if now >= goal => Ok(()),
                now => Err(format!("{now} of {goal}")),
            }
        };
        eventually("acknowledged events", reached).await.unwrap();
    }

    /// Everything acknowledged until now is counted by the ledger.
    async fn all_is_queryable(&self) {
        let goal = self.oracle.acknowledged_events().max(1);
        let sql = self.fleet.sql().unwrap();
        let counted = || async {
            let question = "SELECT sum(\"rows\") FROM ledger WHERE bucket = 'accepted' AND outcome <> 'duplicate'";
            let answer = sql.ask(question).await.map_err(|error| error.to_string())?;
            match answer.count() {
                Ok(count) if count >= goal => Ok(()),
                other => Err(format!("{other:?} of {goal}")),
            }
        };
        // Twice, because an outage is caught up with at the speed of machines that test.
        if eventually("all events", counted).await.is_err() {
            eventually("all events", counted).await.unwrap();
        }
    }
}
