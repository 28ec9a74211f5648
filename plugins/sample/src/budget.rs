//! Holds a budget: how much the rates have to shrink so that what is kept costs what it may.
//!
//! Time is cut into slots. For each the instances of the node add up what came in (rows that are kept anyway, and rows that
//! the rates would keep) and what was kept. The first two give the load of late, which says what to keep now (feed forward);
//! the third gives what was spent too much or too little, which is made good (feedback). So no error of the estimate lasts.

use crate::memory::{self, Memory, Space};

/// Slots that are remembered.
const SLOTS: u64 = 60;
const NANOS: f64 = 1e9;
const DAY_S: f64 = 86_400.0;
/// Numbers in the host are integers; rows and bytes are counted in thousandths.
const SCALE: f64 = 1000.0;

/// Rows a second: slots of 5 s. Debt and credit fade with 100 s, so that a quiet hour cannot be spent at once later, and are
/// made good within 10 s, a tenth of that, so that an estimate that is wrong by a fifth moves the rows kept by 2 %.
const SECOND_SLOT_S: f64 = 5.0;
const FADE_S: f64 = 100.0;
const RECOVER_S: f64 = 10.0;
/// How far above the budget the rows of a moment may be in order to use up credit.
const MOST: f64 = 1.5;

/// Bytes a day: slots of a minute; what is left is spread over the rest of the day, but not over less than a minute.
const DAY_SLOT_S: f64 = 60.0;
const LEAST_REST_S: f64 = 60.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    RowsPerSecond(f64),
    /// The day begins at midnight UTC.
    BytesPerDay(f64),
}

impl Limit {
    fn per_second(self) -> f64 {
        match self {
            Limit::RowsPerSecond(rows) => rows,
            Limit::BytesPerDay(bytes) => bytes / DAY_S,
        }
    }

    fn slot_s(self) -> f64 {
        match self {
            Limit::RowsPerSecond(_) => SECOND_SLOT_S,
            Limit::BytesPerDay(_) => DAY_SLOT_S,
        }
    }
}

/// What a batch brings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offer {
    /// Rows that are kept whatever the budget.
    pub always: f64,
    /// Rows that the rates would keep of the others.
    pub rates: f64,
}

/// One slot: the offer in rows, the cost in rows or bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    always: f64,
    rates: f64,
    spent: f64,
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.always == 0.0 && self.rates == 0.0
    }
}

/// What an instance knows of the node's numbers; all of it can be read again.
#[derive(Debug)]
pub struct Budget {
    limit: Limit,
    slots: [Slot; SLOTS as usize],
    /// The newest slot, once something was read.
    newest: Option<u64>,
    /// When the budget began to count, seconds since 1970.
    start_s: f64,
    day: u64,
    spent_today: f64,
    /// Credit of the slots before the newest, as of its beginning.
    credit_before: f64,
    /// Within how many seconds it is made good.
    recover_s: f64,
}

impl Budget {
    pub fn new(limit: Limit) -> Budget {
        Budget {
            limit,
            slots: [Slot::default(); SLOTS as usize],
            newest: None,
            start_s: 0.0,
            day: 0,
            spent_today: 0.0,
            credit_before: 0.0,
            recover_s: RECOVER_S,
        }
    }

    /// The share of the rates that there is room for, 0 to 1, for a batch that is about to be sampled.
    pub fn share(&mut self, memory: &dyn Memory, now_ns: u64, row_bytes: f64, offer: Offer) -> f64 {
        let now_s = now_ns as f64 / NANOS;
        self.turn_to(memory, now_s);
        let slot = self.slot_of(now_s);
        let sums = [
            add(memory, slot_key(slot, ALWAYS), offer.always),
            add(memory, slot_key(slot, RATES), offer.rates),
        ];
        let place = self.place(slot);
        let own = &mut self.slots[place];
        own.always = sums[0].unwrap_or(own.always + offer.always);
        own.rates = sums[1].unwrap_or(own.rates + offer.rates);

        let row_cost = match self.limit {
            Limit::RowsPerSecond(_) => 1.0,
            Limit::BytesPerDay(_) => row_bytes,
        };
        let load = self.load(slot, now_s);
        let room = self.aim(now_s) / row_cost - load.always;
        if load.rates <= 0.0 {
            return if room > 0.0 { 1.0 } else { 0.0 };
        }
        (room / load.rates).clamp(0.0, 1.0)
    }

    /// So many rows of the batch were kept.
    pub fn spend(&mut self, memory: &dyn Memory, now_ns: u64, row_bytes: f64, rows: f64) {
        let now_s = now_ns as f64 / NANOS;
        let slot = self.slot_of(now_s);
        let cost = match self.limit {
            Limit::RowsPerSecond(_) => rows,
            Limit::BytesPerDay(_) => rows * row_bytes,
        };
        let sum = add(memory, slot_key(slot, SPENT), cost);
        let place = self.place(slot);
        self.slots[place].spent = sum.unwrap_or(self.slots[place].spent + cost);
        if let Limit::BytesPerDay(_) = self.limit {
            self.spent_today = add(memory, Space::Day.key(self.day), cost).unwrap_or(self.spent_today + cost);
        }
    }

    /// Cost a second to aim at now.
    fn aim(&self, now_s: f64) -> f64 {
        let budget = self.limit.per_second();
        match self.limit {
            Limit::RowsPerSecond(_) => {
                let slot = self.slot_of(now_s);
                let age = now_s - slot as f64 * SECOND_SLOT_S;
                let credit = self.credit_before * (-age / FADE_S).exp() + self.credit_of(slot, now_s);
                (budget + credit / self.recover_s).clamp(0.0, budget * MOST)
            }
            Limit::BytesPerDay(_) => {
                let (begin, end) = (self.day as f64 * DAY_S, (self.day + 1) as f64 * DAY_S);
                // A node that begins in the middle of a day has the rest of the day's budget: what was spent before is not known.
                let room = budget * (end - begin.max(self.start_s)) - self.spent_today;
                (room / (end - now_s).max(LEAST_REST_S)).max(0.0)
            }
        }
    }

    /// What one slot has left of the budget so far.
    fn credit_of(&self, slot: u64, now_s: f64) -> f64 {
        let (from, to) = (slot as f64 * SECOND_SLOT_S, (slot + 1) as f64 * SECOND_SLOT_S);
        let counted = (to.min(now_s) - from.max(self.start_s)).max(0.0);
        self.limit.per_second() * counted - self.slots[self.place(slot)].spent
    }

    /// Rows a second of late, from the end of a slot in which something came until now: the last slot and this one where
    /// traffic is dense, and since the batch before where it comes in lumps.
    fn load(&self, slot: u64, now_s: f64) -> Offer {
        let oldest = slot.saturating_sub(SLOTS - 1);
        let busy = |slot: u64| !self.slots[self.place(slot)].is_empty();
        let before = (oldest..slot.saturating_sub(1)).rev().find(|slot| busy(*slot));
        let from = before.map_or(oldest, |before| before + 1);
        // A lump stood somewhere in its slot, in the middle as likely as not.
        let lump = if before.is_some() && !busy(from) { 0.5 } else { 0.0 };
        let mut sum = Offer::default();
        for slot in from..=slot {
            sum.always += self.slots[self.place(slot)].always;
            sum.rates += self.slots[self.place(slot)].rates;
        }
        // In the first second of all, the rows seen are taken as those of a whole second.
        let time = (now_s - ((from as f64 - lump) * self.limit.slot_s()).max(self.start_s)).max(1.0);
        Offer {
            always: sum.always / time,
            rates: sum.rates / time,
        }
    }

    /// Makes the slots those up to now, reading what other instances counted.
    fn turn_to(&mut self, memory: &dyn Memory, now_s: f64) {
        let slot = self.slot_of(now_s);
        let day = (now_s / DAY_S) as u64;
        if self.newest == Some(slot) {
            return;
        }
        let oldest = slot.saturating_sub(SLOTS - 1);
        // The slot before was not over when it was last read.
        let from = match self.newest {
            Some(newest) if newest <= slot => newest.max(oldest),
            _ => {
                self.slots = [Slot::default(); SLOTS as usize];
                oldest
            }
        };
        if let Some(newest) = self.newest {
            for fresh in (newest + 1).max(from)..=slot {
                let place = self.place(fresh);
                self.slots[place] = Slot::default();
            }
        }
        let keys: Vec<_> = (from..=slot)
            .flat_map(|slot| NUMBERS.map(|number| slot_key(slot, number)))
            .collect();
        let values = memory.get(&keys);
        for (slot, values) in (from..=slot).zip(values.chunks(NUMBERS.len())) {
            let place = self.place(slot);
            let own = &mut self.slots[place];
            for (own, value) in [&mut own.always, &mut own.rates, &mut own.spent]
                .into_iter()
                .zip(values)
            {
                if let Some(value) = memory::number(value.as_ref()) {
                    *own = value as f64 / SCALE;
                }
            }
        }
        self.newest = Some(slot);
        self.begin_numbers(memory, now_s, slot, day);
        if let Limit::RowsPerSecond(_) = self.limit {
            self.count_credit(oldest, slot);
        }
    }

    /// Credit at the beginning of a slot. Where traffic comes in lumps, right before one there is always credit and right after
    /// it debt; what counts is the middle, and no lump can make good more than what belongs to the time since the one before.
    fn count_credit(&mut self, oldest: u64, slot: u64) {
        let at = |end: u64| -> f64 {
            let end_s = end as f64 * SECOND_SLOT_S;
            let faded = |slot: u64| {
                let age = end_s - (slot + 1) as f64 * SECOND_SLOT_S;
                self.credit_of(slot, end_s) * (-age / FADE_S).exp()
            };
            (oldest..end).map(faded).sum()
        };
        let busy = (oldest..slot)
            .rev()
            .find(|slot| !self.slots[self.place(*slot)].is_empty());
        let idle_from = busy.map_or(slot, |busy| busy + 1);
        let credit = if idle_from < slot {
            (at(idle_from) + at(slot)) / 2.0
        } else {
            at(slot)
        };
        self.recover_s = RECOVER_S.max((slot - idle_from) as f64 * SECOND_SLOT_S);
        self.credit_before = credit;
    }

    fn begin_numbers(&mut self, memory: &dyn Memory, now_s: f64, slot: u64, day: u64) {
        let keep_s = (self.limit.slot_s() * 2.0) as u32 * SLOTS as u32;
        // Without room in the host each instance goes on with what it counts itself.
        let _ = memory::begin(memory, &NUMBERS.map(|number| slot_key(slot, number)), keep_s);
        if self.start_s == 0.0 {
            let key = Space::Start.key(0);
            let known = memory.get(std::slice::from_ref(&key)).pop().flatten();
            self.start_s = memory::number(known.as_ref()).map_or(now_s, |millis| millis as f64 / SCALE);
            if known.is_none() {
                let _ = memory.put(vec![(key, ((now_s * SCALE) as i64).to_le_bytes().to_vec())], None);
            }
        }
        if let (Limit::BytesPerDay(_), true) = (self.limit, self.day != day) {
            let key = Space::Day.key(day);
            let _ = memory::begin(memory, std::slice::from_ref(&key), 2 * DAY_S as u32);
            self.day = day;
            self.spent_today = add(memory, key, 0.0).unwrap_or(0.0);
        }
    }

    fn slot_of(&self, now_s: f64) -> u64 {
        (now_s / self.limit.slot_s()) as u64
    }

    fn place(&self, slot: u64) -> usize {
        (slot % SLOTS) as usize
    }
}

const ALWAYS: u64 = 0;
const RATES: u64 = 1;
const SPENT: u64 = 2;
const NUMBERS: [u64; 3] = [ALWAYS, RATES, SPENT];

fn slot_key(slot: u64, number: u64) -> Vec<u8> {
    Space::Slot.key(slot << 2 | number)
}

/// The sum in the host; none if the host has no room for it.
fn add(memory: &dyn Memory, key: Vec<u8>, value: f64) -> Option<f64> {
    let sum = memory.add(&key, (value * SCALE).round() as i64).ok()?;
    Some(sum as f64 / SCALE)
}
