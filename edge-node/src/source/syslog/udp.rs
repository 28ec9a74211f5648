//! Syslog over UDP. Senders cannot be told to wait: what there is no room for is dropped and counted, by us or by the kernel.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::queue::{Inlet, Sender};
use crate::source::stats::SourceStats;

/// No datagram is larger.
const MAX_DATAGRAM_BYTES: usize = 64 << 10;
/// How often the kernel is asked what it dropped.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// A bound socket and the size of its buffer.
pub(super) fn bind(address: SocketAddr, buffer_bytes: u64) -> io::Result<(UdpSocket, usize)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // The kernel grants what it allows; what it granted is told.
    socket.set_recv_buffer_size(usize::try_from(buffer_bytes).unwrap_or(usize::MAX))?;
    socket.bind(&address.into())?;
    let granted = socket.recv_buffer_size()?;
    Ok((UdpSocket::from_std(socket.into())?, granted))
}

pub(super) async fn run(
    socket: UdpSocket,
    max_bytes: usize,
    inlet: Inlet,
    stats: &SourceStats,
    stop: &CancellationToken,
) {
    let inode = rustix::fs::fstat(socket.as_fd()).map_or(0, |stat| stat.st_ino);
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    let mut ask = tokio::time::interval(ASK_EVERY);
    let mut told = 0;
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, from)) => take(&buffer[..length], from, max_bytes, &inlet, stats),
                Err(error) => tracing::debug!(%error, "datagram cannot be received"),
            },
            _ = ask.tick() => {
                let dropped = kernel_drops(inode);
                stats.refused("kernel_buffer_full", dropped.saturating_sub(told));
                told = told.max(dropped);
            }
            () = stop.cancelled() => return,
        }
    }
}

fn take(message: &[u8], from: SocketAddr, max_bytes: usize, inlet: &Inlet, stats: &SourceStats) {
    let is_cut = message.len() > max_bytes;
    let sender = Sender {
        transport: "udp",
        is_tls: false,
        address: from.ip().to_canonical(),
    };
    stats.add("cut_messages", is_cut.into());
    if !inlet.try_put(&message[..message.len().min(max_bytes)], is_cut, sender) {
        stats.refused("no_room", 1);
    }
}

/// Datagrams that the kernel dropped for want of room in the buffer of a socket; 0 where it does not say.
fn kernel_drops(inode: u64) -> u64 {
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find_map(|table| drops_of(&table, inode))
        .unwrap_or(0)
}

fn drops_of(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = fields.get(9)?.parse() == Ok(inode);
        is_it.then(|| fields.last()?.parse().ok())?
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1203: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 77371 2 0000000000000000 0
 2971: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 81234 2 0000000000000000 17
";

    #[test]
    fn the_kernel_tells_what_it_dropped() {
        assert_eq!(drops_of(TABLE, 81_234), Some(17));
        assert_eq!(drops_of(TABLE, 77_371), Some(0));
        assert_eq!(drops_of(TABLE, 5), None);
        assert_eq!(drops_of("", 5), None);
    }
}
