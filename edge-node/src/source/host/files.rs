//! Reads the kernel's texts, and asks it for the sizes of file systems.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Of one text; a machine with 512 cores has a `stat` of 100 KiB.
const MAX_TEXT_BYTES: u64 = 4 << 20;
/// File systems that are asked for their size.
const MAX_VOLUMES: usize = 256;
/// Kinds that hold no files of their own, are always full, or may not answer for minutes.
const LEFT_OUT: [&str; 26] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "cifs",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfs",
    "nfs4",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "smb3",
    "squashfs",
    "sysfs",
    "tracefs",
    "fuse",
];

/// Where the texts are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    root: PathBuf,
}

/// What was read at one time. A text that is not there is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) host_name: Option<String>,
    pub(super) stat: String,
    pub(super) loadavg: String,
    pub(super) uptime: String,
    pub(super) meminfo: String,
    pub(super) vmstat: String,
    pub(super) diskstats: String,
    pub(super) net_dev: String,
    pub(super) volumes: Vec<Volume>,
    /// Names of whole disks, as opposed to their partitions; none where the kernel does not say.
    pub(super) disks: BTreeSet<String>,
    pub(super) missing: Vec<&'static str>,
}

/// One file system and its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) mount: Mount,
    pub(super) block_bytes: u64,
    pub(super) blocks: u64,
    pub(super) free: u64,
    /// To whoever is not root.
    pub(super) available: u64,
    pub(super) inodes: u64,
    pub(super) free_inodes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) device: String,
    pub(super) point: String,
    pub(super) kind: String,
    pub(super) read_only: bool,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn read(&self) -> Machine {
        let mut missing = Vec::new();
        let mut text = |name: &'static str| {
            let mut text = String::new();
            let read =
                File::open(self.root.join(name)).and_then(|file| file.take(MAX_TEXT_BYTES).read_to_string(&mut text));
            if read.is_err() {
                missing.push(name);
            }
            text
        };
        // `/proc/net` and `/proc/mounts` are those of the process that asks; those of the first process are the machine's.
        let own = self.root == Path::new("/");
        let (net_dev, mounts) = match own {
            true => ("proc/net/dev", "proc/mounts"),
            false => ("proc/1/net/dev", "proc/1/mounts"),
        };
        let mut machine = Machine {
            host_name: match own {
                true => super::host_name(),
                false => Some(text("proc/sys/kernel/hostname").trim().to_owned()).filter(|name| !name.is_empty()),
            },
            stat: text("proc/stat"),
            loadavg: text("proc/loadavg"),
            uptime: text("proc/uptime"),
            meminfo: text("proc/meminfo"),
            vmstat: text("proc/vmstat"),
            diskstats: text("proc/diskstats"),
            net_dev: text(net_dev),
            volumes: self.volumes(&text(mounts)),
            disks: self.disks(),
            missing: Vec::new(),
        };
        machine.missing = missing;
        machine
    }

    fn disks(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.root.join("sys/block"));
        let names = entries.into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn volumes(&self, table: &str) -> Vec<Volume> {
        let mut seen = BTreeSet::new();
        let mut volumes = Vec::new();
        for mount in mounts(table).take(MAX_VOLUMES) {
            let path = self.root.join(mount.point.trim_start_matches('/'));
            let Ok(size) = rustix::fs::statvfs(&path) else {
                continue;
            };
            // The same file system at a second place.
            if size.f_blocks == 0 || !seen.insert((mount.device.clone(), size.f_fsid)) {
                continue;
            }
            volumes.push(Volume {
                mount,
                block_bytes: size.f_frsize,
                blocks: size.f_blocks,
                free: size.f_bfree,
                available: size.f_bavail,
                inodes: size.f_files,
                free_inodes: size.f_ffree,
            });
        }
        volumes
    }
}

/// The mounts of a table that hold files.
pub(super) fn mounts(table: &str) -> impl Iterator<Item = Mount> {
    table.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (device, point, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let base = kind.split('.').next().unwrap_or(kind);
        let mount = Mount {
            device: unescape(device),
            point: unescape(point),
            kind: kind.to_owned(),
            read_only: options.split(',').any(|option| option == "ro"),
        };
        (!LEFT_OUT.contains(&base)).then_some(mount)
    })
}

/// Spaces and the like stand as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
