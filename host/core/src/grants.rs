//! Grants: what the operator allows an adapter, and how requests are compared with it.
//!
//! Effective authority is what the component declares AND what the operator grants. A denial names the grant that is missing, in
//! the words of the configuration, so that an integrator can paste it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::model::Requirements;
use crate::topics;

/// Topics granted on one link.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TopicGrant {
    /// Filters it may subscribe.
    pub subscribe: Vec<String>,
    /// Filters it may publish under.
    pub publish: Vec<String>,
}

/// What the operator allows one adapter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Grants {
    /// Topics by link.
    pub links: BTreeMap<String, TopicGrant>,
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
        let none = TopicGrant::default();
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
            denials.push(Denial {
                asked: format!(
                    "serve {} {} on link `{}`",
                    route.method, route.path, route.link
                ),
                missing: "nothing: this version of otahost has no `http_server` link yet".into(),
            });
        }
        for call in &asked.calls {
            denials.push(Denial {
                asked: format!("call {} {} on link `{}`", call.method, call.path, call.link),
                missing: "nothing: this version of otahost has no `http_client` link yet".into(),
            });
        }
        for source in &asked.sources {
            denials.push(Denial {
                asked: format!("read files of link `{source}`"),
                missing: "nothing: this version of otahost has no link with files yet".into(),
            });
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
                TopicGrant {
                    subscribe: vec!["a/+".into()],
                    publish: vec![],
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
