//! Ports for processes that are stopped and started again where they were.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// As many free ports of the loopback, all different. None that the kernel gives to outgoing connections: while a server is down, one
/// of its own clients could get its port.
pub fn free_ports<const N: usize>() -> io::Result<[SocketAddr; N]> {
    const PORTS: std::ops::Range<u64> = 12_000..32_000;
    let mut held = Vec::new();
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for address in &mut addresses {
        let listener = (0..1_000).find_map(|_| {
            // Keyed anew each time, and so random.
            let number = RandomState::new().hash_one(());
            let port = PORTS.start + number % (PORTS.end - PORTS.start);
            TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(port).ok()?)).ok()
        });
        let listener =
            listener.ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no free port on the loopback"))?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addresses)
}
