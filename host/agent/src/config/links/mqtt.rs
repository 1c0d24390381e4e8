//! `[links.<name>]` of kind `mqtt`.

use std::time::Duration;

use url::Url;

use super::super::MqttConfig;
use super::super::reader::{Item, Section};
use super::{lift, secret};

pub(super) fn read(section: &Section<'_>, name: &str, device_id: &str) -> Option<MqttConfig> {
    let url = section.require("url", "").and_then(|i| broker_url(&i));
    let client_id = match section.get("client_id") {
        None => Some(format!("otahost-{device_id}-{name}")),
        Some(item) => item.string().map(str::to_owned),
    };
    let username = section.get("username").map(|i| secret::user_name(&i));
    let password = section.get("password").map(|i| secret::read(&i));
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
    let (backoff_first, backoff_max) = super::super::backoff(section);
    Some(MqttConfig {
        at: section.location(),
        url: url?,
        client_id: client_id?,
        username: lift(username)?.map(|u| u.reveal().to_owned()),
        password: lift(password)?,
        ca: lift(ca_file)?,
        keep_alive: Duration::from_secs(keep_alive.as_secs()),
        backoff_first,
        backoff_max,
    })
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
