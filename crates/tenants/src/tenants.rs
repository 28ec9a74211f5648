//! Which tenants there are, and what each may use: `tenants.toml`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_settings::{ConfigError, units};
use sluice_wire::ids::TenantId;

const VERSION: u32 = 1;
/// What a status can still show and a gateway count.
const MAX_TENANTS: usize = 65_536;
const MIN_BURST: Duration = Duration::from_millis(100);
const MAX_BURST: Duration = Duration::from_secs(3_600);
/// What was not used for so long may be used at once, unless somebody says otherwise: an edge that was away for a moment.
const DEFAULT_BURST: Duration = Duration::from_secs(10);

/// Whether anything is taken of a tenant, and told to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Active,
    Suspended,
}

/// One tenant. A limit of 0 is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tenant {
    pub state: State,
    pub events_per_second: u64,
    #[serde(with = "units::size")]
    pub bytes_per_second: u64,
    /// From midnight to midnight, UTC.
    #[serde(with = "units::size")]
    pub bytes_per_day: u64,
    /// What was not used so far back may be used at once.
    #[serde(with = "units::duration")]
    pub burst: Duration,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            state: State::Active,
            events_per_second: 0,
            bytes_per_second: 0,
            bytes_per_day: 0,
            burst: DEFAULT_BURST,
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenants(BTreeMap<TenantId, Tenant>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    tenant: BTreeMap<String, Tenant>,
}

impl Tenants {
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let file: File = sluice_settings::parse(text)?;
        if file.version != VERSION {
            let message = format!("is {}, this build knows {VERSION}", file.version);
            return Err(ConfigError::value(text, "version", message).with_hint("upgrade this role first"));
        }
        if file.tenant.len() > MAX_TENANTS {
            return Err(ConfigError::new(format!("more than {MAX_TENANTS} tenants")));
        }
        let mut tenants = BTreeMap::new();
        for (name, tenant) in file.tenant {
            let section = format!("tenant.{name}");
            let id = TenantId::new(&name).map_err(|error| ConfigError::value(text, &section, error.to_string()))?;
            if !(MIN_BURST..=MAX_BURST).contains(&tenant.burst) {
                let key = format!("{section}.burst");
                return Err(ConfigError::value(text, &key, "goes from 100 ms to 1 h"));
            }
            tenants.insert(id, tenant);
        }
        Ok(Self(tenants))
    }

    pub fn to_toml(&self) -> Result<String, ConfigError> {
        let tenant = self.0.iter().map(|(id, tenant)| (id.to_string(), tenant.clone()));
        let file = File {
            version: VERSION,
            tenant: tenant.collect(),
        };
        let text = toml::to_string(&file).map_err(|error| ConfigError::new(error.to_string()))?;
        Ok(format!(
            "# Written by `sluice tenant`, which keeps no comments. Every key: deploy/config/tenants.toml.\n{text}"
        ))
    }

    pub fn get(&self, id: &TenantId) -> Option<&Tenant> {
        self.0.get(id)
    }

    pub fn get_mut(&mut self, id: &TenantId) -> Option<&mut Tenant> {
        self.0.get_mut(id)
    }

    /// The one of before, if there was one.
    pub fn insert(&mut self, id: TenantId, tenant: Tenant) -> Option<Tenant> {
        self.0.insert(id, tenant)
    }

    pub fn remove(&mut self, id: &TenantId) -> Option<Tenant> {
        self.0.remove(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TenantId, &Tenant)> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something is taken of it; else why not.
    pub fn admit(&self, id: &TenantId) -> Result<&Tenant, &'static str> {
        match self.0.get(id) {
            Some(tenant) if tenant.state == State::Active => Ok(tenant),
            Some(_) => Err("tenant is suspended"),
            None => Err("tenant is not known here"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../../deploy/config/tenants.toml");

    #[test]
    fn the_shipped_file_shows_every_key_and_is_read_back_as_it_was() {
        let shipped = Tenants::from_toml(SHIPPED).unwrap();
        let acme = shipped.get(&TenantId::new("acme").unwrap()).unwrap();
        let written = toml::Table::try_from(acme).unwrap();
        let given: toml::Table = SHIPPED.parse().unwrap();
        let given = given["tenant"]["acme"].as_table().unwrap();
        assert!(written.keys().all(|key| given.contains_key(key)), "{written}");
        assert_eq!(Tenants::from_toml(&shipped.to_toml().unwrap()).unwrap(), shipped);
        let empty = Tenants::default();
        assert_eq!(Tenants::from_toml(&empty.to_toml().unwrap()).unwrap(), empty);
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let check = |text: &str, says: &str| {
            let error = Tenants::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        check("version = 2\n", "upgrade");
        check("version = 1\n[tenant.ACME]\n", "tenant.ACME");
        check("version = 1\n[tenant.acme]\nburst = \"0 s\"\n", "line 3");
        check("version = 1\n[tenant.acme]\nevent_per_second = 1\n", "did you mean");
        check("version = 1\n[tenant.acme]\nbytes_per_day = 5\n", "bytes_per_day");
        check("[tenant.acme]\n", "version");
    }
}
