//! Named connections the operator configured. One trait for all: commands go in by a channel, events come out by another.
//!
//! The network is the part of a device that lies, stalls and vanishes, so everything that knows about sockets is here and nothing
//! here decides anything: [`mqtt`] keeps one broker connection alive and says truthfully what arrived and what was delivered,
//! [`http_server`] takes requests and gives each exactly one answer, [`http_client`] sends small requests and keeps the vault of
//! their secrets, [`ftps`] lists and reads files, [`http`] reads one artifact and says truthfully where its bytes begin and end,
//! [`address`] tells which addresses a redirect may never reach, [`tls`] is the one place where trust in a server is made.

pub mod address;
pub mod ftps;
pub mod http;
pub mod http_client;
pub mod http_server;
pub mod mqtt;
pub mod tls;

use std::fmt::Debug;
use std::time::Duration;

use otahost_core::model::{DirectoryEntry, Fetch, FetchResult, Field, HttpResponse, RouteNeed};
use otahost_core::secret::Secret;
use tokio::sync::mpsc;

/// What the agent tells a link. A link passes over what is not of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkCommand {
    /// The topic filters to be subscribed, all of them; replaces the former set without a gap. Send the first one right after the
    /// start, so that the first `Up` covers it.
    Subscribe(Vec<String>),
    /// Send a message. The link answers `Delivered(id)` when the broker has it (QoS 1: PUBACK; QoS 0: written).
    /// What is not delivered when the connection ends is forgotten by the link, and so is what is sent before `Up`: the agent sends
    /// it again after the next `Up`.
    Publish {
        /// The agent's id.
        id: u64,
        /// Topic.
        topic: String,
        /// Payload, at most 256 KiB.
        payload: Vec<u8>,
        /// 0 or 1.
        qos: u8,
        /// Retain flag.
        retain: bool,
    },
    /// Acknowledge the message that came with this token. A token of an earlier connection is ignored.
    Acknowledge(Token),
    /// `http_server`: the routes to serve, all of them; replaces the former set without a gap. Until the first set every path is
    /// answered with 503.
    Serve(Vec<RouteNeed>),
    /// `http_server`: the answer to the request with this number. Numbers that nobody waits for (any more) are ignored.
    Respond {
        /// Number of the request.
        id: u64,
        /// The answer.
        response: HttpResponse,
    },
    /// `http_client`: what the journal holds of the vault. Sent once, before any `Fetch`.
    Secrets(Vec<(String, Secret)>),
    /// `http_client`: send this request. Answered by `Fetched` with the same number.
    Fetch {
        /// The agent's id.
        id: u64,
        /// The request, with placeholders, as the adapter wrote it; what it may do was checked.
        fetch: Box<Fetch>,
    },
    /// `http_client`: the captured values of this fetch are durable: use them from now on. Until then every request that waits for
    /// one of them is held back.
    Kept(u64),
    /// `ftps`: list this directory. Answered by `Listed` with the same number.
    List {
        /// The agent's id.
        id: u64,
        /// The directory, below the one the link is confined to.
        path: String,
    },
}

/// A request that came in on an `http_server` link, authenticated and within its limits.
#[derive(Clone, PartialEq, Eq)]
pub struct Inbound {
    /// Upper-case method.
    pub method: String,
    /// Absolute path, decoded, without query: one of the served routes, exactly.
    pub path: String,
    /// Decoded query parameters in order.
    pub query: Vec<Field>,
    /// Headers in lower case, without credentials and cookies.
    pub headers: Vec<Field>,
    /// The body, within the route's limit.
    pub body: Vec<u8>,
    /// Who was authenticated; empty where anonymous callers are allowed.
    pub principal: String,
    /// Time until the link answers 504 by itself.
    pub answer_within: Duration,
}

impl Debug for Inbound {
    /// Shows neither caller nor headers nor body: they may hold what is nobody's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Names one delivery: connection generation and packet id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Counts the connections of this process.
    pub generation: u64,
    /// MQTT packet id; 0 for QoS 0, which needs no acknowledgement.
    pub packet: u16,
}

/// What a link tells the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected and subscribed. Messages the broker kept for this session may come before it.
    Up {
        /// The number of this connection.
        generation: u64,
        /// The broker still had our session.
        session_present: bool,
    },
    /// Not connected (any more); it tries again by itself. Said when a connection ends, and while none succeeds once per new reason.
    Down {
        /// Why, in words without secrets.
        reason: String,
    },
    /// A message.
    Message {
        /// To acknowledge it with.
        token: Token,
        /// Topic.
        topic: String,
        /// Payload.
        payload: Vec<u8>,
        /// DUP flag.
        duplicate: bool,
        /// Retain flag.
        retained: bool,
    },
    /// The acknowledgement was written to the connection.
    Acknowledged(Token),
    /// The broker has the message with this id.
    Delivered(u64),
    /// The message with this id can never be sent (too large, invalid topic); it must not be tried again.
    Undeliverable {
        /// The agent's id.
        id: u64,
        /// Why.
        reason: String,
    },
    /// `http_server`: a request. Answer it with `Respond`; the link answers 504 by itself when that takes too long.
    Request {
        /// Counts the requests of this process.
        id: u64,
        /// The request.
        request: Box<Inbound>,
    },
    /// `http_server`: nobody waits for the answer to this request any more: it was answered 504, or the caller went away.
    Withdrawn(u64),
    /// `http_client`: how a fetch ended, with what was captured from the answer and cut from it.
    Fetched {
        /// The agent's id.
        id: u64,
        /// What the adapter may see.
        result: FetchResult,
        /// New values of the vault by name. They are used once the agent says `Kept`.
        captured: Vec<(String, Secret)>,
    },
    /// `ftps`: what a directory holds, or why it cannot be listed.
    Listed {
        /// The agent's id.
        id: u64,
        /// At most 10,000 entries with plain names.
        entries: Result<Vec<DirectoryEntry>, String>,
    },
}

/// What a link speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// MQTT: one standing connection to a broker.
    Mqtt,
    /// Takes HTTP requests.
    HttpServer,
    /// Sends HTTP requests, connected when there is something to send.
    HttpClient,
    /// Lists and reads files, connected when there is something to read.
    Ftps,
}

impl Kind {
    /// The word of the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Mqtt => "mqtt",
            Kind::HttpServer => "http_server",
            Kind::HttpClient => "http_client",
            Kind::Ftps => "ftps",
        }
    }

    /// It has a standing connection, or a listener, that is up or down.
    pub fn stands(self) -> bool {
        matches!(self, Kind::Mqtt | Kind::HttpServer)
    }
}

/// Starts a link. Ends its task when the command channel is closed.
pub trait Link: Debug + Send + Sync {
    /// Starts the connection; events carry nothing but what this link says, the receiver knows which link it is.
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand>;
    /// What it speaks.
    fn kind(&self) -> Kind;
    /// Where it leads: scheme, host and port. The secrets of a vault belong to this place and go nowhere else.
    fn place(&self) -> String {
        String::new()
    }
}
