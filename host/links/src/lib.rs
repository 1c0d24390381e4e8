//! Named connections the operator configured. One trait for all: commands go in by a channel, events come out by another.
//!
//! The network is the part of a device that lies, stalls and vanishes, so everything that knows about sockets is here and nothing
//! here decides anything: [`mqtt`] keeps one broker connection alive and says truthfully what arrived and what was delivered,
//! [`http`] reads one artifact and says truthfully where its bytes begin and end, [`address`] tells which addresses a redirect may
//! never reach.

pub mod address;
pub mod http;
pub mod mqtt;

use std::fmt::Debug;

use tokio::sync::mpsc;

/// What the agent tells a link.
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
}

/// Starts a link. Ends its task when the command channel is closed.
pub trait Link: Debug + Send + Sync {
    /// Starts the connection; events carry nothing but what this link says, the receiver knows which link it is.
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand>;
}
