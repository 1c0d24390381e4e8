//! What the tests of the `http_client` link share: requests, a link with its events, and a cloud whose tokens rotate.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "tests; not every file uses all of it"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use otahost_core::model::{Capture, Fetch, FetchResult, Field, HttpResponse, Repeat};
use otahost_core::secret::Secret;
use otahost_links::http_client::{Auth, HttpClient, HttpClientOptions};
use otahost_links::{Link, LinkCommand, LinkEvent};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::script::{Asked, LIMIT, Reply, Script};

pub(crate) fn get(path: &str) -> Fetch {
    Fetch {
        tag: "t".into(),
        link: "api".into(),
        method: "GET".into(),
        path: path.into(),
        headers: Vec::new(),
        body: Vec::new(),
        captures: Vec::new(),
        repeat: Repeat::Safe,
        timeout: 20_000,
        redirects: 0,
    }
}

pub(crate) fn with_headers(mut fetch: Fetch, headers: &[(&str, &str)]) -> Fetch {
    fetch
        .headers
        .extend(headers.iter().map(|(name, value)| Field {
            name: (*name).into(),
            value: (*value).into(),
        }));
    fetch
}

pub(crate) fn post(path: &str, kind: &str, body: &str) -> Fetch {
    let fetch = Fetch {
        method: "POST".into(),
        body: body.into(),
        repeat: Repeat::Once,
        ..get(path)
    };
    with_headers(fetch, &[("content-type", kind)])
}

/// The refresh of a token that is replaced at every use.
pub(crate) fn refresh() -> Fetch {
    let capture = |pointer: &str, secret: &str| Capture {
        pointer: pointer.into(),
        secret: secret.into(),
    };
    Fetch {
        captures: vec![
            capture("/access_token", "access"),
            capture("/refresh_token", "refresh"),
        ],
        ..post(
            "/auth/refresh-token",
            "application/json",
            r#"{"refresh_token":"{secret:refresh}"}"#,
        )
    }
}

pub(crate) fn options(server: &Script) -> HttpClientOptions {
    HttpClientOptions {
        auth: Auth::Bearer("access".into()),
        ..HttpClientOptions::new(server.url("/").parse().unwrap())
    }
}

pub(crate) fn secrets(pairs: &[(&str, &str)]) -> Vec<(String, Secret)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Secret::new(*value)))
        .collect()
}

pub(crate) struct Running {
    pub(crate) commands: mpsc::Sender<LinkCommand>,
    pub(crate) events: mpsc::Receiver<LinkEvent>,
}

impl Running {
    pub(crate) fn start(options: HttpClientOptions) -> Self {
        let (sender, events) = mpsc::channel(64);
        let commands = HttpClient::new(options).unwrap().start(sender);
        Self { commands, events }
    }

    pub(crate) async fn tell(&self, command: LinkCommand) {
        self.commands.send(command).await.unwrap();
    }

    pub(crate) async fn fetch(&self, id: u64, fetch: Fetch) {
        let fetch = Box::new(fetch);
        self.tell(LinkCommand::Fetch { id, fetch }).await;
    }

    pub(crate) async fn next(&mut self) -> (u64, FetchResult, BTreeMap<String, String>) {
        let event = timeout(LIMIT, self.events.recv()).await;
        let event = event.expect("an event in time").expect("the link lives");
        let LinkEvent::Fetched {
            id,
            result,
            captured,
        } = event
        else {
            panic!("{event:?}")
        };
        let shown = captured
            .iter()
            .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
            .collect();
        (id, result, shown)
    }

    /// Sends one and waits for its end.
    pub(crate) async fn ask(&mut self, fetch: Fetch) -> FetchResult {
        self.fetch(77, fetch).await;
        let (id, result, captured) = self.next().await;
        assert_eq!((id, captured), (77, BTreeMap::new()));
        result
    }
}

pub(crate) fn answered(result: FetchResult) -> HttpResponse {
    match result {
        FetchResult::Answered(response) => response,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn failed(result: FetchResult) -> String {
    match result {
        FetchResult::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn body(response: &HttpResponse) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

/// A cloud whose tokens rotate: a refresh token that is not the newest logs the device out.
pub(crate) async fn cloud(permits: &Arc<Semaphore>) -> Script {
    let (permits, round) = (Arc::clone(permits), Mutex::new(0));
    Script::start(move |asked: &Asked| {
        let mut round = round.lock().unwrap();
        let newest = format!("refresh-{round}");
        match asked.path() {
            "/auth/refresh-token" if refresh_token(asked) == newest => {
                *round += 1;
                Reply::json(
                    200,
                    &json!({"access_token": format!("access-{round}"), "refresh_token": format!("refresh-{round}"), "expires_in": 900}),
                )
                .after(&permits)
            }
            "/auth/refresh-token" => {
                *round = 1_000;
                Reply::json(401, &json!({"detail": "Refresh token is not valid"}))
            }
            "/open" => Reply::new(204),
            _ if asked.header("authorization") == Some(&format!("Bearer access-{round}")) && *round > 0 => {
                Reply::json(200, &json!([]))
            }
            _ => Reply::json(401, &json!({"detail": "Token is expired"})),
        }
    })
    .await
}

pub(crate) async fn with_tokens(server: &Script) -> Running {
    let running = Running::start(options(server));
    let kept = secrets(&[("access", "access-0"), ("refresh", "refresh-0")]);
    running.tell(LinkCommand::Secrets(kept)).await;
    running
}

/// Sent with no secret, so it is held back by nobody: what it follows and what could run has reached the server before it.
pub(crate) fn free() -> Fetch {
    with_headers(get("/open"), &[("authorization", "none")])
}

fn refresh_token(asked: &Asked) -> String {
    let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
    body["refresh_token"].as_str().unwrap().to_owned()
}
