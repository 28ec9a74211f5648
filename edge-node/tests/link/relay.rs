//! A UDP relay between an uplink and a gateway: a link with a rate, a length, a buffer and faults. It loses, repeats and holds up
//! packets, changes the port that it speaks from, and can be cut.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

/// What the way to the gateway does to packets; the way back has the same length and nothing else.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    /// Of a hundred packets.
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// So many arrive later than what was sent after them.
    pub(crate) late: u64,
    pub(crate) one_way: Duration,
    /// Bytes per second through the bottleneck, and the bytes that may wait there.
    pub(crate) rate: u64,
    pub(crate) buffer: u64,
}

impl Weather {
    pub(crate) const CLEAR: Self = Self {
        lost: 0,
        repeated: 0,
        late: 0,
        one_way: Duration::ZERO,
        rate: u64::MAX,
        buffer: u64::MAX,
    };
    /// 4 Mbit/s, 150 ms there and back, and a buffer of four seconds.
    pub(crate) const THIN: Self = Self {
        one_way: Duration::from_millis(75),
        rate: 500_000,
        buffer: 2_000_000,
        ..Self::CLEAR
    };
}

/// How far packets that are late fall behind.
const LATE_BY: Duration = Duration::from_millis(15);

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    gateway: SocketAddr,
    inside: Arc<UdpSocket>,
    outside: Arc<Mutex<Arc<UdpSocket>>>,
    edge: Arc<Mutex<Option<SocketAddr>>>,
    cut: Arc<AtomicBool>,
    to_edge: mpsc::Sender<Packet>,
}

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

impl Relay {
    pub(crate) async fn start(gateway: SocketAddr, weather: Weather) -> Self {
        let inside = Arc::new(bind().await);
        let (to_edge, from_gateway) = mpsc::channel(1 << 14);
        let (to_gateway, from_edge) = mpsc::channel(1 << 14);
        let relay = Self {
            address: inside.local_addr().unwrap(),
            gateway,
            outside: Arc::new(Mutex::new(Arc::new(bind().await))),
            edge: Arc::default(),
            cut: Arc::default(),
            inside,
            to_edge,
        };
        relay.pass_back(weather).await;
        relay.pass_on(weather, to_gateway);
        let outside = Arc::clone(&relay.outside);
        tokio::spawn(deliver(from_edge, move |bytes| {
            let outside = Arc::clone(&outside);
            async move {
                let out = Arc::clone(&*outside.lock().await);
                let _ = out.send_to(&bytes, gateway).await;
            }
        }));
        let (inside, edge) = (Arc::clone(&relay.inside), Arc::clone(&relay.edge));
        tokio::spawn(deliver(from_gateway, move |bytes| {
            let (inside, edge) = (Arc::clone(&inside), Arc::clone(&edge));
            async move {
                if let Some(to) = *edge.lock().await {
                    let _ = inside.send_to(&bytes, to).await;
                }
            }
        }));
        relay
    }

    /// As a NAT that forgot: from now on the gateway sees another port.
    pub(crate) async fn rebind(&self, weather: Weather) {
        *self.outside.lock().await = Arc::new(bind().await);
        self.pass_back(weather).await;
    }

    /// From now on nothing comes through, or everything again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.cut.store(is_cut, Ordering::SeqCst);
    }

    fn pass_on(&self, weather: Weather, to_gateway: mpsc::Sender<Packet>) {
        let (inside, edge) = (Arc::clone(&self.inside), Arc::clone(&self.edge));
        let cut = Arc::clone(&self.cut);
        tokio::spawn(async move {
            let mut packet = [0; 2048];
            let (mut free_at, mut count) = (Instant::now(), 0u64);
            while let Ok((length, from)) = inside.recv_from(&mut packet).await {
                *edge.lock().await = Some(from);
                count += 1;
                let waits = free_at.saturating_duration_since(Instant::now());
                let is_full = waits.as_secs_f64() * weather.rate as f64 > weather.buffer as f64;
                if cut.load(Ordering::SeqCst) || is_full {
                    continue;
                }
                // A fixed, uneven spread is as good as chance and the same every time.
                let dice = count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let takes = Duration::from_secs_f64(length as f64 / weather.rate as f64);
                free_at = free_at.max(Instant::now()) + takes;
                let copies = match dice % 100 {
                    d if d < weather.lost => 0,
                    d if d < weather.lost + weather.repeated => 2,
                    _ => 1,
                };
                let is_late = dice / 100 % 100 < weather.late;
                let late = if is_late { LATE_BY } else { Duration::ZERO };
                for _ in 0..copies {
                    let due = free_at + weather.one_way + late;
                    let bytes = packet[..length].to_vec();
                    let _ = to_gateway.try_send(Packet { due, bytes });
                }
            }
        });
    }

    async fn pass_back(&self, weather: Weather) {
        let out = Arc::clone(&*self.outside.lock().await);
        let (to_edge, gateway, cut) = (self.to_edge.clone(), self.gateway, Arc::clone(&self.cut));
        tokio::spawn(async move {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = out.recv_from(&mut packet).await {
                if from == gateway && !cut.load(Ordering::SeqCst) {
                    let due = Instant::now() + weather.one_way;
                    let bytes = packet[..length].to_vec();
                    let _ = to_edge.try_send(Packet { due, bytes });
                }
            }
        });
    }
}

/// Hands packets on when they are due; those that are due together in the order of their coming.
async fn deliver<F: Future<Output = ()>>(mut packets: mpsc::Receiver<Packet>, send: impl Fn(Vec<u8>) -> F) {
    let (mut waiting, mut count) = (BinaryHeap::new(), 0u64);
    loop {
        let due = waiting.peek().map(|Reverse((due, _, _))| *due);
        let is_due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            packet = packets.recv() => match packet {
                Some(Packet { due, bytes }) => {
                    count += 1;
                    waiting.push(Reverse((due, count, bytes)));
                }
                None => return,
            },
            () = is_due => if let Some(Reverse((_, _, bytes))) = waiting.pop() {
                send(bytes).await;
            },
        }
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}
