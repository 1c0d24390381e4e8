//! How a target is written: the keys of `[targets.<name>]` that belong to its flasher.

use std::path::PathBuf;
use std::time::Duration;

use otahost_flash::ArchiveLimits;

use super::links::lift;
use super::places::{PlaceAt, Places};
use super::reader::{Item, Section};
use super::{FlasherConfig, policy, schema, targets};

/// The flashers there are, and the keys that each of them has for itself.
const KINDS: [(&str, &[&str]); 3] = [
    ("slots", &["slots", "boot"]),
    ("archive", &["directory", "deliver", "limits", "timeout"]),
    (
        "command",
        &["directory", "program", "rollback", "runs", "timeout"],
    ),
];

pub(super) fn read<'t>(
    section: &Section<'t>,
    name: &str,
    places: &mut Places<'t>,
) -> Option<FlasherConfig> {
    let written = section.require("flasher", "a target has to say how it is written");
    let kind = match &written {
        // So that all that is missing is told at once.
        None => KINDS[0].0,
        Some(item) => {
            let word = item.string()?;
            let Some((kind, _)) = KINDS.iter().find(|(kind, _)| *kind == word) else {
                item.fault(
                    "this flasher is not known",
                    "this version of otahost knows `slots`, `archive` and `command`",
                );
                return None;
            };
            kind
        }
    };
    refuse_others(section, kind);
    match kind {
        "slots" => slots(section, name, places),
        "archive" => archive(section, name, places),
        _ => command(section, name, places),
    }
}

/// A key of another flasher has no effect here, and somebody meant something by it.
fn refuse_others(section: &Section<'_>, kind: &str) {
    let own = |key: &str| {
        KINDS
            .iter()
            .any(|(k, keys)| *k == kind && keys.contains(&key))
    };
    let mut told: Vec<&str> = Vec::new();
    for key in KINDS.iter().flat_map(|(_, keys)| keys.iter().copied()) {
        if own(key) || told.contains(&key) {
            continue;
        }
        told.push(key);
        if let Some(item) = section.get(key) {
            item.reader.fault(
                &item.key_at,
                &item.path,
                format!("has no effect with the flasher `{kind}`"),
                "remove it, or correct `flasher`",
            );
        }
    }
}

fn slots<'t>(section: &Section<'t>, name: &str, places: &mut Places<'t>) -> Option<FlasherConfig> {
    let slots = section.require("slots", "").and_then(|item| {
        let written = item.list()?;
        if written.len() != 2 {
            item.fault(
                format!("has {} entries, must have two", written.len()),
                item.advice_by_example(),
            );
            return None;
        }
        let paths: Vec<_> = written
            .into_iter()
            .map(|place| {
                let path = place.absolute_path()?;
                places.slots.push(PlaceAt {
                    target: name.to_owned(),
                    path: path.clone(),
                    item: place,
                });
                Some(path)
            })
            .collect();
        <[_; 2]>::try_from(paths.into_iter().collect::<Option<Vec<_>>>()?).ok()
    });
    let boot = section
        .require("boot", "something has to decide which slot boots")
        .and_then(|i| targets::boot(&i));
    Some(FlasherConfig::Slots {
        slots: slots?,
        boot: boot?,
    })
}

fn archive<'t>(
    section: &Section<'t>,
    name: &str,
    places: &mut Places<'t>,
) -> Option<FlasherConfig> {
    let directory = directory(section, name, places);
    let deliver = section.get("deliver").map(|i| i.command());
    let limits = match section.get("limits").map(|i| i.section(&schema::LIMITS)) {
        None => Some(ArchiveLimits::default()),
        Some(limits) => limits.map(|limits| ArchiveLimits {
            entries: limits.count("entries", 1..=100_000),
            unpacked: limits.size("unpacked"),
            ratio: limits.count("ratio", 1..=10_000),
            depth: limits.count("depth", 0..=100),
        }),
    };
    Some(FlasherConfig::Archive {
        directory: directory?,
        deliver: lift(deliver)?,
        timeout: timeout(section),
        limits: limits?,
    })
}

fn command<'t>(
    section: &Section<'t>,
    name: &str,
    places: &mut Places<'t>,
) -> Option<FlasherConfig> {
    let directory = directory(section, name, places);
    let program = section
        .require("program", "it is what installs")
        .and_then(|i| i.command());
    let rollback = section.get("rollback").map(|i| i.command());
    let reboot = policy::word(
        section,
        "runs",
        [("at-once", false), ("after-reboot", true)],
    );
    Some(FlasherConfig::Command {
        directory: directory?,
        program: program?,
        rollback: lift(rollback)?,
        reboot,
        timeout: timeout(section),
    })
}

fn timeout(section: &Section<'_>) -> Duration {
    section.duration(
        "timeout",
        Duration::from_secs(1)..=Duration::from_secs(86_400),
    )
}

fn directory<'t>(section: &Section<'t>, name: &str, places: &mut Places<'t>) -> Option<PathBuf> {
    let item: Item<'t> = section.require("directory", "an artifact has to be staged somewhere")?;
    let path = item.absolute_path()?;
    places.directories.push(PlaceAt {
        target: name.to_owned(),
        path: path.clone(),
        item,
    });
    Some(path)
}
