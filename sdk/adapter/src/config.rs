//! Reads the operator's configuration so that each fault becomes one sentence that names its key.
//!
//! serde stops at the first fault and says where it is by line and column, of a text the operator never wrote (the host makes
//! the JSON from its TOML). So the key is found from the place, taken out, and the rest is tried again.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The most faults told at once.
const MOST_FAULTS: usize = 32;

/// The configuration, or its faults.
pub(crate) fn parse<C: DeserializeOwned>(text: &str) -> Result<C, Vec<String>> {
    // serde reads a list as a struct too, in the order of its fields; nobody means that in a configuration.
    if text.trim_start().starts_with('[') {
        return Err(vec![
            "config: it is a list; a table of keys and values is expected".to_owned(),
        ]);
    }
    match serde_json::from_str(text) {
        Ok(config) => Ok(config),
        Err(first) => Err(faults::<C>(text, first)),
    }
}

fn faults<C: DeserializeOwned>(text: &str, first: serde_json::Error) -> Vec<String> {
    let Ok(mut rest) = serde_json::from_str::<Value>(text) else {
        return vec![format!("the configuration is no JSON: {first}")];
    };
    let mut faults = Vec::new();
    let mut removed: Vec<String> = Vec::new();
    let mut text = text.to_owned();
    let mut error = first;
    while faults.len() < MOST_FAULTS {
        let path = path_at(&text, error.line(), error.column());
        let what = sentence(&error);
        // A key taken out because of its own fault is missing now; that is no second fault.
        let follows = removed
            .iter()
            .any(|key| what.contains(&format!("missing field `{key}`")));
        if !follows {
            faults.push(match path.join(".") {
                key if key.is_empty() || what.contains(&format!("`{key}`")) => {
                    format!("config: {what}")
                }
                key => format!("config.{key}: {what}"),
            });
        }
        let (Some(key), Some(object)) = (path.first(), rest.as_object_mut()) else {
            break;
        };
        if object.remove(key).is_none() {
            break;
        }
        removed.push(key.clone());
        text = rest.to_string();
        match serde_json::from_str::<C>(&text) {
            Ok(_) => break,
            Err(next) => error = next,
        }
    }
    faults
}

/// serde's message without the place in a text that the operator never saw.
fn sentence(error: &serde_json::Error) -> String {
    let full = error.to_string();
    match full.rfind(" at line ") {
        Some(end) => full[..end].to_owned(),
        None => full,
    }
}

/// The keys that lead to a place in a JSON text, outermost first. The text is known to be valid JSON.
fn path_at(text: &str, line: usize, column: usize) -> Vec<String> {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let end = (before + column).min(text.len());
    // One entry for each open object or list: the key that was read last, where it is an object.
    let mut open: Vec<(bool, String)> = Vec::new();
    let mut bytes = text.as_bytes()[..end].iter().enumerate();
    let mut wants_key = false;
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'{' => {
                open.push((true, String::new()));
                wants_key = true;
            }
            b'[' => {
                open.push((false, String::new()));
                wants_key = false;
            }
            b'}' | b']' => {
                open.pop();
                wants_key = false;
            }
            b',' => wants_key = open.last().is_some_and(|(object, _)| *object),
            b'"' => {
                let mut escaped = false;
                let mut stop = end;
                for (at, byte) in bytes.by_ref() {
                    match byte {
                        b'"' if !escaped => {
                            stop = at;
                            break;
                        }
                        b'\\' => escaped = !escaped,
                        _ => escaped = false,
                    }
                }
                if wants_key {
                    let raw = text.get(at + 1..stop).unwrap_or_default();
                    let key = serde_json::from_str(&format!("\"{raw}\""))
                        .unwrap_or_else(|_| raw.to_owned());
                    if let Some((_, last)) = open.last_mut() {
                        *last = key;
                    }
                    wants_key = false;
                }
            }
            _ => {}
        }
    }
    open.into_iter()
        .map(|(_, key)| key)
        .filter(|key| !key.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only parsed")]
    struct Config {
        link: String,
        #[serde(default)]
        retries: u32,
        #[serde(default)]
        gateway: Option<Gateway>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only parsed")]
    struct Gateway {
        sn: String,
    }

    #[test]
    fn every_unknown_key_is_told_in_a_sentence_of_its_own() {
        let faults = parse::<Config>(r#"{"link":"cloud","colour":"red","speed":9}"#).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("unknown field `colour`"), "{faults:?}");
        assert!(faults[1].contains("unknown field `speed`"), "{faults:?}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_told_with_its_key_and_not_as_missing_too() {
        let faults = parse::<Config>(r#"{"retries":-1, "link":5}"#).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults[0].starts_with("config.retries: invalid value: integer `-1`"),
            "{faults:?}"
        );
        assert!(
            faults[1].starts_with("config.link: invalid type: integer `5`"),
            "{faults:?}"
        );
    }

    #[test]
    fn a_fault_deep_inside_is_told_with_its_whole_path() {
        let faults =
            parse::<Config>("{\"link\":\"a\\\"b{\",\n\"gateway\":{\"sn\":[1]}}").unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(
            faults[0].starts_with("config.gateway.sn: invalid type"),
            "{faults:?}"
        );
    }

    #[test]
    fn a_missing_key_is_named_and_a_broken_text_is_no_panic() {
        assert_eq!(
            parse::<Config>("{}").unwrap_err(),
            ["config: missing field `link`"]
        );
        let faults = parse::<Config>("{\"link\":").unwrap_err();
        assert!(
            faults[0].starts_with("the configuration is no JSON"),
            "{faults:?}"
        );
        assert!(parse::<Config>("[\"ä\", 7]").is_err());
        assert!(parse::<Config>("").is_err());
    }
}
