//! `[links.<name>]` of kind `http_client`.

use url::Url;

use super::super::reader::{Item, SHOWN, Section, UrlKind};
use super::super::schema;
use super::{AuthConfig, HttpClientConfig, secret, trust, waits};

pub(super) fn read(section: &Section<'_>) -> Option<HttpClientConfig> {
    let url = section.require("url", "").and_then(|i| base(&i));
    let auth = match section.get("auth") {
        None => Some(AuthConfig::None),
        Some(item) => auth(&item),
    };
    let secrets = section.get("secrets").map_or_else(
        || Some(Vec::new()),
        |i| {
            i.named("secrets = { account = { file = \"/etc/otahost/secrets/account\" } }")
                .iter()
                .map(|(name, item)| Some(((*name).to_owned(), secret::read(item)?)))
                .collect()
        },
    );
    let mut redirects = Vec::new();
    for item in section
        .get("redirects")
        .and_then(|i| i.list())
        .unwrap_or_default()
    {
        redirects.extend(super::super::adapters::download_prefix(&item));
    }
    let (connect_timeout, idle_timeout) = waits(section);
    Some(HttpClientConfig {
        at: section.location(),
        trust: trust::read(section)?,
        url: url?,
        auth: auth?,
        secrets: secrets?,
        redirects,
        connect_timeout,
        idle_timeout,
    })
}

fn base(item: &Item<'_>) -> Option<Url> {
    const FORM: &str = "write `https://host`, perhaps with a port and a path";
    let url = item.url(&UrlKind {
        form: FORM,
        schemes: &["http", "https"],
        otherwise: "not the scheme of an API",
        credentials: (SHOWN, "use `auth` and `secrets` of this link"),
    })?;
    if url.query().is_some() || url.fragment().is_some() {
        item.secret_fault("has a query or a fragment", FORM);
        return None;
    }
    Some(url)
}

fn auth(item: &Item<'_>) -> Option<AuthConfig> {
    let section = item.section(&schema::AUTH)?;
    match (section.get("basic"), section.get("bearer")) {
        (Some(basic), None) => {
            let section = basic.section(&schema::BASIC)?;
            let username = section
                .require("username", "")
                .and_then(|i| secret::user_name(&i));
            let password = section
                .require("password", "")
                .and_then(|i| secret::read(&i));
            Some(AuthConfig::Basic {
                username: username?,
                password: password?,
            })
        }
        (None, Some(bearer)) => bearer
            .name()
            .map(|name| AuthConfig::Bearer(name.to_owned())),
        _ => {
            section.fault(
                "must name one scheme",
                "write `auth = { bearer = \"access_token\" }` or `auth = { basic = { username = \"…\", password = { file = \"…\" } } }`",
            );
            None
        }
    }
}
