//! P13, P14; T1, T2, T3, T9 and T10 of the failure matrix: who comes with a wrong certificate, a wrong key or a lie, in more than twenty ways: refused,
//! counted, told, and nothing of it is stored.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sluice_bench::process::{Process, Start};
use sluice_tests::{SOON, eventually};
use sluice_wire::session::frame::{Frame, Verdict};

use super::{Cloud, bearer, ca, hang_up, start, until};
use crate::link::{Peer, Rows, stream};

/// What an intruder comes with.
enum With {
    /// A certificate in this folder, of this tenant and the node `site-1`.
    Certificate(&'static str, PathBuf),
    /// Headers of a request.
    Headers(Vec<(&'static str, String)>),
}

/// Who comes, which counter must tell of it, and by which status it is refused at the OTLP door.
struct Intruder {
    what: &'static str,
    with: With,
    counted: &'static str,
    status: u16,
}

fn headers<const N: usize>(
    what: &'static str,
    headers: [(&'static str, String); N],
    counted: &'static str,
    status: u16,
) -> Intruder {
    Intruder {
        what,
        with: With::Headers(headers.to_vec()),
        counted,
        status,
    }
}

/// An edge with a certificate, which has something to send.
fn edge(cloud: &Cloud, name: &str, tenant: &str, certificates: &Path) -> Start {
    let file = |kind: &str| certificates.join(format!("{tenant}.site-1.{kind}"));
    let text = format!(
        "data_dir = {:?}\n[link]\ngateways = [\"{}\"]\nserver_name = \"localhost\"\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n",
        cloud.path(&format!("{name}-data")),
        cloud.ingest.address("link").unwrap(),
        file("pem"),
        file("key"),
        cloud.path("ca/ca.pem"),
    );
    fs::write(cloud.path(&format!("{name}.toml")), text).unwrap();
    start(cloud.folder.path(), name, &["edge"])
        .listen("otlp-http", "127.0.0.1:0")
        .listen("otlp-grpc", "127.0.0.1:0")
        .listen("http", "127.0.0.1:0")
}

/// Sends one event into an edge, which takes it whatever its certificate is worth.
async fn feed(edge: &Process) {
    let url = edge.url("otlp-http").unwrap() + "/v1/logs";
    let event = crate::otlp::one_log("intruder", Vec::new());
    let answer = crate::otlp::post(&url, "application/x-protobuf", None, event).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn gateway_count(status: &Value, counter: &str) -> u64 {
    status["gateway"][counter].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_p14_t1_t3_t9_t10_wrong_certificates_and_keys_are_refused_counted_and_told() {
    let cloud = Cloud::with_tenants(&["acme", "beta", "away", "gone"]).await;
    let issue = |folder: &str, authority: &str, tenant: &str, life: &str| {
        let out = cloud.path(folder);
        let arguments = ["issue", "--tenant", tenant, "--node", "site-1", "--life", life, "--out"];
        ca(
            &cloud.path(authority),
            &[&arguments[..], &[&out.display().to_string()]].concat(),
        );
        out
    };
    ca(&cloud.path("other-ca"), &["init"]);
    let certificate = |what, tenant, folder, counted| Intruder {
        what,
        with: With::Certificate(tenant, folder),
        counted,
        status: 0,
    };
    let expired = issue("expired", "ca", "acme", "1 s");
    let revoked = issue("revoked", "ca", "beta", "1 d");
    ca(&cloud.path("ca"), &["revoke", "beta/site-1"]);

    let (_, good) = cloud.key("acme", "write", &[]);
    let (_, short) = cloud.key("acme", "write", &["--expires", "1 s"]);
    let (revoked_id, revoked_key) = cloud.key("acme", "write", &[]);
    let (_, reads) = cloud.key("acme", "read", &[]);
    let (_, of_away) = cloud.key("away", "write", &[]);
    let (_, of_gone) = cloud.key("gone", "write", &[]);
    cloud.sluice(&["key", "revoke", &revoked_id]);
    cloud.sluice(&["tenant", "suspend", "away"]);
    cloud.sluice(&["tenant", "remove", "gone"]);
    let mut altered = good.clone();
    let last = altered.pop().unwrap();
    altered.push(if last == '0' { '1' } else { '0' });
    // The id of one key and the secret of another.
    let mixed = format!("{}{}", &good[..16], &reads[16..]);

    let intruders = [
        certificate(
            "a certificate of another authority",
            "acme",
            issue("other", "other-ca", "acme", "1 d"),
            "handshakes_failed",
        ),
        certificate("an expired certificate", "acme", expired, "handshakes_failed"),
        certificate("a revoked certificate", "beta", revoked, "refused_revoked"),
        certificate(
            "a certificate of a suspended tenant",
            "away",
            issue("away", "ca", "away", "1 d"),
            "refused_tenant",
        ),
        certificate(
            "a certificate of a tenant that was removed",
            "gone",
            issue("gone", "ca", "gone", "1 d"),
            "refused_tenant",
        ),
        headers("no key", [], "no_key", 401),
        headers(
            "a tenant's name and no key",
            [("x-scope-orgid", "acme".to_owned())],
            "no_key",
            401,
        ),
        headers(
            "two keys",
            [("x-api-key", good.clone()), ("authorization", bearer(&good))],
            "no_key",
            401,
        ),
        headers(
            "a key as basic password",
            [("authorization", format!("Basic {good}"))],
            "no_key",
            401,
        ),
        headers(
            "a made-up key",
            [("x-api-key", format!("slk_{}", "0".repeat(77)))],
            "unknown_key",
            401,
        ),
        headers(
            "a key with another last digit",
            [("x-api-key", altered)],
            "unknown_key",
            401,
        ),
        headers(
            "one key's id and another's secret",
            [("x-api-key", mixed)],
            "unknown_key",
            401,
        ),
        headers("an expired key", [("x-api-key", short)], "expired_key", 401),
        headers(
            "a revoked key",
            [("authorization", bearer(&revoked_key))],
            "revoked_key",
            401,
        ),
        headers(
            "a key that may only ask",
            [("authorization", bearer(&reads))],
            "wrong_scope",
            403,
        ),
        headers("a key of a suspended tenant", [("x-api-key", of_away)], "tenant", 403),
        headers(
            "a key of a tenant that was removed",
            [("x-api-key", of_gone)],
            "unknown_key",
            401,
        ),
    ];
    hang_up(&cloud.ingest);
    until(&cloud.ingest, "tenants and revocations at the gateway", |status| {
        gateway_count(status, "tenants_served") == 2 && gateway_count(status, "revoked_serials") == 1
    })
    .await;
    // All of it has come to the OTLP role, too, and time has made what is short expired.
    let is_known = || async {
        let good = cloud.post("good", &[("x-api-key", &good)]).await;
        let status = cloud.otlp_status().await;
        let intruders = intruders.iter().filter_map(|intruder| match &intruder.with {
            With::Headers(headers) => Some((intruder, headers)),
            With::Certificate(..) => None,
        });
        let mut wrong = Vec::new();
        for (intruder, headers) in intruders {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = cloud.post("intruder", &headers).await;
            if answer.status != intruder.status {
                wrong.push(format!("{}: {}", intruder.what, answer.status));
            }
        }
        match wrong.is_empty() && good.status == 200 {
            true => Ok(status),
            false => Err(format!("{} and {wrong:?}", good.status)),
        }
    };
    let before = eventually("what was made for the test", is_known).await.unwrap();

    let mut edges = Vec::new();
    for (number, intruder) in intruders.iter().enumerate() {
        match &intruder.with {
            With::Headers(headers) => {
                let count = |status: &Value| status["refused"][intruder.counted].as_u64().unwrap();
                let counted = count(&cloud.otlp_status().await);
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let answer = cloud.post("intruder", &headers).await;
                assert_eq!(answer.status, intruder.status, "{}: {}", intruder.what, answer.text());
                let after = cloud.otlp_status().await;
                assert_eq!(count(&after), counted + 1, "{} is counted", intruder.what);
                let alarms = after["alarms"].as_array().unwrap();
                assert!(
                    alarms.iter().any(|alarm| alarm["reason"] == intruder.counted),
                    "{}",
                    intruder.what
                );
            }
            With::Certificate(tenant, folder) => {
                let counted = gateway_count(&super::status(&cloud.ingest).await, intruder.counted);
                let edge = edge(&cloud, &format!("edge-{number}"), tenant, folder)
                    .spawn()
                    .await
                    .unwrap();
                feed(&edge).await;
                // It is told, and says so; it keeps what it has.
                let refused = until(&edge, intruder.what, |status| {
                    status["link"]["refusals"].as_u64().unwrap_or(0) >= 1 && !status["link"]["alarm"].is_null()
                });
                let refused = refused.await;
                assert_ne!(refused["link"]["connected"], true, "{}", intruder.what);
                until(&cloud.ingest, intruder.what, |status| {
                    gateway_count(status, intruder.counted) > counted
                })
                .await;
                edges.push(edge);
            }
        }
    }
    for edge in edges {
        let kept = until(&edge, "what is kept", |status| {
            status["spool"]["batches"].as_u64() > Some(0)
        })
        .await;
        assert_eq!(kept["link"]["sessions"].as_u64().unwrap_or(0), 0, "{:#}", kept["link"]);
        assert!(edge.terminate(SOON).await.unwrap().unwrap().success());
    }
    // The good one's events stand there, and nothing of an intruder, under any tenant.
    let (_, beta_reads) = cloud.key("beta", "read", &[]);
    let good_only = || async {
        let sql = "SELECT DISTINCT body FROM logs";
        let acme = cloud.sql(&reads).ask(sql).await.map_err(|error| error.to_string())?;
        let beta = cloud
            .sql(&beta_reads)
            .ask(sql)
            .await
            .map_err(|error| error.to_string())?;
        match (acme.rows.len(), beta.rows.len()) {
            (1, 0) if acme.rows[0][0] == "good" => Ok(()),
            _ => Err(format!("{:?} {:?}", acme.rows, beta.rows)),
        }
    };
    eventually("the good one's events", good_only).await.unwrap();
    // And the operator reads of every kind what it was.
    let status = cloud.otlp_status().await;
    assert!(status["alarms"].as_array().unwrap().len() >= 6, "{before:#} {status:#}");
    let revoked = status["alarms"]
        .as_array()
        .unwrap()
        .iter()
        .find(|alarm| alarm["reason"] == "revoked_key");
    assert!(revoked.unwrap()["last"].as_str().unwrap().contains(&revoked_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_t1_t2_who_lies_over_the_link_is_refused_counted_and_told_and_stores_nothing() {
    let cloud = Cloud::with_tenants(&["acme", "beta"]).await;
    let gateway = cloud.ingest.address("link").unwrap();
    let authority = cloud.path("ca/ca.pem");
    let showing = |files: Option<&str>| Peer::new(&authority, files.map(|name| cloud.path(name)).as_deref());
    let honest = Some("certificates/acme.otlp");
    let liars = [
        (
            "another tenant's stream",
            honest,
            stream("beta", "otlp", 1),
            "refused_identity",
        ),
        (
            "another node's stream",
            honest,
            stream("acme", "site-9", 1),
            "refused_identity",
        ),
        ("no certificate", None, stream("acme", "otlp", 1), "handshakes_failed"),
        (
            "a gateway's certificate",
            Some("certificates/gateway-localhost"),
            stream("acme", "otlp", 1),
            "refused_identity",
        ),
    ];
    for (what, files, stream, counter) in liars {
        let counted = gateway_count(&super::status(&cloud.ingest).await, counter);
        assert!(showing(files).open(gateway, stream).await.is_err(), "{what} was let in");
        until(&cloud.ingest, what, |status| {
            gateway_count(status, counter) == counted + 1
        })
        .await;
    }
    // Inside a session that is what it says.
    let peer = showing(honest);
    let mut session = peer.open(gateway, stream("acme", "otlp", 1)).await.unwrap();
    let rows = Rows::new(10);
    for (seq, of) in [stream("beta", "otlp", 1), stream("acme", "site-9", 1)]
        .into_iter()
        .enumerate()
    {
        session.send(seq as u64, &rows.sealed(of, seq as u64)).await;
        let answer = session.frame().await.unwrap();
        assert!(
            matches!(&answer, Frame::Nack(nack) if matches!(nack.verdict, Verdict::Hold { .. })),
            "{answer:?}"
        );
    }
    session.send(2, &rows.sealed(stream("acme", "otlp", 1), 2)).await;
    let answer = session.frame().await.unwrap();
    assert!(matches!(answer, Frame::Ack(_)), "{answer:?}");
    // What a monitor is told may be a moment old.
    let is_counted = |status: &Value| {
        gateway_count(status, "refused_foreign") == 2 && status["gateway"]["tenants"]["acme"]["taken"] == 1
    };
    let status = until(&cloud.ingest, "batches of others", is_counted).await;
    // The work of decoding them is on the account of who they came from, and of nobody else.
    let (acme, beta) = (
        &status["gateway"]["tenants"]["acme"],
        &status["gateway"]["tenants"]["beta"],
    );
    assert_eq!((&acme["refused"], &acme["taken"]), (&2.into(), &1.into()));
    assert!(beta.is_null(), "{beta}");
    // A monitor is told of each.
    let metrics = cloud.ingest.url("http").unwrap() + "/metrics";
    let page = sluice_bench::process::get(&metrics, None).await.unwrap().text();
    for line in [
        "sluice_gateway_foreign_refused_total 2",
        "sluice_gateway_identity_refused_total 3",
        "sluice_gateway_handshakes_failed_total 1",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    let ((_, acme), (_, beta)) = (cloud.key("acme", "read", &[]), cloud.key("beta", "read", &[]));
    let rows_of = async |key: &str| {
        let answer = cloud.sql(key).ask("SELECT count(*) FROM events").await;
        answer
            .and_then(|answer| answer.count())
            .map_err(|error| error.to_string())
    };
    let honest_only = || async {
        match (rows_of(&acme).await?, rows_of(&beta).await?) {
            (10, 0) => Ok(()),
            counts => Err(format!("{counts:?}")),
        }
    };
    eventually("the honest one's rows", honest_only).await.unwrap();
}
