//! What can be done to the processes.

use std::fmt;

use crate::engines::Engine;
use crate::fleet::Part;

/// What every way must carry for QUIC.
pub(super) const LEAST_PACKET: usize = 1_200;

/// A process under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    Edge,
    Cloud,
    /// Of a fleet.
    Of(Part),
}

impl Who {
    /// The processes of a world without a fleet.
    pub const PAIR: [Who; 2] = [Who::Edge, Who::Cloud];
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Edge => f.write_str("edge"),
            Who::Cloud => f.write_str("cloud"),
            Who::Of(part) => part.fmt(f),
        }
    }
}

/// Files of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Segments of a log.
    Journal,
    Spool,
    Log,
    /// The small files beside them.
    EdgeState,
    CloudState,
}

impl Files {
    pub fn owner(self) -> Who {
        match self {
            Files::Journal | Files::Spool | Files::EdgeState => Who::Edge,
            Files::Log | Files::CloudState => Who::Cloud,
        }
    }
}

/// A part of a segment file, as `crates/wal/FORMAT.md` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    Header,
    Note,
    FrameHead,
    /// The first bytes of a record, where it says what it holds.
    RecordHead,
    Payload,
    Marker,
    /// A bit anywhere in the file.
    Any,
    /// The whole file is gone.
    Gone,
}

/// One bit of one file; `place` chooses it among those of its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flip {
    pub file: Files,
    pub region: Region,
    pub place: u64,
}

/// One thing that is done, until it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL, and a start.
    Kill(Who),
    /// Both at once.
    KillAll,
    /// A start that ends itself at the n-th passage of a point, and another start.
    CrashAt {
        who: Who,
        point: &'static str,
        passage: u32,
    },
    /// SIGSTOP, and SIGCONT.
    Pause { who: Who, ms: u64 },
    /// From now on the wall clock of a process is so far off.
    Clock { who: Who, seconds: i64 },
    /// Others fill the disk, and make room again; meanwhile the process may be killed and started.
    Fill { who: Who, hold_ms: u64, kill: bool },
    /// A killed process finds this bit flipped.
    Flip(Flip),
    /// Nothing gets through the link; meanwhile a process may be killed and started.
    Outage { ms: u64, kill: Option<Who> },
    /// An engine is killed, and started again after so long; meanwhile a process may be killed, too.
    Away { engine: Engine, ms: u64, kill: Option<Who> },
    /// The gateway sees another port.
    Rebind,
    /// Packets longer than QUIC's least vanish from now on.
    Narrow,
}

/// An action and how much is acknowledged before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub after_events: u64,
    pub then_ms: u64,
    pub action: Action,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, ms) = (self.after_events, self.then_ms);
        write!(f, "after {events} events and {ms} ms: {}", self.action)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Action::Kill(who) => write!(f, "kill -9 {who}"),
            Action::KillAll => write!(f, "kill -9 of both"),
            Action::CrashAt { who, point, passage } => write!(f, "{who} dies at {point}:{passage}"),
            Action::Pause { who, ms } => write!(f, "{who} stands still for {ms} ms"),
            Action::Clock { who, seconds } => write!(f, "the clock of {who} is {seconds} s off"),
            Action::Fill { who, hold_ms, kill } => {
                let killed = if kill { ", and it is killed" } else { "" };
                write!(f, "the disk of {who} is full for {hold_ms} ms{killed}")
            }
            Action::Flip(Flip { file, region, place }) => match region {
                Region::Gone => write!(f, "a file of {file:?} is gone (place {place})"),
                _ => write!(f, "{file:?}: a bit of {region:?} flips (place {place})"),
            },
            Action::Outage { ms, kill: None } => write!(f, "the link is cut for {ms} ms"),
            Action::Outage { ms, kill: Some(who) } => {
                write!(f, "the link is cut for {ms} ms, and {who} is killed")
            }
            Action::Away { engine, ms, kill: None } => write!(f, "kill -9 {engine}, away for {ms} ms"),
            Action::Away {
                engine,
                ms,
                kill: Some(who),
            } => write!(f, "kill -9 {engine}, away for {ms} ms, and meanwhile kill -9 {who}"),
            Action::Rebind => write!(f, "the link gets another port"),
            Action::Narrow => write!(f, "packets of more than {LEAST_PACKET} bytes vanish from now on"),
        }
    }
}
