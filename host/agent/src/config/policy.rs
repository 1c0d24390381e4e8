//! `ready`, `policy` and `authority` of `[targets.<name>]`.

use std::path::PathBuf;

use otahost_core::job::OPERATOR;
use otahost_core::policy::memory::MAX_ACTIVATIONS;
use otahost_core::policy::windows::{MAX_WINDOWS, Window};
use otahost_core::policy::{Downgrade, Outside, Policy};

use super::reader::{Item, Section};
use super::targets::one_of;
use super::{Ready, known, schema};

pub(super) fn ready(item: &Item<'_>) -> Option<Ready> {
    let section = item.section(&schema::READY)?;
    let (is_file, item) = one_of(&section, "file", "command")?;
    if is_file {
        item.absolute_path().map(Ready::File)
    } else {
        item.command().map(Ready::Command)
    }
}

/// The policy and the lock files; what is faulty is left out.
pub(super) fn policy(section: &Section<'_>) -> (Policy, Vec<PathBuf>) {
    let Some(section) = section
        .get("policy")
        .and_then(|i| i.section(&schema::POLICY))
    else {
        return (Policy::default(), Vec::new());
    };
    let files = section.get("lock").and_then(|i| i.list());
    let lock = files
        .unwrap_or_default()
        .iter()
        .filter_map(Item::absolute_path)
        .collect();
    let written = section.get("window");
    let windows = written.as_ref().map(windows).unwrap_or_default();
    let outside = word(
        &section,
        "outside",
        [("defer", Outside::Defer), ("refuse", Outside::Refuse)],
    );
    if let (None, Some(item)) = (&written, section.get("outside")) {
        item.reader.fault(
            &item.key_at,
            &item.path,
            "has no effect without `window`: any time is right",
            "remove it, or write `window` beside it",
        );
    }
    let downgrade = word(
        &section,
        "downgrade",
        [("allow", Downgrade::Allow), ("refuse", Downgrade::Refuse)],
    );
    let policy = Policy {
        windows,
        outside,
        downgrade,
        max_activations_per_day: section.count("activations_per_day", 1..=MAX_ACTIVATIONS),
    };
    (policy, lock)
}

fn windows(item: &Item<'_>) -> Vec<Window> {
    let Some(entries) = item.list() else {
        return Vec::new();
    };
    if entries.is_empty() {
        item.fault(
            "is empty, which could mean always or never",
            "name a window, or leave the key out: then any time is right",
        );
    } else if entries.len() > MAX_WINDOWS {
        item.fault(
            format!("has {} windows, may have {MAX_WINDOWS}", entries.len()),
            "join days that have the same times: `mon-wed,sat 02:00-04:00`",
        );
    }
    let window = |item: &Item<'_>| match item.string()?.parse() {
        Ok(window) => Some(window),
        Err(error) => {
            item.fault(
                format!("is no window: {error}"),
                "write it as in `mon-fri 02:00-04:00`, `sat,sun 22:00-06:00` or `02:00-04:00`, in UTC",
            );
            None
        }
    };
    entries.iter().filter_map(window).collect()
}

/// One of two words; the schema's default when the key is missing or faulty.
pub(super) fn word<T: Copy>(section: &Section<'_>, name: &str, words: [(&str, T); 2]) -> T {
    let value = |text: &str| words.iter().find(|(word, _)| *word == text).map(|w| w.1);
    let read = section.get(name).and_then(|item| {
        let text = item.string()?;
        let value = value(text);
        if value.is_none() {
            let [(first, _), (second, _)] = words;
            item.fault(
                "is not a word that is known here",
                format!("write \"{first}\" or \"{second}\""),
            );
        }
        value
    });
    read.or_else(|| value(section.default(name)))
        .expect("the schema's default is one of the words")
}

pub(super) fn authority(section: &Section<'_>, adapters: &[&str]) -> Vec<String> {
    let mut authority: Vec<String> = Vec::new();
    let items = section.get("authority").and_then(|i| i.list());
    for item in items.unwrap_or_default() {
        let Some(name) = item.string() else {
            continue;
        };
        if name == OPERATOR {
            item.fault("comes first without being named", "remove it");
        } else if authority.iter().any(|before| before == name) {
            item.fault("stands in this list twice", "remove one of them");
        } else if known(&item, "adapter", name, adapters.iter().copied()) {
            authority.push(name.to_owned());
        }
    }
    authority
}
