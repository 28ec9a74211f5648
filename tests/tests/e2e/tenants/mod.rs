//! A cloud for several tenants in real processes: `sluice ingest`, its OTLP role, `sluice query`, and edges; keys and certificates made by
//! the commands that an operator types.

mod intruders;
mod seats;
mod senders;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use serde_json::Value;
use sluice_bench::process::{self, HttpAnswer, Process, Sql, Start, get, http_send};
use sluice_tests::{SOON, binary, eventually};

use crate::otlp::{attribute, one_log, text};

/// All processes of the cloud, and the folder with all that they have.
struct Cloud {
    folder: tempfile::TempDir,
    ingest: Process,
    otlp: Option<Process>,
    query: Process,
}

impl Cloud {
    /// With tenants, each of which has a certificate for the OTLP role.
    async fn with_tenants(tenants: &[&str]) -> Cloud {
        let folder = tempfile::Builder::new().prefix("sluice-test-").tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        ca(&path("ca"), &["init"]);
        let out = path("certificates").display().to_string();
        ca(&path("ca"), &["issue", "--gateway", "localhost", "--out", &out]);
        for tenant in tenants {
            sluice(folder.path(), &["tenant", "add", tenant]);
            ca(
                &path("ca"),
                &["issue", "--tenant", tenant, "--node", "otlp", "--out", &out],
            );
        }
        let gateway = |kind: &str| path("certificates").join(format!("gateway-localhost.{kind}"));
        // Nobody renews certificates here, so an expired one is at its end.
        let text = format!(
            "data_dir = {:?}\nlake = {:?}\n[gateway]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\ndeny_list = {:?}\n\
             [tenants]\ndir = {:?}\n[cold]\ncommit_every = \"200 ms\"\n",
            path("ingest"),
            path("lake"),
            gateway("pem"),
            gateway("key"),
            path("ca/ca.pem"),
            path("ca/deny"),
            path("tenants"),
        );
        fs::write(path("ingest.toml"), text).unwrap();
        let ingest = start(folder.path(), "ingest", &["ingest"])
            .listen("link", "127.0.0.1:0")
            .listen("http", "127.0.0.1:0")
            .spawn()
            .await
            .unwrap();
        let text = format!(
            "[link]\ngateways = [\"{}\"]\nserver_name = \"localhost\"\nca = \"ca/ca.pem\"\n\
             certificate = \"certificates/{{tenant}}.otlp.pem\"\nkey = \"certificates/{{tenant}}.otlp.key\"\n\
             [seal]\nfreshness = \"100 ms\"\n",
            ingest.address("link").unwrap(),
        );
        fs::write(path("chain.toml"), text).unwrap();
        let text = format!(
            "data_dir = {:?}\n[tenants]\ndir = {:?}\n[otlp]\nedge = {:?}\n",
            path("otlp"),
            path("tenants"),
            path("chain.toml"),
        );
        fs::write(path("otlp.toml"), text).unwrap();
        let text = format!(
            "tokens = {:?}\ntenants = {:?}\n",
            path("no-tokens.json"),
            path("tenants")
        );
        fs::write(path("query.toml"), text).unwrap();
        let query = start(folder.path(), "query", &["query"])
            .argument("--lake")
            .argument(path("lake").display().to_string())
            .listen("http", "127.0.0.1:0")
            .listen("flight", "127.0.0.1:0")
            .listen("pg", "127.0.0.1:0")
            .spawn()
            .await
            .unwrap();
        let otlp = Some(start_otlp(folder.path()).spawn().await.unwrap());
        Cloud {
            folder,
            ingest,
            otlp,
            query,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn otlp(&self) -> &Process {
        self.otlp.as_ref().unwrap()
    }

    /// `sluice tenant …` and `sluice key …`, on the folder of this cloud.
    fn sluice(&self, arguments: &[&str]) -> Value {
        sluice(self.folder.path(), arguments)
    }

    /// The id and the secret of a new key.
    fn key(&self, tenant: &str, scope: &str, more: &[&str]) -> (String, String) {
        let made = ["key", "create", "--tenant", tenant, "--name", "test", "--scope", scope];
        let made = self.sluice(&[&made, more].concat());
        let of = |field: &str| made[field].as_str().unwrap().to_owned();
        (of("id"), of("key"))
    }

    fn sql(&self, key: &str) -> Sql {
        Sql::new(self.query.url("http").unwrap(), key.to_owned())
    }

    async fn otlp_status(&self) -> Value {
        status(self.otlp()).await
    }

    /// Posts one log to the OTLP door.
    async fn post(&self, body: &str, headers: &[(&str, &str)]) -> HttpAnswer {
        let url = self.otlp().url("otlp-http").unwrap() + "/v1/logs";
        let mut request = Request::post(url).header("content-type", "application/x-protobuf");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // What it says of itself must not matter.
        let claims = vec![
            attribute("tenant", text("beta")),
            attribute("sluice.tenant", text("beta")),
        ];
        let event = Full::from(Bytes::from(one_log(body, claims)));
        http_send(request.body(event).unwrap(), SOON).await.unwrap()
    }
}

async fn status(process: &Process) -> Value {
    let answer = get(&(process.url("http").unwrap() + "/v1/status"), None).await.unwrap();
    serde_json::from_str(&answer.text()).unwrap()
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

fn retry_after(headers: &HeaderMap) -> u64 {
    headers["retry-after"].to_str().unwrap().parse().unwrap()
}

fn start(folder: &Path, name: &str, role: &[&str]) -> Start {
    Start {
        binary: binary().unwrap(),
        arguments: role.iter().map(|&word| word.to_owned()).collect(),
        environment: Vec::new(),
        ready_file: folder.join(format!("{name}.ready.json")),
        log: folder.join(format!("{name}.log")),
        deadline: SOON,
    }
    .config(&folder.join(format!("{name}.toml")))
}

fn start_otlp(folder: &Path) -> Start {
    start(folder, "otlp", &["ingest", "--role", "otlp"])
        .listen("otlp-grpc", "127.0.0.1:0")
        .listen("otlp-http", "127.0.0.1:0")
        .listen("http", "127.0.0.1:0")
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Has a process read its files again.
fn hang_up(process: &Process) {
    run(Command::new("kill").args(["-HUP", &process.pid().to_string()]));
}

fn ca(dir: &Path, arguments: &[&str]) -> String {
    process::ca(&binary().unwrap(), dir, arguments).unwrap()
}

fn sluice(folder: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new(binary().unwrap());
    let printed = run(command
        .args(arguments)
        .arg("--json")
        .arg("--dir")
        .arg(folder.join("tenants")));
    serde_json::from_str(&printed).unwrap()
}

/// Asks until a process' status is so.
async fn until(process: &Process, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let asked = || async {
        let now = status(process).await;
        match holds(&now) {
            true => Ok(now),
            false => Err(format!("{now:#}")),
        }
    };
    eventually(what, asked).await.unwrap()
}
