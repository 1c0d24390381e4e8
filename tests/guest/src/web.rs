//! What it does with links that are asked and answered: routes, requests, listings; and alerts.

use otahost_adapter::effects::{alert, fetch, list_directory, respond, timer};
use otahost_adapter::{
    CallNeed, Effect, FetchOutcome, FetchResult, HttpResponse, InboundRequest, Level,
    ListingOutcome, RouteNeed, View,
};
use serde::Deserialize;

use crate::{Config, Held, State};

/// Milliseconds from step to step of a request that is held.
const STEP: u64 = 500;

/// The argument of `fetch`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    tag: String,
    path: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    captures: Vec<(String, String)>,
    #[serde(default)]
    once: bool,
    timeout: Option<u64>,
}

fn get() -> String {
    "GET".into()
}

pub(crate) fn routes(config: &Config) -> Vec<RouteNeed> {
    let route = |link: &String| RouteNeed {
        link: link.clone(),
        method: "POST".into(),
        path: format!("/{}/do", config.prefix),
        max_body: 64 * 1024,
    };
    config.web.iter().map(route).collect()
}

pub(crate) fn calls(config: &Config) -> Vec<CallNeed> {
    let calls = [
        ("GET", "/free/*", None),
        ("POST", "/free/*", None),
        ("GET", "/guarded", Some("access_token")),
        ("POST", "/tokens", Some("refresh_token")),
    ];
    let on = |link: &String| {
        calls.map(|(method, path, secret)| CallNeed {
            link: link.clone(),
            method: method.into(),
            path: path.into(),
            secrets: secret.into_iter().map(String::from).collect(),
        })
    };
    config.api.iter().flat_map(on).collect()
}

/// The commands that are about links.
pub(crate) fn obey(
    command: &str,
    argument: &str,
    state: &mut State,
    config: &Config,
) -> Result<Vec<Effect>, String> {
    let api = || config.api.as_deref().ok_or("no api is configured");
    let words = |count| -> Result<Vec<&str>, String> {
        let words: Vec<&str> = argument.splitn(count, ' ').collect();
        match words.len() == count {
            true => Ok(words),
            false => Err(format!("{command} takes {count} words")),
        }
    };
    Ok(vec![match command {
        "fetch" => request(argument, api()?)?,
        "fetches" => {
            let count: u64 = argument.parse().map_err(|e| format!("fetches: {e}"))?;
            let link = api()?;
            let one = |n: u64| fetch(&n.to_string(), link, "GET", &format!("/free/{n}")).safe();
            return Ok((1..=count).map(one).collect());
        }
        "list" => {
            let words = words(2)?;
            let link = config.folder.as_deref().ok_or("no folder is configured")?;
            list_directory(words[0], link, words[1])
        }
        "respond" => {
            let words = words(3)?;
            let status = words[1].parse().map_err(|e| format!("respond: {e}"))?;
            respond(words[0], text(status, words[2]))
        }
        "release" => {
            let words = words(2)?;
            let held = state.held.remove(words[0]).ok_or("nobody is held so")?;
            respond(&held.id, text(200, words[1]))
        }
        "alert" => {
            let words = words(3)?;
            let level = match words[1] {
                "info" => Level::Info,
                "warn" => Level::Warn,
                "error" => Level::Error,
                other => return Err(format!("{other:?} is no level of an alert")),
            };
            alert(level, words[0], words[2])
        }
        other => return Err(format!("{other:?} is no command")),
    }])
}

fn request(argument: &str, link: &str) -> Result<Effect, String> {
    let asked: Request =
        serde_json::from_str(argument).map_err(|e| format!("fetch takes JSON: {e}"))?;
    let mut fetch = fetch(&asked.tag, link, &asked.method, &asked.path);
    for (name, value) in &asked.headers {
        fetch = fetch.header(name, value);
    }
    for (pointer, secret) in &asked.captures {
        fetch = fetch.capture(pointer, secret);
    }
    fetch.body = asked.body.into_bytes();
    if let Some(timeout) = asked.timeout {
        fetch = fetch.timeout(timeout);
    }
    Ok(if asked.once {
        fetch.once()
    } else {
        fetch.safe()
    })
}

fn text(status: u16, text: &str) -> HttpResponse {
    HttpResponse {
        body: text.as_bytes().to_vec(),
        ..HttpResponse::status(status)
    }
}

/// A request came in: its body is a command.
pub(crate) fn on_request(
    state: &mut State,
    request: &InboundRequest,
    config: &Config,
    view: &dyn View,
    say: &dyn Fn(String) -> Effect,
) -> Result<Vec<Effect>, String> {
    let command = String::from_utf8_lossy(&request.body).into_owned();
    let (command, argument) = command.split_once(' ').unwrap_or((&command, ""));
    if command == "silence" {
        return Ok(vec![]);
    }
    if command == "hold" {
        return hold(state, argument, &request.id, say);
    }
    let mut effects = crate::obey(command, argument, state, config, view, say)?;
    let said = effects.iter().find_map(|effect| match effect {
        Effect::Publish(publication) => Some(publication.payload.clone()),
        _ => None,
    });
    let said = said.unwrap_or_else(|| b"done".to_vec());
    let answer = HttpResponse {
        body: said,
        ..HttpResponse::status(200)
    };
    effects.push(respond(&request.id, answer));
    Ok(effects)
}

fn hold(
    state: &mut State,
    argument: &str,
    id: &str,
    say: &dyn Fn(String) -> Effect,
) -> Result<Vec<Effect>, String> {
    let (name, steps) = match argument.split_once(' ') {
        Some((name, steps)) => (name, Some(steps.parse().map_err(|e| format!("hold: {e}"))?)),
        None => (argument, None),
    };
    let mut effects = vec![say(format!("held {name} {id}"))];
    effects.extend(steps.map(|_: u32| timer(&format!("hold {name}"), STEP)));
    let held = Held {
        id: id.to_owned(),
        steps,
    };
    state.held.insert(name.to_owned(), held);
    Ok(effects)
}

/// A timer of a request that is held.
pub(crate) fn on_step(state: &mut State, name: &str) -> Vec<Effect> {
    let Some(held) = state.held.get_mut(name) else {
        return Vec::new();
    };
    match held.steps {
        Some(steps @ 2..) => {
            held.steps = Some(steps - 1);
            vec![timer(&format!("hold {name}"), STEP)]
        }
        _ => {
            let answer = respond(&held.id, text(200, &format!("{name} at last")));
            state.held.remove(name);
            vec![answer]
        }
    }
}

/// A request that was sent has ended.
pub(crate) fn on_response(
    state: &mut State,
    outcome: &FetchOutcome,
    config: &Config,
    say: &dyn Fn(String) -> Effect,
) -> Vec<Effect> {
    let how = match &outcome.outcome {
        FetchResult::Answered(answer) => {
            format!(
                "{} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            )
        }
        FetchResult::Failed(why) => format!("failed {why}"),
        FetchResult::Interrupted => "interrupted".into(),
    };
    let mut effects = vec![ended(state, &outcome.tag, &how, say)];
    if outcome.tag.starts_with("again") {
        let more = |link: &String| fetch("more", link, "GET", "/free/more").safe();
        effects.extend(config.api.iter().map(more));
    }
    effects
}

/// A directory was listed.
pub(crate) fn on_listing(
    state: &mut State,
    outcome: &ListingOutcome,
    say: &dyn Fn(String) -> Effect,
) -> Effect {
    let how = match &outcome.entries {
        Ok(entries) => {
            let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
            format!("listing {}", names.join(","))
        }
        Err(why) => format!("failed {why}"),
    };
    ended(state, &outcome.tag, &how, say)
}

fn ended(state: &mut State, tag: &str, how: &str, say: &dyn Fn(String) -> Effect) -> Effect {
    assert!(!tag.starts_with("trap"), "told to trap");
    state.answers += 1;
    say(format!("answer {} {tag} {how}", state.answers))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_adapter::Repeat;
    use otahost_adapter::bench::{Bench, alerts, fetched, file, listings, published, responses};

    use crate::Rogue;

    use super::*;

    fn bench() -> Bench<Rogue> {
        let config =
            r#"{"link":"cloud","prefix":"rogue","web":"web","api":"api","folder":"folder"}"#;
        Bench::new(config).unwrap()
    }

    fn tell(bench: &mut Bench<Rogue>, command: &str) -> Vec<Effect> {
        bench.message_bytes("cloud", "rogue/do", command).unwrap()
    }

    fn said(effects: &[Effect]) -> String {
        let said = published(effects);
        String::from_utf8(said[0].payload.clone()).unwrap()
    }

    #[test]
    fn a_request_is_sent_as_it_was_told_and_its_end_is_published_and_counted() {
        let mut bench = bench();
        let effects = tell(
            &mut bench,
            r#"fetch {"tag":"t","method":"POST","path":"/tokens","headers":[["content-type","application/json"]],
               "body":"{}","captures":[["/a","access_token"]],"once":true}"#,
        );
        let fetch = fetched(&effects)[0].clone();
        assert_eq!((fetch.tag.as_str(), fetch.repeat), ("t", Repeat::Once));
        assert_eq!(fetch.captures[0].secret, "access_token");
        let effects = bench.answered("t", 200, &"fine").unwrap();
        assert_eq!(said(&effects), "answer 1 t 200 \"fine\"");
        let effects = bench.unanswered("t", "no answer").unwrap();
        assert_eq!(said(&effects), "answer 2 t failed no answer");
        let effects = bench.outcome("t", FetchResult::Interrupted).unwrap();
        assert_eq!(said(&effects), "answer 3 t interrupted");
        assert_eq!(fetched(&tell(&mut bench, "fetches 3")).len(), 3);
    }

    #[test]
    fn a_directory_is_listed_and_its_names_are_published() {
        let mut bench = bench();
        let effects = tell(&mut bench, "list t /model");
        assert_eq!(listings(&effects)[0].source.path, "/model");
        let entries = Ok(vec![file("a.img", 1), file("b.img", 2)]);
        let effects = bench.listing("t", entries).unwrap();
        assert_eq!(said(&effects), "answer 1 t listing a.img,b.img");
    }

    #[test]
    fn a_request_that_came_in_is_answered_at_once_or_held() {
        let mut bench = bench();
        let ask = |bench: &mut Bench<Rogue>, command: &str| {
            bench.request("web", "POST", "/rogue/do", command).unwrap()
        };
        let effects = ask(&mut bench, "count");
        assert_eq!(responses(&effects)[0].response.body, b"1");
        let effects = ask(&mut bench, "hold a");
        let id = said(&effects).split_off("held a ".len());
        assert!(responses(&effects).is_empty());
        let effects = tell(&mut bench, "release a here");
        assert_eq!(responses(&effects)[0].request, id);
        ask(&mut bench, "hold b 2");
        assert!(responses(&bench.timer("hold b").unwrap()).is_empty());
        let effects = bench.timer("hold b").unwrap();
        assert_eq!(responses(&effects)[0].response.body, b"b at last");
        let effects = tell(&mut bench, "respond x 418 no");
        assert_eq!(responses(&effects)[0].response.status, 418);
    }

    #[test]
    fn an_alert_is_raised_as_it_was_told() {
        let effects = tell(&mut bench(), "alert code warn some words");
        let alert = alerts(&effects)[0].clone();
        assert_eq!((alert.code.as_str(), alert.level), ("code", Level::Warn));
        assert_eq!(alert.text, "some words");
    }
}
