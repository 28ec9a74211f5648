//! A publisher's folder and a node's, and the commands between them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use clap::Parser;
use serde_json::{Value, json};
use sluice_package::command::{self, Host, Output, PackageCommand};
use sluice_package::{Capability, ComponentFacts, Kind, Package, Policy, PrivateKey, Version};
use tempfile::TempDir;

#[derive(Debug, Parser)]
#[command(name = "sluice plugin")]
struct Cli {
    #[command(subcommand)]
    command: PackageCommand,
}

/// What a command ended with.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: u8,
    pub(crate) out: String,
    /// Notes, or the error.
    pub(crate) notes: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn refused(self, code: u8, why: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.notes.contains(why), "{why:?} is not in {self:?}");
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok().out).unwrap()
    }
}

pub(crate) struct Site {
    folder: TempDir,
    /// What the person at the terminal says; `None`: there is none.
    pub(crate) answer: Option<bool>,
    /// What this person was asked.
    pub(crate) asked: Mutex<Vec<String>>,
}

/// In these tests a component is JSON that says what a real one would. One that is filled with `mask` is a mask.
pub(crate) fn component(version: &str, filling: &str) -> Vec<u8> {
    json!({ "version": version, "filling": filling })
        .to_string()
        .into_bytes()
}

fn inspect(bytes: &[u8]) -> Result<ComponentFacts, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| "this is no component".to_owned())?;
    Ok(ComponentFacts {
        name: "demo".into(),
        version: value["version"]
            .as_str()
            .ok_or("no version")?
            .parse()
            .map_err(|_| "no version")?,
        kind: if value["filling"] == "mask" {
            Kind::Mask
        } else {
            Kind::Filter
        },
        contract: Version::new(1, 0, 0),
        capabilities: BTreeSet::from([Capability::Log]),
        reads: vec!["body".into()],
        writes: Vec::new(),
        config_schema: String::new(),
    })
}

impl Site {
    /// With a key, pinned in the store.
    pub(crate) fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
            answer: None,
            asked: Mutex::default(),
        };
        site.sluice(&["keygen", "acme.key", "--comment", "acme releases"]).ok();
        site.sluice(&["trust", "add", "acme", "acme.key.pub", "--names", "acme/*", "--create"])
            .ok();
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Words that name a file of this folder are its path.
    pub(crate) fn sluice(&self, words: &[&str]) -> Said {
        let here = |word: &&str| match word.split_once("@@") {
            Some((before, name)) => format!("{before}{}", self.path(name).display()),
            None if word.ends_with(".key") || word.ends_with(".pub") || word.ends_with(".json") => {
                self.path(word).display().to_string()
            }
            None => (*word).to_owned(),
        };
        let words = ["plugin".to_owned()].into_iter().chain(words.iter().map(here));
        let command = match Cli::try_parse_from(words) {
            Ok(cli) => cli.command,
            Err(error) => {
                return Said {
                    code: 2,
                    out: String::new(),
                    notes: error.to_string(),
                };
            }
        };
        let host = Host {
            inspect: &inspect,
            policy: Policy::default(),
            data: self.path("data"),
            standard: &|name| match name {
                "mask" => Some(Kind::Mask),
                "filter" => Some(Kind::Filter),
                _ => None,
            },
            ask: &|question| {
                self.asked.lock().unwrap().push(question.to_owned());
                self.answer
            },
        };
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let done = runtime.block_on(command::run(
            command,
            &host,
            &mut Output {
                out: &mut out,
                notes: &mut notes,
            },
        ));
        let (out, notes) = (String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap());
        match done {
            Ok(()) => Said { code: 0, out, notes },
            Err(error) => Said {
                code: error.exit_code(),
                out,
                notes: error.to_string(),
            },
        }
    }

    /// Signs a component of this version into the folder that is named for it.
    pub(crate) fn signed(&self, version: &str, filling: &str) -> String {
        self.signed_with(version, filling, "acme.key", "")
    }

    pub(crate) fn signed_with(&self, version: &str, filling: &str, key: &str, more: &str) -> String {
        let source = format!("[package]\nname = \"acme/demo\"\npublisher = \"Acme GmbH\"\n{more}\n");
        fs::write(self.path("plugin.toml"), source).unwrap();
        fs::write(self.path("demo.wasm"), component(version, filling)).unwrap();
        let out = format!("signed-{version}-{}", filling.len());
        let place = format!("@@{out}");
        let words = [
            "sign",
            "@@demo.wasm",
            "--key",
            key,
            "--source",
            "@@plugin.toml",
            "--out",
            &place,
        ];
        self.sluice(&words).ok();
        place
    }

    /// `NAME VERSION: STATES` of every installed version.
    pub(crate) fn list(&self) -> Vec<String> {
        let listed = self.sluice(&["list", "--json"]).json();
        let line = |plugin: &Value| {
            let states: Vec<&str> = plugin["states"]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| s.as_str().unwrap())
                .collect();
            format!("{} {}", plugin["version"].as_str().unwrap(), states.join(", "))
        };
        listed["plugins"].as_array().unwrap().iter().map(line).collect()
    }
}

/// A signed package without a site around it.
pub(crate) fn package(folder: &Path, filling: usize) -> Package {
    let key_file = folder.join("some.key");
    let key = PrivateKey::load(&key_file)
        .or_else(|_| PrivateKey::generate(&key_file, ""))
        .unwrap();
    let component = vec![b'x'; filling];
    let source =
        sluice_package::PluginSource::parse("[package]\nname = \"acme/demo\"\npublisher = \"Acme\"\n").unwrap();
    let facts = inspect(br#"{"version": "1.0.0"}"#).unwrap();
    let manifest = source.manifest(&facts, &component, &Policy::default()).unwrap();
    Package::sign(&manifest, component, &key).unwrap()
}
