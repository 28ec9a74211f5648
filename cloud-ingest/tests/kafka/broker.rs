//! A broker of the test's own, on ports that stay the same: it can be killed and started again.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::ports::free_ports;

/// Any 16 bytes, in the alphabet of URLs.
const CLUSTER: &str = "c2x1aWNlLWxvZy10ZXN0cw";
/// A broker starts in 6 s on two idle cores; others build meanwhile.
const PATIENCE: Duration = Duration::from_secs(180);

/// Who is let in over TLS, and with which certificate.
pub(crate) struct SecureDoor {
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
    /// The broker's, and its key.
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl SecureDoor {
    fn properties(&self, folder: &Path) -> String {
        let pem = folder.join("broker.pem");
        fs::write(&pem, format!("{}{}", self.key, self.certificate)).unwrap();
        format!(
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL\n\
             ssl.keystore.type=PEM\nssl.keystore.location={}\nsasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n",
            pem.display()
        )
    }
}

pub(crate) struct Broker {
    libs: PathBuf,
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    child: Option<Child>,
}

impl Broker {
    /// `None` when the jars are not there: `cargo xtask services kafka` fetches them.
    pub(crate) fn start() -> Option<Broker> {
        Self::start_with(None)
    }

    /// A broker that lets in over TLS alone, and whom it knows by a password.
    pub(crate) fn start_secure(door: &SecureDoor) -> Option<Broker> {
        Self::start_with(Some(door))
    }

    fn start_with(door: Option<&SecureDoor>) -> Option<Broker> {
        let Some(libs) = libs() else {
            super::engine_is_missing("the jars of Kafka in SLUICE_ENGINES_DIR");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let [address, inside, controller] = free_ports().unwrap();
        // The broker talks to itself behind the door.
        let (listeners, advertised) = match door {
            None => (format!("PLAINTEXT://{address}"), format!("PLAINTEXT://{address}")),
            Some(_) => {
                let both = format!("SASL_SSL://{address},PLAINTEXT://{inside}");
                (both.clone(), both)
            }
        };
        let secured = door.map(|door| door.properties(folder.path())).unwrap_or_default();
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{controller}\n\
             listeners={listeners},CONTROLLER://{controller}\nadvertised.listeners={advertised}\n{secured}\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\n\
             num.network.threads=2\nnum.io.threads=2\nlog.cleaner.dedupe.buffer.size=16777216\n",
            folder.path().join("data").display()
        );
        fs::write(folder.path().join("broker.properties"), properties).unwrap();
        let mut broker = Broker {
            libs,
            folder,
            address,
            child: None,
        };
        let mut format = broker.java("kafka.tools.StorageTool");
        let settings = broker.settings();
        format.args(["format", "-t", CLUSTER, "-c"]).arg(settings);
        if let Some(door) = door {
            format
                .arg("--add-scram")
                .arg(format!("SCRAM-SHA-512=[name={},password={}]", door.user, door.password));
        }
        let done = format.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        broker.start_again();
        Some(broker)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP: what is sent to it waits.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT: it works through what was sent meanwhile, whether or not anybody waits for an answer.
    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().map(|child| child.id().to_string());
        let done = Command::new("kill").arg(signal).args(pid).status().unwrap();
        assert!(done.success(), "kill {signal}: {done}");
    }

    /// Returns when it takes connections again.
    pub(crate) fn start_again(&mut self) {
        let log = fs::File::create(self.folder.path().join("broker.log")).unwrap();
        let mut java = self.java("kafka.Kafka");
        java.arg(self.settings()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(java.spawn().unwrap());
        let begun = Instant::now();
        while std::net::TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err() {
            let log = || fs::read_to_string(self.folder.path().join("broker.log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "the broker does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("broker.properties")
    }

    /// Ends with the test, however that ends.
    fn java(&self, main: &str) -> Command {
        let mut java = match Path::new("/usr/bin/setpriv").exists() {
            true => {
                let mut leash = Command::new("setpriv");
                leash.args(["--pdeathsig", "KILL", "java"]);
                leash
            }
            false => Command::new("java"),
        };
        java.args(["-Xmx384m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
            .arg(self.libs.join("*"))
            .arg(main)
            .stdin(Stdio::null());
        java
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn libs() -> Option<PathBuf> {
    let engines = std::env::var_os("SLUICE_ENGINES_DIR").map(PathBuf::from)?;
    let entries = fs::read_dir(engines).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = entries.filter(|path| {
        let is_kafka = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("kafka-"));
        is_kafka && path.join("libs").is_dir()
    });
    Some(found.next()?.join("libs"))
}
