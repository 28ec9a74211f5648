//! The rules in the lake: what operators erased, and how long rows are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_wire::ids::TenantId;

use super::{Erasure, Erasures, Whose};
use crate::state::StateError;
use crate::stores::Stores;

const VERSION: u32 = 1;
const RULES: &str = "rules";
const RETENTION: &str = "retention";
/// Others that erase something in the same moment.
const MAX_RACES: u32 = 32;

/// One erasure that an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    version: u32,
    pub tenant: String,
    pub before_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_ns: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ns: Option<i64>,
}

/// How long rows are kept, in microseconds since they were taken in; 0: for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    version: u32,
    pub keep_us: i64,
    #[serde(default)]
    pub tenants: BTreeMap<String, i64>,
}

/// Why rules were not read or written.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error("the rules of erasure in the lake")]
    State(#[from] StateError),
    #[error("{what} {number} in the lake cannot be read")]
    Unreadable {
        what: &'static str,
        number: u64,
        source: serde_json::Error,
    },
    #[error("{what} {number} in the lake has version {version}, this program reads up to {VERSION}: upgrade it")]
    Newer {
        what: &'static str,
        number: u64,
        version: u32,
    },
    #[error("others kept making rules of erasure")]
    Contended,
    #[error("a rule cannot be written")]
    Write(#[source] serde_json::Error),
}

impl Rule {
    pub fn new(tenant: &TenantId, before_us: i64, from_ns: Option<i64>, to_ns: Option<i64>) -> Self {
        Self {
            version: VERSION,
            tenant: tenant.to_string(),
            before_us,
            from_ns,
            to_ns,
        }
    }

    pub fn erasure(&self) -> Erasure {
        Erasure {
            whose: Whose::Tenant(self.tenant.clone()),
            before_us: self.before_us,
            from_ns: self.from_ns,
            to_ns: self.to_ns,
        }
    }
}

impl Retention {
    pub fn new(keep_us: i64, tenants: BTreeMap<String, i64>) -> Self {
        Self {
            version: VERSION,
            keep_us,
            tenants,
        }
    }

    pub(crate) fn erasures(&self, now_us: i64) -> impl Iterator<Item = Erasure> {
        let older = |whose, keep_us: i64| {
            (keep_us > 0).then(|| Erasure {
                whose,
                before_us: now_us.saturating_sub(keep_us),
                from_ns: None,
                to_ns: None,
            })
        };
        let others = older(Whose::AllBut(self.tenants.keys().cloned().collect()), self.keep_us);
        let each = self
            .tenants
            .iter()
            .map(move |(tenant, keep_us)| older(Whose::Tenant(tenant.clone()), *keep_us));
        each.flatten().chain(others).collect::<Vec<_>>().into_iter()
    }
}

/// How far a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Cold,
    Hot,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Cold => "done-cold",
            Self::Hot => "done-hot",
        }
    }
}

impl Stores {
    /// Erases rows: no query that begins a second later sees them. Returns the number of the rule.
    pub async fn erase(&self, rule: &Rule) -> Result<u64, EraseError> {
        let text = serde_json::to_vec(rule).map_err(EraseError::Write)?;
        for _ in 0..MAX_RACES {
            let number = self.rules().await?.keys().next_back().map_or(1, |last| last + 1);
            let made = self.erasures.create(RULES, number, text.clone()).await?;
            if made {
                return Ok(number);
            }
        }
        Err(EraseError::Contended)
    }

    /// All rules by number.
    pub async fn rules(&self) -> Result<BTreeMap<u64, Rule>, EraseError> {
        let mut rules = BTreeMap::new();
        for (number, text) in self.erasures.all(RULES).await? {
            let what = "rule of erasure";
            let unreadable = |source| EraseError::Unreadable { what, number, source };
            let rule: Rule = serde_json::from_slice(&text).map_err(unreadable)?;
            if rule.version > VERSION {
                let version = rule.version;
                return Err(EraseError::Newer { what, number, version });
            }
            rules.insert(number, rule);
        }
        Ok(rules)
    }

    /// Those whose rows are gone from a store.
    pub async fn rules_done(&self, place: Place) -> Result<BTreeMap<u64, String>, EraseError> {
        let done = self.erasures.all(place.name()).await?;
        let text = |(number, bytes): (u64, bytes::Bytes)| (number, String::from_utf8_lossy(&bytes).into_owned());
        Ok(done.into_iter().map(text).collect())
    }

    pub async fn rule_is_done(&self, place: Place, number: u64, what: &str) -> Result<(), EraseError> {
        self.erasures
            .create(place.name(), number, what.as_bytes().to_vec())
            .await?;
        Ok(())
    }

    /// How long rows are kept, as ingest said last.
    pub async fn retention(&self) -> Result<Retention, EraseError> {
        let Some(text) = self.state.newest(RETENTION).await? else {
            return Ok(Retention::default());
        };
        let (what, number) = ("retention", 0);
        let unreadable = |source| EraseError::Unreadable { what, number, source };
        let retention: Retention = serde_json::from_slice(&text).map_err(unreadable)?;
        if retention.version > VERSION {
            let version = retention.version;
            return Err(EraseError::Newer { what, number, version });
        }
        Ok(retention)
    }

    /// Says how long rows are kept from now on: whoever says it last. No clock orders it, as one that was ahead once would be right for ever.
    pub async fn keep_for(&self, retention: &Retention) -> Result<(), EraseError> {
        let text = serde_json::to_vec(retention).map_err(EraseError::Write)?;
        for _ in 0..MAX_RACES {
            if self.retention().await? == *retention {
                return Ok(());
            }
            self.state.append(RETENTION, text.clone()).await?;
        }
        Err(EraseError::Contended)
    }

    /// All that no query may see.
    pub async fn hidden(&self, now_us: i64) -> Result<Erasures, EraseError> {
        Ok(Erasures::at(&self.rules().await?, &self.retention().await?, now_us))
    }

    /// All that is taken out of the stores, and that a replay leaves out.
    pub async fn erased_for_good(&self, now_us: i64) -> Result<Erasures, EraseError> {
        let (rules, retention) = (self.rules().await?, self.retention().await?);
        Ok(Erasures::for_good(&rules, &retention, now_us))
    }
}
