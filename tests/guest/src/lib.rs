//! An adapter that misbehaves on command, so that the host's tests meet every way in which a step can fail.
//!
//! Configuration: `{"link": L, "prefix": P}`. It subscribes to `P/do` on `L` and publishes to `P/out`. With `"web": W` it serves
//! `POST /P/do` on the `http_server` link `W`; with `"api": A` it calls `GET` and `POST /free/*`, `GET /guarded` (with secret
//! `access_token`) and `POST /tokens` (with secret `refresh_token`) on the `http_client` link `A`; with `"folder": F` it lists
//! directories of link `F`. The payload of a message, and the body of a request, is a command and its argument, divided by one space:
//!
//! | command | what it does |
//! |---|---|
//! | `echo TEXT` | publishes the text, durable |
//! | `latest TEXT` | publishes the text, only the newest kept (key `latest`) |
//! | `count` | adds one to the count in its state and publishes it |
//! | `number N` | adds one to the count in its state and publishes `number N VERSION COUNT` |
//! | `timer NAME MS` | sets a timer; when it fires, publishes `timer NAME` |
//! | `start-job JSON` | starts a job: `{key, target, version, url, size?, digests?, context?, when_told?}` |
//! | `cancel KEY`, `apply KEY`, `confirm KEY` | asks that of the job |
//! | `view` | publishes what it sees of the device, as JSON |
//! | `uuid` | publishes two ids drawn in one step, as a JSON list |
//! | `log TEXT` | logs the text |
//! | `refuse` | refuses the event |
//! | `trap` | panics |
//! | `loop` | never ends |
//! | `bomb` | allocates until there is nothing left |
//! | `recurse` | calls itself until the stack ends |
//! | `big-state` | leaves a state above the limit |
//! | `big-output` | publishes more than the limit of a payload |
//! | `many-effects` | asks for 257 effects |
//! | `heavy-effects` | asks for effects of 2 MiB in all, each within its own limit |
//! | `undeclared` | publishes to `elsewhere`, which it never declared |
//! | `wildcard` | publishes to `P/out/#`, which is no topic |
//! | `stumble` | publishes `steady`; traps in the next release (see `NEXT`) |
//! | `log-flood` | logs 10 MiB, then publishes `flooded` |
//! | `fetch JSON` | sends a request: `{tag, path, method?, headers?, body?, captures?, once?, timeout?}`; headers and captures are pairs |
//! | `fetches N` | sends so many, all at once, with the tags `1` to `N` |
//! | `list TAG PATH` | lists a directory |
//! | `respond ID STATUS TEXT` | answers the request with this id, whosever it is |
//! | `hold NAME` | of a request only: remembers who asks, publishes `held NAME ID`, and answers nothing |
//! | `hold NAME STEPS` | the same, and answers after so many timers of half a second |
//! | `release NAME TEXT` | answers whom `hold` has remembered |
//! | `silence` | does nothing at all |
//! | `alert CODE LEVEL TEXT` | raises an alert |
//!
//! A report of a job is published as `job KEY PHASE`, a start as `started REASON`. A request whose command did not `hold` it is
//! answered with 200 and the text that the command publishes, or `done`. How a request that was sent has ended is published as
//! `answer N TAG STATUS BODY`, `answer N TAG failed WHY` or `answer N TAG interrupted`, a listing as `answer N TAG listing NAMES` or
//! `answer N TAG failed WHY`; `N` counts them in the state. Where the tag begins with `trap`, it panics instead; where that of a
//! request begins with `again`, it sends one to `/free/more` with the tag `more` as well. Every other event does nothing.

mod web;

use std::collections::BTreeMap;

use otahost_adapter::effects::{apply_job, cancel_job, confirm_job, publish, start_job, timer};
use otahost_adapter::{
    Adapter, ArtifactSource, Description, Effect, Event, Install, Level, Requirements, StartReason,
    TopicNeeds, View, register, uuid,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Built with `ROGUE_NEXT=1` it is the next release of itself: another version, another layout of the state (its count goes on a
/// thousand higher), and a fault of its own: it traps at `stumble`, where the first release publishes `steady`. With
/// `ROGUE_NEXT=back` it is the release after that, which returns to the first layout (its count goes on a thousand lower), and with
/// `ROGUE_NEXT=greedy` one that is like the first and asks to publish to `P/more` as well.
const RELEASE: Release = match option_env!("ROGUE_NEXT") {
    None => Release::First,
    Some(name) => match name.as_bytes() {
        b"back" => Release::Back,
        b"greedy" => Release::Greedy,
        _ => Release::Next,
    },
};

/// A release of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    First,
    Next,
    Back,
    Greedy,
}

impl Release {
    const fn version(self) -> &'static str {
        match self {
            Release::First => "0.1.0",
            Release::Next => "0.2.0",
            Release::Back => "0.3.0",
            Release::Greedy => "0.4.0",
        }
    }

    const fn state_version(self) -> u32 {
        match self {
            Release::First | Release::Back | Release::Greedy => 1,
            Release::Next => 2,
        }
    }
}

/// The operator's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The MQTT link to listen on.
    pub link: String,
    /// What its topics begin with.
    pub prefix: String,
    /// The link to serve requests on.
    pub web: Option<String>,
    /// The link to send requests on.
    pub api: Option<String>,
    /// The link to list directories of.
    pub folder: Option<String>,
}

/// What it remembers.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// How often `count` was asked for.
    pub count: u64,
    /// Empty, until `big-state` fills it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ballast: String,
    /// How many requests and listings have ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answers: u64,
    /// The requests that are not answered yet, by the name they are held under.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, Held>,
}

/// A request that waits for its answer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Its id.
    pub id: String,
    /// Timers until it is answered; none: it waits to be released.
    pub steps: Option<u32>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The argument of `start-job`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    key: String,
    target: String,
    version: String,
    url: String,
    size: Option<u64>,
    #[serde(default)]
    digests: Vec<String>,
    context: Option<serde_json::Value>,
    #[serde(default)]
    when_told: bool,
}

/// The adapter.
#[derive(Debug)]
pub struct Rogue;

register!(Rogue);

impl Adapter for Rogue {
    type Config = Config;
    type State = State;

    fn describe() -> Description {
        Description {
            protocol: "rogue".into(),
            version: RELEASE.version().into(),
            config_schema: json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "required": ["link", "prefix"],
                "additionalProperties": false,
                "properties": {
                    "link": { "type": "string" }, "prefix": { "type": "string" }, "web": { "type": "string" },
                    "api": { "type": "string" }, "folder": { "type": "string" },
                },
            })
            .to_string(),
            state_version: RELEASE.state_version(),
        }
    }

    fn requirements(config: &Config) -> Result<Requirements, Vec<String>> {
        let mut faults = Vec::new();
        if config.link.is_empty() {
            faults.push("config.link: it is empty; name an MQTT link".to_owned());
        }
        if config.prefix.is_empty() {
            faults.push("config.prefix: it is empty; say what the topics begin with".to_owned());
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut publish = vec![format!("{}/out", config.prefix)];
        if RELEASE == Release::Greedy {
            publish.push(format!("{}/more", config.prefix));
        }
        Ok(Requirements {
            topics: vec![TopicNeeds {
                link: config.link.clone(),
                subscribe: vec![format!("{}/do", config.prefix)],
                publish,
            }],
            routes: web::routes(config),
            calls: web::calls(config),
            sources: config.folder.iter().cloned().collect(),
            targets: vec!["*".into()],
            ..Requirements::default()
        })
    }

    fn migrate(from_version: u32, state: Vec<u8>) -> Result<Vec<u8>, String> {
        let mut old: State = serde_json::from_slice(&state).map_err(|e| e.to_string())?;
        old.count = match (RELEASE, from_version) {
            (Release::Next, 1) => old.count + 1_000,
            (Release::Back, 2) => old.count.saturating_sub(1_000),
            _ => return Err(format!("it knows no state version {from_version}")),
        };
        serde_json::to_vec(&old).map_err(|e| e.to_string())
    }

    fn handle(
        state: &mut State,
        event: Event,
        config: &Config,
        view: &dyn View,
    ) -> Result<Vec<Effect>, String> {
        let topic = format!("{}/out", config.prefix);
        let say = |text: String| publish(&config.link, &topic).payload(text).durable();
        match event {
            Event::Message(message) => {
                let text = std::str::from_utf8(&message.payload)
                    .map_err(|_| "the command is not UTF-8".to_owned())?;
                let (command, argument) = text.split_once(' ').unwrap_or((text, ""));
                obey(command, argument, state, config, view, &say)
            }
            Event::Request(request) => web::on_request(state, &request, config, view, &say),
            Event::Response(outcome) => Ok(web::on_response(state, &outcome, config, &say)),
            Event::Listing(outcome) => Ok(vec![web::on_listing(state, &outcome, &say)]),
            Event::Timer(name) => Ok(match name.strip_prefix("hold ") {
                Some(held) => web::on_step(state, held),
                None => vec![say(format!("timer {name}"))],
            }),
            Event::Job(report) => Ok(vec![say(format!("job {} {}", report.key, report.phase))]),
            Event::Started(reason) => Ok(vec![say(match reason {
                StartReason::Booted => "started booted".into(),
                StartReason::Restarted => "started restarted".into(),
                StartReason::Installed => "started installed".into(),
                StartReason::Reconfigured => "started reconfigured".into(),
                StartReason::Upgraded(from) => format!("started upgraded {from}"),
                StartReason::RolledBack(from) => format!("started rolled-back {from}"),
            })]),
            _ => Ok(vec![]),
        }
    }
}

fn obey(
    command: &str,
    argument: &str,
    state: &mut State,
    config: &Config,
    view: &dyn View,
    say: &dyn Fn(String) -> Effect,
) -> Result<Vec<Effect>, String> {
    let topic = format!("{}/out", config.prefix);
    let effect = match command {
        "echo" => say(argument.to_owned()),
        "latest" => publish(&config.link, &topic)
            .payload(argument)
            .latest("latest"),
        "count" => {
            state.count += 1;
            say(state.count.to_string())
        }
        "number" => {
            state.count += 1;
            let (version, count) = (RELEASE.version(), state.count);
            say(format!("number {argument} {version} {count}"))
        }
        "timer" => {
            let (name, span) = argument
                .split_once(' ')
                .ok_or("timer takes a name and milliseconds")?;
            timer(
                name,
                span.parse()
                    .map_err(|e| format!("timer takes milliseconds: {e}"))?,
            )
        }
        "start-job" => return Ok(vec![job(argument)?]),
        "cancel" => cancel_job(argument),
        "apply" => apply_job(argument),
        "confirm" => confirm_job(argument),
        "view" => say(seen(view).to_string()),
        "stumble" if RELEASE == Release::Next => panic!("it stumbles"),
        "stumble" => say("steady".into()),
        "uuid" => say(json!([uuid(view), uuid(view)]).to_string()),
        "log" => {
            view.log(Level::Info, argument);
            return Ok(vec![]);
        }
        "refuse" => return Err("told to refuse".into()),
        "silence" => return Ok(vec![]),
        "fetch" | "fetches" | "list" | "respond" | "release" | "alert" => {
            return web::obey(command, argument, state, config);
        }
        "trap" => panic!("told to trap"),
        "loop" => loop {
            // Something the optimiser cannot see through, or it may take the loop for one that ends.
            std::hint::black_box(());
        },
        "bomb" => bomb(),
        "recurse" => say(recurse(1).to_string()),
        "big-state" => {
            state.ballast = "x".repeat(60_001);
            return Ok(vec![]);
        }
        "big-output" => say("x".repeat(256 * 1024 + 1)),
        "many-effects" => return Ok((0..257).map(|n| say(n.to_string())).collect()),
        "heavy-effects" => return Ok((0..8).map(|_| say("x".repeat(256 * 1024))).collect()),
        "undeclared" => publish(&config.link, "elsewhere").payload("boo").durable(),
        "wildcard" => publish(&config.link, &format!("{topic}/#"))
            .payload("boo")
            .durable(),
        "log-flood" => {
            let line = "x".repeat(1024);
            (0..10 * 1024).for_each(|_| view.log(Level::Info, &line));
            say("flooded".into())
        }
        other => return Err(format!("{other:?} is no command")),
    };
    Ok(vec![effect])
}

/// The effect of `start-job`.
fn job(argument: &str) -> Result<Effect, String> {
    let job: Job =
        serde_json::from_str(argument).map_err(|e| format!("start-job takes JSON: {e}"))?;
    let mut install = Install::new(&job.target, &job.version, ArtifactSource::Url(job.url));
    install.artifact.size = job.size;
    install.artifact.digests = job.digests;
    let mut plan = start_job(&job.key).install(install);
    if let Some(context) = &job.context {
        plan = plan.context(context);
    }
    Ok(if job.when_told {
        plan.when_told()
    } else {
        plan
    }
    .start())
}

/// All of the view that is the same when asked twice.
fn seen(view: &dyn View) -> serde_json::Value {
    let targets = view.targets();
    let jobs = view.active_jobs();
    json!({
        "now": view.now(),
        "clock": format!("{:?}", view.clock()).to_lowercase(),
        "uptime": view.uptime(),
        "boot_id": view.boot_id(),
        "features": view.features(),
        "targets": targets.iter().map(|t| json!({ "id": t.id, "version": t.version, "busy": t.busy })).collect::<Vec<_>>(),
        "active_jobs": jobs.iter().map(|j| json!({ "key": j.key, "phase": j.phase.word() })).collect::<Vec<_>>(),
    })
}

fn bomb() -> ! {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        // One byte of each is written: it is memory that shall run out, not fuel.
        let mut piece = Vec::with_capacity(1024 * 1024);
        piece.push(1);
        hoard.push(piece);
        std::hint::black_box(&hoard);
    }
}

#[allow(unconditional_recursion, reason = "that is the point")]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + std::hint::black_box(frame)[usize::from(depth > 9)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_adapter::bench::{Bench, published, report, started, target};
    use otahost_adapter::{Apply, Phase};

    use super::*;

    fn bench() -> Bench<Rogue> {
        Bench::new(r#"{"link":"cloud","prefix":"rogue"}"#).unwrap()
    }

    fn tell(bench: &mut Bench<Rogue>, command: &str) -> Result<Vec<Effect>, String> {
        bench.message_bytes("cloud", "rogue/do", command)
    }

    fn text(effects: &[Effect]) -> String {
        let published = published(effects);
        assert_eq!(published.len(), 1, "{effects:?}");
        assert_eq!(published[0].topic, "rogue/out");
        String::from_utf8(published[0].payload.clone()).unwrap()
    }

    #[test]
    fn it_behaves_when_told_to() {
        let mut bench = bench();
        bench.world.targets.push(target("dock", "1.0.0"));
        assert_eq!(text(&tell(&mut bench, "echo a b").unwrap()), "a b");
        assert_eq!(text(&tell(&mut bench, "count").unwrap()), "1");
        assert_eq!(text(&tell(&mut bench, "count").unwrap()), "2");
        assert_eq!(
            text(&tell(&mut bench, "number 7").unwrap()),
            "number 7 0.1.0 3"
        );
        assert_eq!(tell(&mut bench, "timer t 500").unwrap(), [timer("t", 500)]);
        assert_eq!(text(&bench.timer("t").unwrap()), "timer t");
        assert!(text(&tell(&mut bench, "view").unwrap()).contains(r#""id":"dock""#));
    }

    #[test]
    fn a_job_is_started_as_it_was_told_and_its_reports_are_published() {
        let mut bench = bench();
        let effects = tell(
            &mut bench,
            r#"start-job {"key":"k","target":"dock","version":"2","url":"http://127.0.0.1/x","size":7,"when_told":true}"#,
        )
        .unwrap();
        let plan = started(&effects)[0].clone();
        assert_eq!((plan.key.as_str(), plan.apply), ("k", Apply::WhenTold));
        assert_eq!(plan.installs[0].artifact.size, Some(7));
        assert!(plan.context.is_empty());
        assert_eq!(
            text(&bench.report(report(&plan, Phase::RolledBack)).unwrap()),
            "job k rolled-back"
        );
    }

    #[test]
    fn a_refused_step_and_a_broken_limit_leave_the_state_as_it_was() {
        let mut bench = bench();
        tell(&mut bench, "count").unwrap();
        let before = bench.state().to_vec();
        for (command, why) in [
            ("refuse", "told to refuse"),
            ("nonsense", "no command"),
            ("big-state", "the limit is 60000"),
            ("big-output", "the limit is 262144"),
            ("many-effects", "257 effects"),
            ("heavy-effects", "bytes in all"),
            ("undeclared", "undeclared effect: publishing to elsewhere"),
            ("wildcard", "no topic to publish to"),
        ] {
            let error = tell(&mut bench, command).unwrap_err();
            assert!(error.contains(why), "{command}: {error}");
            assert_eq!(bench.state(), before, "{command}");
        }
    }

    #[test]
    fn a_flood_of_log_lines_is_cut_and_the_step_goes_on() {
        let mut bench = bench();
        assert_eq!(text(&tell(&mut bench, "log-flood").unwrap()), "flooded");
        assert_eq!(
            bench
                .log()
                .iter()
                .map(|(_, line)| line.len())
                .sum::<usize>(),
            64 * 1024
        );
    }

    #[test]
    fn two_ids_of_one_step_differ_and_have_the_form_of_a_uuid() {
        let mut bench = bench();
        let ids: Vec<String> =
            serde_json::from_str(&text(&tell(&mut bench, "uuid").unwrap())).unwrap();
        assert_ne!(ids[0], ids[1]);
        for id in ids {
            assert_eq!(id.len(), 36);
            assert_eq!(id.as_bytes()[14], b'4');
            assert!(
                matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'),
                "{id}"
            );
        }
    }

    #[test]
    fn an_empty_configuration_value_is_told_by_its_key() {
        let faults = Bench::<Rogue>::new(r#"{"link":"","prefix":""}"#).unwrap_err();
        assert!(
            faults[0].starts_with("config.link:") && faults[1].starts_with("config.prefix:"),
            "{faults:?}"
        );
    }
}
