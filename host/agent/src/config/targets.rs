//! `[targets.<name>]`.

use std::time::Duration;

use super::links::lift;
use super::places::Places;
use super::reader::{Item, Section};
use super::{
    BootConfig, TargetConfig, TrustConfig, VersionSource, flashers, known, policy, schema,
    written_names,
};

pub(super) fn read<'t>(root: &Section<'t>) -> (Vec<(String, TargetConfig)>, Places<'t>) {
    let items = root
        .get("targets")
        .map(|t| t.named("[targets.dock]"))
        .unwrap_or_default();
    let names: Vec<_> = items.iter().map(|(name, _)| *name).collect();
    let adapters = written_names(root, "adapters");
    let mut targets = Vec::new();
    let mut places = Places::default();
    let mut parents = Vec::new();
    for (name, item) in &items {
        let Some(section) = item.section(&schema::TARGET) else {
            continue;
        };
        let parent = section.get("parent");
        if let Some(parent) = &parent
            && let Some(above) = parent.string()
            && known(parent, "target", above, names.iter().copied())
        {
            parents.push((*name, above, parent.clone()));
        }
        if let Some(target) = target(&section, name, &mut places, &adapters) {
            targets.push(((*name).to_owned(), target));
        }
    }
    check_parents(&parents);
    (targets, places)
}

fn check_parents(parents: &[(&str, &str, Item<'_>)]) {
    for (name, above, item) in parents {
        let mut at = *above;
        // No chain is longer than the list; a longer walk goes in a circle that does not hold this target.
        for _ in 0..=parents.len() {
            if at == *name {
                item.fault(
                    "hangs on itself in the end",
                    "a target hangs on another one, up to one that has no `parent`",
                );
                break;
            }
            match parents.iter().find(|(n, _, _)| *n == at) {
                Some((_, above, _)) => at = above,
                None => break,
            }
        }
    }
}

fn target<'t>(
    section: &Section<'t>,
    name: &str,
    places: &mut Places<'t>,
    adapters: &[&str],
) -> Option<TargetConfig> {
    let flasher = flashers::read(section, name, places);
    let trust = section
        .require("trust", "MD5 over HTTP authenticates nobody, so the operator has to say whose images may be installed")
        .and_then(|i| trust(&i));
    let version = section
        .require(
            "version",
            "an update is a success only when the target itself reports the new version",
        )
        .and_then(|i| version(&i, section.get("parent").is_some()));
    let mut attributes = Vec::new();
    for (key, item) in section
        .get("attributes")
        .map(|a| a.entries("attributes = { sn = \"NM1923221021\" }"))
        .unwrap_or_default()
    {
        if let Some(value) = item.string() {
            attributes.push((key.to_owned(), value.to_owned()));
        }
    }
    let confirm_within = section.duration(
        "confirm_within",
        Duration::from_secs(1)..=Duration::from_secs(86_400),
    );
    let confirm_by_adapter =
        policy::word(section, "confirm", [("probe", false), ("adapter", true)]);
    let probe = section.get("probe").map(|i| i.command());
    let ready = section.get("ready").map(|i| policy::ready(&i));
    let (policy, lock) = policy::policy(section);
    let authority = policy::authority(section, adapters);
    Some(TargetConfig {
        at: section.location(),
        flasher: flasher?,
        trust: trust?,
        version: version?,
        attributes,
        confirm_within,
        confirm_by_adapter,
        probe: lift(probe)?,
        parent: section
            .get("parent")
            .and_then(|p| p.value.as_str().map(str::to_owned)),
        ready: lift(ready)?,
        policy,
        lock,
        authority,
    })
}

/// Exactly one of two keys.
pub(super) fn one_of<'t>(
    section: &Section<'t>,
    first: &str,
    second: &str,
) -> Option<(bool, Item<'t>)> {
    match (section.get(first), section.get(second)) {
        (Some(item), None) => Some((true, item)),
        (None, Some(item)) => Some((false, item)),
        (None, None) => {
            section.fault(
                format!("has neither `{first}` nor `{second}`"),
                "write one of them",
            );
            None
        }
        (Some(_), Some(item)) => {
            item.reader.fault(
                &item.key_at,
                &item.path,
                format!("stands beside `{first}`, and only one can be right"),
                "remove one of them",
            );
            None
        }
    }
}

pub(super) fn boot(item: &Item<'_>) -> Option<BootConfig> {
    let section = item.section(&schema::BOOT)?;
    let (is_file, item) = one_of(&section, "file", "command")?;
    if !is_file {
        return item.command().map(BootConfig::Command);
    }
    let path = item.absolute_path()?;
    if path.is_dir() {
        item.fault("is a directory", "name a file in it");
    } else if !path.parent().is_some_and(|p| p.is_dir()) {
        item.fault(
            "its directory does not exist",
            "make the directory, or correct the path",
        );
    }
    Some(BootConfig::File(path))
}

fn trust(item: &Item<'_>) -> Option<TrustConfig> {
    const FORM: &str = "write `trust = { minisign = [\"RWQ…\"] }`, or `trust = \"unsigned\"` if really anybody's images may be installed";
    if let Some(word) = item.value.as_str() {
        if word == "unsigned" {
            return Some(TrustConfig::Unsigned);
        }
        item.fault("is not a word that is known here", FORM);
        return None;
    }
    if !item.value.is_table() {
        item.wrong_type("the word `unsigned` or a table");
        return None;
    }
    let section = item.section(&schema::TRUST)?;
    let keys = section.require("minisign", "").and_then(|list| {
        let entries = list.list()?;
        if entries.is_empty() {
            list.fault("is empty: no image could ever be installed", FORM);
            return None;
        }
        let keys: Vec<_> = entries.iter().map(public_key).collect();
        keys.into_iter().collect::<Option<Vec<_>>>()
    });
    let compatible = section
        .get("compatible")
        .map(|i| i.string().map(str::to_owned));
    Some(TrustConfig::Minisign {
        keys: keys?,
        compatible: lift(compatible)?,
    })
}

pub(super) fn public_key(item: &Item<'_>) -> Option<String> {
    let text = item.raw_string()?;
    match minisign_verify::PublicKey::from_base64(text) {
        Ok(_) => Some(text.to_owned()),
        Err(_) => {
            item.fault(
                "is no minisign public key",
                "copy the second line of the `.pub` file: 56 characters that begin with `RW`; `otahost keygen` makes a pair",
            );
            None
        }
    }
}

/// A device behind this one is away now and then, and with it the file; where that belongs has to be there all the same.
fn version(item: &Item<'_>, is_behind: bool) -> Option<VersionSource> {
    let section = item.section(&schema::VERSION)?;
    let key = section.get("key");
    let (is_file, item) = one_of(&section, "file", "command")?;
    if !is_file {
        if let Some(key) = key {
            key.fault(
                "belongs to `file` and has no effect beside `command`",
                "remove it",
            );
        }
        return item.command().map(VersionSource::Command);
    }
    let file = item.absolute_path()?;
    let may_come = is_behind && !file.exists() && file.parent().is_some_and(|p| p.is_dir());
    if !may_come {
        item.existing_file("the version's file")?;
    }
    let key = lift(key.map(|k| k.string().map(str::to_owned)))?;
    Some(VersionSource::File { file, key })
}
