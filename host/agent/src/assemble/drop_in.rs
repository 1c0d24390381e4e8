//! Components in the adapters directory that no table of the configuration names.
//!
//! Whoever puts a file there wants it to run. One that needs no grant and no configuration does; of every other it is said which lines
//! it needs, so that they can be read, thought about and copied.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use otahost_core::job::OPERATOR;
use otahost_core::model::Requirements;
use serde_json::{Value, json};

use super::{Loader, read_component};
use crate::api::DropInView;
use crate::config::{AdapterConfig, Config, Grants, Location, is_name};

/// Most files of the directory that are looked at.
const MAX_FILES: usize = 64;

/// The components in the directory, by the name each would have as an adapter; sorted.
pub(crate) fn files(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_suffix(".wasm")?.to_owned(), entry.path()))
        })
        .collect();
    found.sort();
    found.truncate(MAX_FILES);
    found
}

/// Gives every component that no table names, and that needs nothing, a table of its own; says of each other one what it needs.
pub(crate) fn complete(config: &mut Config, loader: &Loader) -> Vec<DropInView> {
    let loader = loader.within(&config.compiler);
    let mut waiting = Vec::new();
    for (name, path) in files(&config.device.adapters_dir) {
        let named = config.adapters.values().any(|a| a.component == path);
        if named || config.adapters.contains_key(&name) {
            continue;
        }
        match look(&loader, &name, &path) {
            Ok(()) => {
                let adapter = AdapterConfig {
                    at: Location::default(),
                    component_at: Location::default(),
                    component: path,
                    config: json!({}),
                    grants: Grants::default(),
                    follows: None,
                };
                config.adapters.insert(name, adapter);
            }
            Err((why, lines)) => waiting.push(DropInView {
                name,
                path: path.display().to_string(),
                why,
                lines,
            }),
        }
    }
    waiting
}

/// Whether it may run as it is. The error says why not, and which lines would let it, where lines would.
fn look(loader: &Loader, name: &str, path: &Path) -> Result<(), (String, String)> {
    let never = |why: String| (why, String::new());
    if !is_name(name) || name == OPERATOR {
        return Err(never(format!(
            "`{name}` cannot be the name of an adapter; rename the file, as in `dji.wasm`"
        )));
    }
    let bytes = read_component(path).map_err(never)?;
    let component = loader
        .load(name, &bytes)
        .map_err(|e| never(format!("it is refused: {e}")))?
        .adapter;
    let failed = |at: &str, e: String| never(format!("it fails at `{at}`: {e}"));
    let description = component
        .describe()
        .map_err(|e| failed("describe", e.to_string()))?;
    match component
        .requirements("{}")
        .map_err(|e| failed("requirements", e.to_string()))?
    {
        Ok(asked) if Grants::default().denials(&asked).is_empty() => Ok(()),
        Ok(asked) => {
            let lines = format!("[adapters.{}]\n{}", quoted_key(name), grants(name, &asked));
            Err(("it needs grants".to_owned(), lines))
        }
        Err(faults) => {
            let lines = format!(
                "[adapters.{}]\nconfig = {}\n",
                quoted_key(name),
                skeleton(&description.config_schema)
            );
            let why = format!("it needs a configuration: {}", faults.join("; "));
            Err((why, lines))
        }
    }
}

/// The keys that a configuration must have, with nothing in them yet.
fn skeleton(schema: &str) -> String {
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let keys: Vec<String> = required
        .iter()
        .filter_map(Value::as_str)
        .map(|key| format!("{} = \"…\"", quoted_key(key)))
        .collect();
    if keys.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{ {} }}", keys.join(", "))
    }
}

/// A bare key where TOML takes one.
fn quoted_key(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(bare) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

/// A TOML string: the escapes of JSON are a part of TOML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// The table that grants all of this.
fn grants(name: &str, asked: &Requirements) -> String {
    let mut links: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
    let mut add = |link: &str, what: &'static str, line: String| {
        links.entry((link.to_owned(), what)).or_default().push(line);
    };
    for topics in &asked.topics {
        for filter in &topics.subscribe {
            add(&topics.link, "subscribe", quoted(filter));
        }
        for filter in &topics.publish {
            add(&topics.link, "publish", quoted(filter));
        }
    }
    for route in &asked.routes {
        let line = quoted(&format!("{} {}", route.method, route.path));
        add(&route.link, "serve", line);
    }
    for call in &asked.calls {
        let secrets: Vec<String> = call
            .secrets
            .iter()
            .map(|secret| format!("{} = \"body\"", quoted_key(secret)))
            .collect();
        let secrets = match secrets.is_empty() {
            true => String::new(),
            false => format!(", secrets = {{ {} }}", secrets.join(", ")),
        };
        let (method, path) = (quoted(&call.method), quoted(&call.path));
        let line = format!("{{ method = {method}, path = {path}{secrets} }}");
        add(&call.link, "call", line);
    }
    for source in &asked.sources {
        add(source, "files", quoted("/"));
    }
    let mut text = format!("\n[adapters.{}.grants]\n", quoted_key(name));
    for ((link, what), lines) in links {
        let line = format!(
            "links.{}.{what} = [{}]\n",
            quoted_key(&link),
            lines.join(", ")
        );
        text.push_str(&line);
    }
    if !asked.downloads.is_empty() {
        text.push_str(&format!("download = {}\n", list(&asked.downloads)));
    }
    let targets: Vec<String> = asked
        .targets
        .iter()
        .filter(|target| *target != "*")
        .cloned()
        .collect();
    if !targets.is_empty() {
        text.push_str(&format!("targets = {}\n", list(&targets)));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_core::model::{CallNeed, RouteNeed, TopicNeeds};

    use super::*;

    #[test]
    fn the_lines_that_are_shown_grant_what_is_asked_for() {
        let asked = Requirements {
            topics: vec![TopicNeeds {
                link: "cloud".into(),
                subscribe: vec!["a/+".into(), "b".into()],
                publish: vec!["a/#".into()],
            }],
            routes: vec![RouteNeed {
                link: "web".into(),
                method: "POST".into(),
                path: "/do".into(),
                max_body: 1,
            }],
            calls: vec![CallNeed {
                link: "api".into(),
                method: "GET".into(),
                path: "/free/*".into(),
                secrets: vec!["token".into()],
            }],
            sources: vec!["files".into()],
            downloads: vec!["https://files.example/".into()],
            targets: vec!["*".into(), "dock".into()],
        };
        assert!(!Grants::default().denials(&asked).is_empty());
        let text = format!(
            "[device]\nid = \"d\"\ndata_dir = \"/d\"\nreboot = [\"r\"]\nboot_id = \"/dev/null\"\n\
             [links.cloud]\nkind = \"mqtt\"\nurl = \"mqtt://b\"\n\
             [links.web]\nkind = \"http_server\"\nlisten = \"127.0.0.1:1\"\nanonymous = true\n\
             [links.api]\nkind = \"http_client\"\nurl = \"http://b\"\n\
             [links.files]\nkind = \"http_client\"\nurl = \"http://c\"\n\
             [targets.dock]\nflasher = \"slots\"\n\
             [adapters.x]\n{}",
            grants("x", &asked)
        );
        // The target is not whole, which is no fault of the grants.
        let findings = match Config::from_text(Path::new("/x/otahost.toml"), &text) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.findings,
        };
        let ours: Vec<_> = findings
            .iter()
            .filter(|f| f.key.starts_with("adapters"))
            .collect();
        assert!(ours.is_empty(), "{ours:?}\n{text}");
        for line in [
            "links.cloud.subscribe = [\"a/+\", \"b\"]\n",
            "links.cloud.publish = [\"a/#\"]\n",
            "links.web.serve = [\"POST /do\"]\n",
            "links.api.call = [{ method = \"GET\", path = \"/free/*\", secrets = { token = \"body\" } }]\n",
            "links.files.files = [\"/\"]\n",
            "download = [\"https://files.example/\"]\n",
            "targets = [\"dock\"]\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn the_keys_a_configuration_must_have_are_shown() {
        let schema = r#"{"required": ["link", "the prefix"]}"#;
        assert_eq!(skeleton(schema), "{ link = \"…\", \"the prefix\" = \"…\" }");
        assert_eq!(skeleton("no schema"), "{}");
    }
}
