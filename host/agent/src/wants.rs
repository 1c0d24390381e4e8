//! What adapters want of links that cannot give it, or that another adapter has already: asked of the configuration at the start, and
//! of every version that is to run later.

use std::collections::BTreeMap;

use otahost_core::model::{Requirements, RouteNeed};
use otahost_links::Kind;

/// Something an adapter wants and cannot have, whatever it is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clash {
    /// What it wants, and what stands against it.
    pub(crate) what: String,
    /// What to do.
    pub(crate) advice: String,
}

/// What of these requirements clashes with the links, and with the routes of `others`, each with its name. `kind` tells the kind of a
/// link; one that is not there, or is faulty itself, is told elsewhere.
pub(crate) fn clashes<'a>(
    name: &'a str,
    needs: &'a Requirements,
    others: impl IntoIterator<Item = (&'a str, &'a Requirements)>,
    kind: impl Fn(&str) -> Option<Kind>,
) -> Vec<Clash> {
    let mut clashes = Vec::new();
    for ((link, wants), kinds) in wanted(needs) {
        let Some(kind) = kind(link) else {
            continue;
        };
        if !kinds.contains(&kind) {
            let words: Vec<_> = kinds.iter().map(|k| format!("`{}`", k.word())).collect();
            clashes.push(Clash {
                what: format!(
                    "the adapter wants to {wants} on link `{link}`, whose kind is `{}`",
                    kind.word()
                ),
                advice: format!("name a link of kind {}", words.join(" or ")),
            });
        }
    }
    let others: Vec<(&str, &Requirements)> = others.into_iter().collect();
    for (index, route) in needs.routes.iter().enumerate() {
        let same = |other: &RouteNeed| {
            (&other.link, &other.method, &other.path) == (&route.link, &route.method, &route.path)
        };
        let owner = others
            .iter()
            .find(|(_, other)| other.routes.iter().any(same))
            .map(|(owner, _)| *owner);
        let twice = needs.routes.iter().take(index).any(same).then_some(name);
        if let Some(owner) = owner.or(twice) {
            clashes.push(Clash {
                what: format!(
                    "{} {} on link `{}` is served by adapter `{owner}` already",
                    route.method, route.path, route.link
                ),
                advice: "give one of them another base path or another link".into(),
            });
        }
    }
    clashes
}

/// What is wanted of which link, with the kinds of link that can give it.
fn wanted(needs: &Requirements) -> BTreeMap<(&str, &'static str), &'static [Kind]> {
    let mut wanted: BTreeMap<_, &[Kind]> = BTreeMap::new();
    for topics in &needs.topics {
        wanted.insert(
            (topics.link.as_str(), "subscribe and publish"),
            &[Kind::Mqtt],
        );
    }
    for route in &needs.routes {
        wanted.insert((route.link.as_str(), "serve routes"), &[Kind::HttpServer]);
    }
    for call in &needs.calls {
        wanted.insert((call.link.as_str(), "send requests"), &[Kind::HttpClient]);
    }
    for source in &needs.sources {
        wanted.insert(
            (source.as_str(), "read files"),
            &[Kind::Ftps, Kind::HttpClient],
        );
    }
    wanted
}

#[cfg(test)]
mod tests {
    use otahost_core::model::TopicNeeds;

    use super::*;

    fn serves(path: &str) -> Requirements {
        Requirements {
            routes: vec![RouteNeed {
                link: "web".into(),
                method: "POST".into(),
                path: path.into(),
                max_body: 1,
            }],
            ..Requirements::default()
        }
    }

    fn kind(link: &str) -> Option<Kind> {
        match link {
            "web" => Some(Kind::HttpServer),
            "cloud" => Some(Kind::Mqtt),
            _ => None,
        }
    }

    fn found(needs: &Requirements, others: &[(&str, &Requirements)]) -> Vec<String> {
        let clashes = clashes("kit", needs, others.iter().copied(), kind);
        clashes.into_iter().map(|c| c.what).collect()
    }

    #[test]
    fn a_route_has_one_owner() {
        let (mine, other) = (serves("/a"), serves("/b"));
        assert_eq!(found(&mine, &[("emu", &other)]), [""; 0]);
        let taken = "POST /a on link `web` is served by adapter `emu` already";
        assert_eq!(found(&mine, &[("emu", &mine)]), [taken]);
        let mut twice = serves("/a");
        twice.routes.extend(serves("/a").routes);
        assert_eq!(
            found(&twice, &[]),
            ["POST /a on link `web` is served by adapter `kit` already"]
        );
    }

    #[test]
    fn a_link_gives_only_what_its_kind_can() {
        let mut needs = serves("/a");
        needs.topics.push(TopicNeeds {
            link: "web".into(),
            subscribe: vec!["a".into()],
            publish: vec![],
        });
        needs.sources = vec!["cloud".into(), "nowhere".into()];
        assert_eq!(
            found(&needs, &[]),
            [
                "the adapter wants to read files on link `cloud`, whose kind is `mqtt`",
                "the adapter wants to subscribe and publish on link `web`, whose kind is `http_server`"
            ]
        );
    }
}
