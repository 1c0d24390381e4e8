//! One mechanism left out at a time: the search has to find each.

use otahost::engine::Early;

use super::{adapters, dock, emu, named, requests, withnox};
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
pub const ALL: [Control; 29] = [
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
        "fsync of a staged archive",
        emu::delivered,
        Broken::FileSync("/device/emu/artifact"),
    ),
    control(
        "fsync of the record of a delivery",
        emu::delivered,
        Broken::FileSync("/device/emu/delivered"),
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
        "fsync of the unpacked directory",
        emu::delivered,
        Broken::DirSync("/device/emu/a"),
    ),
    control(
        "fsync of a directory in it",
        emu::delivered,
        Broken::DirSync("/device/emu/a/d"),
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
        "an archive is read back before it is unpacked",
        emu::damaged,
        Broken::ReadBack,
    ),
    control(
        "a mark in the boot selector is read back",
        dock::deaf,
        Broken::MarkReadBack,
    ),
    control(
        "what runs is looked at after the boot",
        dock::rolled_back,
        Broken::Standing,
    ),
    control(
        "a boot is told from a restart",
        dock::resumed,
        Broken::BootId,
    ),
    control(
        "a message that comes again is known",
        adapters::swapped,
        Broken::Redelivery,
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
        withnox::beside_slowly,
        Broken::SecretWait,
    ),
    control(
        "a link hears of a secret after its commit",
        withnox::beside_slowly,
        Broken::Order(Early::Secret),
    ),
    control(
        "an alert leaves after its commit",
        requests::alerted,
        Broken::Order(Early::Alert),
    ),
    control(
        "the operator is answered after the commit",
        dock::cancelled,
        Broken::Order(Early::Reply),
    ),
];
