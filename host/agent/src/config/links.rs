//! `[links.<name>]`: one table for each connection, with the keys of its kind.

mod ftps;
mod http_client;
mod http_server;
mod mqtt;
pub(super) mod secret;
pub(super) mod trust;

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::{Item, Section};
use super::{LinkConfig, schema};

pub(super) fn read(root: &Section<'_>, device_id: &str) -> BTreeMap<String, LinkConfig> {
    let mut links = BTreeMap::new();
    for (name, item) in root
        .get("links")
        .map(|l| l.named("[links.cloud]"))
        .unwrap_or_default()
    {
        let Some(link) = link(&item, name, device_id) else {
            continue;
        };
        if let Some((fault, advice)) = twin(&links, &link) {
            item.reader.fault(&item.key_at, &item.path, fault, advice);
        }
        links.insert(name.to_owned(), link);
    }
    links
}

fn link(item: &Item<'_>, name: &str, device_id: &str) -> Option<LinkConfig> {
    let kind = item.value.as_table().and_then(|t| t.get("kind"));
    let kind = kind.and_then(|k| match k.get_ref() {
        DeValue::String(word) => Some(word.as_ref()),
        _ => None,
    });
    match kind {
        Some("http_server") => {
            let section = item.section(&schema::HTTP_SERVER)?;
            http_server::read(&section).map(LinkConfig::HttpServer)
        }
        Some("http_client") => {
            let section = item.section(&schema::HTTP_CLIENT)?;
            http_client::read(&section).map(LinkConfig::HttpClient)
        }
        Some("ftps") => {
            let section = item.section(&schema::FTPS)?;
            ftps::read(&section).map(LinkConfig::Ftps)
        }
        Some("mqtt") | None => {
            // One without a kind is read like the most usual: its other faults are told as well.
            let section = item.section(&schema::LINK)?;
            section
                .require("kind", "a link has to say what is spoken on it")?
                .string()?;
            mqtt::read(&section, name, device_id).map(LinkConfig::Mqtt)
        }
        Some(_) => {
            let entries = item.entries("");
            if let Some((_, kind)) = entries.iter().find(|(name, _)| *name == "kind") {
                kind.fault(
                    "this kind of link is not known",
                    "this version of otahost knows `mqtt`, `http_server`, `http_client` and `ftps`",
                );
            }
            None
        }
    }
}

/// What is wrong with two links that get in each other's way.
fn twin(links: &BTreeMap<String, LinkConfig>, link: &LinkConfig) -> Option<(String, &'static str)> {
    links.iter().find_map(|(twin, other)| match (other, link) {
        (LinkConfig::Mqtt(a), LinkConfig::Mqtt(b)) if a.url == b.url && a.client_id == b.client_id => Some((
            format!("has the broker and the client id of `links.{twin}`: the broker would close one connection for the other, for ever"),
            "give one of them another `client_id`",
        )),
        (LinkConfig::HttpServer(a), LinkConfig::HttpServer(b)) if a.listen == b.listen => Some((
            format!("listens where `links.{twin}` does"),
            "give one of them another port, or put both adapters' routes on one link",
        )),
        _ => None,
    })
}

/// `connect_timeout` and `idle_timeout`.
fn waits(section: &Section<'_>) -> (Duration, Duration) {
    let range = Duration::from_secs(1)..=Duration::from_secs(3_600);
    (
        section.duration("connect_timeout", range.clone()),
        section.duration("idle_timeout", range),
    )
}

/// `None` when the key is there and faulty; `Some(None)` when it is not there.
pub(super) fn lift<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}
