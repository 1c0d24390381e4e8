//! One mechanism left out at a time: the search has to find each.

use otahost::engine::Early;

use super::{dock, emu, named, withnox};
use crate::sim::{Broken, Scenario};

/// A mechanism that is left out.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// What is left out.
    pub what: &'static str,
    /// The story in which that has to be found.
    pub story: fn() -> Scenario,
    /// How it is left out.
    pub broken: Broken,
}

const fn control(what: &'static str, story: fn() -> Scenario, broken: Broken) -> Control {
    Control {
        what,
        story,
        broken,
    }
}

/// All of them.
pub const ALL: [Control; 17] = [
    control(
        "fsync of the journal",
        dock::resumed,
        Broken::FileSync("journal.redb"),
    ),
    control(
        "fsync of the slot",
        dock::resumed,
        Broken::FileSync("/device/slot-"),
    ),
    control(
        "fsync of the boot selector",
        dock::resumed,
        Broken::FileSync("/device/boot.json"),
    ),
    control(
        "fsync of what is unpacked",
        emu::delivered,
        Broken::FileSync("board-1"),
    ),
    control(
        "fsync of the data directory",
        dock::resumed,
        Broken::DirSync("{data}/"),
    ),
    control(
        "fsync of the boot selector's directory",
        dock::two_updates,
        Broken::DirSync("/device"),
    ),
    control(
        "fsync of the archive's directory",
        emu::delivered,
        Broken::DirSync("/device/emu"),
    ),
    control(
        "staging is synced before its checkpoint",
        dock::resumed,
        Broken::StagingSync,
    ),
    control(
        "a slot is marked bad before its first byte",
        dock::two_updates,
        Broken::MarkFirst,
    ),
    control(
        "what is staged is checked on resume",
        dock::damaged,
        Broken::ResumeCheck,
    ),
    control(
        "what is staged is read back before the switch",
        dock::damaged,
        Broken::ReadBack,
    ),
    control(
        "a message is acknowledged after its commit",
        dock::resumed,
        Broken::Order(Early::Acknowledgement),
    ),
    control(
        "a publication leaves after its commit",
        dock::resumed,
        Broken::Order(Early::Publication),
    ),
    control(
        "a caller is answered after the commit",
        || named("requests in"),
        Broken::Order(Early::Answer),
    ),
    control(
        "a request is sent after its commit",
        || named("requests out"),
        Broken::Order(Early::Call),
    ),
    control(
        "a job acts after its commit",
        dock::rolled_back,
        Broken::Order(Early::Action),
    ),
    control(
        "a captured secret waits until it is durable",
        withnox::beside,
        Broken::SecretWait,
    ),
];
