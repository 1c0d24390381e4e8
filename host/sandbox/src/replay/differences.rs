//! Where two outcomes differ: which effect, which field.

use aws_lc_rs::digest::{SHA256, digest};
use otahost_core::model::Effect;
use otahost_core::paths::without_query;
use serde_json::Value;

use super::Difference;
use super::shown::{is_secret, readable, shown, shown_both};
use crate::sandbox::hex;
use crate::text::plain;
use crate::trace::effect_in_words;

/// Most differences listed of one step.
const MAX_DIFFERENCES: usize = 100;
/// Longest subject of an effect.
const MAX_SUBJECT: usize = 200;
/// What stands where nothing is.
const NOTHING: &str = "nothing";

/// What an effect is about: by this an effect is known again.
pub(crate) fn subject(effect: &Effect) -> String {
    let subject = match effect {
        Effect::Publish(p) => format!("{} {}", p.link, p.topic),
        Effect::Respond(r) => r.request.clone(),
        Effect::Fetch(f) => format!("{} {} {}", f.link, f.method, without_query(&f.path)),
        Effect::ListDirectory(l) => format!("{}:{}", l.source.link, without_query(&l.source.path)),
        Effect::StartJob(plan) => plan.key.clone(),
        Effect::RetryAttempt(retry) => format!("{}/{}", retry.job, retry.install),
        Effect::ApplyJob(key)
        | Effect::PauseJob(key)
        | Effect::ResumeJob(key)
        | Effect::CancelJob(key)
        | Effect::ConfirmJob(key) => key.clone(),
        Effect::SetTimer(timer) => timer.name.clone(),
        Effect::CancelTimer(name) => name.clone(),
        Effect::Alert(alert) => alert.code.clone(),
        Effect::Extension(extension) => extension.name.clone(),
    };
    plain(&subject, MAX_SUBJECT)
}

/// Compares two lists of effects: what is known again field by field, in order; the rest is missing or new.
pub(super) fn compare_effects(then: &[Effect], now: &[Effect], found: &mut Vec<Difference>) {
    if then == now {
        return;
    }
    let named = |effects: &[Effect]| -> Vec<(&'static str, String)> {
        effects.iter().map(|e| (e.kind(), subject(e))).collect()
    };
    let pairs = longest_common(&named(then), &named(now));
    let mut all = Vec::new();
    for (i, effect) in then.iter().enumerate() {
        let what = |number: usize| {
            format!(
                "effect {} ({} {})",
                number + 1,
                effect.kind(),
                subject(effect)
            )
        };
        match pairs.iter().find(|(old, _)| *old == i) {
            Some((_, new)) => {
                let (old, new) = (effect, &now[*new]);
                if old != new {
                    compare_values(&what(i), &readable(old), &readable(new), &mut all);
                }
            }
            None => all.push(Difference {
                what: what(i),
                field: String::new(),
                recorded: effect_in_words(effect),
                now: NOTHING.into(),
            }),
        }
    }
    for (i, effect) in now.iter().enumerate() {
        if !pairs.iter().any(|(_, new)| *new == i) {
            all.push(Difference {
                what: format!(
                    "effect {} now ({} {})",
                    i + 1,
                    effect.kind(),
                    subject(effect)
                ),
                field: String::new(),
                recorded: NOTHING.into(),
                now: effect_in_words(effect),
            });
        }
    }
    push_all(all, found);
}

/// Compares two states: as JSON where they are, else by length and digest.
pub(super) fn compare_bytes(what: &str, then: &[u8], now: &[u8], found: &mut Vec<Difference>) {
    if then == now {
        return;
    }
    let json = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    let mut all = Vec::new();
    if let (Some(old), Some(new)) = (json(then), json(now)) {
        compare_values(what, &old, &new, &mut all);
    }
    // Not JSON; or JSON in another order, which is another state all the same.
    if all.is_empty() {
        all.push(Difference {
            what: what.into(),
            field: String::new(),
            recorded: in_bytes(then),
            now: in_bytes(now),
        });
    }
    push_all(all, found);
}

fn in_bytes(bytes: &[u8]) -> String {
    let digest = hex(digest(&SHA256, bytes).as_ref());
    format!("{} bytes, sha256:{}", bytes.len(), &digest[..16])
}

fn push_all(mut all: Vec<Difference>, found: &mut Vec<Difference>) {
    let more = all.len().saturating_sub(MAX_DIFFERENCES);
    all.truncate(MAX_DIFFERENCES);
    found.extend(all);
    if more > 0 {
        found.push(Difference {
            what: format!("and {more} more"),
            field: String::new(),
            recorded: "not listed".into(),
            now: "not listed".into(),
        });
    }
}

fn compare_values(what: &str, then: &Value, now: &Value, found: &mut Vec<Difference>) {
    let before = found.len();
    let mut walk = Walk { what, found };
    walk.compare("", then, now, false);
    if walk.found.len() == before {
        // Equal values of unequal effects: only bytes that read the same can do that.
        found.push(Difference {
            what: what.into(),
            field: String::new(),
            recorded: "bytes".into(),
            now: "other bytes with the same meaning".into(),
        });
    }
}

struct Walk<'a> {
    what: &'a str,
    found: &'a mut Vec<Difference>,
}

impl Walk<'_> {
    fn compare(&mut self, path: &str, then: &Value, now: &Value, hidden: bool) {
        match (then, now) {
            (Value::Object(old), Value::Object(new)) => {
                // A field of a header says by its neighbour what it is.
                let name = |of: &serde_json::Map<String, Value>| {
                    of.get("name")
                        .and_then(Value::as_str)
                        .is_some_and(is_secret)
                };
                let hidden = hidden || name(old) || name(new);
                let added = new.keys().filter(|key| !old.contains_key(*key));
                for key in old.keys().chain(added) {
                    let path = match path {
                        "" => key.clone(),
                        path => format!("{path}.{key}"),
                    };
                    self.at(&path, old.get(key), new.get(key), hidden || is_secret(key));
                }
            }
            (Value::Array(old), Value::Array(new)) => {
                for i in 0..old.len().max(new.len()) {
                    self.at(&format!("{path}[{i}]"), old.get(i), new.get(i), hidden);
                }
            }
            (old, new) if old == new => {}
            (old, new) => self.push(path, shown_both(old, new, hidden)),
        }
    }

    fn at(&mut self, path: &str, then: Option<&Value>, now: Option<&Value>, hidden: bool) {
        match (then, now) {
            (Some(old), Some(new)) => self.compare(path, old, new, hidden),
            (old, new) => {
                let or_nothing = |value: Option<&Value>| {
                    value.map_or_else(|| NOTHING.to_owned(), |value| shown(value, hidden))
                };
                self.push(path, (or_nothing(old), or_nothing(new)));
            }
        }
    }

    fn push(&mut self, path: &str, (recorded, now): (String, String)) {
        self.found.push(Difference {
            what: self.what.to_owned(),
            field: plain(path, MAX_SUBJECT),
            recorded,
            now,
        });
    }
}

/// The longest run of elements that both lists have in this order, as pairs of places.
fn longest_common<T: PartialEq>(a: &[T], b: &[T]) -> Vec<(usize, usize)> {
    // best[i][j]: how many the rests from i and j have in common.
    let mut best = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            best[i][j] = if a[i] == b[j] {
                best[i + 1][j + 1] + 1
            } else {
                best[i + 1][j].max(best[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if best[i + 1][j] >= best[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_core::model::{
        Alert, Fetch, Field, Level, Persistence, Publication, Repeat, Timer,
    };
    use serde_json::json;

    use super::*;

    fn publish(topic: &str, payload: &[u8]) -> Effect {
        Effect::Publish(Publication {
            link: "cloud".into(),
            topic: topic.into(),
            payload: payload.to_vec(),
            qos: 1,
            retain: false,
            persistence: Persistence::Durable,
        })
    }

    fn timer(name: &str, after: u64) -> Effect {
        Effect::SetTimer(Timer {
            name: name.into(),
            after,
            period: None,
        })
    }

    fn lines(then: &[Effect], now: &[Effect]) -> Vec<String> {
        let mut found = Vec::new();
        compare_effects(then, now, &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_difference_names_the_effect_and_the_field_within_its_payload() {
        let payload = |status: &str| {
            json!({"data": {"output": {"status": status}, "steps": [1, 2]}}).to_string()
        };
        let then = [timer("t", 5), publish("a/b", payload("ok").as_bytes())];
        let now = [timer("t", 6), publish("a/b", payload("failed").as_bytes())];
        assert_eq!(
            lines(&then, &now),
            [
                "effect 1 (set-timer t), after: 5 -> 6",
                "effect 2 (publish cloud a/b), payload.data.output.status: \"ok\" -> \"failed\"",
            ]
        );
        assert!(lines(&then, &then).is_empty());
    }

    #[test]
    fn what_is_missing_and_what_is_new_is_told_and_the_rest_is_known_again() {
        let then = [publish("a", b"1"), timer("t", 5), publish("b", b"x")];
        let now = [publish("a", b"1"), publish("c", b"y"), publish("b", b"xx")];
        assert_eq!(
            lines(&then, &now),
            [
                "effect 2 (set-timer t): set-timer t after 5 ms -> nothing",
                "effect 3 (publish cloud b), payload: \"x\" -> \"xx\"",
                "effect 2 now (publish cloud c): nothing -> publish cloud c (1 bytes, QoS 1)",
            ]
        );
    }

    #[test]
    fn bytes_that_read_the_same_are_a_difference_all_the_same() {
        let found = lines(
            &[publish("a", b"{\"a\":1}")],
            &[publish("a", b"{ \"a\": 1 }")],
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("same meaning"), "{found:?}");

        let mut found = Vec::new();
        compare_bytes("state", b"{\"a\":1}", b"{\"a\": 1}", &mut found);
        assert_eq!(found.len(), 1);
        compare_bytes("state", b"\xff", b"\xfe", &mut found);
        assert!(
            found[1].recorded.starts_with("1 bytes, sha256:"),
            "{found:?}"
        );
    }

    #[test]
    fn no_secret_and_no_query_is_shown() {
        let fetch = |value: &str, path: &str, body: &str| {
            Effect::Fetch(Fetch {
                tag: "t".into(),
                link: "api".into(),
                method: "GET".into(),
                path: path.into(),
                headers: vec![Field {
                    name: "x-auth-token".into(),
                    value: value.into(),
                }],
                body: body.into(),
                captures: vec![],
                repeat: Repeat::Safe,
                timeout: 1,
                redirects: 0,
            })
        };
        let body = |n: u32| {
            json!({"password": format!("hunter{n}"), "file": format!("https://u{n}:p@host/f{n}.bin?sig=hunter{n}")})
                .to_string()
        };
        let then = [fetch("hunter1", "/f?sig=hunter1", &body(1))];
        let now = [fetch("hunter2", "/f?sig=hunter2", &body(2))];
        let found = lines(&then, &now);
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(!found.concat().contains("hunter"), "{found:#?}");
        assert!(!found.concat().contains("u1"), "{found:#?}");
        assert!(found.concat().contains("https://host/f2.bin"), "{found:#?}");
    }

    #[test]
    fn a_report_is_bounded() {
        let many =
            |n: usize| -> Vec<Effect> { (0..256).map(|i| timer(&format!("{n}-{i}"), 1)).collect() };
        assert_eq!(lines(&many(1), &many(2)).len(), MAX_DIFFERENCES + 1);
        let alert = |text: String| {
            Effect::Alert(Alert {
                code: "c".into(),
                level: Level::Info,
                text,
            })
        };
        let long = lines(&[alert("a".repeat(5_000))], &[alert("b".repeat(5_000))]);
        assert!(long[0].len() < 600, "{}", long[0].len());
    }
}
