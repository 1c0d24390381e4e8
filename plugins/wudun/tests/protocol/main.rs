//! The adapter on the bench, from message to message. The tests bear the ids of the protocol's test list.

#![allow(clippy::unwrap_used, reason = "tests")]

mod emu_upgrade;
mod emu_version;
mod messages;
mod platform;
mod properties;
mod repeats;
mod upgrade;
