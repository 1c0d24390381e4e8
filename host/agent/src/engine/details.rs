//! One adapter, looked at closely: how it stands, what it did, and what its record gives when it is run again.

use std::collections::BTreeSet;
use std::path::Path;

use otahost_core::grants::{CallGrant, Grants, LinkGrant};
use otahost_core::model::{CallNeed, Requirements};
use otahost_journal::{Key, from_json};
use otahost_sandbox::{Brief, TraceRing, event_in_words};
use tokio::sync::mpsc;

use super::replays::{Bounds, Which, gone, record_of, run_again};
use super::rows::DeadRow;
use super::steps::AdapterState;
use super::swap::PROBATION;
use super::{Engine, Release};
use crate::api::{
    AdapterDetails, AdapterLogs, DeadView, ErrorCode, RecordView, Reply, TimerView, VersionsView,
    WishView,
};
use crate::assemble::read_component;
use crate::platform::AdapterSetup;

/// Steps that a reader may be behind.
const BEHIND: usize = 64;
/// Most who read along with one adapter.
const READERS: usize = 8;

fn error(code: ErrorCode, message: impl Into<String>) -> Reply {
    Reply::Error {
        code,
        message: message.into(),
    }
}

/// What a client asks to be run again.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) adapter: String,
    /// The file of a component; without it the one that runs.
    pub(super) path: Option<String>,
    pub(super) step: Option<u64>,
    pub(super) dead: Option<u64>,
}

impl Engine {
    /// There is no adapter with this name.
    fn unknown_adapter(&self, adapter: &str) -> Reply {
        let known: Vec<&str> = self.adapters.keys().map(String::as_str).collect();
        let message = match known.as_slice() {
            [] => format!("there is no adapter `{adapter}`; there is none at all"),
            known => format!(
                "there is no adapter `{adapter}`; there are: {}",
                known.join(", ")
            ),
        };
        error(ErrorCode::UnknownAdapter, message)
    }

    /// All there is to say of an adapter.
    pub(super) fn inspect(&self, adapter: &str) -> Reply {
        let Some(state) = self.adapters.get(adapter) else {
            return self.unknown_adapter(adapter);
        };
        let ring = &state.trace.ring;
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let timers = self.timers.of(adapter);
        Reply::Adapter(Box::new(AdapterDetails {
            adapter: state.view(adapter),
            state_version: state.layout(),
            state_bytes: number(state.state().len()),
            versions: versions(state),
            wishes: wishes(state.requirements(), &state.grants),
            timers: timers
                .map(|(name, due_in, period)| TimerView {
                    name: name.to_owned(),
                    due_in,
                    period,
                })
                .collect(),
            waiting_events: number(state.events()),
            inbox_bytes: number(state.inbox_bytes()),
            steps: state.steps,
            failures: state.failures,
            proven: state.proven,
            probation: PROBATION,
            record: RecordView {
                steps: number(ring.steps().count()),
                bytes: number(ring.bytes()),
                oldest: ring.steps().next().map(|step| step.n()),
                newest: ring.steps().next_back().map(|step| step.n()),
            },
            dead: dead_letters(adapter, state),
            trial: state.trial.clone(),
        }))
    }

    /// Gives the newest steps of an adapter, and with `follow` each that comes.
    pub(super) fn give_logs(
        &mut self,
        adapter: String,
        last: Option<u64>,
        follow: bool,
        reply: mpsc::Sender<Reply>,
    ) {
        let Some(state) = self.adapters.get_mut(&adapter) else {
            let answer = self.unknown_adapter(&adapter);
            return self.commit(Vec::new(), vec![Release::Reply(reply, answer)]);
        };
        let mut coming = None;
        if follow {
            state.trace.readers.retain(|reader| !reader.is_closed());
            if state.trace.readers.len() >= READERS {
                let why = format!("{READERS} read along with `{adapter}` already; end one of them");
                let answer = error(ErrorCode::Unavailable, why);
                return self.commit(Vec::new(), vec![Release::Reply(reply, answer)]);
            }
            let (reader, steps) = mpsc::channel(BEHIND);
            state.trace.readers.push(reader);
            coming = Some(steps);
        }
        let dead = dead_letters(&adapter, state);
        let ring = state.trace.ring.clone();
        let seam = self.platform.seam;
        tokio::spawn(async move {
            let most = last.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
            // To put a step into words it has to be read: not on the engine's loop.
            let logs = move || {
                let earlier = ring.steps().count().saturating_sub(most);
                let steps = ring.steps().skip(earlier);
                AdapterLogs {
                    adapter,
                    steps: steps.map(|step| step.brief()).collect(),
                    earlier: u64::try_from(earlier).unwrap_or(u64::MAX),
                    dead,
                }
            };
            let logs = Reply::Logs(Box::new(seam.run(logs).await));
            if reply.send(logs).await.is_ok()
                && let Some(coming) = coming
            {
                read_along(coming, &reply).await;
            }
        });
    }

    /// Runs recorded steps of an adapter again, on the version that runs or on the component in a file.
    pub(super) fn replay(&mut self, asked: Asked, reply: mpsc::Sender<Reply>) {
        let ready = self
            .which(&asked)
            .and_then(|which| Ok((which, self.with_what(&asked)?)));
        let ((which, ring), with) = match ready {
            Ok(ready) => ready,
            Err(answer) => return self.commit(Vec::new(), vec![Release::Reply(reply, answer)]),
        };
        let Ok(permit) = self.replays.clone().try_acquire_owned() else {
            let why = "another replay is running; ask again when it has ended";
            let answer = error(ErrorCode::Unavailable, why);
            return self.commit(Vec::new(), vec![Release::Reply(reply, answer)]);
        };
        let (workshop, seam) = (self.platform.workshop.clone(), self.platform.seam);
        tokio::spawn(async move {
            let work = move || {
                let setup = match with {
                    With::Running(setup) => *setup,
                    With::File(path) => {
                        let component = read_component(Path::new(&path))?;
                        workshop.look(&asked.adapter, &component)?
                    }
                };
                run_again(&setup, &ring, &which, Bounds::ASKED)
            };
            let answer = match seam.run(work).await {
                Ok(report) => Reply::Replayed(Box::new(report)),
                Err(why) => error(ErrorCode::Refused, why),
            };
            drop(permit);
            let _ = reply.send(answer).await;
        });
    }

    /// Which steps are meant, and all there are.
    fn which(&self, asked: &Asked) -> Result<(Which, TraceRing), Reply> {
        let adapter = asked.adapter.as_str();
        let state = self
            .adapters
            .get(adapter)
            .ok_or_else(|| self.unknown_adapter(adapter))?;
        let ring = &state.trace.ring;
        let unknown = |why: String| error(ErrorCode::UnknownStep, why);
        let which = match (asked.step, asked.dead) {
            (Some(_), Some(_)) => {
                let why = "name a step or a dead letter, not both";
                return Err(error(ErrorCode::Invalid, why));
            }
            (Some(n), None) if ring.step(n).is_none() => return Err(unknown(gone(n, ring))),
            (Some(n), None) => Which::Step(n),
            (None, Some(n)) => {
                let row = state.dead_rows().find(|(number, _)| *number == n);
                let (_, row) = row.ok_or_else(|| unknown(no_dead_letter(n, state)))?;
                let refused = |why: String| error(ErrorCode::Refused, why);
                Which::Dead(record_of(&dead_key(adapter, n), row).map_err(refused)?)
            }
            (None, None) => Which::All,
        };
        Ok((which, ring.clone()))
    }

    /// What they are to be run on.
    fn with_what(&self, asked: &Asked) -> Result<With, Reply> {
        let running = self.adapters.get(&asked.adapter);
        match (&asked.path, running.and_then(AdapterState::runs)) {
            (Some(path), _) if !Path::new(path).is_absolute() => {
                let why = format!("`{path}` is not an absolute path");
                Err(error(ErrorCode::Invalid, why))
            }
            (Some(path), _) => Ok(With::File(path.clone())),
            (None, Some(setup)) => Ok(With::Running(Box::new(setup.clone()))),
            (None, None) => {
                let why = format!(
                    "adapter `{}` does not run; name a component to replay its record with",
                    asked.adapter
                );
                Err(error(ErrorCode::Refused, why))
            }
        }
    }
}

/// What recorded steps are run on.
enum With {
    Running(Box<AdapterSetup>),
    File(String),
}

async fn read_along(mut coming: mpsc::Receiver<Brief>, reply: &mpsc::Sender<Reply>) {
    loop {
        let step = tokio::select! {
            biased;
            () = reply.closed() => return,
            step = coming.recv() => step,
        };
        let Some(step) = step else {
            return;
        };
        if reply.send(Reply::Logged(Box::new(step))).await.is_err() {
            return;
        }
    }
}

fn versions(state: &AdapterState) -> VersionsView {
    let versions = &state.versions;
    let factory = Some(versions.factory.clone()).filter(|digest| !digest.is_empty());
    VersionsView {
        running: state
            .runs()
            .map(|setup| setup.component.digest().to_owned()),
        previous: match versions.previous.as_deref() {
            // The configured one.
            Some("") => factory.clone(),
            digest => digest.map(str::to_owned),
        },
        factory,
    }
}

fn dead_key(adapter: &str, n: u64) -> Key {
    Key::Dead {
        adapter: adapter.to_owned(),
        n,
    }
}

fn no_dead_letter(n: u64, state: &AdapterState) -> String {
    let known: Vec<String> = state.dead_rows().map(|(n, _)| n.to_string()).collect();
    match known.as_slice() {
        [] => format!("there is no dead letter {n}; there is none at all"),
        known => format!(
            "there is no dead letter {n}; there are: {}",
            known.join(", ")
        ),
    }
}

fn dead_letters(adapter: &str, state: &AdapterState) -> Vec<DeadView> {
    let rows = state.dead_rows().filter_map(|(n, row)| {
        let row: DeadRow = from_json(&dead_key(adapter, n), row).ok()?;
        Some(DeadView {
            n,
            at: row.at,
            event: event_in_words(&row.event),
            error: row.error,
            replayable: row.record.is_some(),
        })
    });
    rows.collect()
}

/// What an adapter asks for beside what it is granted, kind by kind and link by link.
fn wishes(asked: &Requirements, granted: &Grants) -> Vec<WishView> {
    let topics = asked.topics.iter().map(|needs| &needs.link);
    let routes = asked.routes.iter().map(|route| &route.link);
    let calls = asked.calls.iter().map(|call| &call.link);
    let known = granted.links.keys().chain(&asked.sources);
    let links: BTreeSet<&String> = topics.chain(routes).chain(calls).chain(known).collect();
    let mut wishes: Vec<WishView> = links
        .into_iter()
        .flat_map(|link| wishes_of_link(link, asked, granted.links.get(link)))
        .collect();
    wishes.push(WishView {
        what: "download".into(),
        link: None,
        asked: asked.downloads.clone(),
        granted: granted.download.clone(),
    });
    wishes.push(WishView {
        what: "targets".into(),
        link: None,
        asked: asked.targets.clone(),
        granted: granted.targets.clone(),
    });
    wishes.retain(|wish| !wish.asked.is_empty() || !wish.granted.is_empty());
    wishes
}

fn wishes_of_link(link: &str, asked: &Requirements, grant: Option<&LinkGrant>) -> [WishView; 5] {
    let wish = |what: &str, asked: Vec<String>, granted: Vec<String>| WishView {
        what: what.to_owned(),
        link: Some(link.to_owned()),
        asked,
        granted,
    };
    let none = LinkGrant::default();
    let grant = grant.unwrap_or(&none);
    let topics = || asked.topics.iter().filter(|needs| needs.link == link);
    let routes = asked.routes.iter().filter(|route| route.link == link);
    let calls = asked.calls.iter().filter(|call| call.link == link);
    let files = asked.sources.iter().filter(|source| *source == link);
    let named = |method: &str, path: &str| format!("{method} {path}");
    [
        wish(
            "subscribe",
            topics().flat_map(|needs| needs.subscribe.clone()).collect(),
            grant.subscribe.clone(),
        ),
        wish(
            "publish",
            topics().flat_map(|needs| needs.publish.clone()).collect(),
            grant.publish.clone(),
        ),
        wish(
            "serve",
            routes.map(|r| named(&r.method, &r.path)).collect(),
            grant
                .serve
                .iter()
                .map(|r| named(&r.method, &r.path))
                .collect(),
        ),
        wish(
            "call",
            calls.map(call_need).collect(),
            grant.call.iter().map(call_grant).collect(),
        ),
        wish(
            "files",
            files.map(|_| "to be read".to_owned()).collect(),
            grant.files.clone(),
        ),
    ]
}

fn call_need(call: &CallNeed) -> String {
    let named = format!("{} {}", call.method, call.path);
    with_secrets(named, call.secrets.iter())
}

fn call_grant(call: &CallGrant) -> String {
    let named = format!("{} {}", call.method, call.path);
    with_secrets(named, call.secrets.keys())
}

fn with_secrets<'a>(named: String, secrets: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = secrets.map(String::as_str).collect();
    match names.as_slice() {
        [] => named,
        names => format!("{named} with {}", names.join(", ")),
    }
}
