//! Which rate a row has: by service and name, or the general one; and how a budget and the link shrink it.

use arrow_buffer::BooleanBuffer;
use sluice_plugin::Batch;

use crate::config::{ClassRate, Config};
use crate::consistent::Chance;
use crate::rows;

/// Rates of services and names: one bit each in a number.
const MAX_CLASSES: usize = 63;

#[derive(Debug)]
pub(crate) struct Rates {
    classes: Vec<ClassRate>,
    general: f64,
    /// The budget shrinks no rate below this.
    least: f64,
}

/// What a class of rows has to go through, each at most as likely as the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gates {
    pub(crate) rate: Chance,
    pub(crate) budget: Chance,
    pub(crate) link: Chance,
}

/// The class of each row.
#[derive(Debug)]
pub(crate) enum Classes {
    One,
    Many(Vec<u8>),
}

impl Classes {
    pub(crate) fn of(&self, row: usize) -> usize {
        match self {
            Classes::One => 0,
            Classes::Many(classes) => usize::from(classes[row]),
        }
    }
}

impl Rates {
    pub(crate) fn new(config: &Config) -> Result<Rates, String> {
        let budget = config.budget.as_ref();
        let general = match (config.rate, budget) {
            (Some(rate), _) => rate,
            (None, Some(_)) => 1.0,
            (None, None) => return Err("missing `rate`; only with a `budget` it may be left out".to_owned()),
        };
        let least = budget.map_or(0.0, |budget| budget.min_rate);
        check("rate", general)?;
        check("budget.min_rate", least)?;
        if least > general {
            return Err(format!("budget.min_rate = {least} is above rate = {general}"));
        }
        let classes = config.rates.iter().map(|class| ClassRate {
            service: class.service.clone(),
            name: class.name.clone(),
            ..*class
        });
        let classes: Vec<ClassRate> = classes.collect();
        for (place, class) in classes.iter().enumerate() {
            check(&format!("rates[{place}].rate"), class.rate)?;
        }
        if classes.len() > MAX_CLASSES {
            return Err(format!("rates has {} entries; at most {MAX_CLASSES}", classes.len()));
        }
        Ok(Rates {
            classes,
            general,
            least,
        })
    }

    /// The columns that classes are told by.
    pub(crate) fn reads(&self) -> Vec<String> {
        if self.classes.is_empty() {
            return Vec::new();
        }
        ["service", "name"].map(str::to_owned).to_vec()
    }

    /// Nothing is ever dropped.
    pub(crate) fn are_all_one(&self) -> bool {
        self.general >= 1.0 && self.classes.iter().all(|class| class.rate >= 1.0)
    }

    pub(crate) fn classes(&self, batch: &Batch) -> Result<Classes, String> {
        if self.classes.is_empty() {
            return Ok(Classes::One);
        }
        let fitting = |text: &str, pattern: &dyn Fn(&ClassRate) -> &str| {
            let bits = self.classes.iter().enumerate();
            bits.map(|(place, class)| u64::from(rows::glob(pattern(class), text)) << place)
                .sum::<u64>()
        };
        let by_service = |text: &str| fitting(text, &|class| &class.service);
        let by_name = |text: &str| fitting(text, &|class| &class.name);
        let count = batch.rows();
        let services = batch.text("resource:s:service.name")?;
        let services = rows::map_text(&services, count, by_service(""), by_service);
        let names = rows::map_text(&batch.text("name")?, count, by_name(""), by_name);
        let general = self.classes.len() as u32;
        let class = |row: usize| (services[row] & names[row]).trailing_zeros().min(general) as u8;
        Ok(Classes::Many((0..count).map(class).collect()))
    }

    /// Rows that the rates alone would keep of those.
    pub(crate) fn expected(&self, rows: &BooleanBuffer, classes: &Classes) -> f64 {
        match classes {
            Classes::One => self.general * rows.count_set_bits() as f64,
            Classes::Many(classes) => {
                let mut counts = vec![0usize; self.classes.len() + 1];
                rows.set_indices()
                    .for_each(|row| counts[usize::from(classes[row])] += 1);
                let rates = self.all().map(|(rate, _)| rate);
                counts.iter().zip(rates).map(|(count, rate)| *count as f64 * rate).sum()
            }
        }
    }

    /// The gates of all classes, the general one last. `budget` is a share of each rate, `link` a share of the rows.
    pub(crate) fn gates(&self, budget: f64, link: f64) -> Vec<Gates> {
        let gates = |(rate, fixed): (f64, bool)| {
            let least = self.least.min(rate);
            let chance = |share: f64| {
                if share >= rate {
                    Chance::exact(rate)
                } else {
                    Chance::rounded(share)
                }
            };
            let by_budget = if fixed { rate } else { (rate * budget).max(least) };
            let by_link = if fixed { rate } else { by_budget.min(link).max(least) };
            Gates {
                rate: Chance::exact(rate),
                budget: chance(by_budget),
                link: chance(by_link),
            }
        };
        self.all().map(gates).collect()
    }

    fn all(&self) -> impl Iterator<Item = (f64, bool)> {
        let classes = self.classes.iter().map(|class| (class.rate, class.fixed));
        classes.chain([(self.general, false)])
    }
}

fn check(key: &str, rate: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&rate) {
        return Ok(());
    }
    Err(format!("{key} = {rate} is not between 0 and 1"))
}
