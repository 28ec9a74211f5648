//! What nobody may see any more: rows that an operator erased, and rows that are older than their tenant's retention. TABLES.md says when
//! they are invisible and when they are gone.

mod apply;
mod clock;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::scalar::ScalarValue;

pub use self::clock::{AgeClock, MAX_JUMP_US};
pub use self::rules::{EraseError, Place, Retention, Rule};
use crate::rows::LEDGER;

pub(crate) use self::apply::{Charges, charge, strike};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Rows that are erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    pub whose: Whose,
    /// Taken in before this, in microseconds since 1970.
    pub before_us: i64,
    /// Of this `time` and later, in nanoseconds since 1970.
    pub from_ns: Option<i64>,
    /// And before this one.
    pub to_ns: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    Tenant(String),
    AllBut(BTreeSet<String>),
}

/// All that is erased at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasures(pub Vec<Erasure>);

impl Whose {
    pub(crate) fn includes(&self, tenant: &str) -> bool {
        match self {
            Self::Tenant(one) => one == tenant,
            Self::AllBut(others) => !others.contains(tenant),
        }
    }
}

impl Erasure {
    /// Whether rows of a tenant that were taken in at a time, in microseconds, may be erased. `times`: the first and last of them by the time of
    /// the sender, in nanoseconds, if that is known.
    pub fn may_concern(&self, tenant: &str, taken_in_us: i64, times: Option<(i64, i64)>) -> bool {
        self.whose.includes(tenant) && taken_in_us < self.before_us && times.is_none_or(|times| self.meets(times))
    }

    /// Whether rows between these times of the sender, the first and the last, may be erased.
    pub(crate) fn meets(&self, (first, last): (i64, i64)) -> bool {
        self.from_ns.is_none_or(|from| last >= from) && self.to_ns.is_none_or(|to| first < to)
    }

    /// Whether a scan of one tenant, or of all, may meet such rows.
    fn concerns(&self, tenant: Option<&str>) -> bool {
        tenant.is_none_or(|tenant| self.whose.includes(tenant))
    }

    /// Whether no row is erased of those that were taken in at `oldest_us` or later; `None`: they may be of any time.
    pub(crate) fn spares(&self, oldest_us: Option<i64>) -> bool {
        oldest_us.is_some_and(|oldest| self.before_us <= oldest)
    }

    /// What every row meets that is not erased: plain comparisons, which each store applies by itself.
    fn kept(&self) -> Expr {
        let micros = |us| lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())));
        let nanos = |ns| lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())));
        let others = match &self.whose {
            Whose::Tenant(tenant) => Some(ident("tenant").not_eq(lit(tenant.as_str()))),
            Whose::AllBut(others) => others
                .iter()
                .map(|tenant| ident("tenant").eq(lit(tenant.as_str())))
                .reduce(Expr::or),
        };
        let mut kept = ident("signal")
            .eq(lit(LEDGER))
            .or(ident("ingested_at").gt_eq(micros(self.before_us)));
        for more in [
            others,
            self.from_ns.map(|from| ident("time").lt(nanos(from))),
            self.to_ns.map(|to| ident("time").gt_eq(nanos(to))),
        ] {
            kept = more.into_iter().fold(kept, Expr::or);
        }
        kept
    }
}

impl Erasures {
    /// What the rows of a scan must meet.
    pub(crate) fn conditions(&self, tenant: Option<&str>) -> Vec<Expr> {
        self.of(tenant).map(Erasure::kept).collect()
    }

    /// Those that a scan may meet.
    pub(crate) fn of(&self, tenant: Option<&str>) -> impl Iterator<Item = &Erasure> {
        self.0.iter().filter(move |erasure| erasure.concerns(tenant))
    }

    /// Rules and retention as they stand at a moment.
    pub(crate) fn at(rules: &BTreeMap<u64, Rule>, retention: &Retention, now_us: i64) -> Self {
        let rules = rules.values().map(Rule::erasure);
        Self(rules.chain(retention.erasures(now_us)).collect())
    }

    /// The same for what is taken out of the stores: by whole days, so that a file is not written anew for each row.
    pub(crate) fn for_good(rules: &BTreeMap<u64, Rule>, retention: &Retention, now_us: i64) -> Self {
        Self::at(rules, retention, now_us - now_us.rem_euclid(MICROS_PER_DAY))
    }
}
