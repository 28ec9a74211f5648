#![allow(clippy::unwrap_used)]
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;

const NEVER: &dyn Fn() -> bool = &|| false;

fn source(path: &Path, key: Option<&str>) -> TableSource {
    TableSource {
        name: "t".to_owned(),
        path: path.to_owned(),
        key: key.map(str::to_owned),
    }
}

fn table(content: impl AsRef<[u8]>, key: Option<&str>) -> Result<(TempDir, GrantedTables), String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("table");
    std::fs::write(&path, content).unwrap();
    match Tables::default().grant(&[source(&path, key)]) {
        Ok(granted) => Ok((folder, granted)),
        Err(TableError::File { what, .. }) => Err(what),
        Err(error) => Err(error.to_string()),
    }
}

fn find(tables: &GrantedTables, keys: &[&str], fields: &[&str]) -> Result<Vec<Option<String>>, String> {
    tables.find("t", keys, fields, 1 << 20, NEVER)
}

fn texts(texts: &[Option<&str>]) -> Result<Vec<Option<String>>, String> {
    Ok(texts.iter().map(|text| text.map(str::to_owned)).collect())
}

#[test]
fn cells_are_found_by_the_key_column() {
    let csv = "host,owner,\"the site\"\r\nweb-1,\"Doe, J.\",Köln\r\n\r\nweb-2,,\"two\nlines\"\r\n";
    let (_folder, tables) = table(csv, None).unwrap();
    assert_eq!(tables.names(), ["t"]);
    assert_eq!(tables.fields("t").unwrap(), ["host", "owner", "the site"]);
    let found = find(&tables, &["web-2", "nobody", "web-1"], &["the site", "owner"]);
    assert_eq!(
        found,
        texts(&[Some("two\nlines"), Some(""), None, None, Some("Köln"), Some("Doe, J.")])
    );
    let (_folder, tables) = table(csv, Some("the site")).unwrap();
    assert_eq!(find(&tables, &["Köln"], &["host"]), texts(&[Some("web-1")]));
    assert_eq!(find(&tables, &["Köln"], &[]), texts(&[]));
}

#[test]
fn many_rows_are_found() {
    let csv: String = std::iter::once("k,v\n".to_owned())
        .chain((0..20_000).map(|n| format!("key{n},{}\n", n * 3)))
        .collect();
    let (_folder, tables) = table(csv, None).unwrap();
    let keys: Vec<String> = (0..20_000).map(|n| format!("key{n}")).collect();
    let found = tables.find("t", &keys, &["v"], 1 << 20, NEVER).unwrap();
    assert!(
        found
            .iter()
            .enumerate()
            .all(|(n, v)| v.as_deref() == Some(&(n * 3).to_string()))
    );
    assert_eq!(tables.status()[0].1.rows, 20_000);
}

#[test]
fn a_file_that_is_no_table_is_refused_with_the_reason() {
    let wide = vec!["c"; 300]
        .iter()
        .enumerate()
        .map(|(n, c)| format!("{c}{n}"))
        .collect::<Vec<_>>()
        .join(",");
    for (content, key, expected) in [
        ("", None, "is empty; its first line has to name its columns"),
        (
            "a,b\n1,2\n3,4\n1,5\n",
            None,
            "lines 2 and 4 have the same key `1` in column `a`",
        ),
        (
            "a,b\n1,2\n3,2\n",
            Some("b"),
            "lines 2 and 3 have the same key `2` in column `b`",
        ),
        (
            "a,b\n1\n",
            None,
            "CSV error: record 1 (line: 2, byte: 4): found record with 1 fields, but the previous record has 2 fields",
        ),
        (
            "a,b\n",
            Some("c"),
            "has no column `c`; it has a, b; the key column has to be one of them",
        ),
        ("a,b,a\n", None, "line 1 names the column `a` twice"),
        (&wide, None, "has 300 columns; at most 256"),
    ] {
        assert_eq!(table(content, key).err().as_deref(), Some(expected));
    }
    assert!(table(b"a,b\n1,\xff\n", None).unwrap_err().contains("invalid UTF-8"));
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing.csv");
    let error = Tables::default()
        .grant(&[source(&missing, None)])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("table `t`, /") && error.contains("missing.csv: cannot be read: No such file"),
        "{error}"
    );
    let error = Tables::default()
        .grant(&[source(folder.path(), None)])
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("is not a file"), "{error}");
    let mmdb = folder.path().join("x.mmdb");
    std::fs::write(&mmdb, "a,b\n").unwrap();
    let error = Tables::default().grant(&[source(&mmdb, None)]).unwrap_err().to_string();
    assert!(error.contains("is no MaxMind database"), "{error}");
}

#[test]
fn what_cannot_be_looked_up_is_told() {
    let (_folder, tables) = table("a,b\n1,2\n", None).unwrap();
    assert_eq!(
        find(&tables, &["1"], &["c"]).unwrap_err(),
        "table `t` has no column `c`; it has a, b"
    );
    assert_eq!(tables.fields("u").unwrap_err(), "there is no table `u`; there are t");
    assert_eq!(
        GrantedTables::default().fields("u").unwrap_err(),
        "there is no table `u`; the plugin was granted none"
    );
    let answer = tables.find("t", &["1"; 4], &["b"], 35, NEVER);
    assert_eq!(
        answer.unwrap_err(),
        "the answer has more than 35 bytes; look up fewer keys at once"
    );
    assert!(tables.find("t", &["1"; 4], &["b"], 36, NEVER).is_ok());
    assert_eq!(
        tables.find("t", &["1"], &["b"], 99, &|| true).unwrap_err(),
        "there was no time left to look all keys up"
    );
    let twice = Tables::default().grant(&[]).map(|tables| tables.names());
    assert_eq!(twice, Ok(vec![]));
}

/// Asks as a plugin does until the answer is this one.
fn until(tables: &GrantedTables, key: &str, expected: Option<&str>) {
    let end = Instant::now() + Duration::from_secs(60);
    while find(tables, &[key], &["v"]) != texts(&[expected]) {
        assert!(
            Instant::now() < end,
            "the new version was never taken: {:?}",
            tables.status()
        );
        std::thread::yield_now();
    }
}

fn until_problem(tables: &GrantedTables, expected: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while !tables.status()[0]
        .1
        .problem
        .as_ref()
        .is_some_and(|problem| problem.contains(expected))
    {
        assert_eq!(
            find(tables, &["k"], &["v"]),
            texts(&[Some("new")]),
            "the old version stays"
        );
        assert!(
            Instant::now() < end,
            "the problem was never told: {:?}",
            tables.status()
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_file_that_changes_is_read_again_and_a_broken_one_is_not_used() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.csv");
    let replace = |content: &str| {
        let new = folder.path().join("t.csv.new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    replace("k,v\nk,old\n");
    let host = Tables::default();
    let tables = host.grant(&[source(&path, None)]).unwrap();
    let other = host.grant(&[source(&path, None)]).unwrap();
    assert_eq!(find(&tables, &["k"], &["v"]), texts(&[Some("old")]));
    replace("k,v\nk,new\n");
    until(&tables, "k", Some("new"));
    assert_eq!(
        find(&other, &["k"], &["v"]),
        texts(&[Some("new")]),
        "plugins share what was read"
    );
    replace("k,v\nk,new\nk,twice\n");
    until_problem(&tables, "lines 2 and 3 have the same key");
    std::fs::remove_file(&path).unwrap();
    until_problem(&tables, "cannot be read");
    replace("k,v\nk,again\n");
    until(&tables, "k", Some("again"));
    let status = &tables.status()[0].1;
    assert_eq!((status.reloads, status.problem.as_ref()), (2, None));
    drop((tables, other));
    replace("k,v\nk,later\n");
    let later = host.grant(&[source(&path, None)]).unwrap();
    assert_eq!(
        find(&later, &["k"], &["v"]),
        texts(&[Some("later")]),
        "what nobody uses is forgotten"
    );
}

/// As much of the format as a test needs: <https://maxmind.github.io/MaxMind-DB/>, records of 24 bits.
mod mmdb {
    pub(super) fn text(text: &str) -> Vec<u8> {
        [head(2, text.len()), text.as_bytes().to_vec()].concat()
    }

    pub(super) fn uint(number: u32) -> Vec<u8> {
        [head(6, 4), number.to_be_bytes().to_vec()].concat()
    }

    fn long(number: u64) -> Vec<u8> {
        [head(9, 8), number.to_be_bytes().to_vec()].concat()
    }

    fn short(number: u16) -> Vec<u8> {
        [head(5, 2), number.to_be_bytes().to_vec()].concat()
    }

    pub(super) fn int(number: i32) -> Vec<u8> {
        [head(8, 4), number.to_be_bytes().to_vec()].concat()
    }

    pub(super) fn double(number: f64) -> Vec<u8> {
        [head(3, 8), number.to_be_bytes().to_vec()].concat()
    }

    pub(super) fn boolean(yes: bool) -> Vec<u8> {
        head(14, usize::from(yes))
    }

    pub(super) fn list(items: &[Vec<u8>]) -> Vec<u8> {
        [head(11, items.len()), items.concat()].concat()
    }

    pub(super) fn map(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let members_bytes = members
            .iter()
            .flat_map(|(key, value)| [text(key), value.clone()].concat());
        head(7, members.len()).into_iter().chain(members_bytes).collect()
    }

    fn head(kind: u8, size: usize) -> Vec<u8> {
        let (direct, rest) = if size < 29 {
            (size as u8, None)
        } else {
            (29, Some((size - 29) as u8))
        };
        let first = if kind < 8 {
            vec![kind << 5 | direct]
        } else {
            vec![direct, kind - 7]
        };
        first.into_iter().chain(rest).collect()
    }

    #[derive(Clone, Copy)]
    enum Record {
        Empty,
        Node(usize),
        Data(usize),
    }

    /// A database of IPv6 with these networks: address, bits, record. Those of IPv4 lie below ::/96.
    pub(super) fn database(networks: &[(&str, usize, Vec<u8>)]) -> Vec<u8> {
        let mut nodes = vec![[Record::Empty; 2]];
        let mut data = Vec::new();
        for (address, bits, record) in networks {
            let (address, bits) = match address.parse().unwrap() {
                std::net::IpAddr::V4(v4) => (u128::from(v4.to_bits()), bits + 96),
                std::net::IpAddr::V6(v6) => (v6.to_bits(), *bits),
            };
            let side = |depth: usize| (address >> (127 - depth) & 1) as usize;
            let mut node = 0;
            for depth in 0..bits - 1 {
                node = match nodes[node][side(depth)] {
                    Record::Node(next) => next,
                    _ => {
                        nodes.push([Record::Empty; 2]);
                        let next = nodes.len() - 1;
                        nodes[node][side(depth)] = Record::Node(next);
                        next
                    }
                };
            }
            nodes[node][side(bits - 1)] = Record::Data(data.len());
            data.extend_from_slice(record);
        }
        let count = nodes.len();
        let mut file = Vec::new();
        for record in nodes.iter().flatten() {
            let number = match record {
                Record::Empty => count,
                Record::Node(node) => *node,
                Record::Data(offset) => count + 16 + offset,
            };
            file.extend_from_slice(&(number as u32).to_be_bytes()[1..]);
        }
        file.extend_from_slice(&[0; 16]);
        file.extend_from_slice(&data);
        file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
        file.extend(map(&[
            ("binary_format_major_version", short(2)),
            ("binary_format_minor_version", short(0)),
            ("build_epoch", long(1_700_000_000)),
            ("database_type", text("Test-City")),
            ("description", map(&[("en", text("made by a test"))])),
            ("ip_version", short(6)),
            ("languages", list(&[text("en")])),
            ("node_count", uint(count as u32)),
            ("record_size", short(24)),
        ]));
        file
    }
}

fn city() -> Vec<u8> {
    use mmdb::{boolean, double, int, list, map, text, uint};
    let subdivisions = list(&[map(&[("iso_code", text("NW"))]), map(&[("iso_code", text("K"))])]);
    mmdb::database(&[
        (
            "10.1.0.0",
            16,
            map(&[
                (
                    "country",
                    map(&[("iso_code", text("DE")), ("is_in_european_union", boolean(true))]),
                ),
                ("subdivisions", subdivisions),
                ("location", map(&[("latitude", double(50.9375)), ("metro", int(-5))])),
                ("0", map(&[("1", uint(64_512))])),
            ]),
        ),
        ("2001:db8::", 32, map(&[("country", map(&[("iso_code", text("ZZ"))]))])),
    ])
}

#[test]
fn paths_of_a_database_are_found_by_address() {
    let (_folder, tables) = table(city(), None).unwrap();
    assert_eq!(tables.fields("t").unwrap(), Vec::<String>::new());
    let fields = [
        ("country.iso_code", Some("DE")),
        ("subdivisions.1.iso_code", Some("K")),
        ("subdivisions.2.iso_code", None),
        ("country.is_in_european_union", Some("true")),
        ("location.latitude", Some("50.9375")),
        ("location.metro", Some("-5")),
        ("0.1", Some("64512")),
        ("country", None),
        ("subdivisions", None),
        ("country.iso_code.more", None),
        ("subdivisions.iso_code", None),
        ("", None),
    ];
    let expected = fields.map(|(_, text)| text);
    assert_eq!(
        find(&tables, &["10.1.2.3"], &fields.map(|(field, _)| field)),
        texts(&expected)
    );
    let keys = ["::ffff:10.1.0.0", "2001:db8::7", "10.2.0.1", "no address", ""];
    let found = find(&tables, &keys, &["country.iso_code"]);
    assert_eq!(found, texts(&[Some("DE"), Some("ZZ"), None, None, None]));
}

#[test]
fn a_damaged_database_is_an_error_and_not_a_panic() {
    let whole = city();
    assert!(table(&whole[..whole.len() - 40], None).is_err());
    assert!(table(&whole, Some("network")).unwrap_err().contains("leave it out"));
    let marker = memchr::memmem::rfind(&whole, b"MaxMind.com").unwrap();
    for place in (0..marker).step_by(3) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0xff;
        if let Ok((_folder, tables)) = table(&damaged, None) {
            let _any = find(
                &tables,
                &["10.1.2.3", "2001:db8::7", "255.0.0.1"],
                &["country.iso_code", "subdivisions.0.iso_code"],
            );
        }
    }
}
