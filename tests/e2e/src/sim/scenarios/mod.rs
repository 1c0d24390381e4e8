//! The stories that power cuts are searched through: one list for the tests and for `cargo xtask crash`.

pub mod adapters;
pub mod agent;
pub mod controls;
pub mod dock;
pub mod emu;
pub mod journal;
pub mod kit112;
pub mod requests;
pub mod withnox;
pub mod wudun;

use super::Scenario;

/// A story in the list.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Makes it.
    pub make: fn() -> Scenario,
    /// Power is cut before every so many operations.
    pub stride: usize,
}

const fn entry(name: &'static str, make: fn() -> Scenario) -> Entry {
    Entry {
        name,
        make,
        stride: 1,
    }
}

/// All of them.
pub const ALL: [Entry; 21] = [
    entry("ota_create, resumed", dock::resumed),
    entry("rollback", dock::rolled_back),
    entry("two updates", dock::two_updates),
    entry("two devices", dock::two_devices),
    entry("operator cancel", dock::cancelled),
    entry("damaged medium", dock::damaged),
    entry("deaf boot loader", dock::deaf),
    entry("offline medium", dock::offline),
    entry("wudun, two phases", wudun::two_phases),
    entry("emu archive", emu::delivered),
    entry("emu archive, damaged medium", emu::damaged),
    entry("112, FTPS resumed", kit112::updated),
    entry("withnox, tokens rotate", withnox::updated),
    entry("adapter update", adapters::swapped),
    entry("adapter rollback", adapters::left),
    entry("agent rolled back", agent::rolled_back),
    entry("requests in", requests::counted),
    entry("requests out", requests::called_once),
    entry("alerts", requests::alerted),
    Entry {
        name: "withnox, two adapters, slow",
        make: withnox::beside_slowly,
        stride: 3,
    },
    Entry {
        name: "journal grows and shrinks",
        make: journal::grown,
        stride: 5,
    },
];

/// The story of this name.
///
/// # Panics
/// When there is none.
pub fn named(name: &str) -> Scenario {
    let known = ALL.iter().find(|entry| entry.name == name);
    (known
        .unwrap_or_else(|| panic!("no story is called {name:?}"))
        .make)()
}
