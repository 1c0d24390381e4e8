//! `[adapters.<name>]` and what they are granted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use otahost_core::job::OPERATOR;
use otahost_core::paths;
use otahost_core::secret::Place;
use otahost_core::topics;
use serde_json::Value;
use toml::de::DeValue;

use super::reader::{Item, Section, UrlKind};
use super::{
    AdapterConfig, CallGrant, Follows, Grants, LinkGrant, RouteGrant, known, schema, written_names,
};

pub(super) fn read(
    root: &Section<'_>,
    directory: Option<&Path>,
) -> BTreeMap<String, AdapterConfig> {
    let links = written_names(root, "links");
    let targets = written_names(root, "targets");
    let repositories = written_names(root, "repositories");
    let mut adapters = BTreeMap::new();
    for (name, item) in root
        .get("adapters")
        .map(|a| a.named("[adapters.dji]"))
        .unwrap_or_default()
    {
        if name == OPERATOR {
            item.reader.fault(
                &item.key_at,
                &item.path,
                "this name is the operator's own, whose jobs skip windows and come first",
                "choose another, as in `[adapters.dji]`",
            );
        }
        let Some(section) = item.section(&schema::ADAPTER) else {
            continue;
        };
        let dropped = directory.map(|directory| directory.join(format!("{name}.wasm")));
        if let Some(mut adapter) = adapter(&section, dropped, &links, &targets) {
            adapter.follows = follows(&section, name, &repositories);
            adapters.insert(name.to_owned(), adapter);
        }
    }
    adapters
}

fn adapter(
    section: &Section<'_>,
    dropped: Option<PathBuf>,
    links: &[&str],
    targets: &[&str],
) -> Option<AdapterConfig> {
    // Whether it is there, and what it is, is told when it is loaded: the agent starts without it.
    let component = match section.get("component") {
        Some(item) => item.file().map(|file| (item.location(), file)),
        None => dropped.map(|file| (section.location(), file)),
    };
    let config = section.get("config").map_or_else(
        || Some(Value::Object(serde_json::Map::new())),
        |i| {
            if i.value.is_table() {
                return json(&i);
            }
            i.wrong_type("a table");
            None
        },
    );
    let mut at = section.location();
    let mut grants = Grants::default();
    if let Some(granted) = section
        .get("grants")
        .and_then(|i| i.section(&schema::GRANTS))
    {
        at = granted.location();
        grants = read_grants(&granted, links, targets);
    }
    Some(AdapterConfig {
        at,
        component_at: component.as_ref()?.0,
        component: component?.1,
        config: config?,
        grants,
        follows: None,
    })
}

fn follows(section: &Section<'_>, name: &str, repositories: &[&str]) -> Option<Follows> {
    let renamed = section.get("repository_name");
    let Some(item) = section.get("repository") else {
        if let Some(item) = renamed {
            item.fault(
                "has no effect without `repository`",
                "add `repository`, or remove this line",
            );
        }
        return None;
    };
    let repository = item.string()?;
    known(
        &item,
        "repository",
        repository,
        repositories.iter().copied(),
    );
    let name = match renamed {
        Some(item) => item.name()?,
        None => name,
    };
    Some(Follows {
        repository: repository.to_owned(),
        name: name.to_owned(),
    })
}

fn read_grants(section: &Section<'_>, links: &[&str], targets: &[&str]) -> Grants {
    let mut grants = Grants::default();
    for (name, item) in section
        .get("links")
        .map(|l| l.entries("links.cloud.subscribe = [\"thing/+\"]"))
        .unwrap_or_default()
    {
        known(&item, "link", name, links.iter().copied());
        if let Some(granted) = item.section(&schema::LINK_GRANT) {
            let granted = LinkGrant {
                subscribe: filters(&granted, "subscribe"),
                publish: filters(&granted, "publish"),
                serve: list(&granted, "serve").iter().filter_map(route).collect(),
                call: list(&granted, "call").iter().filter_map(call).collect(),
                files: list(&granted, "files")
                    .iter()
                    .filter_map(directory)
                    .collect(),
            };
            grants.links.insert(name.to_owned(), granted);
        }
    }
    for item in list(section, "download") {
        if let Some(prefix) = download_prefix(&item) {
            grants.download.push(prefix);
        }
    }
    for item in list(section, "targets") {
        if let Some(name) = item.string()
            && known(&item, "target", name, targets.iter().copied())
        {
            grants.targets.push(name.to_owned());
        }
    }
    grants
}

fn list<'t>(section: &Section<'t>, key: &str) -> Vec<Item<'t>> {
    section.get(key).and_then(|i| i.list()).unwrap_or_default()
}

fn filters(section: &Section<'_>, key: &str) -> Vec<String> {
    let mut filters = Vec::new();
    for item in list(section, key) {
        let Some(text) = item.raw_string() else {
            continue;
        };
        match topics::filter_fault(text) {
            None => filters.push(text.to_owned()),
            Some(fault) => item.fault(
                format!("is no topic filter: {fault}"),
                "write it as in `thing/product/+/services` or `thing/#`",
            ),
        }
    }
    filters
}

fn route(item: &Item<'_>) -> Option<RouteGrant> {
    let text = item.string()?;
    if let Some((method, path)) = text.split_once(' ')
        && is_method(method)
        && path.starts_with('/')
        && paths::is_plain(path)
    {
        return Some(RouteGrant {
            method: method.to_owned(),
            path: path.to_owned(),
        });
    }
    item.fault("is no route", "write method and path: `POST /updateDevice`");
    None
}

fn is_method(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase())
}

fn directory(item: &Item<'_>) -> Option<String> {
    let text = item.string()?;
    if text.starts_with('/') && paths::is_plain(text) && !text.contains('?') {
        return Some(text.to_owned());
    }
    item.fault(
        "is no plain directory",
        "write it from the link's own root on: `/` or `/model-a`",
    );
    None
}

fn call(item: &Item<'_>) -> Option<CallGrant> {
    let section = item.section(&schema::CALL_GRANT)?;
    let method = section.require("method", "").and_then(|i| {
        let method = i.string()?;
        if !is_method(method) {
            i.fault("is no HTTP method", "write it in upper case: `GET`");
            return None;
        }
        Some(method.to_owned())
    });
    let path = section.require("path", "").and_then(|i| {
        let path = i.string()?;
        if !path.starts_with('/') || !paths::is_plain(path) || path.contains('?') {
            i.fault(
                "is no plain path",
                "write it from the root on and without query: `/firmware/latest/*`",
            );
            return None;
        }
        Some(path.to_owned())
    });
    let secrets: Option<_> = entries(&section, "secrets")
        .into_iter()
        .map(|(name, item)| Some((name.to_owned(), place(&item)?)))
        .collect();
    let capture: Option<_> = entries(&section, "capture")
        .into_iter()
        .map(|(name, item)| Some((name.to_owned(), pointer(&item)?)))
        .collect();
    Some(CallGrant {
        method: method?,
        path: path?,
        secrets: secrets?,
        capture: capture?,
    })
}

fn entries<'t>(section: &Section<'t>, key: &str) -> Vec<(&'t str, Item<'t>)> {
    section
        .get(key)
        .map(|i| i.named("capture = { access_token = \"/access_token\" }"))
        .unwrap_or_default()
}

fn place(item: &Item<'_>) -> Option<Place> {
    let place = match item.string()? {
        "path" => Place::Path,
        "query" => Place::Query,
        "header" => Place::Header,
        "body" => Place::Body,
        _ => {
            item.fault(
                "is no place in a request",
                "write `path`, `query`, `header` or `body`",
            );
            return None;
        }
    };
    Some(place)
}

fn pointer(item: &Item<'_>) -> Option<String> {
    let text = item.string()?;
    if text.starts_with('/') {
        return Some(text.to_owned());
    }
    item.fault(
        "is no JSON pointer",
        "write it as in `/access_token` or `/data/token`",
    );
    None
}

pub(super) fn download_prefix(item: &Item<'_>) -> Option<String> {
    let url = item.url(&UrlKind {
        form: "write `http://` or `https://`, the host, and a folder: `https://files.example/firmware/`",
        schemes: &["http", "https"],
        otherwise: "not a scheme that can be downloaded from",
        credentials: (
            "artifacts are fetched without any",
            "remove the part before `@`",
        ),
    })?;
    if url.query().is_some() || url.fragment().is_some() {
        item.secret_fault(
            "has a query or a fragment; a prefix ends in the path",
            "remove what begins with `?` or `#`",
        );
    } else if item.raw_string()?.contains('*') {
        item.fault(
            "has a wildcard, and there are none here",
            "everything below the prefix is granted; name a folder",
        );
    } else {
        // As parsed: with the `/` that ends the host, and without `..`.
        return Some(url.into());
    }
    None
}

/// A TOML value as JSON; dates become strings.
fn json(item: &Item<'_>) -> Option<Value> {
    match item.value {
        DeValue::String(text) => Some(Value::String(text.to_string())),
        DeValue::Boolean(value) => Some(Value::Bool(*value)),
        DeValue::Datetime(value) => Some(Value::String(value.to_string())),
        DeValue::Integer(_) => {
            let number = item.integer();
            if number.is_none() {
                item.fault(
                    "this number does not fit into 64 bits",
                    "write it as a string",
                );
            }
            number.map(Value::from)
        }
        DeValue::Float(float) => {
            let number = float
                .as_str()
                .parse()
                .ok()
                .and_then(serde_json::Number::from_f64);
            if number.is_none() {
                item.fault(
                    "JSON has no such number",
                    "write a finite number, or a string",
                );
            }
            number.map(Value::Number)
        }
        DeValue::Array(_) => item
            .list()?
            .iter()
            .map(json)
            .collect::<Option<Vec<_>>>()
            .map(Value::Array),
        DeValue::Table(_) => {
            let entries = item.entries("");
            let read: Option<serde_json::Map<_, _>> = entries
                .iter()
                .map(|(name, item)| Some(((*name).to_owned(), json(item)?)))
                .collect();
            read.map(Value::Object)
        }
    }
}
