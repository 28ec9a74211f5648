//! A CSV file in memory: all its text in one piece, and where each cell ends.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Columns of a table; the widest known one, of hosts with their owners, has 40.
const MAX_COLUMNS: usize = 256;
/// Rows of a table. With ten columns they take 80 MB beside their text.
const MAX_ROWS: usize = 2_000_000;
/// Fields named in an error before it says how many more there are.
const FIELDS_TOLD: usize = 20;

#[derive(Debug)]
pub(super) struct CsvTable {
    fields: Vec<String>,
    key: usize,
    text: String,
    /// Where the cells end in `text`, row by row.
    ends: Vec<u32>,
    /// Rows by the text of their key.
    index: HashTable<u32>,
    hasher: RandomState,
}

impl CsvTable {
    pub(super) fn parse(bytes: &[u8], key: Option<&str>) -> Result<CsvTable, String> {
        let mut reader = csv::ReaderBuilder::new().from_reader(bytes);
        let fields: Vec<String> = reader.headers().map_err(tell)?.iter().map(str::to_owned).collect();
        if fields.is_empty() {
            return Err("is empty; its first line has to name its columns".to_owned());
        }
        if fields.len() > MAX_COLUMNS {
            return Err(format!("has {} columns; at most {MAX_COLUMNS}", fields.len()));
        }
        for (place, field) in fields.iter().enumerate() {
            if fields[..place].contains(field) {
                return Err(format!("line 1 names the column `{field}` twice"));
            }
        }
        let key = match key {
            None => 0,
            Some(key) => {
                position(&fields, key).map_err(|what| format!("{what}; the key column has to be one of them"))?
            }
        };
        let mut table = CsvTable {
            fields,
            key,
            text: String::with_capacity(bytes.len()),
            ends: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
        };
        let mut lines: Vec<u32> = Vec::new();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(tell)? {
            let line = record.position().map_or(0, csv::Position::line);
            if lines.len() >= MAX_ROWS {
                return Err(format!("has more than {MAX_ROWS} rows"));
            }
            if let Some(row) = table.row(record.get(key).unwrap_or_default()) {
                let first = lines.get(row).copied().unwrap_or_default();
                return Err(format!(
                    "lines {first} and {line} have the same key `{}` in column `{}`",
                    table.cell(row, key),
                    table.fields[key]
                ));
            }
            lines.push(u32::try_from(line).unwrap_or(u32::MAX));
            table.push(&record)?;
        }
        table.text.shrink_to_fit();
        table.ends.shrink_to_fit();
        Ok(table)
    }

    fn push(&mut self, record: &csv::StringRecord) -> Result<(), String> {
        let row = self.rows();
        for cell in record {
            self.text.push_str(cell);
            let end = u32::try_from(self.text.len()).map_err(|_| "has more than 4 GiB of text".to_owned())?;
            self.ends.push(end);
        }
        let hash = self.hasher.hash_one(self.cell(row, self.key));
        let CsvTable {
            fields,
            key,
            text,
            ends,
            index,
            hasher,
        } = self;
        let (width, key) = (fields.len(), *key);
        let hash_of = |row: &u32| hasher.hash_one(cell(text, ends, width, *row as usize, key));
        index.insert_unique(hash, row as u32, hash_of);
        Ok(())
    }

    pub(super) fn fields(&self) -> &[String] {
        &self.fields
    }

    pub(super) fn rows(&self) -> usize {
        self.ends.len() / self.fields.len()
    }

    pub(super) fn row(&self, key: &str) -> Option<usize> {
        let same = |row: &u32| self.cell(*row as usize, self.key) == key;
        self.index
            .find(self.hasher.hash_one(key), same)
            .map(|row| *row as usize)
    }

    pub(super) fn cell(&self, row: usize, column: usize) -> &str {
        cell(&self.text, &self.ends, self.fields.len(), row, column)
    }

    /// The places of columns.
    pub(super) fn columns(&self, fields: &[&str]) -> Result<Vec<usize>, String> {
        fields.iter().map(|field| position(&self.fields, field)).collect()
    }
}

fn cell<'a>(text: &'a str, ends: &[u32], width: usize, row: usize, column: usize) -> &'a str {
    let place = row * width + column;
    let end = |place: usize| ends.get(place).map_or(0, |end| *end as usize);
    let start = place.checked_sub(1).map_or(0, end);
    text.get(start..end(place)).unwrap_or_default()
}

fn position(fields: &[String], field: &str) -> Result<usize, String> {
    let found = fields.iter().position(|other| other == field);
    found.ok_or_else(|| {
        let told = fields
            .iter()
            .take(FIELDS_TOLD)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let more = match fields.len().saturating_sub(FIELDS_TOLD) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("has no column `{field}`; it has {told}{more}")
    })
}

/// Errors of the parser name the line.
fn tell(error: csv::Error) -> String {
    error.to_string()
}
