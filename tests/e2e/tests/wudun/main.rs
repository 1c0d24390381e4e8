//! The wudun protocol by the real process: the agent as a child of a machine, the real mosquitto, the vendor's platform, a file server,
//! and EMUs behind the machine. One promise a test, named after the protocol's list (W01 to W16) where it is on it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ems;
mod emu_failures;
mod emus;
mod kills;
mod many;
mod messages;
mod upgrade;
