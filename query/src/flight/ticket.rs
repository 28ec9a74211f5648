//! What a client shows to fetch an answer: the question itself, sealed with the token that it was asked with. So a ticket needs no memory
//! here, works at every node that knows the token, and is worth nothing without it.
//!
//! `version u8 = 1 | kind u8 (1: text of a query, 2: handle of a prepared statement) | number [u8; 16] | content | seal [u8; 32]`,
//! where the seal is BLAKE3 over what stands before it, keyed by the token.

use subtle::ConstantTimeEq;

/// Separates this key from every other use of the token.
const CONTEXT: &str = "sluice flight ticket 2026-11 v1";
const VERSION: u8 = 1;
const QUERY: u8 = 1;
const PREPARED: u8 = 2;
const HEAD: usize = 18;
const SEAL: usize = 32;

/// Tells one asking of a question from the next.
pub(super) type Number = [u8; 16];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) number: Number,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Query(String),
    Prepared(Vec<u8>),
}

impl Ticket {
    pub(super) fn seal(&self, token: &str) -> Vec<u8> {
        let (kind, content) = match &self.content {
            Content::Query(sql) => (QUERY, sql.as_bytes()),
            Content::Prepared(handle) => (PREPARED, handle.as_slice()),
        };
        let mut bytes = Vec::with_capacity(HEAD + content.len() + SEAL);
        bytes.extend([VERSION, kind]);
        bytes.extend(self.number);
        bytes.extend(content);
        let seal = seal(token, &bytes);
        bytes.extend(seal);
        bytes
    }

    /// `None`: it was not issued to this token, or was changed on the way.
    pub(super) fn open(bytes: &[u8], token: &str) -> Option<Ticket> {
        let (said, found) = bytes.split_last_chunk::<SEAL>().map(|(body, seal)| (body, *seal))?;
        if !bool::from(seal(token, said).ct_eq(&found)) {
            return None;
        }
        let (head, content) = said.split_first_chunk::<HEAD>()?;
        let [version, kind, number @ ..] = *head;
        let content = match (version, kind) {
            (VERSION, QUERY) => Content::Query(String::from_utf8(content.to_vec()).ok()?),
            (VERSION, PREPARED) => Content::Prepared(content.to_vec()),
            _ => return None,
        };
        Some(Ticket { number, content })
    }
}

fn seal(token: &str, bytes: &[u8]) -> [u8; SEAL] {
    let key = blake3::derive_key(CONTEXT, token.as_bytes());
    *blake3::keyed_hash(&key, bytes).as_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_ticket_opens_with_its_token_and_unchanged_only(
            sql in ".{0,80}", handle in prop::collection::vec(any::<u8>(), 0..40), number in any::<[u8; 16]>(),
            at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>(),
        ) {
            for content in [Content::Query(sql), Content::Prepared(handle)] {
                let ticket = Ticket { number, content };
                let bytes = ticket.seal("slq_a");
                prop_assert_eq!(Ticket::open(&bytes, "slq_a"), Some(ticket));
                prop_assert_eq!(Ticket::open(&bytes, "slq_b"), None);
                prop_assert_eq!(Ticket::open(&bytes[..cut.index(bytes.len())], "slq_a"), None);
                let mut changed = bytes;
                let at = at.index(changed.len());
                changed[at] ^= 1 << bit;
                prop_assert_eq!(Ticket::open(&changed, "slq_a"), None);
            }
        }
    }
}
