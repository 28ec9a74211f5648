//! A UDP relay between an uplink and a gateway that changes the port it speaks from, loses packets and repeats them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::UdpSocket;
use tokio::sync::Mutex;

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    gateway: SocketAddr,
    inside: Arc<UdpSocket>,
    outside: Arc<Mutex<Arc<UdpSocket>>>,
    edge: Arc<Mutex<Option<SocketAddr>>>,
    packets: Arc<AtomicU64>,
}

impl Relay {
    /// Of a hundred packets to the gateway it loses `lost` and repeats `repeated`.
    pub(crate) async fn start(gateway: SocketAddr, lost: u64, repeated: u64) -> Self {
        let inside = Arc::new(bind().await);
        let relay = Self {
            address: inside.local_addr().unwrap(),
            gateway,
            outside: Arc::new(Mutex::new(Arc::new(bind().await))),
            edge: Arc::default(),
            packets: Arc::default(),
            inside,
        };
        relay.pass_back().await;
        let (inside, outside) = (Arc::clone(&relay.inside), Arc::clone(&relay.outside));
        let (edge, packets) = (Arc::clone(&relay.edge), Arc::clone(&relay.packets));
        tokio::spawn(async move {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = inside.recv_from(&mut packet).await {
                *edge.lock().await = Some(from);
                let n = packets.fetch_add(1, Ordering::Relaxed);
                // A fixed, uneven spread is as good as chance and the same every time.
                let dice = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let copies = match dice % 100 {
                    d if d < lost => 0,
                    d if d < lost + repeated => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    let out = Arc::clone(&*outside.lock().await);
                    let _ = out.send_to(&packet[..length], gateway).await;
                }
            }
        });
        relay
    }

    /// As a NAT that forgot: from now on the gateway sees another port.
    pub(crate) async fn rebind(&self) {
        *self.outside.lock().await = Arc::new(bind().await);
        self.pass_back().await;
    }

    async fn pass_back(&self) {
        let out = Arc::clone(&*self.outside.lock().await);
        let (inside, edge, gateway) = (Arc::clone(&self.inside), Arc::clone(&self.edge), self.gateway);
        tokio::spawn(async move {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = out.recv_from(&mut packet).await {
                let to = *edge.lock().await;
                if let (true, Some(to)) = (from == gateway, to) {
                    let _ = inside.send_to(&packet[..length], to).await;
                }
            }
        });
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}
