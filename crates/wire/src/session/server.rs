//! The gateway's half of a session: who may speak, what is taken, what is answered.
//!
//! An ACK leaves this half only after `handle_durable`. Identity comes from the certificate that the caller verified;
//! what a HELLO or a batch says must agree with it.

use std::collections::{BTreeMap, VecDeque};

use super::frame::{
    self, Ack, Frame, GoAway, Hello, Lane, Nack, NotRenewed, Preamble, Refused, RefusedCode, Renew, Renewed, Verdict,
    Welcome,
};
use crate::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};

/// What a gateway grants a session.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub generation: u32,
    /// The log's record limit.
    pub max_batch_bytes: u32,
    pub max_in_flight: u32,
    pub max_in_flight_bytes: u64,
    /// From the connection to its HELLO.
    pub hello_timeout_ms: u64,
    /// How long an edge waits that sent more than it was granted.
    pub busy_ms: u32,
    /// There is an authority to ask for certificates.
    pub renews: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            generation: 0,
            max_batch_bytes: 8 << 20,
            max_in_flight: 32,
            max_in_flight_bytes: 16 << 20,
            hello_timeout_ms: 10_000,
            busy_ms: 1_000,
            renews: false,
        }
    }
}

/// What the caller shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Send(Frame),
    /// Send what is queued, then close the connection with this code.
    Close {
        code: RefusedCode,
        reason: String,
    },
    /// Ask the authority, then `handle_renewed` or `handle_not_renewed`.
    Renew(Renew),
}

/// How long an edge waits whose expired certificate lets it do nothing but renew.
const RENEW_FIRST_MS: u32 = 10_000;

/// One batch that is being received or written to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

#[derive(Debug)]
enum State {
    AwaitHello { until: u64 },
    Live { stream: StreamId },
    Closed,
}

/// How far this session is with a new certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    NotGranted,
    Granted,
    Asked,
}

#[derive(Debug)]
struct Taken {
    epoch: Epoch,
    seq: u64,
    bytes: u32,
    hash: Option<[u8; 32]>,
}

/// The gateway's half of one connection.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    tenant: TenantId,
    node: NodeId,
    session: u64,
    state: State,
    draining: bool,
    /// The certificate is expired: nothing but a new one is to be had.
    renewal_only: bool,
    renewal: Renewal,
    taken: BTreeMap<Ticket, Taken>,
    taken_bytes: u64,
    next_ticket: u64,
    actions: VecDeque<Action>,
}

impl Server {
    /// `tenant` and `node` are those of the verified certificate.
    pub fn new(options: ServerOptions, tenant: TenantId, node: NodeId, session: u64, now_ms: u64) -> Self {
        let until = now_ms + options.hello_timeout_ms;
        Self {
            options,
            tenant,
            node,
            session,
            state: State::AwaitHello { until },
            draining: false,
            renewal_only: false,
            renewal: Renewal::NotGranted,
            taken: BTreeMap::new(),
            taken_bytes: 0,
            next_ticket: 0,
            actions: VecDeque::new(),
        }
    }

    /// For a peer whose certificate is expired, and not for too long.
    pub fn for_renewal_only(mut self) -> Self {
        self.renewal_only = true;
        self
    }

    /// The stream of this session, once its HELLO was accepted.
    pub fn stream(&self) -> Option<&StreamId> {
        match &self.state {
            State::Live { stream } => Some(stream),
            _ => None,
        }
    }

    /// Batches taken and not yet answered.
    pub fn in_flight(&self) -> usize {
        self.taken.len()
    }

    pub fn handle_frame(&mut self, frame: Frame) {
        match (&self.state, frame) {
            (State::AwaitHello { .. }, Frame::Hello(hello)) => self.handle_hello(hello),
            (State::Live { .. }, Frame::Renew(ask)) if self.renewal == Renewal::Granted => {
                self.renewal = Renewal::Asked;
                self.actions.push_back(Action::Renew(ask));
            }
            (State::Closed, _) => {}
            _ => self.refuse(RefusedCode::Protocol, "frame out of place"),
        }
    }

    /// A stream of a batch began. `None`: it was answered, its bytes are not wanted. With `backlog_rest_ms` the log has enough
    /// to do: nothing of the backlog lane is taken, and that lane is told to wait so long.
    pub fn handle_preamble(&mut self, preamble: &Preamble, backlog_rest_ms: Option<u32>) -> Option<Ticket> {
        match self.state {
            State::Live { .. } => {}
            State::AwaitHello { .. } => {
                self.refuse(RefusedCode::Protocol, "batch before HELLO was answered");
                return None;
            }
            State::Closed => return None,
        }
        let (epoch, seq, bytes) = (preamble.epoch, preamble.seq, preamble.length);
        let busy = Verdict::Retry {
            after_ms: self.options.busy_ms,
        };
        if self.renewal_only {
            let after_ms = RENEW_FIRST_MS.max(self.options.busy_ms);
            let reason = "the certificate is expired: nothing is taken until it is renewed".to_owned();
            self.nack(epoch, seq, Verdict::Retry { after_ms }, reason);
            return None;
        }
        if bytes > self.options.max_batch_bytes {
            let reason = format!(
                "batch of {bytes} bytes, the log takes up to {}",
                self.options.max_batch_bytes
            );
            self.nack(epoch, seq, Verdict::Hold { after_ms: 60_000 }, reason);
            return None;
        }
        if self.draining {
            self.nack(epoch, seq, busy, "gateway is leaving".to_owned());
            return None;
        }
        if let (Lane::Backlog, Some(after_ms)) = (preamble.lane, backlog_rest_ms) {
            let reason = "the log is behind: backlog waits, live batches are taken".to_owned();
            self.nack(epoch, seq, Verdict::Retry { after_ms }, reason);
            return None;
        }
        let full = self.taken.len() >= self.options.max_in_flight as usize
            || (!self.taken.is_empty() && self.taken_bytes + u64::from(bytes) > self.options.max_in_flight_bytes);
        if full {
            self.nack(epoch, seq, busy, "more in flight than granted".to_owned());
            return None;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.taken_bytes += u64::from(bytes);
        self.taken.insert(
            ticket,
            Taken {
                epoch,
                seq,
                bytes,
                hash: None,
            },
        );
        Some(ticket)
    }

    /// All bytes of a batch are there and its envelope was parsed. False: it was answered, it must not reach the log.
    pub fn handle_batch(&mut self, ticket: Ticket, id: &BatchId, hash: [u8; 32]) -> bool {
        let State::Live { stream } = &self.state else {
            return false;
        };
        let Some(taken) = self.taken.get_mut(&ticket) else {
            return false;
        };
        // Reversible: a renamed certificate or a moved spool. An operator decides; the edge keeps the batch.
        let reason = if &id.stream != stream {
            Some("batch is of another stream than this session's")
        } else if (id.epoch, id.seq) != (taken.epoch, taken.seq) {
            Some("batch has another id than its stream announced")
        } else {
            taken.hash = Some(hash);
            None
        };
        match reason {
            Some(reason) => {
                self.handle_failed(ticket, Verdict::Hold { after_ms: 60_000 }, reason);
                false
            }
            None => true,
        }
    }

    /// The log holds the batch durably.
    pub fn handle_durable(&mut self, ticket: Ticket) {
        let Some(taken) = self.release(ticket) else {
            return;
        };
        // Without the hash the batch was never handed over; then there is nothing to acknowledge.
        if let Some(hash) = taken.hash {
            let ack = Ack {
                epoch: taken.epoch,
                seq: taken.seq,
                hash,
            };
            self.actions.push_back(Action::Send(Frame::Ack(ack)));
        }
    }

    /// The batch is not in the log, or may not be.
    pub fn handle_failed(&mut self, ticket: Ticket, verdict: Verdict, reason: &str) {
        if let Some(taken) = self.release(ticket) {
            self.nack(taken.epoch, taken.seq, verdict, reason.to_owned());
        }
    }

    /// Its stream ended early; the edge knows.
    pub fn handle_abandoned(&mut self, ticket: Ticket) {
        self.release(ticket);
    }

    /// The gateway shall leave: nothing new is taken, what was taken is still answered.
    pub fn handle_drain(&mut self, reason: &str) {
        if matches!(self.state, State::Closed) || self.draining {
            return;
        }
        self.draining = true;
        self.actions.push_back(Action::Send(Frame::GoAway(GoAway {
            reason: reason.to_owned(),
        })));
    }

    /// The authority gave a certificate. One that does not go into a frame is as none.
    pub fn handle_renewed(&mut self, renewed: Renewed) {
        if !renewed.fits() {
            let reason = "the authority's answer is too long for the link";
            return self.handle_not_renewed(u32::MAX, reason);
        }
        if self.end_renewal() {
            self.actions.push_back(Action::Send(Frame::Renewed(renewed)));
        }
    }

    pub fn handle_not_renewed(&mut self, after_ms: u32, reason: &str) {
        if self.end_renewal() {
            let reason = reason.to_owned();
            let not = NotRenewed { after_ms, reason };
            self.actions.push_back(Action::Send(Frame::NotRenewed(not)));
        }
    }

    /// Whether somebody waits for the answer.
    fn end_renewal(&mut self) -> bool {
        let waits = self.renewal == Renewal::Asked && matches!(self.state, State::Live { .. });
        if waits {
            self.renewal = Renewal::Granted;
        }
        waits
    }

    /// The session ends now, for a reason that the edge is told.
    pub fn refuse(&mut self, code: RefusedCode, reason: &str) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.state = State::Closed;
        let refused = Refused {
            code,
            reason: reason.to_owned(),
        };
        self.actions.push_back(Action::Send(Frame::Refused(refused)));
        self.actions.push_back(Action::Close {
            code,
            reason: reason.to_owned(),
        });
    }

    pub fn handle_timeout(&mut self, now_ms: u64) {
        if matches!(self.state, State::AwaitHello { until } if now_ms >= until) {
            self.refuse(RefusedCode::Protocol, "no HELLO came");
        }
    }

    pub fn next_wake(&self) -> Option<u64> {
        match self.state {
            State::AwaitHello { until } => Some(until),
            _ => None,
        }
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn handle_hello(&mut self, hello: Hello) {
        if hello.stream.tenant != self.tenant || hello.stream.node != self.node {
            let reason = format!(
                "certificate is of {}/{}, not of {}",
                self.tenant, self.node, hello.stream
            );
            return self.refuse(RefusedCode::Identity, &reason);
        }
        let version = hello
            .versions
            .iter()
            .copied()
            .filter(|v| frame::VERSIONS.contains(v))
            .max();
        let Some(version) = version else {
            let reason = format!(
                "edge speaks versions {:?}, gateway {:?}",
                hello.versions,
                frame::VERSIONS
            );
            return self.refuse(RefusedCode::Version, &reason);
        };
        if self.draining {
            return self.refuse(RefusedCode::Overload, "gateway is leaving");
        }
        let renews = hello.renews && self.options.renews;
        if self.renewal_only && !renews {
            return self.refuse(RefusedCode::Identity, "certificate is expired");
        }
        if renews {
            self.renewal = Renewal::Granted;
        }
        self.state = State::Live { stream: hello.stream };
        self.actions.push_back(Action::Send(Frame::Welcome(Welcome {
            version,
            session: self.session,
            max_batch_bytes: self.options.max_batch_bytes,
            generation: self.options.generation,
            max_in_flight: self.options.max_in_flight,
            max_in_flight_bytes: self.options.max_in_flight_bytes,
            renews,
            renewal_only: self.renewal_only,
        })));
    }

    fn nack(&mut self, epoch: Epoch, seq: u64, verdict: Verdict, reason: String) {
        if !matches!(self.state, State::Closed) {
            self.actions.push_back(Action::Send(Frame::Nack(Nack {
                epoch,
                seq,
                verdict,
                reason,
            })));
        }
    }

    fn release(&mut self, ticket: Ticket) -> Option<Taken> {
        let taken = self.taken.remove(&ticket)?;
        self.taken_bytes -= u64::from(taken.bytes);
        Some(taken)
    }
}
