//! The prepared statements of every tenant: bounded in number and bytes, and forgotten when nobody has used them for a while, because
//! gRPC does not say when a client is gone. Pure: time and handles are arguments.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;

use crate::error::{Kind, QueryError};
use crate::shape::Shape;
use crate::tokens::Identity;

/// Prepared statements of one tenant.
pub(super) const MAX_STATEMENTS: usize = 1_024;
/// Bytes of their texts, schemas and parameters together.
const MAX_BYTES: usize = 16 << 20;
/// A statement that was not used for this long is forgotten.
const IDLE: Duration = Duration::from_secs(15 * 60);

pub(super) type Handle = [u8; 16];

/// A query that was planned once, and the values that it runs with next.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: Arc<str>,
    pub(super) shape: Arc<Shape>,
    /// `None`: nothing was bound yet.
    pub(super) values: Option<Arc<[ScalarValue]>>,
}

#[derive(Debug)]
struct Kept {
    statement: Statement,
    used: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Prepared {
    owners: HashMap<Identity, HashMap<Handle, Kept>>,
}

impl Statement {
    fn bytes(&self) -> usize {
        let values = self.values.iter().flat_map(|values| values.iter());
        self.sql.len() + self.shape.bytes() + values.map(ScalarValue::size).sum::<usize>()
    }
}

impl Prepared {
    pub(super) fn put(
        &mut self,
        owner: &Identity,
        handle: Handle,
        statement: Statement,
        now: Instant,
    ) -> Result<(), QueryError> {
        self.forget_idle(now);
        let bytes = statement.bytes();
        let kept = self.owners.entry(owner.clone()).or_default();
        let others = kept.iter().filter(|(known, _)| **known != handle);
        let held: usize = others.map(|(_, kept)| kept.statement.bytes()).sum();
        let full = kept.len() >= MAX_STATEMENTS && !kept.contains_key(&handle);
        if full || held + bytes > MAX_BYTES {
            return Err(QueryError::new(
                Kind::Busy,
                format!("this tenant has as many prepared statements as it may: {MAX_STATEMENTS}, or {MAX_BYTES} bytes of them"),
            )
            .hint(format!("close some; those that nobody uses are forgotten after {} min", IDLE.as_secs() / 60)));
        }
        kept.insert(handle, Kept { statement, used: now });
        Ok(())
    }

    /// The statement, if this owner has it. A handle of somebody else is as unknown as one that never was.
    pub(super) fn get(
        &mut self,
        owner: &Identity,
        handle: &[u8],
        now: Instant,
    ) -> Result<(Handle, Statement), QueryError> {
        self.forget_idle(now);
        let handle = Handle::try_from(handle).map_err(|_| unknown())?;
        let kept = self.owners.get_mut(owner).and_then(|kept| kept.get_mut(&handle));
        let kept = kept.ok_or_else(unknown)?;
        kept.used = now;
        Ok((handle, kept.statement.clone()))
    }

    pub(super) fn close(&mut self, owner: &Identity, handle: &[u8]) {
        if let (Ok(handle), Some(kept)) = (Handle::try_from(handle), self.owners.get_mut(owner)) {
            kept.remove(&handle);
        }
    }

    fn forget_idle(&mut self, now: Instant) {
        self.owners.retain(|_, kept| {
            kept.retain(|_, kept| now.saturating_duration_since(kept.used) < IDLE);
            !kept.is_empty()
        });
    }
}

fn unknown() -> QueryError {
    QueryError::new(Kind::NotFound, "there is no such prepared statement").hint(format!(
        "prepare it again: statements are forgotten when they are closed, or unused for {} min",
        IDLE.as_secs() / 60
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use sluice_wire::ids::TenantId;

    use super::*;
    use crate::tokens::{Reach, Tokens, mint};

    fn who(name: &str) -> Identity {
        let (token, entry) = mint([7; 32], name, &TenantId::new(name).unwrap(), Reach::Tenant);
        Tokens::from_entries(&[entry]).unwrap().identify(&token).unwrap()
    }

    fn statement(sql: &str) -> Statement {
        let shape = Shape {
            params: Vec::new(),
            schema: Arc::new(Schema::empty()),
        };
        Statement {
            sql: sql.into(),
            shape: Arc::new(shape),
            values: None,
        }
    }

    fn handle(n: usize) -> Handle {
        (n as u128).to_be_bytes()
    }

    #[test]
    fn statements_are_bounded_by_number_bytes_and_time() {
        let (acme, beta) = (who("acme"), who("beta"));
        let mut prepared = Prepared::default();
        let start = Instant::now();
        for n in 0..MAX_STATEMENTS {
            prepared.put(&acme, handle(n), statement("SELECT 1"), start).unwrap();
        }
        let full = prepared.put(&acme, handle(MAX_STATEMENTS), statement("SELECT 1"), start);
        assert_eq!(full.unwrap_err().kind, Kind::Busy);
        prepared.put(&acme, handle(3), statement("SELECT 2"), start).unwrap();
        prepared.put(&beta, handle(0), statement("SELECT 3"), start).unwrap();
        assert_eq!(&*prepared.get(&acme, &handle(3), start).unwrap().1.sql, "SELECT 2");
        assert_eq!(prepared.get(&beta, &handle(3), start).unwrap_err().kind, Kind::NotFound);
        assert_eq!(prepared.get(&acme, b"short", start).unwrap_err().kind, Kind::NotFound);
        prepared.close(&beta, &handle(5));
        prepared.close(&acme, &handle(5));
        let large = prepared.put(&acme, handle(5), statement(&"x".repeat(MAX_BYTES)), start);
        assert_eq!(large.unwrap_err().kind, Kind::Busy);

        // A short text can have a wide schema: `SELECT *, *, …`.
        let field = |n: usize| Field::new(format!("{n}{}", "x".repeat(1_000)), DataType::Utf8, true);
        let wide = Shape {
            params: Vec::new(),
            schema: Arc::new(Schema::new((0..20_000).map(field).collect::<Vec<_>>())),
        };
        let wide = Statement {
            shape: Arc::new(wide),
            ..statement("SELECT 1")
        };
        assert_eq!(
            prepared.put(&acme, handle(5), wide, start).unwrap_err().kind,
            Kind::Busy
        );

        prepared.get(&acme, &handle(3), start + IDLE / 2).unwrap();
        let later = start + IDLE;
        assert!(prepared.get(&acme, &handle(3), later).is_ok(), "it was used since");
        assert_eq!(prepared.get(&acme, &handle(4), later).unwrap_err().kind, Kind::NotFound);
        assert_eq!(prepared.owners.len(), 1, "nothing is kept for who has nothing");
    }
}
