//! Why a query got no answer. The codes are stable: programs compare them.

use std::error::Error;
use std::time::Duration;

use datafusion::error::DataFusionError;

/// A place in the text of a query; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

/// What went wrong, by what the one who asked can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No token, or one that is not known here.
    Unauthorized,
    /// The token is good but does not reach this far.
    Forbidden,
    /// The request itself is malformed.
    BadRequest,
    Syntax,
    /// More or less than one statement.
    NotOneStatement,
    /// A statement that would change something.
    ReadOnly,
    UnknownTable,
    UnknownColumn,
    UnknownFunction,
    /// Understood, but it does not make sense as a query.
    Invalid,
    /// SQL that is known but not offered.
    Unsupported,
    /// It began to run and then failed on its data.
    Execution,
    Timeout,
    MemoryLimit,
    /// It would read more than one query may.
    ScanLimit,
    TooManyRows,
    AnswerTooLarge,
    /// Every place is taken.
    Busy,
    NotFound,
    MethodNotAllowed,
    /// None of the formats in `Accept` is offered.
    NotAcceptable,
    /// The stores cannot be read right now.
    Unavailable,
    Internal,
}

impl Kind {
    /// The stable word for it.
    pub fn code(self) -> &'static str {
        match self {
            Kind::Unauthorized => "unauthorized",
            Kind::Forbidden => "forbidden",
            Kind::BadRequest => "bad_request",
            Kind::Syntax => "syntax",
            Kind::NotOneStatement => "not_one_statement",
            Kind::ReadOnly => "read_only",
            Kind::UnknownTable => "unknown_table",
            Kind::UnknownColumn => "unknown_column",
            Kind::UnknownFunction => "unknown_function",
            Kind::Invalid => "invalid_query",
            Kind::Unsupported => "unsupported",
            Kind::Execution => "execution",
            Kind::Timeout => "timeout",
            Kind::MemoryLimit => "memory_limit",
            Kind::ScanLimit => "scan_limit",
            Kind::TooManyRows => "too_many_rows",
            Kind::AnswerTooLarge => "answer_too_large",
            Kind::Busy => "busy",
            Kind::NotFound => "not_found",
            Kind::MethodNotAllowed => "method_not_allowed",
            Kind::NotAcceptable => "not_acceptable",
            Kind::Unavailable => "unavailable",
            Kind::Internal => "internal",
        }
    }

    /// The one mapping to HTTP.
    pub fn status(self) -> u16 {
        match self {
            Kind::Unauthorized => 401,
            Kind::Forbidden | Kind::ReadOnly => 403,
            Kind::BadRequest
            | Kind::Syntax
            | Kind::NotOneStatement
            | Kind::UnknownTable
            | Kind::UnknownColumn
            | Kind::UnknownFunction
            | Kind::Invalid
            | Kind::Unsupported => 400,
            Kind::Execution | Kind::MemoryLimit | Kind::ScanLimit | Kind::TooManyRows | Kind::AnswerTooLarge => 422,
            Kind::Timeout => 504,
            Kind::Busy => 429,
            Kind::NotFound => 404,
            Kind::MethodNotAllowed => 405,
            Kind::NotAcceptable => 406,
            Kind::Unavailable => 503,
            Kind::Internal => 500,
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Unauthorized => "a valid token is needed",
            Kind::Forbidden => "this token does not reach that far",
            Kind::BadRequest => "the request is malformed",
            Kind::Syntax => "the query cannot be read",
            Kind::NotOneStatement => "one statement at a time",
            Kind::ReadOnly => "queries only read",
            Kind::UnknownTable => "no such table",
            Kind::UnknownColumn => "no such column",
            Kind::UnknownFunction => "no such function",
            Kind::Invalid => "the query makes no sense",
            Kind::Unsupported => "not offered",
            Kind::Execution => "the query failed on its data",
            Kind::Timeout => "the query took too long",
            Kind::MemoryLimit => "the query needs too much memory",
            Kind::ScanLimit => "the query reads too much",
            Kind::TooManyRows => "the answer has too many rows",
            Kind::AnswerTooLarge => "the answer is too large",
            Kind::Busy => "too many queries at once",
            Kind::NotFound => "not found",
            Kind::MethodNotAllowed => "another method is needed",
            Kind::NotAcceptable => "no such format",
            Kind::Unavailable => "the stores cannot be read",
            Kind::Internal => "a mistake of ours",
        }
    }
}

/// A refused or failed query.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    pub kind: Kind,
    pub message: String,
    pub position: Option<Position>,
    pub hint: Option<String>,
    /// When it makes sense to ask again.
    pub retry_after: Option<Duration>,
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// A machine that computed a part of the answer is gone, and rows of it were given already.
#[derive(Debug, thiserror::Error)]
#[error("a worker was lost while it computed a part of the answer")]
pub(crate) struct WorkerLost;

impl QueryError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> QueryError {
        QueryError {
            kind,
            message: message.into(),
            position: None,
            hint: None,
            retry_after: None,
            source: None,
        }
    }

    pub(crate) fn at(mut self, position: Option<Position>) -> QueryError {
        self.position = position;
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> QueryError {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn retry_after(mut self, wait: Duration) -> QueryError {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> QueryError {
        self.source = Some(source.into());
        self
    }

    /// A failure while rows were being made, where there is no text to point into any more.
    pub(crate) fn of_execution(error: DataFusionError) -> QueryError {
        if let Some(kind) = resource(&error) {
            return kind.because(error);
        }
        // However deep it lies: some writers of spilled rows tell it as any other failure to write.
        let said = error.to_string();
        if said.contains("disk space during the spilling process") {
            return exhausted(&said).because(error);
        }
        let root = error.find_root();
        if let DataFusionError::External(cause) = root
            && cause.is::<WorkerLost>()
        {
            let lost = QueryError::new(Kind::Unavailable, WorkerLost.to_string());
            return lost
                .hint("ask again: what it had to do is done by others then")
                .because(error);
        }
        let (kind, message) = match root {
            DataFusionError::ObjectStore(e) => (Kind::Unavailable, e.to_string()),
            DataFusionError::IoError(e) => (Kind::Unavailable, e.to_string()),
            DataFusionError::NotImplemented(e) => (Kind::Unsupported, first_line(e)),
            DataFusionError::Internal(e) => (Kind::Internal, first_line(e)),
            DataFusionError::ExecutionJoin(_) => (Kind::Internal, "a part of the query stopped unexpectedly".into()),
            other => (Kind::Execution, first_line(&other.message())),
        };
        QueryError::new(kind, message).because(error)
    }
}

/// How the refusal of one function begins.
const ONE_STEP: &str = "one step of the query ";

/// Which limit it was. Ours name themselves with their value; what the engine says by itself is about the disk that a query spills to.
fn exhausted(said: &str) -> QueryError {
    let ours = ["`limits.memory`", "`limits.total_memory`", "`limits.max_scan`"];
    let line = said.lines().find(|line| ours.iter().any(|limit| line.contains(limit)));
    let (kind, message) = match (line, said.split_once("allowable limit of ")) {
        (Some(line), _) if line.contains("`limits.max_scan`") => (Kind::ScanLimit, sentence(line)),
        (Some(line), _) => (Kind::MemoryLimit, sentence(line)),
        (None, Some((_, limit))) => {
            let limit = limit.split(". ").next().unwrap_or(limit).trim_end_matches('.');
            let message = format!(
                "the query needs more memory than it may have, and more disk than `limits.spill` allows, which is {limit}"
            );
            (Kind::MemoryLimit, message)
        }
        (None, None) => (
            Kind::MemoryLimit,
            "the query needs more memory than `limits.memory` allows, and cannot spill more of it to disk".to_owned(),
        ),
    };
    let hint = match message.starts_with(ONE_STEP) {
        true => "give it shorter texts, smaller numbers or fewer rows",
        false => "narrow the time range, select fewer columns, or group by fewer values",
    };
    QueryError::new(kind, message).hint(hint)
}

/// Ours within what the engine put around it.
fn sentence(line: &str) -> String {
    let begins = [ONE_STEP, "the query ", "all queries "]
        .iter()
        .filter_map(|begin| line.find(begin))
        .min();
    let line = &line[begins.unwrap_or(0)..];
    let end = line.find(" bytes").map_or(line.len(), |at| at + " bytes".len());
    line[..end].to_owned()
}

/// Limits of memory, disk and reading, however deep they are wrapped.
pub(crate) fn resource(error: &DataFusionError) -> Option<QueryError> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(e) = next {
        let inner = e.downcast_ref::<DataFusionError>().or_else(|| {
            e.downcast_ref::<std::sync::Arc<DataFusionError>>()
                .map(|shared| shared.as_ref())
        });
        match inner {
            Some(DataFusionError::ResourcesExhausted(said)) => return Some(exhausted(said)),
            // a spill that is written as a stream of its own tells its limit as a failure to write
            Some(DataFusionError::IoError(said)) if said.to_string().contains("allowable limit of ") => {
                return Some(exhausted(&said.to_string()));
            }
            _ => {}
        }
        next = e.source();
    }
    None
}

/// What the engine says for people, without what it says to its own makers.
pub(crate) fn first_line(text: &str) -> String {
    let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("");
    let mut line = line.trim();
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Schema error: ",
        "External error: ",
    ] {
        line = line.strip_prefix(prefix).unwrap_or(line);
    }
    line.to_owned()
}
