//! `[alerts.<name>]`: where alerts go.

use std::collections::BTreeMap;
use std::time::Duration;

use otahost_core::model::Level;
use url::Url;

use super::links::{secret, trust};
use super::reader::{Item, Section};
use super::{AlertConfig, AlertWay, AuthConfig, HttpClientConfig, schema};

pub(super) fn read(root: &Section<'_>) -> BTreeMap<String, AlertConfig> {
    let mut alerts = BTreeMap::new();
    for (name, item) in root
        .get("alerts")
        .map(|a| a.named("[alerts.sms]"))
        .unwrap_or_default()
    {
        if let Some(section) = item.section(&schema::ALERT)
            && let Some(sink) = sink(&section)
        {
            alerts.insert(name.to_owned(), sink);
        }
    }
    alerts
}

fn sink(section: &Section<'_>) -> Option<AlertConfig> {
    let level = match section.get("level") {
        None => Some(Level::Warn),
        Some(item) => level(&item),
    };
    let way = match (section.get("command"), section.get("webhook")) {
        (Some(command), None) => command.command().map(AlertWay::Command),
        (None, Some(hook)) => webhook(section, &hook),
        _ => {
            section.fault(
                "must say in one way how it is told",
                "write `command = [\"…\"]` or `webhook = \"https://…\"`",
            );
            None
        }
    };
    Some(AlertConfig {
        at: section.location(),
        level: level?,
        way: way?,
    })
}

fn level(item: &Item<'_>) -> Option<Level> {
    let level = match item.string()? {
        "info" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        _ => {
            item.fault("is no level", "write `info`, `warn` or `error`");
            return None;
        }
    };
    Some(level)
}

fn webhook(section: &Section<'_>, item: &Item<'_>) -> Option<AlertWay> {
    const FORM: &str = "write `https://host/path`";
    // What a webhook's URL holds may be its only secret.
    let Ok(mut url) = Url::parse(item.raw_string()?) else {
        item.secret_fault("is no URL", FORM);
        return None;
    };
    if !matches!(url.scheme(), "http" | "https")
        || !url.username().is_empty()
        || url.password().is_some()
        || url.fragment().is_some()
    {
        item.secret_fault(
            "is no `http` or `https` URL, or holds a user, a password or a fragment",
            FORM,
        );
        return None;
    }
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    url.set_path("/");
    url.set_query(None);
    let token = match section.get("token") {
        None => None,
        Some(item) => Some(secret::read(&item)?),
    };
    Some(AlertWay::Webhook {
        client: Box::new(HttpClientConfig {
            at: section.location(),
            url,
            trust: trust::read(section)?,
            auth: match token {
                Some(_) => AuthConfig::Bearer("token".into()),
                None => AuthConfig::None,
            },
            secrets: token.map(|t| ("token".into(), t)).into_iter().collect(),
            redirects: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
        }),
        path,
    })
}
