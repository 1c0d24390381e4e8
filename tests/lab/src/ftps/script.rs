//! What a test orders the server to do wrong.

use std::collections::{BTreeMap, VecDeque};

/// What the server does with a command instead of, or beside, what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Does nothing but say this line: `500 Unknown command.`
    Refuse(String),
    /// Does nothing but say this line, if it is not empty, and close the control connection: `421 Timeout.`
    Close(String),
    /// Does as told, but falls silent instead of replying, until the client goes or [`super::Ftps::release`].
    Silence,
    /// Does as told, sends the first half of the reply, and falls silent likewise.
    HalfThenSilence,
    /// Does as told, replies, and falls silent likewise. After `AUTH`: the TLS handshake is not answered.
    SilenceAfter,
    /// Does as told and sends this line right behind the reply, unasked: after `AUTH` it comes in the clear.
    Inject(String),
}

/// What the server does wrong with one transfer. The figures count bytes of this answer, from its own first byte: a transfer that
/// was resumed at 100 and is cut after 10 ends at byte 110 of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Sends this much, ends the data connection without close_notify, and says 426.
    CutAfter(u64),
    /// Sends this much and ends both connections without a word, as a network does that is gone.
    DropAfter(u64),
    /// Sends this much and falls silent in the data connection, until the client goes or [`super::Ftps::release`].
    StallAfter(u64),
    /// Sends this much, ends the data connection in good order, and says 226.
    ShortAfter(u64),
    /// Sends everything, then this many zero bytes, and says 226.
    Longer(u64),
    /// Sends everything, ends the data connection without close_notify, and says 226.
    NoCloseNotify,
    /// Sends everything, ends the data connection in good order, and says this line; after a 421 it closes the control connection.
    Final(String),
    /// Sends everything, says 226, then 421, and closes the control connection: the server tired of an idle client.
    ThenIdle,
    /// Sends everything, ends the data connection in good order, and says nothing, until the client goes or [`super::Ftps::release`].
    NoFinalReply,
    /// Accepts the data connection and does not answer its TLS handshake, until the client goes or [`super::Ftps::release`].
    NoHandshake,
    /// Sends from the first byte, whatever `REST` it took.
    IgnoreRest,
    /// Says this line instead of 150, and transfers nothing.
    Refuse(String),
}

/// Orders by what they are for, each kept until it was used up.
#[derive(Debug)]
pub(super) struct Plans<T>(BTreeMap<Vec<u8>, VecDeque<(T, Option<u32>)>>);

impl<T> Default for Plans<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Clone> Plans<T> {
    /// Adds an order for so many times; none: for ever.
    pub(super) fn add(&mut self, key: &[u8], times: Option<u32>, order: T) {
        if times != Some(0) {
            let queue = self.0.entry(key.to_owned()).or_default();
            queue.push_back((order, times));
        }
    }

    /// Forgets the orders for one thing.
    pub(super) fn forget(&mut self, key: &[u8]) {
        self.0.remove(key);
    }

    /// What is ordered for the next time.
    pub(super) fn next(&self, key: &[u8]) -> Option<&T> {
        Some(&self.0.get(key)?.front()?.0)
    }

    /// Uses up one time.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<T> {
        let queue = self.0.get_mut(key)?;
        let (order, left) = queue.front_mut()?;
        let order = order.clone();
        if let Some(left) = left {
            *left -= 1;
            if *left == 0 {
                queue.pop_front();
            }
        }
        Some(order)
    }
}
