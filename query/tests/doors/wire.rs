//! The protocol of Postgres byte by byte, as no well-behaved client speaks it: cancelling with a right and a wrong secret, more names
//! than a session may have, values that do not fit, messages that are too long, broken or never end.

use sluice_query::QueryConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::node::Node;

/// Runs until somebody ends it.
const ENDLESS: &str = "SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3";
/// Names that one session may have: `MAX_NAMES` of the door.
const NAMES: usize = 1_024;
const PROTOCOL_3_0: i32 = 196_608;
const CANCEL: i32 = 80_877_102;

/// A message of the server: its kind and its body.
type Message = (u8, Vec<u8>);

/// One connection, spoken to in bytes.
struct Wire {
    stream: TcpStream,
    /// Process and secret, by which a running statement is cancelled.
    key: Vec<u8>,
}

impl Wire {
    /// A session that was let in.
    async fn open(node: &Node) -> Wire {
        let mut wire = Wire {
            stream: TcpStream::connect(node.pg).await.unwrap(),
            key: Vec::new(),
        };
        wire.stream.write_all(&startup()).await.unwrap();
        assert_eq!(
            wire.next().await.unwrap(),
            (b'R', vec![0, 0, 0, 3]),
            "asks for a password"
        );
        wire.send(&message(b'p', &text(&node.acme))).await;
        let greeting = wire.until_ready().await;
        wire.key = body(&greeting, b'K').to_vec();
        wire
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// `None`: the server has hung up.
    async fn next(&mut self) -> Option<Message> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).await.unwrap();
        Some((header[0], body))
    }

    /// Everything until the server waits for the next question.
    async fn until_ready(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        while let Some(message) = self.next().await {
            all.push(message);
            if all.last().is_some_and(|(kind, _)| *kind == b'Z') {
                return all;
            }
        }
        panic!("hung up after {all:?}");
    }

    /// Everything until the server hangs up.
    async fn until_end(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        while let Some(message) = self.next().await {
            all.push(message);
        }
        all
    }

    async fn ask(&mut self, sql: &str) -> Vec<Message> {
        self.send(&query(sql)).await;
        self.until_ready().await
    }

    /// The session answers as if nothing had happened.
    async fn lives(&mut self) {
        let answer = self.ask("SELECT 40 + 2").await;
        assert_eq!(body(&answer, b'D'), b"\0\x01\0\0\0\x0242");
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn startup() -> Vec<u8> {
    let parameters = b"user\0anyone\0database\0sluice\0\0";
    let body = [&PROTOCOL_3_0.to_be_bytes()[..], parameters].concat();
    message(0, &body)[1..].to_vec()
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[text(name), text(sql), vec![0, 0]].concat())
}

/// Values as text, the answer as text.
fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = [text(portal), text(statement), vec![0, 0]].concat();
    body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend([0, 0]);
    message(b'B', &body)
}

fn execute(portal: &str) -> Vec<u8> {
    message(b'E', &[text(portal), vec![0; 4]].concat())
}

fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[vec![kind], text(name)].concat())
}

fn sync() -> Vec<u8> {
    message(b'S', &[])
}

fn body(messages: &[Message], kind: u8) -> &[u8] {
    let found = messages.iter().find(|(found, _)| *found == kind);
    &found
        .unwrap_or_else(|| panic!("no {} in {messages:?}", char::from(kind)))
        .1
}

fn kinds(messages: &[Message]) -> String {
    messages.iter().map(|(kind, _)| char::from(*kind)).collect()
}

/// A field of the first error: `S` its severity, `C` its code, `M` its text.
fn error(messages: &[Message], field: u8) -> String {
    let fields = body(messages, b'E').split(|byte| *byte == 0);
    let found = fields
        .filter_map(|one| one.split_first())
        .find(|(kind, _)| **kind == field);
    String::from_utf8(found.unwrap().1.to_vec()).unwrap()
}

fn code(messages: &[Message]) -> String {
    error(messages, b'C')
}

/// What a connection of its own says that wants a statement cancelled.
async fn cancel(node: &Node, key: &[u8]) {
    let mut stream = TcpStream::connect(node.pg).await.unwrap();
    let body = [&CANCEL.to_be_bytes()[..], key].concat();
    stream.write_all(&message(0, &body)[1..]).await.unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"", "it is not told whether the secret was right");
}

async fn running(node: &Node) -> u64 {
    let text = node.send(node.get("/metrics"), "").await.text();
    let line = text
        .lines()
        .find(|line| line.starts_with("sluice_query_running "))
        .unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_ends_by_the_right_secret_and_by_no_other() {
    let mut config = QueryConfig::default();
    // its own limits end nothing here, however long a busy machine takes
    let ages = std::time::Duration::from_secs(600);
    (config.limits.timeout, config.limits.max_timeout) = (ages, ages);
    let node = Node::with(config, 4).await;
    let mut wire = Wire::open(&node).await;
    let key = wire.key.clone();
    // with nothing to cancel it means nothing, and does not wait for something
    cancel(&node, &key).await;
    wire.lives().await;
    wire.send(&[parse("endless", ENDLESS), sync()].concat()).await;
    wire.until_ready().await;
    for asked in [query(ENDLESS), [bind("", "endless", &[]), execute(""), sync()].concat()] {
        wire.send(&asked).await;
        while running(&node).await == 0 {
            tokio::task::yield_now().await;
        }
        let (process, secret) = key.split_at(4);
        let mut other_secret = secret.to_vec();
        other_secret[0] ^= 1;
        let mut other_process = process.to_vec();
        other_process[3] ^= 1;
        for wrong in [[process, &other_secret].concat(), [&other_process, secret].concat()] {
            cancel(&node, &wrong).await;
        }
        assert_eq!(running(&node).await, 1, "a stranger ended it");
        cancel(&node, &key).await;
        let ended = wire.until_ready().await;
        assert_eq!(
            (code(&ended).as_str(), error(&ended, b'S').as_str()),
            ("57014", "ERROR")
        );
        wire.lives().await;
        while running(&node).await > 0 {
            tokio::task::yield_now().await;
        }
    }
    // an open transaction is in error then, and is left as any other
    wire.ask("BEGIN").await;
    wire.send(&query(ENDLESS)).await;
    while running(&node).await == 0 {
        tokio::task::yield_now().await;
    }
    cancel(&node, &key).await;
    assert_eq!(body(&wire.until_ready().await, b'Z'), b"E");
    assert_eq!(code(&wire.ask("SELECT 1").await), "25P02");
    wire.ask("ROLLBACK").await;
    wire.lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_session_are_bounded_and_come_back() {
    let node = Node::start().await;
    let mut wire = Wire::open(&node).await;
    // what could not be prepared takes no room
    let wrong: Vec<u8> = (0..NAMES + 1)
        .flat_map(|n| [parse(&format!("wrong{n}"), "SELECT 1; SELECT 2"), sync()].concat())
        .collect();
    wire.send(&wrong).await;
    for _ in 0..NAMES + 1 {
        assert_eq!(code(&wire.until_ready().await), "42601");
    }
    let many: Vec<u8> = (0..NAMES)
        .flat_map(|n| parse(&format!("s{n}"), "SHOW timezone"))
        .collect();
    wire.send(&[many, sync()].concat()).await;
    assert_eq!(kinds(&wire.until_ready().await), "1".repeat(NAMES) + "Z");
    wire.send(&[parse("more", "SHOW timezone"), sync()].concat()).await;
    let refused = wire.until_ready().await;
    assert_eq!(code(&refused), "54000");
    assert!(
        error(&refused, b'M').contains("1024 prepared statements and portals"),
        "{}",
        error(&refused, b'M')
    );
    // a known name may be given again, and a closed one makes room
    wire.send(
        &[
            parse("s7", "SHOW timezone"),
            close(b'S', "s8"),
            parse("more", "SHOW timezone"),
            sync(),
        ]
        .concat(),
    )
    .await;
    assert_eq!(kinds(&wire.until_ready().await), "131Z");
    let free: Vec<u8> = (0..NAMES)
        .filter(|n| *n > 0)
        .flat_map(|n| close(b'S', &format!("s{n}")))
        .collect();
    wire.send(&[free, sync()].concat()).await;
    wire.until_ready().await;
    // portals count as well, and end with their transaction
    for _ in 0..2 {
        wire.ask("BEGIN").await;
        let many: Vec<u8> = (0..NAMES - 1).flat_map(|n| bind(&format!("p{n}"), "s0", &[])).collect();
        wire.send(&[many, sync()].concat()).await;
        let bound = wire.until_ready().await;
        // `s0` and `more` have names too
        assert_eq!(kinds(&bound), "2".repeat(NAMES - 2) + "EZ");
        assert_eq!(code(&bound), "54000");
        wire.ask("ROLLBACK").await;
        wire.send(&sync()).await;
        wire.until_ready().await;
    }
    wire.lives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_must_fit_their_statement() {
    let node = Node::start().await;
    let mut wire = Wire::open(&node).await;
    wire.send(&[parse("two", "SELECT $1::bigint + $2::bigint"), sync()].concat())
        .await;
    wire.until_ready().await;
    for (what, sent, wanted) in [
        ("too few", bind("", "two", &["1"]), "08P01"),
        ("too many", bind("", "two", &["1", "2", "3"]), "08P01"),
        ("none", bind("", "two", &[]), "08P01"),
        (
            "no number",
            [bind("", "two", &["1", "x"]), execute("")].concat(),
            "22P02",
        ),
        ("no statement", bind("", "three", &["1", "2"]), "26000"),
        ("no portal", execute("nothing"), "34000"),
        (
            "formats for three",
            {
                let mut body = [text(""), text("two"), vec![0, 3, 0, 0, 0, 0, 0, 0]].concat();
                body.extend([0, 2, 0, 0, 0, 1, b'1', 0, 0, 0, 1, b'2', 0, 0]);
                message(b'B', &body)
            },
            "08P01",
        ),
    ] {
        // what follows is skipped until the client says that it has understood
        wire.send(&[sent, execute(""), sync()].concat()).await;
        let refused = wire.until_ready().await;
        assert_eq!(code(&refused), wanted, "{what}: {}", error(&refused, b'M'));
        assert_eq!(kinds(&refused).matches('E').count(), 1, "{what}: {}", kinds(&refused));
    }
    wire.send(&[bind("", "two", &["40", "2"]), execute(""), sync()].concat())
        .await;
    let answer = wire.until_ready().await;
    assert_eq!(body(&answer, b'D'), b"\0\x01\0\0\0\x0242");
}

/// Each ends its own connection with a word on why, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_end_their_connection_alone() {
    let mut config = QueryConfig::default();
    config.limits.max_request = 64 << 10;
    let node = Node::with(config, 4).await;
    let mut neighbour = Wire::open(&node).await;
    let announced = |kind: u8, length: u32| [&[kind][..], &length.to_be_bytes()].concat();
    for (what, sent, wanted) in [
        // only announced: nobody waits for the rest
        ("too long", announced(b'Q', (128 << 10) + 5), "54000"),
        ("as long as can be said", announced(b'Q', u32::MAX), "54000"),
        ("shorter than its length", announced(b'Q', 3), "08P01"),
        ("of no kind", message(b'?', b"abc"), "08P01"),
        (
            "a value of less than nothing",
            message(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
            "08P01",
        ),
        (
            "more types than can follow",
            message(b'P', b"\0SELECT 1\0\xff\xff"),
            "08P01",
        ),
    ] {
        let mut wire = Wire::open(&node).await;
        wire.send(&sent).await;
        let said = wire.until_end().await;
        assert_eq!(
            (code(&said).as_str(), error(&said, b'S').as_str()),
            (wanted, "FATAL"),
            "{what}: {}",
            error(&said, b'M')
        );
        neighbour.lives().await;
    }
    // cut short anywhere, and with what comes next behind it
    for whole in [
        bind("", "two", &["40", "2"]),
        parse("", "SELECT $1"),
        execute("p"),
        close(b'S', "s"),
        query("SELECT 1"),
    ] {
        for end in 5..whole.len() {
            let mut wire = Wire::open(&node).await;
            wire.send(&[message(whole[0], &whole[5..end]), sync()].concat()).await;
            let said = wire.until_end().await;
            assert_eq!(code(&said), "08P01", "{:?}", &whole[..end]);
        }
    }
    neighbour.lives().await;
    // what is as long as it may be is taken
    let long = format!("SELECT 40 + 2 -- {}", "x".repeat(60 << 10));
    assert_eq!(body(&neighbour.ask(&long).await, b'D'), b"\0\x01\0\0\0\x0242");
}

/// Whoever says half a sentence and no more is waited for as long as it takes to be let in, and keeps nobody waiting.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_message_and_silence_hold_nobody_up() {
    let node = Node::start().await;
    let mut half = Wire::open(&node).await;
    let whole = query("SELECT 40 + 2");
    half.send(&whole[..9]).await;
    let mut strangers = Vec::new();
    // nothing, half a greeting, a greeting without a password, half a password
    for sent in [
        vec![],
        startup()[..6].to_vec(),
        startup(),
        [startup(), message(b'p', b"slq_")[..7].to_vec()].concat(),
    ] {
        let mut stream = TcpStream::connect(node.pg).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        strangers.push(stream);
    }
    let mut neighbour = Wire::open(&node).await;
    neighbour.lives().await;
    for mut stream in strangers {
        // until they are let go
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.unwrap();
    }
    neighbour.lives().await;
    // a client that was let in may be slow
    half.send(&whole[9..]).await;
    assert_eq!(body(&half.until_ready().await, b'D'), b"\0\x01\0\0\0\x0242");
}
