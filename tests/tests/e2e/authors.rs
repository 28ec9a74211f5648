//! What an author of plugins types, in folders outside of the repository: new, build, test, bench, preview, sign, install, in every
//! language; then the plugin at work in a node. The tools of the languages are the real ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;
use sluice_bench::corpus::Signal;
use sluice_tests::{Node, binary, eventually};

use crate::otlp::{attribute, one_log, post, text};

/// A folder and a user of its own.
#[derive(Clone)]
struct Author {
    folder: Arc<tempfile::TempDir>,
}

impl Author {
    fn new() -> Author {
        Author {
            folder: Arc::new(tempfile::Builder::new().prefix("sluice-author-").tempdir().unwrap()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `sluice plugin …` in the author's folder.
    fn plugin(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary().unwrap());
        command
            .current_dir(self.folder.path())
            .arg("plugin")
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_CACHE_HOME", self.path("cache"));
        // Libraries of guests are built once for all tests, apart from those of the host.
        if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
            let mut guests = target;
            guests.push("-guests");
            command.env("CARGO_TARGET_DIR", guests);
        }
        command.output().unwrap()
    }

    /// The same, and it has to succeed; what it printed.
    fn does(&self, arguments: &[&str]) -> String {
        let output = self.plugin(arguments);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{out}\n{err}",
            output.status
        );
        out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.does(arguments)).unwrap()
    }
}

/// Everything up to the installed package; `source` is the file that an author edits.
fn from_nothing_to_installed(language: &str, source: &str) -> Author {
    let author = Author::new();
    author.does(&["new", "--lang", language, "demo"]);
    let lines = fs::read_to_string(author.path("demo").join(source)).unwrap();
    let lines = lines.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 20, "{language}: a filter of {lines} lines");

    // A version that stands in two places is refused where it differs, before there is a component.
    let manifest = author.path("demo/plugin.toml");
    let right = fs::read_to_string(&manifest).unwrap();
    fs::write(
        &manifest,
        right.replacen("publisher =", "version = \"0.2.0\"\npublisher =", 1),
    )
    .unwrap();
    let differs = author.plugin(&["build"]);
    let said = String::from_utf8_lossy(&differs.stderr).into_owned();
    assert!(
        !differs.status.success() && said.contains("says 0.1.0, plugin.toml 0.2.0"),
        "{language}: {said}"
    );
    assert!(!author.path("demo/dist").exists(), "{language}");
    fs::write(&manifest, right).unwrap();
    let built = author.does(&["build"]);
    assert!(built.contains("imports nothing"), "{language}: {built}");
    let tested = author.json(&["test", "--json"]);
    assert_eq!(tested["failed"], 0, "{language}: {tested:#}");
    assert!(!tested["fixtures"].as_array().unwrap().is_empty());
    // A test that cannot fail proves nothing: the same fixtures with other expectations.
    let fixtures = author.path("demo/fixtures");
    let fixture = fs::read_dir(&fixtures).unwrap().next().unwrap().unwrap().path();
    let right = fs::read_to_string(&fixture).unwrap();
    let mut wrong: Value = serde_json::from_str(&right).unwrap();
    wrong["expect"] = serde_json::json!({"rows": []});
    fs::write(&fixture, wrong.to_string()).unwrap();
    let failed = author.plugin(&["test"]);
    let shown = String::from_utf8_lossy(&failed.stdout).into_owned();
    assert!(
        failed.status.code() == Some(1) && shown.contains("FAILED"),
        "{language}: {shown}"
    );
    fs::write(&fixture, right).unwrap();

    let bench = author.json(&["bench", "--seconds", "0.1", "--json"]);
    assert!(
        bench["figures"]["rows_per_s"].as_f64().unwrap() > 0.0,
        "{language}: {bench:#}"
    );
    assert!(
        bench["noop"].is_object() && bench["memory_bytes"].as_u64().unwrap() > 0,
        "{language}: {bench:#}"
    );

    let rows = author.path("rows.json");
    fs::write(
        &rows,
        "{\"body\": \"noise\", \"severity\": 5, \"service\": \"other\"}\n{\"body\": \"alarm\", \"severity\": 17, \"service\": \"other\"}\n",
    )
    .unwrap();
    let preview = author.json(&["preview", "--input", rows.to_str().unwrap(), "--json"]);
    let what: Vec<_> = preview["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["what"])
        .collect();
    assert_eq!(
        (what, &preview["unchanged"]),
        (vec![&Value::from("dropped")], &Value::from(1)),
        "{language}: {preview:#}"
    );

    author.does(&["sign"]);
    let data = author.path("data/edge");
    let mistyped = author.plugin(&["install", "--data", data.to_str().unwrap()]);
    assert_eq!(mistyped.status.code(), Some(2), "{mistyped:?}");
    assert!(!data.exists());
    author.does(&["install", "--create", "--data", data.to_str().unwrap()]);
    let listed = author.does(&["list", "--data", data.to_str().unwrap()]);
    assert!(
        listed.contains("local/demo") && listed.contains("0.1.0"),
        "{language}: {listed}"
    );
    author
}

/// A warning.
async fn send(node: &Node, body: &str) {
    let url = format!("{}{}", node.url("otlp-http").unwrap(), Signal::Log.http_path());
    let request = one_log(body, vec![attribute("k", text("v"))]);
    let answer = post(&url, "application/x-protobuf", None, request).await;
    assert_eq!(answer.status, 200);
}

/// In Rust, and then in a node whose chain names the package.
#[tokio::test(flavor = "multi_thread")]
async fn p12_a_plugin_in_rust_from_nothing_to_a_running_node() {
    let author = tokio::task::spawn_blocking(|| from_nothing_to_installed("rust", "src/lib.rs"))
        .await
        .unwrap();
    let config = "[edge.admin]\ntap = true\n\n[[edge.plugin]]\nname = \"demo\"\npackage = \"local/demo\"\n";
    let node = Node::prepare(config).unwrap();
    copy(&author.path("data"), &node.data());
    let mut node = node.started().await.unwrap();
    send(&node, "kept").await;
    let kept = node.rows("SELECT 1 FROM logs WHERE body = 'kept'", 1).await.unwrap();
    assert_eq!(kept.rows.len(), 1);
    let shown = "SELECT 1 FROM plugins WHERE plugin = 'demo' AND version = '0.1.0' AND kind = 'filter'";
    node.rows(shown, 1).await.unwrap();
    let shown = || async {
        let data = node.data();
        let status = tokio::task::spawn_blocking(move || {
            let words = ["status", "--data", data.to_str().unwrap()];
            Command::new(binary().unwrap()).args(words).output().unwrap()
        });
        let status = String::from_utf8(status.await.unwrap().stdout).unwrap();
        let known = [
            "● ready",
            "\nedge ",
            "default/local, up for",
            "1 log, 0 spans",
            "link ",
            " live 127.0.0.1:",
            "\ningest",
            "1 partition",
        ];
        match known.into_iter().find(|known| !status.contains(known)) {
            Some(missing) => Err(format!("{missing:?} is not in\n{status}")),
            None => Ok(status),
        }
    };
    // What it shows may be a moment old.
    let status = eventually("the status shows all of it", shown).await.unwrap();
    let row = status
        .lines()
        .find(|line| line.starts_with("  demo "))
        .unwrap_or_else(|| panic!("{status}"));
    assert_eq!(
        row.split_whitespace().take(6).collect::<Vec<_>>(),
        ["demo", "0.1.0", "filter", "current", "1", "1"],
        "{status}"
    );

    // Before and after on live events, which only the bearer of the node's token is shown.
    let (url, token) = (node.url("http").unwrap(), node.data().join("edge/admin-token"));
    let stranger = node.data().join("token");
    let looks = |token: &Path| {
        let words = [
            "preview",
            "--rows",
            "3",
            "--wait",
            "30",
            "--json",
            "--edge",
            &url,
            "--token-file",
        ];
        let words: Vec<String> = words
            .iter()
            .map(|word| (*word).to_owned())
            .chain([token.display().to_string()])
            .collect();
        let author = author.clone();
        tokio::task::spawn_blocking(move || author.plugin(&words.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let refused = looks(&stranger).await.unwrap();
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("401"),
        "{refused:?}"
    );
    let looking = looks(&token);
    while !looking.is_finished() {
        send(&node, "live").await;
    }
    let shown = looking.await.unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_else(|_| panic!("{shown:?}"));
    assert_eq!(
        (&shown["rows"], &shown["unchanged"]),
        (&Value::from(3), &Value::from(3)),
        "{shown:#}"
    );

    // A byte of the installed component that changed is noticed by the next start, and nothing unsigned runs.
    assert!(node.stop().await.unwrap().success());
    let component = node
        .data()
        .join("edge/plugins/packages/local/demo/0.1.0/component.wasm");
    let mut bytes = fs::read(&component).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&component, bytes).unwrap();
    let error = node.start_again().await.unwrap_err().to_string();
    assert!(error.contains("local/demo") || error.contains("demo"), "{error}");
}

#[test]
fn a_plugin_in_javascript_from_nothing_to_an_installed_package() {
    from_nothing_to_installed("js", "plugin.js");
}

#[test]
fn a_plugin_in_python_from_nothing_to_an_installed_package() {
    from_nothing_to_installed("python", "plugin.py");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
