//! `[links.<name>]` of kind `mqtt`.

use std::time::Duration;

use super::super::reader::{Item, SHOWN, Section, UrlKind};
use super::{MqttConfig, lift, secret};

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
    let url = item.url(&UrlKind {
        form: FORM,
        schemes: &["mqtt", "mqtts"],
        otherwise: "not the scheme of a broker",
        credentials: (SHOWN, "use the keys `username` and `password` of this link"),
    })?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        item.fault("has more than host and port", FORM);
        return None;
    }
    Some(item.raw_string()?.trim_end_matches('/').to_owned())
}
