//! Tables that the operator gave the plugin: CSV files and MaxMind databases, read again when they change.

#[cfg(target_arch = "wasm32")]
use crate::bindings::sluice::plugin::lookup as imported;

/// Names of the tables.
pub fn tables() -> Vec<String> {
    #[cfg(target_arch = "wasm32")]
    return imported::tables();
    #[cfg(not(target_arch = "wasm32"))]
    super::native::with(|host| host.tables.keys().cloned().collect())
}

/// A table by its name.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
}

impl Table {
    /// The error says which tables there are.
    pub fn open(name: &str) -> Result<Table, String> {
        let known = tables();
        if known.iter().any(|table| table == name) {
            return Ok(Table { name: name.to_owned() });
        }
        let there_are = match known.is_empty() {
            true => "the operator gave this plugin none".to_owned(),
            false => format!("there are: {}", known.join(", ")),
        };
        Err(format!("no table `{name}`; {there_are}"))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of the fields of a CSV file. Those of a MaxMind database are paths such as `country.iso_code`; any path may be
    /// asked for and the list is empty.
    pub fn fields(&self) -> Result<Vec<String>, String> {
        #[cfg(target_arch = "wasm32")]
        return imported::fields(&self.name);
        #[cfg(not(target_arch = "wasm32"))]
        super::native::with(|host| host.table(&self.name).map(|table| table.fields.clone()))
    }

    /// The fields of each key. Ask once for all distinct keys of a batch.
    pub fn find<K: AsRef<str>, F: AsRef<str>>(&self, keys: &[K], fields: &[F]) -> Result<Found, String> {
        let own = |text: &str| text.to_owned();
        let keys: Vec<String> = keys.iter().map(|key| own(key.as_ref())).collect();
        let fields: Vec<String> = fields.iter().map(|field| own(field.as_ref())).collect();
        #[cfg(target_arch = "wasm32")]
        let values = imported::find(&self.name, &keys, &fields)?;
        #[cfg(not(target_arch = "wasm32"))]
        let values = super::native::with(|host| host.look_up(&self.name, &keys, &fields))?;
        if values.len() != keys.len() * fields.len() {
            return Err(format!("table {}: an answer of {} values", self.name, values.len()));
        }
        Ok(Found {
            fields: fields.len(),
            values,
        })
    }
}

/// What a table has for some keys.
#[derive(Clone, Debug)]
pub struct Found {
    fields: usize,
    values: Vec<Option<String>>,
}

impl Found {
    /// `None`: the table does not have the key, or no such field for it.
    pub fn get(&self, key: usize, field: usize) -> Option<&str> {
        if field >= self.fields {
            return None;
        }
        self.values.get(key * self.fields + field)?.as_deref()
    }
}
