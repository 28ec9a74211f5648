//! From a request to who asks. The bearer token decides; every other header that claims an identity is ignored.

use axum::http::{HeaderMap, header};

use crate::error::{Kind, QueryError};
use crate::tokens::{Identity, Reach, Tokens};

pub(crate) fn identify(headers: &HeaderMap, tokens: &Tokens) -> Result<Identity, QueryError> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(refused("exactly one `Authorization: Bearer TOKEN` is needed"));
    };
    let token = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    token
        .and_then(|token| tokens.identify(token))
        .ok_or_else(|| refused("the token is not known here"))
}

/// For what shows more than one tenant.
pub(crate) fn operator(headers: &HeaderMap, tokens: &Tokens) -> Result<Identity, QueryError> {
    let who = identify(headers, tokens)?;
    match who.reach() {
        Reach::Operator => Ok(who),
        Reach::Tenant => Err(QueryError::new(
            Kind::Forbidden,
            "this shows the whole node and needs a token of scope `operator`",
        )),
    }
}

fn refused(message: &str) -> QueryError {
    QueryError::new(Kind::Unauthorized, message)
}
