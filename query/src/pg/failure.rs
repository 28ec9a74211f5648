//! A refused or failed query as Postgres says it: an SQLSTATE, a message, a hint and the place in the text.

use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use datafusion_postgres::pgwire::messages::response::NoticeResponse;

use crate::completeness::Statement;
use crate::error::{Kind, Position, QueryError};

/// The codes that clients compare: <https://www.postgresql.org/docs/16/errcodes-appendix.html>.
fn sqlstate(kind: Kind) -> &'static str {
    match kind {
        Kind::Unauthorized => "28P01",
        Kind::Forbidden => "42501",
        Kind::BadRequest => "22023",
        Kind::Syntax | Kind::NotOneStatement => "42601",
        Kind::ReadOnly => "25006",
        Kind::UnknownTable => "42P01",
        Kind::UnknownColumn => "42703",
        Kind::UnknownFunction => "42883",
        Kind::Invalid => "42000",
        Kind::Unsupported | Kind::MethodNotAllowed | Kind::NotAcceptable => "0A000",
        Kind::Execution => "22000",
        Kind::Timeout => "57014",
        Kind::MemoryLimit => "53200",
        Kind::ScanLimit | Kind::TooManyRows | Kind::AnswerTooLarge => "54000",
        Kind::Busy => "53300",
        Kind::NotFound => "42704",
        Kind::Unavailable => "57P03",
        Kind::Internal => "XX000",
    }
}

/// `before` is what of the message's text stands before the statement, so that the place is counted in the whole.
pub(super) fn of_query(error: QueryError, sql: &str, before: &str) -> PgWireError {
    let mut info = info("ERROR", sqlstate(error.kind), &error.message);
    info.hint = error.hint;
    // the same word as at the other doors; what psql shows with \set VERBOSITY verbose
    info.routine = Some(error.kind.code().to_owned());
    info.position = error
        .position
        .map(|place| (before.chars().count() + character(sql, place)).to_string());
    PgWireError::UserError(Box::new(info))
}

pub(super) fn refused(code: &str, message: &str) -> PgWireError {
    PgWireError::UserError(Box::new(info("ERROR", code, message)))
}

/// Ends the connection.
pub(super) fn fatal(code: &str, message: &str, hint: Option<&str>) -> PgWireError {
    let mut info = info("FATAL", code, message);
    info.hint = hint.map(str::to_owned);
    PgWireError::UserError(Box::new(info))
}

pub(super) fn warning(message: &str) -> NoticeResponse {
    info("WARNING", "01000", message).into()
}

/// What an answer lacks, if it lacks anything or nobody knows.
pub(super) fn incomplete(statement: &Statement) -> Option<NoticeResponse> {
    if statement.complete {
        return None;
    }
    let message = match (statement.missing_records, statement.oldest_missing_age_ms) {
        (None, _) => "how complete this answer is is not known: the end of the log is not known here".to_owned(),
        (Some(missing), None) => format!("this answer lacks {missing} records of the log that no store holds yet"),
        (Some(missing), Some(age)) => format!(
            "this answer lacks {missing} records of the log that no store holds yet, the oldest for {} s",
            age / 1_000
        ),
    };
    Some(info("NOTICE", "01000", &message).into())
}

fn info(severity: &str, code: &str, message: &str) -> ErrorInfo {
    let mut info = ErrorInfo::new(severity.to_owned(), code.to_owned(), message.to_owned());
    info.severity_nonlocalized = Some(severity.to_owned());
    info
}

/// Line and column as one number, counted from 1.
fn character(sql: &str, place: Position) -> usize {
    let lines = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let before: usize = sql.split_inclusive('\n').take(lines).map(|l| l.chars().count()).sum();
    before + usize::try_from(place.column).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_characters_over_lines() {
        let at = |line, column| character("SELECT 'ß',\n  nope\nFROM x", Position { line, column });
        assert_eq!((at(1, 1), at(2, 3), at(3, 6)), (1, 15, 25));
    }
}
