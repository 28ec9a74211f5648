//! A UDP relay between an uplink and a gateway: a link with a rate, a length, a buffer and faults. It loses, repeats and holds up
//! packets, changes the port that it speaks from, and can be cut.
//!
//! It needs tokio and nothing else, so that tests of the edge take this file by its path.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Packets that wait in one direction; what comes on top of them is lost.
const QUEUED_PACKETS: usize = 1 << 14;
/// No datagram of QUIC is longer.
const PACKET_BYTES: usize = 2048;
/// How far packets that are late fall behind.
const LATE_BY: Duration = Duration::from_millis(15);

/// What the way to the gateway does to packets. The way back has the same length, and the same faults if it is told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Of a hundred packets.
    pub lost: u64,
    pub repeated: u64,
    /// So many arrive later than what was sent after them.
    pub late: u64,
    pub both_ways: bool,
    pub one_way: Duration,
    /// Bytes per second through the bottleneck, and the bytes that may wait there.
    pub rate: u64,
    pub buffer: u64,
    /// Longer packets vanish, in both directions and without a word.
    pub largest: usize,
    /// Chooses the packets.
    pub seed: u64,
}

impl Weather {
    pub const CLEAR: Self = Self {
        lost: 0,
        repeated: 0,
        late: 0,
        both_ways: false,
        one_way: Duration::ZERO,
        rate: u64::MAX,
        buffer: u64::MAX,
        largest: usize::MAX,
        seed: 0,
    };
    /// 4 Mbit/s, 150 ms there and back, and a buffer of four seconds.
    pub const THIN: Self = Self {
        one_way: Duration::from_millis(75),
        rate: 500_000,
        buffer: 2_000_000,
        ..Self::CLEAR
    };
}

/// What became of packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub passed: u64,
    /// Bytes of these towards the gateway, each packet once.
    pub bytes_out: u64,
    pub lost: u64,
    pub repeated: u64,
    pub late: u64,
    /// No room in the bottleneck.
    pub overflowed: u64,
    /// Too long for the way.
    pub too_long: u64,
    /// Came while the link was cut.
    pub cut: u64,
    pub rebinds: u64,
}

/// Relays until it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where the edge sends to.
    pub address: SocketAddr,
    way: Arc<Way>,
    to_edge: mpsc::Sender<Packet>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Way {
    gateway: SocketAddr,
    inside: UdpSocket,
    outside: Mutex<Arc<UdpSocket>>,
    edge: Mutex<Option<SocketAddr>>,
    weather: Mutex<Weather>,
    is_cut: AtomicBool,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    passed: AtomicU64,
    bytes_out: AtomicU64,
    lost: AtomicU64,
    repeated: AtomicU64,
    late: AtomicU64,
    overflowed: AtomicU64,
    too_long: AtomicU64,
    cut: AtomicU64,
    rebinds: AtomicU64,
}

impl Relay {
    pub async fn start(gateway: SocketAddr, weather: Weather) -> io::Result<Self> {
        let inside = bind().await?;
        let (to_gateway, from_edge) = mpsc::channel(QUEUED_PACKETS);
        let (to_edge, from_gateway) = mpsc::channel(QUEUED_PACKETS);
        let relay = Self {
            address: inside.local_addr()?,
            way: Arc::new(Way {
                gateway,
                inside,
                outside: Mutex::new(Arc::new(bind().await?)),
                edge: Mutex::default(),
                weather: Mutex::new(weather),
                is_cut: AtomicBool::new(false),
                counters: Counters::default(),
            }),
            to_edge,
            tasks: Mutex::default(),
        };
        relay.spawn(pass_on(Arc::clone(&relay.way), to_gateway));
        relay.spawn(pass_back(Arc::clone(&relay.way), relay.to_edge.clone()));
        let way = Arc::clone(&relay.way);
        relay.spawn(deliver(from_edge, move |bytes| {
            let way = Arc::clone(&way);
            async move {
                let outside = Arc::clone(&lock(&way.outside));
                let _ = outside.send_to(&bytes, way.gateway).await;
            }
        }));
        let way = Arc::clone(&relay.way);
        relay.spawn(deliver(from_gateway, move |bytes| {
            let way = Arc::clone(&way);
            async move {
                let edge = *lock(&way.edge);
                if let Some(edge) = edge {
                    let _ = way.inside.send_to(&bytes, edge).await;
                }
            }
        }));
        Ok(relay)
    }

    /// As a NAT that forgot: from now on the gateway sees another port.
    pub async fn rebind(&self) -> io::Result<()> {
        *lock(&self.way.outside) = Arc::new(bind().await?);
        self.way.counters.rebinds.fetch_add(1, Ordering::Relaxed);
        self.spawn(pass_back(Arc::clone(&self.way), self.to_edge.clone()));
        Ok(())
    }

    /// From now on nothing comes through, or everything again.
    pub fn cut(&self, is_cut: bool) {
        self.way.is_cut.store(is_cut, Ordering::SeqCst);
    }

    /// From now on the link is like this.
    pub fn change(&self, weather: Weather) {
        *lock(&self.way.weather) = weather;
    }

    pub fn weather(&self) -> Weather {
        *lock(&self.way.weather)
    }

    pub fn traffic(&self) -> Traffic {
        let counters = &self.way.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            passed: read(&counters.passed),
            bytes_out: read(&counters.bytes_out),
            lost: read(&counters.lost),
            repeated: read(&counters.repeated),
            late: read(&counters.late),
            overflowed: read(&counters.overflowed),
            too_long: read(&counters.too_long),
            cut: read(&counters.cut),
            rebinds: read(&counters.rebinds),
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.tasks).spawn(task);
    }
}

async fn pass_on(way: Arc<Way>, to_gateway: mpsc::Sender<Packet>) {
    let mut packet = [0; PACKET_BYTES];
    let (mut free_at, mut count) = (Instant::now(), 0u64);
    while let Ok((length, from)) = way.inside.recv_from(&mut packet).await {
        *lock(&way.edge) = Some(from);
        count += 1;
        let weather = *lock(&way.weather);
        if way.is_cut() || way.is_too_long(&weather, length) {
            continue;
        }
        let waits = free_at.saturating_duration_since(Instant::now());
        if waits.as_secs_f64() * weather.rate as f64 > weather.buffer as f64 {
            way.counters.overflowed.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let takes = Duration::from_secs_f64(length as f64 / weather.rate as f64);
        free_at = free_at.max(Instant::now()) + takes;
        let due = free_at + weather.one_way;
        way.counters.bytes_out.fetch_add(length as u64, Ordering::Relaxed);
        way.hand_on(&to_gateway, &weather, count, due, &packet[..length]);
    }
}

async fn pass_back(way: Arc<Way>, to_edge: mpsc::Sender<Packet>) {
    let outside = Arc::clone(&lock(&way.outside));
    let mut packet = [0; PACKET_BYTES];
    let mut count = 0;
    while let Ok((length, from)) = outside.recv_from(&mut packet).await {
        let weather = *lock(&way.weather);
        if from != way.gateway || way.is_cut() || way.is_too_long(&weather, length) {
            continue;
        }
        count += 1;
        let due = Instant::now() + weather.one_way;
        let faults = match weather.both_ways {
            true => weather,
            false => Weather::CLEAR,
        };
        way.hand_on(&to_edge, &faults, count, due, &packet[..length]);
    }
}

impl Way {
    fn is_cut(&self) -> bool {
        let is_cut = self.is_cut.load(Ordering::SeqCst);
        self.counters.cut.fetch_add(u64::from(is_cut), Ordering::Relaxed);
        is_cut
    }

    fn is_too_long(&self, weather: &Weather, length: usize) -> bool {
        let is_too_long = length > weather.largest;
        self.counters
            .too_long
            .fetch_add(u64::from(is_too_long), Ordering::Relaxed);
        is_too_long
    }

    fn hand_on(&self, to: &mpsc::Sender<Packet>, weather: &Weather, count: u64, due: Instant, bytes: &[u8]) {
        // A fixed, uneven spread is as good as chance and the same every time.
        let dice = (count ^ weather.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let counters = &self.counters;
        let copies = match dice % 100 {
            d if d < weather.lost => {
                counters.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            d if d < weather.lost + weather.repeated => {
                counters.repeated.fetch_add(1, Ordering::Relaxed);
                2
            }
            _ => 1,
        };
        let is_late = dice / 100 % 100 < weather.late;
        counters.late.fetch_add(u64::from(is_late), Ordering::Relaxed);
        counters.passed.fetch_add(1, Ordering::Relaxed);
        let late = if is_late { LATE_BY } else { Duration::ZERO };
        for _ in 0..copies {
            let packet = Packet {
                due: due + late,
                bytes: bytes.to_vec(),
            };
            if to.try_send(packet).is_err() {
                counters.overflowed.fetch_add(1, Ordering::Relaxed);
            }
        }
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

async fn bind() -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
