//! Questions that an engine answers only when it is ready.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const CONNECT: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(5);
/// An answer to a question of ours is short.
const ANSWER_LIMIT_BYTES: u64 = 1 << 20;

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT).context("no connection")?;
    stream.set_read_timeout(Some(ANSWER)).context("no time-out")?;
    stream.set_write_timeout(Some(ANSWER)).context("no time-out")?;
    Ok(stream)
}

/// The server says that it is ready for requests.
pub(super) fn s3(address: SocketAddr) -> Result<()> {
    get(address, "/minio/health/ready").map(drop)
}

/// The first page needs no login.
pub(super) fn registry(address: SocketAddr) -> Result<()> {
    get(address, "/").map(drop)
}

/// The engine itself answers, not only the door before it.
pub(super) fn clickhouse(address: SocketAddr) -> Result<()> {
    let answer = get(address, "/?query=SELECT%2040%2B2")?;
    if !answer.contains("42\n") {
        bail!("40 + 2 is not 42 in {answer:?}");
    }
    Ok(())
}

/// The body of a good answer.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = connect(address)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .context("cannot ask")?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_LIMIT_BYTES)
        .read_to_end(&mut answer)
        .context("no answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).unwrap_or("");
    if status != "200" {
        bail!("GET {path} was answered with {status}");
    }
    Ok(body.to_owned())
}

/// The broker lists itself among the brokers of the cluster, which it does when the controller has let it in.
pub(super) fn kafka(address: SocketAddr) -> Result<()> {
    let mut stream = connect(address)?;
    stream.write_all(&metadata_request()).context("cannot ask")?;
    let mut size = [0; 4];
    stream.read_exact(&mut size).context("no answer")?;
    let mut answer = Vec::new();
    stream
        .take(u64::from(u32::from_be_bytes(size)).min(ANSWER_LIMIT_BYTES))
        .read_to_end(&mut answer)
        .context("no answer")?;
    let ports = broker_ports(&answer).context("the answer is too short")?;
    if !ports.contains(&i32::from(address.port())) {
        bail!("the broker is not in its cluster yet");
    }
    Ok(())
}

/// Metadata, version 4, for no topic: `key, version, correlation, client, topics, allow_auto_topic_creation`.
fn metadata_request() -> Vec<u8> {
    const CLIENT: &[u8; 6] = b"sluice";
    let mut message = Vec::new();
    message.extend(3_i16.to_be_bytes());
    message.extend(4_i16.to_be_bytes());
    message.extend(1_i32.to_be_bytes());
    message.extend(6_i16.to_be_bytes());
    message.extend(CLIENT);
    message.extend(0_i32.to_be_bytes());
    message.push(0);
    // 21 bytes: the number fits.
    let mut framed = u32::try_from(message.len()).unwrap_or(0).to_be_bytes().to_vec();
    framed.extend(message);
    framed
}

/// Of `correlation, throttle, [node, host, port, rack], …`: the ports.
fn broker_ports(answer: &[u8]) -> Option<Vec<i32>> {
    let mut rest = answer.get(8..)?;
    let count = i32::from_be_bytes(take(&mut rest)?);
    let mut ports = Vec::new();
    for _ in 0..count {
        let _node: [u8; 4] = take(&mut rest)?;
        skip_text(&mut rest)?;
        ports.push(i32::from_be_bytes(take(&mut rest)?));
        skip_text(&mut rest)?;
    }
    Some(ports)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(*first)
}

/// A text with its length before it; a negative length is no text.
fn skip_text(rest: &mut &[u8]) -> Option<()> {
    let length = i16::from_be_bytes(take(rest)?);
    *rest = rest.get(usize::try_from(length).unwrap_or(0)..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::broker_ports;

    /// What a broker 4.0.0 answered.
    const ANSWER: &[u8] =
        b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\t127.0.0.1\x00\x00$\xb0\xff\xff\
        \x00\x16c2x1aWNlLXNlcnZpY2VzAA\x00\x00\x00\x01\x00\x00\x00\x00";

    #[test]
    fn the_ports_of_brokers_are_read_from_their_answer() {
        assert_eq!(broker_ports(ANSWER), Some(vec![9392]));
        for cut in 0..33 {
            assert_eq!(broker_ports(&ANSWER[..cut]), None, "cut at {cut}");
        }
    }
}
