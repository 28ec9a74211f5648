//! The controller on simulated links: one bottleneck with a buffer behind it, in virtual time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MTU: u64 = 1200;
const SECOND: u64 = 1_000_000;

/// Times in microseconds, rates in bytes per second.
#[derive(Clone, Copy, Debug)]
struct Link {
    rate: u64,
    rtt: u64,
    buffer: u64,
    lost_percent: u64,
    /// Every so many packets one arrives this much later.
    late_by: u64,
    /// All of them arrive later, in order, by up to so much, which changes every 30 ms.
    jitter: u64,
}

struct Simulation {
    base: Instant,
    now: u64,
    model: LinkModel,
    link: Link,
    /// When the bottleneck has sent everything.
    free_at: u64,
    in_flight: BTreeMap<u64, (u64, u64)>,
    next: u64,
    /// Acknowledgements by arrival.
    acks: BTreeMap<(u64, u64), u64>,
    send_at: u64,
    /// Until when it holds, by how much packets are late, and when the last one arrives.
    jitter: (u64, u64, u64),
    srtt: u64,
    dice: u64,
    delivered: u64,
    sent: u64,
    /// Waits in the bottleneck's queue.
    waits: Vec<u64>,
    /// Bytes that the application has; more than anything by default.
    supply: u64,
    /// Or so many more every second.
    burst: Option<u64>,
}

impl Simulation {
    fn new(link: Link, queue: Duration) -> Self {
        let base = Instant::now();
        Self {
            base,
            now: 0,
            model: LinkModel::new(queue, base, MTU as u16),
            link,
            free_at: 0,
            in_flight: BTreeMap::new(),
            next: 0,
            acks: BTreeMap::new(),
            send_at: 0,
            jitter: (0, 0, 0),
            srtt: link.rtt.max(1_000),
            dice: 0x2545_f491_4f6c_dd1d,
            delivered: 0,
            sent: 0,
            waits: Vec::new(),
            supply: u64::MAX,
            burst: None,
        }
    }

    fn at(&self, micros: u64) -> Instant {
        self.base + Duration::from_micros(micros)
    }

    fn roll(&mut self, percent: u64) -> bool {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 20) % 100 < percent
    }

    fn bytes_in_flight(&self) -> u64 {
        self.in_flight.len() as u64 * MTU
    }

    /// Sends without end until `until`; counts begin anew.
    fn run(&mut self, until: u64) {
        (self.delivered, self.sent) = (0, 0);
        self.waits.clear();
        while self.now < until {
            let may_send = self.supply >= MTU && self.bytes_in_flight() + MTU <= self.model.window();
            let send_at = if may_send { self.send_at.max(self.now) } else { u64::MAX };
            let ack_at = self.acks.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
            if send_at == u64::MAX && ack_at == u64::MAX && self.in_flight.is_empty() {
                self.now = (self.now / SECOND + 1) * SECOND;
                self.supply += self.burst.unwrap_or(0);
            } else if send_at == u64::MAX && ack_at == u64::MAX {
                self.lose_everything();
            } else if send_at <= ack_at {
                self.now = send_at;
                self.send();
            } else {
                self.now = ack_at;
                self.receive_ack();
            }
        }
    }

    /// A probe after silence: what was on its way is gone.
    fn lose_everything(&mut self) {
        self.now += 3 * self.srtt;
        let bytes = self.bytes_in_flight();
        self.in_flight.clear();
        self.supply = self.supply.saturating_add(bytes);
        self.model.handle_loss(self.at(self.now), bytes, false);
    }

    fn send(&mut self) {
        let number = self.next;
        self.next += 1;
        self.sent += MTU;
        self.supply -= MTU;
        self.in_flight.insert(number, (self.now, MTU));
        // As quinn paces: a quarter faster than the window asks for.
        self.send_at = self.now + self.srtt * MTU * 4 / (self.model.window() * 5);
        let waits = self.free_at.saturating_sub(self.now);
        if waits * self.link.rate / SECOND + MTU > self.link.buffer {
            return;
        }
        self.waits.push(waits);
        self.free_at = self.now.max(self.free_at) + MTU * SECOND / self.link.rate;
        if self.roll(self.link.lost_percent) {
            return;
        }
        let late = if self.link.late_by > 0 && self.roll(2) {
            self.link.late_by
        } else {
            0
        };
        let arrives = self.jittered(self.free_at + self.link.rtt + late);
        self.acks.insert((arrives, number), self.now);
    }

    fn jittered(&mut self, arrives: u64) -> u64 {
        if self.link.jitter == 0 {
            return arrives;
        }
        let (until, _, last) = self.jitter;
        if self.now >= until {
            self.roll(1);
            self.jitter = (self.now + 30_000, (self.dice >> 20) % self.link.jitter, last);
        }
        self.jitter.2 = last.max(arrives + self.jitter.1);
        self.jitter.2
    }

    fn receive_ack(&mut self) {
        let Some(((_, number), sent)) = self.acks.pop_first() else {
            return;
        };
        let now = self.at(self.now);
        if self.in_flight.remove(&number).is_some() {
            self.delivered += MTU;
            self.srtt = (7 * self.srtt + (self.now - sent)) / 8;
            let sent = self.at(sent);
            self.model.handle_ack(now, sent, MTU, self.supply < MTU);
        }
        let lost: Vec<u64> = self
            .in_flight
            .range(..number.saturating_sub(3))
            .map(|(n, _)| *n)
            .collect();
        if !lost.is_empty() {
            self.in_flight.retain(|n, _| !lost.contains(n));
            self.supply = self.supply.saturating_add(lost.len() as u64 * MTU);
            self.model.handle_loss(now, lost.len() as u64 * MTU, false);
        }
    }

    fn longest_wait(&mut self) -> Duration {
        self.waits.sort_unstable();
        let at = self.waits.len() * 99 / 100;
        Duration::from_micros(self.waits.get(at).copied().unwrap_or(0))
    }

    /// Of what the link could carry since the counts began.
    fn used(&self, since: u64) -> f64 {
        self.delivered as f64 / ((self.now - since) as f64 * self.link.rate as f64 / SECOND as f64)
    }
}

const THIN: Link = Link {
    rate: 500_000,
    rtt: 150_000,
    buffer: 4 << 20,
    lost_percent: 0,
    late_by: 0,
    jitter: 0,
};
const QUEUE: Duration = Duration::from_millis(250);

fn run(link: Link) -> (f64, Duration) {
    let mut simulation = Simulation::new(link, QUEUE);
    simulation.run(5 * SECOND);
    simulation.run(65 * SECOND);
    (simulation.used(5 * SECOND), simulation.longest_wait())
}

#[test]
fn p6_a_thin_link_with_a_deep_buffer_is_filled_and_its_buffer_is_not() {
    let (used, wait) = run(THIN);
    assert!(used > 0.97, "{used}");
    assert!(wait <= QUEUE + QUEUE / 4, "{wait:?}");
}

/// Where a link comes back, what is fresh is sent while the rate is not known yet.
#[test]
fn p9_the_search_for_the_rate_ends_before_a_deep_buffer_is_full() {
    for (rtt, lost_percent) in [(150_000, 0), (150_000, 3), (20_000, 0), (600_000, 0)] {
        let link = Link {
            rtt,
            lost_percent,
            ..THIN
        };
        let mut simulation = Simulation::new(link, QUEUE);
        simulation.run(10 * SECOND);
        let longest = Duration::from_micros(*simulation.waits.iter().max().unwrap());
        let used = simulation.used(0);
        let most = QUEUE * 2 + Duration::from_micros(rtt);
        assert!(longest <= most, "{longest:?} of {link:?}, used {used}");
        assert!(used > 0.6, "{used} of {link:?}");
    }
}

/// A moment in which all packets are late is no queue.
#[test]
fn the_search_for_the_rate_goes_on_through_jitter() {
    for (rtt, jitter, queue) in [(600_000, 350_000, QUEUE * 2), (50_000, 200_000, QUEUE)] {
        let link = Link { rtt, jitter, ..THIN };
        let mut simulation = Simulation::new(link, queue);
        simulation.run(5 * SECOND);
        simulation.run(20 * SECOND);
        let used = simulation.used(5 * SECOND);
        assert!(used > 0.6, "{used} of {link:?}");
    }
}

#[test]
fn p6_random_loss_and_reordering_do_not_empty_the_link() {
    let (used, wait) = run(Link {
        lost_percent: 5,
        ..THIN
    });
    // Every twentieth packet is for nothing.
    assert!(used > 0.90 && wait <= QUEUE + QUEUE / 4, "{used} {wait:?}");
    let (used, wait) = run(Link {
        lost_percent: 3,
        late_by: 30_000,
        ..THIN
    });
    assert!(used > 0.88 && wait <= QUEUE + QUEUE / 4, "{used} {wait:?}");
}

#[test]
fn a_small_buffer_is_not_flooded() {
    let link = Link { buffer: 30_000, ..THIN };
    let mut simulation = Simulation::new(link, QUEUE);
    simulation.run(5 * SECOND);
    simulation.run(65 * SECOND);
    let lost = 1.0 - simulation.delivered as f64 / simulation.sent as f64;
    assert!(
        simulation.used(5 * SECOND) > 0.9 && lost < 0.06,
        "{} {lost}",
        simulation.used(5 * SECOND)
    );
}

/// A batch a second through the receive buffer of a socket, on one machine.
#[test]
fn bursts_do_not_overflow_a_small_buffer_again_and_again() {
    let link = Link {
        rate: 100_000_000,
        rtt: 300,
        buffer: 100_000,
        lost_percent: 0,
        late_by: 0,
        jitter: 0,
    };
    let mut simulation = Simulation::new(link, QUEUE);
    (simulation.supply, simulation.burst) = (0, Some(230_000));
    simulation.run(5 * SECOND);
    simulation.run(35 * SECOND);
    let lost = 1.0 - simulation.delivered as f64 / simulation.sent as f64;
    assert!(
        simulation.delivered > 29 * 225_000 && lost < 0.02,
        "{} {lost}",
        simulation.delivered
    );
}

#[test]
fn a_link_that_changes_is_followed() {
    let mut simulation = Simulation::new(THIN, QUEUE);
    simulation.run(10 * SECOND);
    // Eight times faster.
    simulation.link.rate *= 8;
    simulation.run(15 * SECOND);
    simulation.run(30 * SECOND);
    assert!(simulation.used(15 * SECOND) > 0.9, "{}", simulation.used(15 * SECOND));
    // Back again.
    simulation.link.rate /= 8;
    simulation.run(40 * SECOND);
    simulation.run(60 * SECOND);
    assert!(simulation.used(40 * SECOND) > 0.9);
    let wait = simulation.longest_wait();
    assert!(wait <= QUEUE + QUEUE / 4, "{wait:?}");
    // By another way, half a second longer.
    simulation.link.rtt += 500_000;
    simulation.run(110 * SECOND);
    simulation.run(130 * SECOND);
    assert!(simulation.used(110 * SECOND) > 0.9, "{}", simulation.used(110 * SECOND));
    // And the short way.
    simulation.link.rtt -= 500_000;
    simulation.run(160 * SECOND);
    simulation.run(180 * SECOND);
    let wait = simulation.longest_wait();
    assert!(
        simulation.used(160 * SECOND) > 0.9 && wait <= QUEUE + QUEUE / 4,
        "{wait:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// From 256 kbit/s to 32 Mbit/s, from a house to a satellite.
    #[test]
    fn p6_links_of_every_kind_are_used_with_a_bounded_queue(
        rate in prop_oneof![32_000u64..100_000, 100_000u64..1_000_000, 1_000_000u64..4_000_000],
        rtt in prop_oneof![500u64..20_000, 20_000u64..200_000, 500_000u64..700_000],
        lost_percent in 0u64..4,
    ) {
        let link = Link { rate, rtt, buffer: rate * 4, lost_percent, late_by: 0, jitter: 0 };
        let mut simulation = Simulation::new(link, QUEUE);
        simulation.run(15 * SECOND);
        simulation.run(45 * SECOND);
        let (used, wait) = (simulation.used(15 * SECOND), simulation.longest_wait());
        prop_assert!(used > 0.90 - lost_percent as f64 / 50.0, "{used} of {link:?}");
        // On the thinnest links four packets are the least.
        let least = Duration::from_micros(6 * MTU * SECOND / rate);
        let part = Duration::from_micros(rtt / 4);
        // What is on its way are whole packets.
        let packet = Duration::from_micros(MTU * SECOND / rate);
        let most = (QUEUE.max(part) + QUEUE / 4).max(least) + packet;
        prop_assert!(wait <= most, "{wait:?} of {link:?}");
    }
}
