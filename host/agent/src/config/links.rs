//! `[links.<name>]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use url::Url;

use super::reader::{Item, Section};
use super::schema::Table;
use super::{LinkConfig, MqttConfig, Secret, schema};

/// The largest file of a user name or password.
const MAX_SECRET: u64 = 4096;

pub(super) fn read(root: &Section<'_>, device_id: &str) -> BTreeMap<String, LinkConfig> {
    let mut links = BTreeMap::new();
    for (name, item) in root
        .get("links")
        .map(|l| l.named("[links.cloud]"))
        .unwrap_or_default()
    {
        let Some(section) = item.section(&schema::LINK) else {
            continue;
        };
        let Some(link) = mqtt(&section, name, device_id) else {
            continue;
        };
        let twin = links.iter().find(|(_, LinkConfig::Mqtt(other))| {
            other.url == link.url && other.client_id == link.client_id
        });
        if let Some((twin, _)) = twin {
            section.fault(
                format!("has the broker and the client id of `links.{twin}`: the broker would close one connection for the other, for ever"),
                "give one of them another `client_id`",
            );
        }
        links.insert(name.to_owned(), LinkConfig::Mqtt(link));
    }
    links
}

fn mqtt(section: &Section<'_>, name: &str, device_id: &str) -> Option<MqttConfig> {
    if let Some(kind) = section.require("kind", "a link has to say what is spoken on it")
        && let Some(word) = kind.string()
        && word != "mqtt"
    {
        kind.fault(
            "this kind of link is not known",
            "this version of otahost knows `mqtt`",
        );
        return None;
    }
    let url = section.require("url", "").and_then(|i| broker_url(&i));
    let client_id = match section.get("client_id") {
        None => Some(format!("otahost-{device_id}-{name}")),
        Some(item) => item.string().map(str::to_owned),
    };
    let username = section.get("username").map(|i| match i.value.as_table() {
        Some(_) => secret_file(&i, &schema::USERNAME, "the user name's file"),
        None => i.string().map(str::to_owned),
    });
    let password = section.get("password").map(|i| {
        if i.value.is_table() {
            return secret_file(&i, &schema::PASSWORD, "the password's file").map(Secret);
        }
        i.secret_fault(
            "a password does not belong in this file, which gets copied, shown and mailed",
            "put it into a file of mode 0600 and write `password = { file = \"…\" }`",
        );
        None
    });
    let ca = section.get("ca");
    let ca_file = ca.as_ref().map(|i| i.existing_file("the file"));
    if let (Some(ca), Some(url)) = (&ca, &url)
        && url.starts_with("mqtt:")
    {
        ca.fault(
            "has no effect on a `mqtt://` link, which is not encrypted",
            "use `mqtts://`, or remove this line",
        );
    }
    let keep_alive = section.duration(
        "keep_alive",
        Duration::from_secs(5)..=Duration::from_secs(18 * 3600),
    );
    let (backoff_first, backoff_max) = super::backoff(section);
    Some(MqttConfig {
        at: section.location(),
        url: url?,
        client_id: client_id?,
        username: lift(username)?,
        password: lift(password)?,
        ca: lift(ca_file)?,
        keep_alive: Duration::from_secs(keep_alive.as_secs()),
        backoff_first,
        backoff_max,
    })
}

/// `None` when the key is there and faulty; `Some(None)` when it is not there.
pub(super) fn lift<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn broker_url(item: &Item<'_>) -> Option<String> {
    const FORM: &str = "write `mqtt://host:port` or `mqtts://host:port`";
    let text = item.raw_string()?;
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(e) => {
            item.secret_fault(format!("is no URL: {e}"), FORM);
            return None;
        }
    };
    if !url.username().is_empty() || url.password().is_some() {
        item.secret_fault(
            "holds a user or password; this file gets copied, shown and mailed",
            "use the keys `username` and `password` of this link",
        );
    } else if !matches!(url.scheme(), "mqtt" | "mqtts") {
        item.fault(
            format!("`{}` is not the scheme of a broker", url.scheme()),
            FORM,
        );
    } else if url.host_str().is_none_or(str::is_empty) {
        item.fault("names no host", FORM);
    } else if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        item.fault("has more than host and port", FORM);
    } else {
        return Some(text.trim_end_matches('/').to_owned());
    }
    None
}

/// The single line of a secret's file.
fn secret_file(item: &Item<'_>, schema: &'static Table, what: &str) -> Option<String> {
    let file = item.section(schema)?.require("file", "")?;
    let path = file.existing_file(what)?;
    match read_secret(&path) {
        Ok(secret) => Some(secret),
        Err((fault, advice)) => {
            file.fault(format!("{what} {} {fault}", path.display()), advice);
            None
        }
    }
}

fn read_secret(path: &Path) -> Result<String, (String, &'static str)> {
    const FORM: &str = "write the value as the only line of the file";
    let failed = |e: std::io::Error| {
        (
            format!("cannot be read: {e}"),
            "give the agent's user the right to read it",
        )
    };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_SECRET {
        return Err((format!("has more than {MAX_SECRET} bytes"), FORM));
    }
    let Ok(text) = String::from_utf8(std::fs::read(path).map_err(failed)?) else {
        return Err(("is not UTF-8".into(), FORM));
    };
    let value = text.strip_suffix('\n').unwrap_or(&text);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() {
        return Err(("is empty".into(), FORM));
    }
    if value.chars().any(char::is_control) {
        return Err(("has more than one line, or control characters".into(), FORM));
    }
    Ok(value.to_owned())
}
