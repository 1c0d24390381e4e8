//! Grants: what the operator allows an adapter, and how requests are compared with it.
//!
//! Effective authority is what the component declares AND what the operator grants. A denial names the grant that is missing, in
//! the words of the configuration, so that an integrator can paste it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::model::{CallNeed, Fetch, LinkPath, Requirements};
use crate::paths;
use crate::secret::{self, Place};
use crate::topics;

/// What is granted on one link; which of it means anything depends on the link's kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkGrant {
    /// Topic filters it may subscribe.
    pub subscribe: Vec<String>,
    /// Topic filters it may publish under.
    pub publish: Vec<String>,
    /// Routes it may serve.
    pub serve: Vec<RouteGrant>,
    /// Requests it may send.
    pub call: Vec<CallGrant>,
    /// Directories it may list, and take files from.
    pub files: Vec<String>,
}

/// A route an adapter may serve.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteGrant {
    /// Upper-case method.
    pub method: String,
    /// Absolute path; `*` stands for one segment.
    pub path: String,
}

/// A kind of request an adapter may send.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CallGrant {
    /// Upper-case method.
    pub method: String,
    /// Absolute path; `*` stands for one segment.
    pub path: String,
    /// The secrets it may have filled in, each with the only place it may be filled in at.
    pub secrets: BTreeMap<String, Place>,
    /// The secrets it may have captured from the answer, each with the JSON pointer to it.
    pub capture: BTreeMap<String, String>,
}

/// What the operator allows one adapter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Grants {
    /// Topics, routes, requests and directories by link.
    pub links: BTreeMap<String, LinkGrant>,
    /// URL prefixes it may have artifacts downloaded from.
    pub download: Vec<String>,
    /// Targets it may see and update, in the order of the configuration.
    pub targets: Vec<String>,
}

/// One thing an adapter asks for that is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What it asks for.
    pub asked: String,
    /// What to add to the grants.
    pub missing: String,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it asks to {}, which is not granted; add {}",
            self.asked, self.missing
        )
    }
}

impl Grants {
    /// What of these requirements is not granted.
    pub fn denials(&self, asked: &Requirements) -> Vec<Denial> {
        let mut denials = Vec::new();
        let none = LinkGrant::default();
        for needs in &asked.topics {
            let grant = self.links.get(&needs.link).unwrap_or(&none);
            for (verb, wanted, granted) in [
                ("subscribe", &needs.subscribe, &grant.subscribe),
                ("publish", &needs.publish, &grant.publish),
            ] {
                for filter in wanted {
                    if let Some(fault) = topics::filter_fault(filter) {
                        denials.push(Denial {
                            asked: format!("{verb} `{filter}` on link `{}`", needs.link),
                            missing: format!("nothing: {fault}; this is a fault of the adapter or of its configuration"),
                        });
                    } else if !granted.iter().any(|g| topics::covers(g, filter)) {
                        denials.push(Denial {
                            asked: format!("{verb} `{filter}` on link `{}`", needs.link),
                            missing: format!("\"{filter}\" to grants.links.{}.{verb}", needs.link),
                        });
                    }
                }
            }
        }
        for route in &asked.routes {
            let grant = self.links.get(&route.link).unwrap_or(&none);
            let granted = |g: &RouteGrant| {
                g.method == route.method && paths::pattern_covers(&g.path, &route.path)
            };
            if !grant.serve.iter().any(granted) {
                let named = format!("{} {}", route.method, route.path);
                denials.push(Denial {
                    asked: format!("serve {named} on link `{}`", route.link),
                    missing: format!("\"{named}\" to grants.links.{}.serve", route.link),
                });
            }
        }
        for call in &asked.calls {
            let grant = self.links.get(&call.link).unwrap_or(&none);
            let granted = |g: &CallGrant| {
                g.method == call.method
                    && paths::pattern_covers(&g.path, &call.path)
                    && call.secrets.iter().all(|s| g.secrets.contains_key(s))
            };
            if !grant.call.iter().any(granted) {
                denials.push(call_denial(call));
            }
        }
        for source in &asked.sources {
            if self.links.get(source).is_none_or(|g| g.files.is_empty()) {
                denials.push(Denial {
                    asked: format!("read files of link `{source}`"),
                    missing: format!("the directories to grants.links.{source}.files, as in `links.{source}.files = [\"/\"]`"),
                });
            }
        }
        for prefix in &asked.downloads {
            if !self
                .download
                .iter()
                .any(|granted| url_within(granted, prefix))
            {
                denials.push(Denial {
                    asked: format!("download from {prefix}"),
                    missing: format!("\"{prefix}\" to grants.download"),
                });
            }
        }
        for target in asked.targets.iter().filter(|t| *t != "*") {
            if !self.targets.contains(target) {
                denials.push(Denial {
                    asked: format!("update target `{target}`"),
                    missing: format!("\"{target}\" to grants.targets"),
                });
            }
        }
        denials
    }
}

fn call_denial(call: &CallNeed) -> Denial {
    let secrets = call.secrets.join("`, `");
    let (with, table) = if call.secrets.is_empty() {
        (String::new(), String::new())
    } else {
        let places: Vec<String> = call
            .secrets
            .iter()
            .map(|s| format!("{s} = \"body\""))
            .collect();
        (
            format!(" with the secrets `{secrets}`"),
            format!(", secrets = {{ {} }}", places.join(", ")),
        )
    };
    Denial {
        asked: format!(
            "call {} {} on link `{}`{with}",
            call.method, call.path, call.link
        ),
        missing: format!(
            "{{ method = \"{}\", path = \"{}\"{table} }} to grants.links.{}.call",
            call.method, call.path, call.link
        ),
    }
}

impl Grants {
    /// What of a request is not granted: its secrets in their places, and what it captures. The text ends with what to add.
    ///
    /// # Errors
    /// The denial.
    pub fn allows_call(&self, fetch: &Fetch) -> Result<(), Denial> {
        let path = paths::without_query(&fetch.path);
        let mut candidates = self
            .links
            .get(&fetch.link)
            .into_iter()
            .flat_map(|g| &g.call)
            .filter(|g| g.method == fetch.method && paths::pattern_matches(&g.path, path))
            .peekable();
        if candidates.peek().is_none() {
            return Err(Denial {
                asked: format!("call {} {path} on link `{}`", fetch.method, fetch.link),
                missing: format!(
                    "{{ method = \"{}\", path = \"{path}\" }} to grants.links.{}.call",
                    fetch.method, fetch.link
                ),
            });
        }
        let uses = secret::uses(fetch);
        let missing = |grant: &CallGrant| {
            let place = uses
                .iter()
                .find(|(name, place)| grant.secrets.get(name) != Some(place));
            if let Some((name, place)) = place {
                return Some((
                    format!("fill secret `{name}` into the {place}"),
                    format!("secrets = {{ {name} = \"{place}\" }}"),
                ));
            }
            let capture = fetch
                .captures
                .iter()
                .find(|c| grant.capture.get(&c.secret) != Some(&c.pointer))?;
            Some((
                format!(
                    "capture `{}` as secret `{}`",
                    capture.pointer, capture.secret
                ),
                format!(
                    "capture = {{ {} = \"{}\" }}",
                    capture.secret, capture.pointer
                ),
            ))
        };
        let mut first = None;
        for grant in candidates {
            match missing(grant) {
                None => return Ok(()),
                Some(what) => first = first.or(Some(what)),
            }
        }
        let (what, add) = first.expect("there was a candidate, and it missed something");
        Err(Denial {
            asked: format!("{what} of {} {path} on link `{}`", fetch.method, fetch.link),
            missing: format!("{add} to that entry of grants.links.{}.call", fetch.link),
        })
    }

    /// True when a path on a link may be listed, or a file there be taken.
    pub fn allows_file(&self, place: &LinkPath) -> bool {
        self.links
            .get(&place.link)
            .is_some_and(|g| g.files.iter().any(|d| paths::within(d, &place.path)))
    }
}

/// True when `url` has the origin of `prefix` and a path below its path. Compared after parsing, so that escapes, `..`, upper case, a user
/// part or a host that merely begins alike do not get through. A prefix path counts by whole segments.
pub fn url_within(prefix: &str, url: &str) -> bool {
    let (Ok(prefix), Ok(url)) = (Url::parse(prefix), Url::parse(url)) else {
        return false;
    };
    if !matches!(url.scheme(), "http" | "https")
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return false;
    }
    if prefix.scheme() != url.scheme()
        || prefix.host() != url.host()
        || prefix.port_or_known_default() != url.port_or_known_default()
    {
        return false;
    }
    // `%2e%2e` and `%2f` mean different things to different servers: not below any prefix but the root.
    let path = url.path();
    let lower = path.to_ascii_lowercase();
    let wanted = prefix.path().trim_end_matches('/');
    if wanted.is_empty() {
        return true;
    }
    if ["%2e", "%2f", "%5c"]
        .iter()
        .any(|escape| lower.contains(escape))
    {
        return false;
    }
    path.strip_prefix(wanted)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicNeeds;

    #[test]
    fn a_url_is_within_a_prefix_by_origin_and_whole_segments() {
        for (prefix, url, expected) in [
            (
                "http://192.168.1.1:9000/public/",
                "http://192.168.1.1:9000/public/a.uav?sig=1",
                true,
            ),
            (
                "http://192.168.1.1:9000/public",
                "http://192.168.1.1:9000/public/a",
                true,
            ),
            (
                "http://192.168.1.1:9000/public",
                "http://192.168.1.1:9000/publicity/a",
                false,
            ),
            (
                "http://192.168.1.1:9000/public/",
                "http://192.168.1.1:9000/public/../secret",
                false,
            ),
            (
                "http://192.168.1.1:9000/public/",
                "http://192.168.1.1:9000/public/%2e%2e/secret",
                false,
            ),
            (
                "http://192.168.1.1:9000/public/",
                "http://192.168.1.1:9000/public/%2E%2e%2fsecret",
                false,
            ),
            (
                "http://192.168.1.1:9000/public/",
                "http://192.168.1.1:9001/public/a",
                false,
            ),
            ("http://192.168.1.1/", "https://192.168.1.1/", false),
            ("https://a.example/", "https://a.example.evil.net/x", false),
            ("https://a.example/", "https://a.example@evil.net/x", false),
            ("https://a.example/", "https://user@a.example/x", false),
            ("https://a.example", "https://A.EXAMPLE:443/x", true),
            ("https://a.example/", "file:///etc/passwd", false),
            ("https://a.example/", "not a url", false),
        ] {
            assert_eq!(url_within(prefix, url), expected, "{prefix} {url}");
        }
    }

    #[test]
    fn a_denial_says_what_to_add() {
        let grants = Grants {
            links: [(
                "cloud".to_owned(),
                LinkGrant {
                    subscribe: vec!["a/+".into()],
                    ..LinkGrant::default()
                },
            )]
            .into(),
            download: vec![],
            targets: vec!["dock".into()],
        };
        let asked = Requirements {
            topics: vec![TopicNeeds {
                link: "cloud".into(),
                subscribe: vec!["a/b".into(), "c".into()],
                publish: vec!["a/b".into()],
            }],
            targets: vec!["dock".into(), "drone".into(), "*".into()],
            ..Requirements::default()
        };
        let missing: Vec<String> = grants
            .denials(&asked)
            .into_iter()
            .map(|d| d.missing)
            .collect();
        assert_eq!(
            missing,
            [
                "\"c\" to grants.links.cloud.subscribe",
                "\"a/b\" to grants.links.cloud.publish",
                "\"drone\" to grants.targets"
            ]
        );
    }
}
