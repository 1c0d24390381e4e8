//! The keys of the one table.
//!
//! One table and not thirteen, because every table that a transaction touches costs pages of flash wear. The first byte says
//! what a row is; numbers follow big-endian and strings with an end mark, so that the order of the bytes is the order of the keys: by
//! kind, and within a kind by its parts.

use std::fmt;

use crate::JournalError;

/// What a row is about.
///
/// The order of the keys is the order of their rows. The byte encoding is a file format: a tag is never used again for something else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A fact about the journal or the device, by a word.
    Meta(String),
    /// What the host knows of an adapter, by its name.
    Adapter(String),
    /// An adapter's own state, raw, by its name.
    State(String),
    /// Something to send, in the order of sending.
    Outbox {
        /// Counts up.
        seq: u64,
    },
    /// A job, by its number.
    Job(u64),
    /// How far the transfer of one install of a job got.
    Checkpoint {
        /// The job.
        job: u64,
        /// The install within its plan, from 0.
        install: u32,
    },
    /// A timer an adapter has set.
    Timer {
        /// The adapter.
        adapter: String,
        /// The timer's name.
        name: String,
    },
    /// An MQTT packet that was handled and whose acknowledgement may not have been written.
    Seen {
        /// The link it came over.
        link: String,
        /// Its packet identifier.
        packet: u16,
    },
    /// An event an adapter failed on.
    Dead {
        /// The adapter.
        adapter: String,
        /// Counts up.
        n: u64,
    },
    /// An event that waits for an adapter.
    Inbox {
        /// The adapter.
        adapter: String,
        /// Counts up.
        n: u64,
    },
    /// What is known of a partial download, by its key.
    Partial(String),
    /// A recorded step of an adapter.
    Trace {
        /// The adapter.
        adapter: String,
        /// Counts up.
        n: u64,
    },
    /// What the host knows of a target, by its id.
    Target(String),
    /// A request or listing of an adapter that was not answered yet, or whose answer the adapter has not taken yet.
    Call {
        /// Counts up.
        seq: u64,
    },
    /// A value of a link's vault. Its row is the only place where it is kept.
    Secret {
        /// The link.
        link: String,
        /// The secret's name.
        name: String,
    },
    /// An alert that not every sink has taken yet.
    Alert {
        /// Counts up.
        seq: u64,
    },
    /// State and contexts that an adapter's former version had, by the adapter's name.
    Kept(String),
}

mod tag {
    pub(super) const META: u8 = 1;
    pub(super) const ADAPTER: u8 = 2;
    pub(super) const STATE: u8 = 3;
    pub(super) const OUTBOX: u8 = 4;
    pub(super) const JOB: u8 = 5;
    pub(super) const CHECKPOINT: u8 = 6;
    pub(super) const TIMER: u8 = 7;
    pub(super) const SEEN: u8 = 8;
    pub(super) const DEAD: u8 = 9;
    pub(super) const INBOX: u8 = 10;
    pub(super) const PARTIAL: u8 = 11;
    pub(super) const TRACE: u8 = 12;
    pub(super) const TARGET: u8 = 13;
    pub(super) const CALL: u8 = 14;
    pub(super) const SECRET: u8 = 15;
    pub(super) const ALERT: u8 = 16;
    pub(super) const KEPT: u8 = 17;
}

/// The largest tag. Every kind has one from 1 on.
pub(crate) const KINDS: u8 = tag::KEPT;

/// Ends a string. A zero byte in a string is written as 00 FF, which sorts behind the end and before every other byte.
const END: [u8; 2] = [0, 1];

fn put_text(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend(END);
}

/// Takes an encoded key apart, front to back.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn text(&mut self) -> Result<String, &'static str> {
        let mut text = Vec::new();
        loop {
            match *self.0 {
                [0, 1, ref rest @ ..] => {
                    self.0 = rest;
                    return String::from_utf8(text).map_err(|_| "its text is no UTF-8");
                }
                [0, 0xff, ref rest @ ..] => {
                    text.push(0);
                    self.0 = rest;
                }
                [] | [0, ..] => return Err("its text has no end"),
                [byte, ref rest @ ..] => {
                    text.push(byte);
                    self.0 = rest;
                }
            }
        }
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (number, rest) = self.0.split_first_chunk::<N>().ok_or("it is too short")?;
        self.0 = rest;
        Ok(*number)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_be_bytes(self.number()?))
    }
}

impl Key {
    /// The key as the bytes of a row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        match self {
            Key::Meta(word) => {
                out.push(tag::META);
                put_text(&mut out, word);
            }
            Key::Adapter(name) => {
                out.push(tag::ADAPTER);
                put_text(&mut out, name);
            }
            Key::State(name) => {
                out.push(tag::STATE);
                put_text(&mut out, name);
            }
            Key::Outbox { seq } => {
                out.push(tag::OUTBOX);
                out.extend(seq.to_be_bytes());
            }
            Key::Job(id) => {
                out.push(tag::JOB);
                out.extend(id.to_be_bytes());
            }
            Key::Checkpoint { job, install } => {
                out.push(tag::CHECKPOINT);
                out.extend(job.to_be_bytes());
                out.extend(install.to_be_bytes());
            }
            Key::Timer { adapter, name } => {
                out.push(tag::TIMER);
                put_text(&mut out, adapter);
                put_text(&mut out, name);
            }
            Key::Seen { link, packet } => {
                out.push(tag::SEEN);
                put_text(&mut out, link);
                out.extend(packet.to_be_bytes());
            }
            Key::Dead { adapter, n } => {
                out.push(tag::DEAD);
                put_text(&mut out, adapter);
                out.extend(n.to_be_bytes());
            }
            Key::Inbox { adapter, n } => {
                out.push(tag::INBOX);
                put_text(&mut out, adapter);
                out.extend(n.to_be_bytes());
            }
            Key::Partial(key) => {
                out.push(tag::PARTIAL);
                put_text(&mut out, key);
            }
            Key::Trace { adapter, n } => {
                out.push(tag::TRACE);
                put_text(&mut out, adapter);
                out.extend(n.to_be_bytes());
            }
            Key::Target(id) => {
                out.push(tag::TARGET);
                put_text(&mut out, id);
            }
            Key::Call { seq } => {
                out.push(tag::CALL);
                out.extend(seq.to_be_bytes());
            }
            Key::Secret { link, name } => {
                out.push(tag::SECRET);
                put_text(&mut out, link);
                put_text(&mut out, name);
            }
            Key::Alert { seq } => {
                out.push(tag::ALERT);
                out.extend(seq.to_be_bytes());
            }
            Key::Kept(name) => {
                out.push(tag::KEPT);
                put_text(&mut out, name);
            }
        }
        out
    }

    /// The key in the bytes of a row.
    ///
    /// # Errors
    /// [`JournalError::Key`] for bytes that [`Key::encode`] does not make.
    pub fn decode(bytes: &[u8]) -> Result<Key, JournalError> {
        let mut reader = Reader(bytes);
        let mut read = || -> Result<Key, &'static str> {
            let [tag] = reader.number()?;
            let key = match tag {
                tag::META => Key::Meta(reader.text()?),
                tag::ADAPTER => Key::Adapter(reader.text()?),
                tag::STATE => Key::State(reader.text()?),
                tag::OUTBOX => Key::Outbox { seq: reader.u64()? },
                tag::JOB => Key::Job(reader.u64()?),
                tag::CHECKPOINT => Key::Checkpoint {
                    job: reader.u64()?,
                    install: u32::from_be_bytes(reader.number()?),
                },
                tag::TIMER => Key::Timer {
                    adapter: reader.text()?,
                    name: reader.text()?,
                },
                tag::SEEN => Key::Seen {
                    link: reader.text()?,
                    packet: u16::from_be_bytes(reader.number()?),
                },
                tag::DEAD => Key::Dead {
                    adapter: reader.text()?,
                    n: reader.u64()?,
                },
                tag::INBOX => Key::Inbox {
                    adapter: reader.text()?,
                    n: reader.u64()?,
                },
                tag::PARTIAL => Key::Partial(reader.text()?),
                tag::TRACE => Key::Trace {
                    adapter: reader.text()?,
                    n: reader.u64()?,
                },
                tag::TARGET => Key::Target(reader.text()?),
                tag::CALL => Key::Call { seq: reader.u64()? },
                tag::SECRET => Key::Secret {
                    link: reader.text()?,
                    name: reader.text()?,
                },
                tag::ALERT => Key::Alert { seq: reader.u64()? },
                tag::KEPT => Key::Kept(reader.text()?),
                _ => return Err("its kind is unknown; a newer version may have written it"),
            };
            if reader.0.is_empty() {
                Ok(key)
            } else {
                Err("it goes on behind its end")
            }
        };
        read().map_err(|why| JournalError::Key {
            key: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            why,
        })
    }
}

impl fmt::Display for Key {
    /// For messages: the kind and the parts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Meta(word) => write!(f, "meta {word:?}"),
            Key::Adapter(name) => write!(f, "adapter {name:?}"),
            Key::State(name) => write!(f, "state {name:?}"),
            Key::Outbox { seq } => write!(f, "outbox {seq}"),
            Key::Job(id) => write!(f, "job {id}"),
            Key::Checkpoint { job, install } => write!(f, "checkpoint {job}/{install}"),
            Key::Timer { adapter, name } => write!(f, "timer {adapter:?}/{name:?}"),
            Key::Seen { link, packet } => write!(f, "seen {link:?}/{packet}"),
            Key::Dead { adapter, n } => write!(f, "dead {adapter:?}/{n}"),
            Key::Inbox { adapter, n } => write!(f, "inbox {adapter:?}/{n}"),
            Key::Partial(key) => write!(f, "partial {key:?}"),
            Key::Trace { adapter, n } => write!(f, "trace {adapter:?}/{n}"),
            Key::Target(id) => write!(f, "target {id:?}"),
            Key::Call { seq } => write!(f, "call {seq}"),
            Key::Secret { link, name } => write!(f, "secret {link:?}/{name:?}"),
            Key::Alert { seq } => write!(f, "alert {seq}"),
            Key::Kept(name) => write!(f, "kept {name:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Short, and of the characters an encoding stumbles over, so that prefixes and equal parts are common.
    fn text() -> impl Strategy<Value = String> {
        vec(
            select(vec!['\0', '\u{1}', 'a', 'b', 'é', '\u{10ffff}']),
            0..4,
        )
        .prop_map(|chars| chars.into_iter().collect())
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..3u64,
            any::<u64>(),
            Just(u64::MAX),
            Just(0xff00_0000_0000_0000),
            Just(0x0100_0000_0000_0000)
        ]
    }

    fn key() -> impl Strategy<Value = Key> {
        (0..17u8, text(), text(), number(), any::<u32>()).prop_map(|(kind, one, two, n, small)| {
            match kind {
                0 => Key::Meta(one),
                1 => Key::Adapter(one),
                2 => Key::State(one),
                3 => Key::Outbox { seq: n },
                4 => Key::Job(n),
                5 => Key::Checkpoint {
                    job: n,
                    install: small,
                },
                6 => Key::Timer {
                    adapter: one,
                    name: two,
                },
                7 => Key::Seen {
                    link: one,
                    packet: small as u16,
                },
                8 => Key::Dead { adapter: one, n },
                9 => Key::Inbox { adapter: one, n },
                10 => Key::Partial(one),
                11 => Key::Trace { adapter: one, n },
                12 => Key::Target(one),
                13 => Key::Call { seq: n },
                14 => Key::Secret {
                    link: one,
                    name: two,
                },
                15 => Key::Alert { seq: n },
                _ => Key::Kept(one),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

        #[test]
        fn a_key_comes_back_from_its_bytes(key in key()) {
            prop_assert_eq!(Key::decode(&key.encode()).unwrap(), key);
        }

        #[test]
        fn the_order_of_the_bytes_is_the_order_of_the_keys(one in key(), two in key()) {
            prop_assert_eq!(one.encode().cmp(&two.encode()), one.cmp(&two));
        }

        #[test]
        fn any_bytes_are_a_key_in_one_way_or_an_error(kind in 0..20u8, rest in vec(any::<u8>(), 0..24)) {
            let bytes: Vec<u8> = std::iter::once(kind).chain(rest).collect();
            if let Ok(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }

    /// Journals in the field hold these bytes.
    #[test]
    fn the_encoding_does_not_change() {
        let cases: [(Key, &[u8]); 17] = [
            (Key::Meta("m".into()), b"\x01m\0\x01"),
            (Key::Adapter("dji".into()), b"\x02dji\0\x01"),
            (Key::State("dji".into()), b"\x03dji\0\x01"),
            (Key::Outbox { seq: 258 }, b"\x04\0\0\0\0\0\0\x01\x02"),
            (Key::Job(7), b"\x05\0\0\0\0\0\0\0\x07"),
            (
                Key::Checkpoint { job: 7, install: 1 },
                b"\x06\0\0\0\0\0\0\0\x07\0\0\0\x01",
            ),
            (
                Key::Timer {
                    adapter: "a\0".into(),
                    name: "t".into(),
                },
                b"\x07a\0\xff\0\x01t\0\x01",
            ),
            (
                Key::Seen {
                    link: "l".into(),
                    packet: 65_535,
                },
                b"\x08l\0\x01\xff\xff",
            ),
            (
                Key::Dead {
                    adapter: "a".into(),
                    n: 1,
                },
                b"\x09a\0\x01\0\0\0\0\0\0\0\x01",
            ),
            (
                Key::Inbox {
                    adapter: "a".into(),
                    n: 1,
                },
                b"\x0aa\0\x01\0\0\0\0\0\0\0\x01",
            ),
            (Key::Partial("p".into()), b"\x0bp\0\x01"),
            (
                Key::Trace {
                    adapter: "a".into(),
                    n: 1,
                },
                b"\x0ca\0\x01\0\0\0\0\0\0\0\x01",
            ),
            (Key::Target("t".into()), b"\x0dt\0\x01"),
            (Key::Call { seq: 258 }, b"\x0e\0\0\0\0\0\0\x01\x02"),
            (
                Key::Secret {
                    link: "l".into(),
                    name: "t".into(),
                },
                b"\x0fl\0\x01t\0\x01",
            ),
            (Key::Alert { seq: 1 }, b"\x10\0\0\0\0\0\0\0\x01"),
            (Key::Kept("dji".into()), b"\x11dji\0\x01"),
        ];
        for (key, bytes) in cases {
            assert_eq!(key.encode(), bytes, "{key}");
        }
    }
}
