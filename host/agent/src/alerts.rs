//! Alerts: the operator's way to hear of what needs a person.
//!
//! An alert is kept until each sink has taken it, over restarts and reboots; what happens again is merged and not repeated. A sink is
//! a program of the operator's or a webhook. What it does with an alert (a short message to the owner of a vehicle) is the operator's
//! business; that it gets there is ours.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use otahost_core::model::{Fetch, FetchResult, Field, Instant, Level, Repeat};
use otahost_disk::Seam;
use otahost_flash::program::{self, Limits};
use otahost_links::http_client::HttpClient;
use otahost_links::{Link, LinkCommand, LinkEvent};
use otahost_transfer::BoxFuture;
use serde::Serialize;
use tokio::sync::mpsc;

/// Time a webhook has for its answer.
const WEBHOOK_TIME: Duration = Duration::from_secs(30);

/// What a sink is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Id of the device.
    pub device: String,
    /// The adapter that raised it, or `otahost`.
    pub source: String,
    /// A word for programs.
    pub code: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// A sentence for people.
    pub text: String,
    /// When it was raised, in milliseconds since the Unix epoch.
    pub at: Instant,
    /// How often it was raised until now.
    pub times: u32,
}

/// Where alerts go.
pub trait Alarm: Debug + Send + Sync {
    /// The sinks that want alerts of this level, by name.
    fn sinks(&self, level: Level) -> Vec<String>;
    /// Gives one sink one alert; the error says why it did not take it, without secrets.
    fn send(&self, sink: &str, notice: Notice) -> BoxFuture<'static, Result<(), String>>;
}

/// An agent without sinks.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAlarm;

impl Alarm for NoAlarm {
    fn sinks(&self, _: Level) -> Vec<String> {
        Vec::new()
    }

    fn send(&self, sink: &str, _: Notice) -> BoxFuture<'static, Result<(), String>> {
        let error = format!("there is no sink `{sink}`");
        Box::pin(std::future::ready(Err(error)))
    }
}

/// The word of a level.
pub(crate) fn level_word(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// One sink.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Its name in the configuration.
    pub name: String,
    /// The least level it wants.
    pub level: Level,
    /// How it is told.
    pub way: Way,
}

/// How a sink is told.
#[derive(Debug, Clone)]
pub enum Way {
    /// Program and first arguments; level, code, text and device id follow.
    Command(Vec<String>),
    /// POST of the notice as JSON to this path.
    Webhook(HttpClient, String),
}

/// The operator's sinks.
#[derive(Debug, Clone, Default)]
pub struct Sinks(pub Vec<Sink>);

impl Alarm for Sinks {
    fn sinks(&self, level: Level) -> Vec<String> {
        let wants = |sink: &&Sink| sink.level <= level;
        self.0
            .iter()
            .filter(wants)
            .map(|s| s.name.clone())
            .collect()
    }

    fn send(&self, sink: &str, notice: Notice) -> BoxFuture<'static, Result<(), String>> {
        let Some(sink) = self.0.iter().find(|s| s.name == sink) else {
            return NoAlarm.send(sink, notice);
        };
        match sink.way.clone() {
            Way::Command(mut command) => {
                command.extend([notice.level, notice.code, notice.text, notice.device]);
                Box::pin(async move {
                    let run = move || program::run(&command, Limits::default());
                    let said = Seam::Threads.run(run).await;
                    said.map(|_| ()).map_err(|e| e.to_string())
                })
            }
            Way::Webhook(client, path) => Box::pin(post(client, path, notice)),
        }
    }
}

async fn post(client: HttpClient, path: String, notice: Notice) -> Result<(), String> {
    // What a webhook is called may be its only secret.
    let shown = otahost_core::paths::without_query(&path).to_owned();
    let body = serde_json::to_vec(&notice).map_err(|e| e.to_string())?;
    let fetch = Fetch {
        tag: String::new(),
        link: String::new(),
        method: "POST".into(),
        path,
        headers: vec![Field {
            name: "content-type".into(),
            value: "application/json".into(),
        }],
        body,
        captures: Vec::new(),
        // Twice is better than never.
        repeat: Repeat::Safe,
        timeout: u64::try_from(WEBHOOK_TIME.as_millis()).unwrap_or(u64::MAX),
        redirects: 0,
    };
    let (events_in, mut events) = mpsc::channel(1);
    let commands = client.start(events_in);
    let fetch = LinkCommand::Fetch {
        id: 0,
        fetch: Box::new(fetch),
    };
    let ended = || "the link to the webhook ended".to_owned();
    commands.send(fetch).await.map_err(|_| ended())?;
    while let Some(event) = events.recv().await {
        if let LinkEvent::Fetched { result, .. } = event {
            return match result {
                FetchResult::Answered(answer) if (200..300).contains(&answer.status) => Ok(()),
                FetchResult::Answered(answer) => Err(format!("it answered {}", answer.status)),
                FetchResult::Failed(why) if shown.len() > 1 => Err(why.replace(&shown, "/…")),
                FetchResult::Failed(why) => Err(why),
                FetchResult::Interrupted => Err(ended()),
            };
        }
    }
    Err(ended())
}

/// The sinks as the engine holds them.
pub(crate) fn shared(sinks: Vec<Sink>) -> Arc<dyn Alarm> {
    Arc::new(Sinks(sinks))
}
