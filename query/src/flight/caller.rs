//! Who calls, and how long they wait for the answer. A bearer token decides, or basic credentials whose password is one; every other
//! header that claims an identity is ignored.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tonic::metadata::MetadataMap;

use crate::error::{Kind, QueryError};
use crate::tokens::{Identity, Tokens};

/// Digits of a time limit, as gRPC has it.
const MAX_DIGITS: usize = 8;

/// One call's origin.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) who: Identity,
    pub(super) token: String,
    /// How long the client waits, if it said so.
    pub(super) timeout: Option<Duration>,
}

impl Caller {
    pub(super) fn of(metadata: &MetadataMap, tokens: &Tokens) -> Result<Caller, QueryError> {
        let mut given = metadata.get_all("authorization").iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return Err(refused(
                "exactly one `authorization` is needed: a bearer token, or basic with the token as password",
            ));
        };
        let token = value.to_str().ok().and_then(token);
        let known = token.and_then(|token| Some((tokens.identify(&token)?, token)));
        let (who, token) = known.ok_or_else(|| refused("the token is not known here"))?;
        Ok(Caller {
            who,
            token,
            timeout: metadata
                .get("grpc-timeout")
                .and_then(|value| timeout(value.to_str().ok()?)),
        })
    }
}

fn refused(message: &str) -> QueryError {
    QueryError::new(Kind::Unauthorized, message)
        .hint("the token is in the file that `sluice up` names, or comes from `sluice key`")
}

fn token(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
    plain.split_once(':').map(|(_, password)| password.to_owned())
}

/// `1S`, `200m`: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_as_bearer_or_as_password() {
        let basic = |plain: &str| format!("Basic {}", BASE64_STANDARD.encode(plain));
        assert_eq!(token("Bearer slq_1").as_deref(), Some("slq_1"));
        assert_eq!(token(&basic("anyone:slq_1")).as_deref(), Some("slq_1"));
        assert_eq!(token(&basic("anyone:a:b")).as_deref(), Some("a:b"));
        for bad in ["slq_1", "Digest slq_1", "Basic !", &basic("no colon"), ""] {
            assert_eq!(token(bad), None, "{bad}");
        }
    }

    #[test]
    fn time_limits_are_read_as_grpc_writes_them() {
        assert_eq!(timeout("1500m"), Some(Duration::from_millis(1_500)));
        assert_eq!(timeout("2S"), Some(Duration::from_secs(2)));
        for bad in ["", "S", "123456789S", "1", "1x", "-1S", "1é"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }
}
