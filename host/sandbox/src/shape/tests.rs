#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_core::model::{
    Apply, CallNeed, Capture, Extension, Install, Level, LinkPath, ListingRequest, Repeat,
    ResponseTo, RouteNeed, TopicNeeds,
};

use super::*;

fn field(name: &str, value: &str) -> Field {
    Field {
        name: name.into(),
        value: value.into(),
    }
}

fn a_publication() -> Publication {
    Publication {
        link: "cloud".into(),
        topic: "thing/x/services_reply".into(),
        payload: b"{}".to_vec(),
        qos: 1,
        retain: false,
        persistence: Persistence::Durable,
    }
}

fn a_response() -> HttpResponse {
    HttpResponse {
        status: 200,
        headers: vec![field("content-type", "text/plain")],
        body: vec![],
    }
}

fn a_fetch() -> Fetch {
    Fetch {
        tag: "login".into(),
        link: "api".into(),
        method: "POST".into(),
        path: "/token?x={secret:y}".into(),
        headers: vec![field("accept", "application/json")],
        body: vec![],
        captures: vec![Capture {
            pointer: "/data/token".into(),
            secret: "token".into(),
        }],
        repeat: Repeat::Once,
        timeout: 120_000,
        redirects: 5,
    }
}

fn a_plan() -> JobPlan {
    JobPlan {
        key: "k".into(),
        dedupe: Dedupe::WhileActive,
        context: vec![0; MAX_CONTEXT],
        installs: vec![an_install("dock")],
        apply: Apply::Immediately,
    }
}

fn an_install(target: &str) -> Install {
    Install {
        target: target.into(),
        artifact: Artifact {
            source: ArtifactSource::Url("whatever the cloud says".into()),
            size: Some(MAX_WHOLE),
            digests: vec![
                format!("md5:{}", "0".repeat(32)),
                format!("sha256:{}", "f".repeat(64)),
            ],
            identity: None,
        },
        version: "1.2.3".into(),
    }
}

fn a_timer() -> Timer {
    Timer {
        name: "t".into(),
        after: 100,
        period: Some(1_000),
    }
}

fn one(effect: Effect) -> Shape {
    step(&Step {
        state: vec![],
        effects: vec![effect],
    })
}

/// Changes a good value in one way.
fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

#[test]
fn what_the_contract_allows_passes_up_to_its_limits() {
    let long = "é".repeat(MAX_ID / 2);
    let good = [
        Effect::Publish(a_publication()),
        Effect::Publish(with(a_publication(), |p| p.payload = vec![0; MAX_PAYLOAD])),
        Effect::Publish(with(a_publication(), |p| {
            p.persistence = Persistence::Latest(long.clone())
        })),
        Effect::Respond(ResponseTo {
            request: "b-1".into(),
            response: a_response(),
        }),
        Effect::Fetch(a_fetch()),
        Effect::ListDirectory(ListingRequest {
            tag: "t".into(),
            source: LinkPath {
                link: "ftp".into(),
                path: String::new(),
            },
        }),
        Effect::StartJob(a_plan()),
        Effect::RetryAttempt(Retry {
            job: "k".into(),
            install: 0,
            decision: RetryDecision::After(MAX_WHOLE),
        }),
        Effect::ApplyJob(long),
        Effect::SetTimer(a_timer()),
        Effect::SetTimer(with(a_timer(), |t| t.after = MAX_TIMER)),
        Effect::CancelTimer("t".into()),
        Effect::Alert(Alert {
            code: "c".into(),
            level: Level::Warn,
            text: String::new(),
        }),
        Effect::Extension(Extension {
            name: "x".into(),
            data: "[1]".into(),
        }),
    ];
    for effect in good {
        let shown = format!("{effect:.40?}");
        assert_eq!(one(effect), Ok(()), "{shown:.80}");
    }
    let step_at_its_limits = Step {
        state: vec![0; MAX_STATE],
        effects: vec![Effect::ApplyJob("k".into()); MAX_EFFECTS],
    };
    assert_eq!(step(&step_at_its_limits), Ok(()));
}

#[test]
fn each_broken_limit_of_an_effect_is_named() {
    let publish = |change: fn(&mut Publication)| Effect::Publish(with(a_publication(), change));
    let respond = |change: fn(&mut HttpResponse)| {
        Effect::Respond(ResponseTo {
            request: "r".into(),
            response: with(a_response(), change),
        })
    };
    let fetch = |change: fn(&mut Fetch)| Effect::Fetch(with(a_fetch(), change));
    let job = |change: fn(&mut JobPlan)| Effect::StartJob(with(a_plan(), change));
    let install = |change: fn(&mut Install)| {
        Effect::StartJob(with(a_plan(), |p| {
            p.installs = vec![with(an_install("dock"), change)]
        }))
    };
    let timer = |change: fn(&mut Timer)| Effect::SetTimer(with(a_timer(), change));
    let table = [
        (publish(|p| p.link = String::new()), "the link is empty"),
        (
            publish(|p| p.link = "x".repeat(MAX_ID + 1)),
            "the link: 201 bytes",
        ),
        (
            publish(|p| p.link = "a\nb".into()),
            "the link has a control character",
        ),
        (publish(|p| p.topic = "a/+".into()), "no wildcard"),
        (publish(|p| p.topic = "a/#".into()), "no wildcard"),
        (publish(|p| p.topic = String::new()), "not empty"),
        (
            publish(|p| p.topic = "a/\u{7}".into()),
            "a topic has no control character",
        ),
        (
            publish(|p| p.payload = vec![0; MAX_PAYLOAD + 1]),
            "the payload: 262145 bytes",
        ),
        (publish(|p| p.qos = 2), "QoS is 0 or 1, not 2"),
        (
            publish(|p| p.persistence = Persistence::Latest(String::new())),
            "the key of `latest` is empty",
        ),
        (respond(|r| r.status = 100), "not 100"),
        (respond(|r| r.status = 600), "not 600"),
        (
            respond(|r| r.body = vec![0; MAX_PAYLOAD + 1]),
            "the body: 262145 bytes",
        ),
        (
            respond(|r| r.headers = vec![field("a", ""); MAX_HEADERS + 1]),
            "the message: 65 headers",
        ),
        (
            respond(|r| r.headers = vec![field("a", &"v".repeat(MAX_HEADER_BYTES))]),
            "the headers: 16385 bytes",
        ),
        (
            respond(|r| r.headers = vec![field("Upper", "v")]),
            "lower-case token",
        ),
        (
            respond(|r| r.headers = vec![field("", "v")]),
            "lower-case token",
        ),
        (
            respond(|r| r.headers = vec![field("a: b", "v")]),
            "lower-case token",
        ),
        (
            respond(|r| r.headers = vec![field("a", "v\r\nset-cookie: x")]),
            "the value of a header",
        ),
        (fetch(|f| f.tag = String::new()), "the tag is empty"),
        (fetch(|f| f.method = "post".into()), "a method is"),
        (fetch(|f| f.method = String::new()), "a method is"),
        (
            fetch(|f| f.path = "token".into()),
            "the path begins with `/`",
        ),
        (
            fetch(|f| f.path = "/a b".into()),
            "the path begins with `/`",
        ),
        (
            fetch(|f| f.path = "/a\r\nhost: x".into()),
            "the path begins with `/`",
        ),
        (
            fetch(|f| f.body = vec![0; MAX_PAYLOAD + 1]),
            "the body: 262145 bytes",
        ),
        (
            fetch(|f| f.captures[0].pointer = "data".into()),
            "the pointer of a capture",
        ),
        (
            fetch(|f| f.captures[0].secret = String::new()),
            "the secret of a capture is empty",
        ),
        (
            fetch(|f| f.timeout = 120_001),
            "the time-out is 1 to 120000",
        ),
        (fetch(|f| f.timeout = 0), "the time-out is 1 to 120000"),
        (fetch(|f| f.redirects = 6), "redirects is 0 to 5"),
        (job(|p| p.key = String::new()), "the job's key is empty"),
        (
            job(|p| p.context = vec![0; MAX_CONTEXT + 1]),
            "the context: 4097 bytes",
        ),
        (
            job(|p| p.dedupe = Dedupe::Lasting(1 << 53)),
            "the dedupe time",
        ),
        (job(|p| p.installs.clear()), "installs nothing"),
        (
            job(|p| p.installs.push(an_install("dock"))),
            "names a target twice",
        ),
        (
            job(|p| {
                p.installs = (0..=MAX_INSTALLS)
                    .map(|i| an_install(&i.to_string()))
                    .collect()
            }),
            "the plan: 1001 installs",
        ),
        (install(|i| i.version = "v\n".into()), "the version"),
        (
            install(|i| i.artifact.size = Some(1 << 53)),
            "the size is 0 to",
        ),
        (
            install(|i| i.artifact.digests = vec!["sha1:00".into()]),
            "a digest is",
        ),
        (
            install(|i| i.artifact.digests = vec![format!("md5:{}", "A".repeat(32))]),
            "a digest is",
        ),
        (
            install(|i| i.artifact.digests = vec![format!("md5:{}", "0".repeat(33))]),
            "a digest is",
        ),
        (
            install(|i| i.artifact.digests = vec!["0".repeat(32)]),
            "a digest is",
        ),
        (
            install(|i| i.artifact.identity = Some(String::new())),
            "identity is empty",
        ),
        (
            Effect::RetryAttempt(Retry {
                job: "k".into(),
                install: 0,
                decision: RetryDecision::After(1 << 53),
            }),
            "the wait is",
        ),
        (
            Effect::CancelJob("\u{85}".into()),
            "the job's key has a control character",
        ),
        (timer(|t| t.name = String::new()), "the timer is empty"),
        (timer(|t| t.after = 99), "`after` is 100 to"),
        (timer(|t| t.after = MAX_TIMER + 1), "`after` is 100 to"),
        (timer(|t| t.period = Some(999)), "`period` is 1000 to"),
        (Effect::CancelTimer(String::new()), "the timer is empty"),
        (
            Effect::Alert(Alert {
                code: String::new(),
                level: Level::Warn,
                text: "t".into(),
            }),
            "the alert's code is empty",
        ),
        (
            Effect::Extension(Extension {
                name: "x".into(),
                data: "{".into(),
            }),
            "no JSON",
        ),
    ];
    for (effect, expected) in table {
        let kind = effect.kind();
        let fault = one(effect).expect_err(expected);
        assert!(
            fault.starts_with(&format!("effect 1 ({kind}): ")),
            "{fault}"
        );
        assert!(fault.contains(expected), "{fault} / {expected}");
    }
}

#[test]
fn a_step_has_limits_as_a_whole() {
    let fault = step(&Step {
        state: vec![0; MAX_STATE + 1],
        effects: vec![],
    })
    .unwrap_err();
    assert!(fault.contains("the state: 60001 bytes"), "{fault}");

    let many = vec![Effect::ApplyJob("k".into()); MAX_EFFECTS + 1];
    let fault = step(&Step {
        state: vec![],
        effects: many,
    })
    .unwrap_err();
    assert!(fault.contains("257 effects"), "{fault}");

    let big = Effect::Publish(with(a_publication(), |p| p.payload = vec![0; MAX_PAYLOAD]));
    let fault = step(&Step {
        state: vec![],
        effects: vec![big; 4],
    })
    .unwrap_err();
    assert!(fault.contains("bytes in all"), "{fault}");

    let second = vec![
        Effect::ApplyJob("k".into()),
        Effect::ApplyJob(String::new()),
    ];
    let fault = step(&Step {
        state: vec![],
        effects: second,
    })
    .unwrap_err();
    assert!(fault.starts_with("effect 2 (apply-job)"), "{fault}");
}

#[test]
fn text_hidden_anywhere_in_an_effect_counts_against_the_step() {
    let text = || "x".repeat(MAX_STEP_BYTES);
    let hiding = [
        Effect::StartJob(with(a_plan(), |p| {
            p.installs[0].artifact.source = ArtifactSource::Url(text())
        })),
        Effect::RetryAttempt(Retry {
            job: "k".into(),
            install: 0,
            decision: RetryDecision::Stop(text()),
        }),
        Effect::Alert(Alert {
            code: "c".into(),
            level: Level::Warn,
            text: text(),
        }),
        Effect::Fetch(with(a_fetch(), |f| f.path = format!("/{}", text()))),
        Effect::ListDirectory(ListingRequest {
            tag: "t".into(),
            source: LinkPath {
                link: "l".into(),
                path: text(),
            },
        }),
        Effect::Extension(Extension {
            name: "x".into(),
            data: text(),
        }),
    ];
    for effect in hiding {
        let kind = effect.kind();
        let fault = one(effect).expect_err(kind);
        assert!(fault.contains("bytes in all"), "{kind}: {fault}");
    }
}

#[test]
fn a_description_is_short_and_its_schema_is_json() {
    let good = Description {
        protocol: "p".repeat(MAX_PROTOCOL),
        version: "1.0.0".into(),
        config_schema: "{}".into(),
        state_version: u32::MAX,
    };
    assert_eq!(description(&good), Ok(()));
    for (bad, expected) in [
        (
            with(good.clone(), |d| d.protocol.push('p')),
            "the protocol: 101 bytes",
        ),
        (
            with(good.clone(), |d| d.protocol.clear()),
            "the protocol is empty",
        ),
        (
            with(good.clone(), |d| d.version.clear()),
            "the version is empty",
        ),
        (
            with(good.clone(), |d| d.config_schema = "{".into()),
            "no JSON",
        ),
        (
            with(good.clone(), |d| d.config_schema = "[]".into()),
            "no JSON Schema",
        ),
        (
            with(good.clone(), |d| {
                d.config_schema = " ".repeat(MAX_SCHEMA + 1)
            }),
            "the configuration schema: 32769 bytes",
        ),
    ] {
        let fault = description(&bad).expect_err(expected);
        assert!(fault.contains(expected), "{fault} / {expected}");
    }
}

#[test]
fn requirements_are_few_and_well_formed() {
    let good = Requirements {
        topics: vec![TopicNeeds {
            link: "cloud".into(),
            subscribe: vec!["a/+/#".into()],
            publish: vec!["b".into()],
        }],
        routes: vec![RouteNeed {
            link: "web".into(),
            method: "POST".into(),
            path: "/updateDevice".into(),
            max_body: 256 * 1024,
        }],
        calls: vec![CallNeed {
            link: "api".into(),
            method: "GET".into(),
            path: "/device/*/file".into(),
            secrets: vec!["token".into()],
        }],
        sources: vec!["ftp".into()],
        downloads: vec!["https://a/".into()],
        targets: vec!["*".into()],
    };
    assert_eq!(requirements(&good), Ok(()));
    type Change = fn(&mut Requirements);
    let table: [(Change, &str); 10] = [
        (
            |r| r.topics[0].subscribe = vec!["a#".into()],
            "stands alone",
        ),
        (|r| r.topics[0].publish = vec![String::new()], "not empty"),
        (|r| r.topics[0].link.clear(), "a link is empty"),
        (|r| r.routes[0].path = "/a?b".into(), "no query"),
        (|r| r.routes[0].max_body += 1, "the body of a route"),
        (|r| r.routes[0].method = "GET ".into(), "a method is"),
        (
            |r| r.calls[0].path = "/a*".into(),
            "stands alone in its segment",
        ),
        (
            |r| r.calls[0].secrets = vec![String::new()],
            "a secret is empty",
        ),
        (|r| r.downloads = vec!["ftp://a/".into()], "a download is"),
        (|r| r.targets = vec!["t".into(); 1_000], "entries in all"),
    ];
    for (change, expected) in table {
        let fault = requirements(&with(good.clone(), change)).expect_err(expected);
        assert!(fault.contains(expected), "{fault} / {expected}");
    }
}
