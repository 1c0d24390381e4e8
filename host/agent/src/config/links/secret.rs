//! Secrets: never in the configuration itself, but in a file, the environment, or a systemd credential.

use std::path::{Path, PathBuf};

use super::super::reader::{Item, Section};
use super::super::{Secret, schema};

/// The largest file of a secret.
const MAX_SECRET: u64 = 4096;

/// Where systemd puts the credentials of a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A secret that must not stand in the configuration itself.
pub(in crate::config) fn read(item: &Item<'_>) -> Option<Secret> {
    if item.value.is_table() {
        return elsewhere(item);
    }
    let name = item.path.rsplit('.').next().unwrap_or_default();
    item.secret_fault(
        format!(
            "a {} does not belong in this file, which gets copied, shown and mailed",
            word(name)
        ),
        format!("put it into a file of mode 0600 and write `{name} = {{ file = \"…\" }}`"),
    );
    None
}

fn word(key: &str) -> &str {
    match key {
        "password" => "password",
        "key" => "private key",
        _ => "secret",
    }
}

/// A user name: in the configuration, or where secrets are.
pub(in crate::config) fn user_name(item: &Item<'_>) -> Option<Secret> {
    if item.value.is_table() {
        return elsewhere(item);
    }
    item.string().map(Secret::new)
}

fn elsewhere(item: &Item<'_>) -> Option<Secret> {
    let section = item.section(&schema::SECRET)?;
    let ways: Vec<(&str, Item<'_>)> = ["file", "env", "credential"]
        .into_iter()
        .filter_map(|way| Some((way, section.get(way)?)))
        .collect();
    let [(way, place)] = ways.as_slice() else {
        section.fault(
            "must say in one way where the value is",
            "write `{ file = \"…\" }`, `{ env = \"…\" }` or `{ credential = \"…\" }`",
        );
        return None;
    };
    let read = match *way {
        "file" => file(place),
        "env" => environment(place),
        _ => credential(&section, place),
    };
    match read? {
        Ok(value) => Some(Secret::new(value)),
        Err((fault, advice)) => {
            place.fault(fault, advice);
            None
        }
    }
}

/// A value, or what is wrong with it and what to do. `None` when the fault was said already.
type Read = Option<Result<String, (String, &'static str)>>;

fn file(item: &Item<'_>) -> Read {
    let path = item.existing_file("the secret's file")?;
    Some(from_file(&path))
}

fn credential(section: &Section<'_>, item: &Item<'_>) -> Read {
    let name = item.string()?;
    if name.contains('/') || name.starts_with('.') {
        item.fault(
            "is no name of a credential",
            "write the name as in `LoadCredential=NAME:…`",
        );
        return None;
    }
    let Some(directory) = std::env::var_os(CREDENTIALS) else {
        section.fault(
            format!("names a systemd credential, but {CREDENTIALS} is not set"),
            "start the agent by its systemd unit with `LoadCredential=`, or name a file",
        );
        return None;
    };
    Some(from_file(&PathBuf::from(directory).join(name)))
}

fn environment(item: &Item<'_>) -> Read {
    let name = item.string()?;
    Some(match std::env::var(name) {
        Ok(value) => one_line(&value),
        Err(_) => Err((
            format!("the environment has no readable {name}"),
            "set it for the agent's service, or name a file",
        )),
    })
}

fn from_file(path: &Path) -> Result<String, (String, &'static str)> {
    let shown = |(fault, advice)| {
        (
            format!("the secret's file {} {fault}", path.display()),
            advice,
        )
    };
    let failed = |e: std::io::Error| {
        shown((
            format!("cannot be read: {e}"),
            "give the agent's user the right to read it",
        ))
    };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_SECRET {
        return Err(shown((format!("has more than {MAX_SECRET} bytes"), FORM)));
    }
    let Ok(text) = String::from_utf8(std::fs::read(path).map_err(failed)?) else {
        return Err(shown(("is not UTF-8".into(), FORM)));
    };
    one_line(&text).map_err(shown)
}

const FORM: &str = "write the value as the only line of the file";

fn one_line(text: &str) -> Result<String, (String, &'static str)> {
    let value = text.strip_suffix('\n').unwrap_or(text);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() {
        return Err(("is empty".into(), FORM));
    }
    if value.chars().any(char::is_control) {
        return Err(("has more than one line, or control characters".into(), FORM));
    }
    Ok(value.to_owned())
}

/// A private key: many lines, in PEM.
pub(in crate::config) fn private_key(item: &Item<'_>) -> Option<Secret> {
    if !item.value.is_table() {
        return read(item);
    }
    let place = item
        .section(&schema::SECRET)?
        .require("file", "a private key is a file")?;
    let path = place.existing_file("the private key's file")?;
    let text = std::fs::metadata(&path).and_then(|m| {
        if m.len() > 16 * MAX_SECRET {
            return Err(std::io::Error::other("it is larger than 64 KiB"));
        }
        std::fs::read_to_string(&path)
    });
    match text {
        Ok(text) => Some(Secret::new(text)),
        Err(e) => {
            place.fault(
                format!(
                    "the private key's file {} cannot be read: {e}",
                    path.display()
                ),
                "give the agent's user the right to read it",
            );
            None
        }
    }
}
