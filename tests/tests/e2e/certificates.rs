//! Certificates that live for seconds, in real processes: renewed under load, renewed after they expired, kept through crashes, revoked.
//! P13, P14; rows T3, T4 and T6 of the failure matrix.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use sluice_bench::audit::Audit;
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, LoadOptions, Protocol, Target};
use sluice_bench::oracle::Oracle;
use sluice_bench::process::{self, Process, Start, StartError, get};
use sluice_tests::{Node, SOON, binary, eventually};

const SEED: u64 = 4_711;

fn options(url: String, oracle_first: u64, count: u64, rate: Option<f64>) -> LoadOptions {
    LoadOptions {
        target: Target::new(Protocol::Http, url),
        seed: SEED,
        signals: Signal::ALL.to_vec(),
        first_request: oracle_first,
        batch: 20,
        count,
        until_accepted: true,
        rate,
        concurrency: 2,
    }
}

/// What a process says of itself.
async fn status(process: &Process) -> Result<Value, String> {
    let url = process.url("http").map_err(|e| e.to_string())? + "/v1/status";
    let token = Some(process.token()).filter(|token| !token.is_empty());
    let answer = get(&url, token).await.map_err(|e| e.to_string())?;
    serde_json::from_str(&answer.text()).map_err(|e| e.to_string())
}

/// Asks until it is so; the error shows the link as it is.
async fn until(process: &Process, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let asked = || async {
        let status = status(process).await?;
        // Of `sluice up`, or of an edge alone.
        let edge = if status["edge"].is_null() {
            &status
        } else {
            &status["edge"]
        };
        let whole = serde_json::json!({ "link": edge["link"], "spool": edge["spool"], "degraded": status["degraded"],
            "gateway": status["ingest"]["gateway"] });
        match holds(&whole) {
            true => Ok(whole),
            false => Err(format!("{:#}", whole["link"])),
        }
    };
    eventually(what, asked).await.unwrap()
}

fn renewals(status: &Value) -> u64 {
    status["link"]["certificate"]["renewals"].as_u64().unwrap_or(0)
}

fn sessions(status: &Value) -> u64 {
    status["link"]["sessions"].as_u64().unwrap_or(0)
}

fn is_live(status: &Value) -> bool {
    status["link"]["connected"] == true
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_p14_t6_certificates_of_both_sides_are_renewed_under_load_and_no_event_is_lost_or_doubled() {
    let mut node = Node::prepare("[ca]\nlife = \"8 s\"\nrenewals_per_hour = 10000\n")
        .unwrap()
        .started()
        .await
        .unwrap();
    let first = until(node.process().unwrap(), "a link", is_live).await;
    let gateway_expires = |status: &Value| status["gateway"]["certificate_expires_unix_s"].as_u64().unwrap();
    let (oracle, stop) = (Arc::new(Oracle::new(SEED)), Arc::new(AtomicBool::new(false)));
    let load = options(node.url("otlp-http").unwrap(), 0, u64::MAX, Some(400.0));
    let load = tokio::spawn(load::run(load, oracle.clone(), stop.clone()));
    let began = gateway_expires(&first);
    let after = until(node.process().unwrap(), "three renewals", |status| {
        // A renewal is counted before its session is there.
        renewals(status) >= 3
            && gateway_expires(status) > began
            && is_live(status)
            && sessions(status) > renewals(status)
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let report = load.await.unwrap().unwrap();
    assert!(report.accepted > 1_000, "{report:?}");
    let audit = Audit::run(node.process().unwrap(), &oracle, |_| true, SOON)
        .await
        .unwrap();
    assert!(audit.holds(), "{audit}");
    let link = &after["link"];
    assert_eq!(
        (&link["refusals"], &link["certificate"]["renewal_failures"]),
        (&0.into(), &0.into()),
        "{link:#}"
    );
    assert!(sessions(&after) > 3 && link["certificate"]["from_the_link"] == true);
    // Nothing of the old ones was sent twice for it.
    assert_eq!(link["retransmits"], 0);
    let issued = list(&node.data().join("ca"));
    let renewed = issued
        .iter()
        .filter(|entry| entry["by"] == "renewal via the gateway beside it");
    assert!(renewed.count() >= 3, "{issued:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p14_a_crash_between_key_and_certificate_leaves_a_pair_that_works() {
    let mut node = Node::prepare("[ca]\nlife = \"6 s\"\nrenewals_per_hour = 10000\n").unwrap();
    let oracle = Arc::new(Oracle::new(SEED));
    let mut next = 0;
    for point in [
        "link.certificate.half_written",
        "link.certificate.before_rename",
        "link.certificate.after_rename",
    ] {
        // The second, so that there is one before it.
        match node.start_with(&[("SLUICE_CRASH_AT", &format!("{point}:2"))]).await {
            Ok(()) => {
                let send = options(node.url("otlp-http").unwrap(), next, 100, None);
                let report = load::run(send, oracle.clone(), Arc::new(AtomicBool::new(false)))
                    .await
                    .unwrap();
                next = report.next_request;
                let ended = node.process().unwrap().ended(SOON).await.unwrap();
                assert!(ended.is_some_and(|status| !status.success()), "{point} was not reached");
            }
            Err(StartError::Ended { .. }) => {}
            Err(error) => panic!("{point}: {error}"),
        }
        node.start_again().await.unwrap();
        let status = until(node.process().unwrap(), "a renewal after the crash", |status| {
            renewals(status) >= 1 && is_live(status)
        })
        .await;
        assert!(
            status["link"]["certificate"]["files_problem"].is_null(),
            "{point}: {status:#}"
        );
    }
    let audit = Audit::run(node.process().unwrap(), &oracle, |_| true, SOON)
        .await
        .unwrap();
    assert!(audit.holds() && audit.verdict.accepted >= 100, "{audit}");
}

/// The three processes of a small fleet, and the authority's folder.
struct Fleet {
    folder: tempfile::TempDir,
    edge_config: PathBuf,
}

impl Fleet {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, role: &[&str], name: &str, config: &Path) -> Start {
        Start {
            binary: binary().unwrap(),
            arguments: role.iter().map(|&word| word.to_owned()).collect(),
            environment: Vec::new(),
            ready_file: self.path(&format!("{name}.ready.json")),
            log: self.path(&format!("{name}.log")),
            deadline: SOON,
        }
        .config(config)
    }

    fn edge(&self) -> Start {
        let start = self.start(&["edge"], "edge", &self.edge_config);
        start
            .listen("otlp-http", "127.0.0.1:0")
            .listen("otlp-grpc", "127.0.0.1:0")
            .listen("http", "127.0.0.1:0")
    }
}

/// `sluice ca …`, which must succeed.
fn ca(dir: &Path, arguments: &[&str]) -> String {
    process::ca(&binary().unwrap(), dir, arguments).unwrap()
}

fn list(dir: &Path) -> Vec<Value> {
    serde_json::from_str(&ca(dir, &["list", "--json"])).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_p14_t3_t4_a_fleet_renews_through_its_authority_also_when_expired_and_a_revoked_edge_stays_out() {
    let folder = tempfile::Builder::new().prefix("sluice-test-").tempdir().unwrap();
    let mut fleet = Fleet {
        edge_config: folder.path().join("edge.toml"),
        folder,
    };
    let (dir, out) = (fleet.path("ca"), fleet.path("certificates"));
    let issue_edge = |life: &str| {
        let out = out.display().to_string();
        ca(
            &dir,
            &[
                "issue", "--tenant", "acme", "--node", "site-1", "--life", life, "--out", &out,
            ],
        );
    };
    ca(&dir, &["init"]);
    ca(
        &dir,
        &["issue", "--gateway", "localhost", "--out", &out.display().to_string()],
    );
    issue_edge("8 s");

    let ca_config = fleet.path("ca.toml");
    let text = format!("dir = {dir:?}\n[policy]\nlife = \"8 s\"\nrenewals_per_hour = 10000\n");
    fs::write(&ca_config, text).unwrap();
    let mut start_ca = fleet
        .start(&["ca", "serve"], "ca", &ca_config)
        .listen("ca", "127.0.0.1:0");
    let authority = start_ca.spawn().await.unwrap();
    start_ca = start_ca.listen_as(&authority);

    let ingest_config = fleet.path("ingest.toml");
    let (data, lake, address) = (
        fleet.path("ingest"),
        fleet.path("lake"),
        authority.address("ca").unwrap(),
    );
    let [certificate, key] = ["pem", "key"].map(|kind| out.join(format!("gateway-localhost.{kind}")));
    let text = format!(
        "data_dir = {data:?}\nlake = {lake:?}\n[gateway]\ncertificate = {certificate:?}\nkey = {key:?}\nca = {:?}\n\
         deny_list = {:?}\nauthority = \"https://{address}\"\n",
        dir.join("ca.pem"),
        dir.join("deny"),
    );
    fs::write(&ingest_config, text).unwrap();
    let gateway = fleet
        .start(&["ingest"], "ingest", &ingest_config)
        .listen("link", "127.0.0.1:0");
    let gateway = gateway.spawn().await.unwrap();

    fleet.edge_config = fleet.path("edge.toml");
    let [certificate, key] = ["pem", "key"].map(|kind| out.join(format!("acme.site-1.{kind}")));
    let text = format!(
        "data_dir = {:?}\n[link]\ngateways = [\"{}\"]\nserver_name = \"localhost\"\ncertificate = {certificate:?}\nkey = {key:?}\n\
         ca = {:?}\n",
        fleet.path("edge"),
        gateway.address("link").unwrap(),
        dir.join("ca.pem"),
    );
    fs::write(&fleet.edge_config, text).unwrap();
    let mut edge = fleet.edge().spawn().await.unwrap();

    let oracle = Arc::new(Oracle::new(SEED));
    let mut next = 0;
    let mut send = async |edge: &Process| {
        let some = options(edge.url("otlp-http").unwrap(), next, 100, None);
        let report = load::run(some, oracle.clone(), Arc::new(AtomicBool::new(false)))
            .await
            .unwrap();
        assert!(report.accepted >= 100, "{:?}", report.errors);
        next = report.next_request;
    };
    let is_drained = |status: &Value| is_live(status) && status["spool"]["batches"] == 0;

    // Through the authority's door.
    send(&edge).await;
    until(&edge, "a renewal", |status| renewals(status) >= 1 && is_drained(status)).await;
    let last = list(&dir).pop().unwrap();
    assert_eq!(
        (&last["name"], &last["by"]),
        (&"acme/site-1".into(), &"renewal via localhost".into())
    );

    // The authority dies: the old one stays in use until it expires, then nothing is sent, and everything is kept.
    authority.kill().unwrap();
    let alone = until(&edge, "an expired certificate", |status| {
        status["link"]["phase"] == "renewing" && !status["degraded"].is_null()
    })
    .await;
    let problem = alone["link"]["certificate"]["problem"].as_str().unwrap();
    assert!(problem.starts_with("certificate expired"), "{problem}");
    let ready = get(&(edge.url("http").unwrap() + "/readyz"), None).await.unwrap();
    assert!(ready.status.is_success() && ready.text().contains("degraded: certificate expired"));
    send(&edge).await;
    until(&edge, "batches that wait", |status| status["spool"]["batches"] != 0).await;
    let _authority = start_ca.spawn().await.unwrap();
    until(&edge, "a renewal of the expired one", is_drained).await;

    // Expired while the edge was away.
    assert!(edge.terminate(SOON).await.unwrap().unwrap().success());
    let newest = || {
        list(&dir)
            .iter()
            .map(|entry| entry["not_after"].as_u64().unwrap())
            .filter(|end| *end < now() + 86_400)
            .max()
    };
    eventually("the end of every certificate of the edge", || async {
        match newest() {
            Some(end) if end >= now() => Err(format!("{} s", end - now())),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    edge = fleet.edge().spawn().await.unwrap();
    send(&edge).await;
    until(&edge, "a renewal after the absence", |status| {
        renewals(status) >= 1 && is_drained(status)
    })
    .await;

    // Revoked: cut off, and no renewal brings it back.
    let revoked = now();
    ca(&dir, &["revoke", "acme/site-1"]);
    let out_of_it = until(&edge, "the revocation", |status| {
        !is_live(status)
            && status["link"]["alarm"]
                .as_str()
                .is_some_and(|alarm| alarm.contains("revoked"))
    })
    .await;
    assert!(now() - revoked < 60, "cut off within a minute");
    let refusals = out_of_it["link"]["refusals"].as_u64().unwrap();
    let still = until(&edge, "more refusals", |status| {
        status["link"]["refusals"].as_u64().unwrap() >= refusals + 2
    })
    .await;
    assert!(!is_live(&still));
    let all = list(&dir);
    let of_edge: Vec<_> = all.iter().filter(|entry| entry["name"] == "acme/site-1").collect();
    assert!(of_edge.iter().all(|entry| entry["revoked"] == true), "{of_edge:#?}");
    // Until somebody gives it a new one, which it takes up by itself.
    issue_edge("1 h");
    send(&edge).await;
    until(&edge, "the new certificate", is_drained).await;
    assert!(edge.terminate(SOON).await.unwrap().unwrap().success());
}
