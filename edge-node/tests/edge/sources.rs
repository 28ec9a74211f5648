//! Sources change while the node runs: SIGHUP begins and ends them, and what is read is read once.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::filelog::{append, assert_same};
use crate::node::{TestNode, config, eventually};
use crate::rows;

/// A program whose configuration is written anew and taken over.
struct Reloaded {
    child: Child,
    folder: PathBuf,
}

impl Reloaded {
    fn start(folder: &Path, sources: &str) -> Self {
        write_config(folder, sources);
        let child = program()
            .args(["run", "--config"])
            .arg(folder.join("edge.toml"))
            .arg("--ready-file")
            .arg(folder.join("ready"))
            .env("SLUICE_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let this = Self {
            child,
            folder: folder.to_owned(),
        };
        eventually("the node serves", || folder.join("ready").exists());
        this
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    fn says(&self, text: &str) -> bool {
        fs::read_to_string(self.folder.join("log")).unwrap().contains(text)
    }

    /// Takes over other sources; until the log says so.
    fn reload(&self, sources: &str, says: &str) {
        assert!(!self.says(says), "{says}");
        write_config(&self.folder, sources);
        self.signal("-HUP");
        eventually(says, || self.says(says));
    }

    /// Until so many events are safe.
    fn holds(&self, events: usize) {
        let ready: Value = serde_json::from_slice(&fs::read(self.folder.join("ready")).unwrap()).unwrap();
        let url = format!("http://{}", ready["listen"]["http"].as_str().unwrap());
        eventually(&format!("{events} events are accepted"), || {
            let output = program().args(["status", "--json", "--url", &url]).output().unwrap();
            let status: Value = serde_json::from_slice(&output.stdout).unwrap();
            status["accepted"]["log"] == events
        });
    }

    fn stop(mut self) {
        self.signal("-TERM");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sluice-edge"))
}

fn write_config(folder: &Path, sources: &str) {
    let doors = "[listen]\notlp-grpc = \"\"\notlp-http = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n";
    let text = format!("data_dir = {:?}\n{doors}{sources}", folder.join("data"));
    fs::write(folder.join("edge.toml"), text).unwrap();
}

fn filelog(name: &str, path: &Path) -> String {
    format!(
        "[[source.filelog]]\nname = {name:?}\ninclude = [{path:?}]\nstart_at = \"beginning\"\npoll_interval = \"5 ms\"\nlast_line_after = \"50 ms\"\n"
    )
}

fn syslog(name: &str, address: SocketAddr, more: &str) -> String {
    format!("[[source.syslog]]\nname = {name:?}\ntcp = \"{address}\"\n{more}")
}

/// Nobody listens there; somebody did a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn tell(address: SocketAddr, text: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    writeln!(stream, "<11>1 - - - - - - {text}").unwrap();
}

#[test]
fn p2_sources_begin_and_end_while_the_node_runs_and_a_refused_change_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.log"), dir.path().join("b.log"));
    let (net, taken) = (free_address(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut expected = Vec::new();
    let mut expect = |text: &str| {
        expected.push(text.to_owned());
        expected.len()
    };
    let only_a = filelog("a", &a);
    append(&a, "a at first\n");
    append(&b, "b at first\n");
    let node = Reloaded::start(dir.path(), &only_a);
    node.holds(expect("a at first"));
    let all = format!("{only_a}{}{}", filelog("b", &b), syslog("net", net, ""));
    node.reload(&all, "sources reloaded: b, net begin, none end, 1 go on");
    append(&a, "a beside b\n");
    append(&b, "b beside a\n");
    tell(net, "by the new door");
    for text in ["b at first", "a beside b", "b beside a"] {
        expect(text);
    }
    node.holds(expect("by the new door"));

    // An address that somebody else has, and with it another limit for one that we have: neither is taken over.
    let late = syslog("late", taken.local_addr().unwrap(), "");
    let other = syslog("net", net, "max_connections = 7\n");
    node.reload(&format!("{all}{late}"), "refused was: late begin, none end, 3 go on");
    node.reload(
        &format!("{only_a}{other}{late}"),
        "refused was: net, late begin, b, net end, 1 go on",
    );
    eventually("the door is open again", || TcpStream::connect(net).is_ok());
    tell(net, "by the old door");
    append(&a, "a after the refusals\n");
    append(&b, "b after the refusals\n");
    for text in ["by the old door", "a after the refusals"] {
        expect(text);
    }
    node.holds(expect("b after the refusals"));

    node.reload(
        &format!("{only_a}{other}"),
        "sources reloaded: net begin, b, net end, 1 go on",
    );
    append(&b, "nobody reads b any more\n");
    tell(net, "by the changed door");
    append(&a, "a at last\n");
    expect("by the changed door");
    node.holds(expect("a at last"));
    node.stop();

    let rest = TestNode::start(config(&dir.path().join("data")));
    let found: Vec<String> = rows::logs(&rest.spool)
        .iter()
        .map(|log| log.text().to_owned())
        .collect();
    assert_same(&expected, &found);
    rest.stop();
}
