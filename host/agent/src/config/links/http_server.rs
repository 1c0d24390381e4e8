//! `[links.<name>]` of kind `http_server`.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::reader::Section;
use super::super::schema;
use super::{CallersConfig, HttpServerConfig, TlsIdentityConfig, lift, secret};

pub(super) fn read(section: &Section<'_>) -> Option<HttpServerConfig> {
    let listen = section.require("listen", "").and_then(|i| {
        let address = i.string()?.parse::<SocketAddr>();
        if address.is_err() {
            i.fault(
                "is no address with a port",
                "write `0.0.0.0:8080`, `127.0.0.1:8080` or `[::]:8080`",
            );
        }
        address.ok()
    });
    let tls = section.get("tls").map(|i| {
        let section = i.section(&schema::IDENTITY)?;
        let certificate = section
            .require("certificate", "")
            .and_then(|i| i.existing_file("the certificate"));
        let key = section
            .require("key", "")
            .and_then(|i| secret::private_key(&i));
        Some(TlsIdentityConfig {
            certificate: certificate?,
            key: key?,
        })
    });
    let callers = callers(section);
    let realm = match section.get("realm") {
        None => Some(section.default("realm").to_owned()),
        Some(item) => {
            let realm = item.string().map(str::to_owned);
            if realm.as_ref().is_some_and(|r| r.contains(['"', '\\'])) {
                item.fault("has a quote or a backslash", "choose a realm without");
            }
            realm
        }
    };
    let timeout = Duration::from_secs(1)..=Duration::from_secs(600);
    Some(HttpServerConfig {
        at: section.location(),
        answer_within: section.duration("answer_within", timeout),
        per_minute: section.count("per_minute", 1..=100_000),
        parallel: section.count("parallel", 1..=1_000),
        listen: listen?,
        tls: lift(tls)?,
        callers: callers?,
        realm: realm?,
    })
}

fn callers(section: &Section<'_>) -> Option<CallersConfig> {
    let anonymous = match section.get("anonymous") {
        None => false,
        Some(item) => match item.value.as_bool() {
            Some(word) => word,
            None => {
                item.wrong_type("`true` or `false`");
                return None;
            }
        },
    };
    let Some(users) = section.get("users") else {
        if anonymous {
            return Some(CallersConfig::Anonymous);
        }
        section.fault(
            "does not say who may call",
            "add `users = { NAME = { file = \"…\" } }`, or `anonymous = true` when everybody who reaches the port may",
        );
        return None;
    };
    if anonymous {
        users.fault(
            "stands beside `anonymous = true`, which lets everybody in",
            "remove one of them",
        );
        return None;
    }
    let entries = users.entries("users = { centre = { file = \"/etc/otahost/secrets/centre\" } }");
    let wrong =
        |name: &str| name.is_empty() || name.contains(':') || name.chars().any(char::is_control);
    if let Some((_, item)) = entries.iter().find(|(name, _)| wrong(name)) {
        item.fault(
            "this user name is empty, or has a colon or control characters, which HTTP Basic cannot carry",
            "choose another",
        );
        return None;
    }
    if entries.is_empty() {
        users.fault("names nobody", "add `NAME = { file = \"…\" }`");
        return None;
    }
    let read: Option<Vec<_>> = entries
        .iter()
        .map(|(name, item)| Some(((*name).to_owned(), secret::read(item)?)))
        .collect();
    Some(CallersConfig::Basic(read?))
}
