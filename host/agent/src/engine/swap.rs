//! Another version of an adapter, taken between two events of a running agent, and left again when it does not behave.
//!
//! The new version gets a *copy* of the state and of the jobs' contexts, made by its own `migrate`. State, contexts and the fact that
//! it runs now are one commit, and what the former version had is kept beside it: so a power cut finds the old version or the new
//! one, whole, and the way back is a commit too. Messages wait meanwhile where they are: at the broker, in the inbox, in the queue.
//!
//! On probation a step that fails is a strike, unless the former version fails on the same event with what it had: then the input is
//! to blame. Two strikes bring the former version back, with its state, and it gets the event that was failed on.

use std::collections::BTreeMap;
use std::sync::Arc;

use otahost_core::model::{Event, StartReason};
use otahost_journal::{Change, Key, json};
use otahost_sandbox::Failure;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::rows::{AdapterRow, KeptRow};
use super::steps::{Origin, Queued};
use super::{Done, Engine, Release};
use crate::api::{ErrorCode, Reply};
use crate::platform::AdapterSetup;

/// Strikes that bring the former version back.
const STRIKES: u32 = 2;
/// Steps in a row without a strike that end a probation.
const PROBATION: u32 = 100;
/// Digests of versions that were left, so that they are not taken again by themselves.
const MAX_REJECTED: usize = 16;

/// Which versions of an adapter there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Versions {
    /// The configured component when it was last seen.
    pub factory: String,
    /// The component that runs in its place.
    pub installed: Option<String>,
    /// The component that ran before; empty for the configured one. None: there is nothing to return to.
    pub previous: Option<String>,
    /// The former one's own version, for people.
    pub previous_version: String,
    /// Strikes so far, on probation; none when it is over.
    pub strikes: Option<u32>,
    /// Versions that were left.
    pub rejected: Vec<String>,
}

/// A swap that waits for its adapter to be between two events, or is under way.
#[derive(Debug)]
pub(super) struct Swap {
    setup: AdapterSetup,
    reply: mpsc::Sender<Reply>,
    /// Its copy is being made.
    under_way: bool,
}

/// State and contexts in the form of the new version.
#[derive(Debug)]
pub(super) struct Migrated {
    state: Vec<u8>,
    contexts: BTreeMap<u64, Vec<u8>>,
}

/// Makes the copy. Blocks.
pub(super) fn migrate(
    setup: &AdapterSetup,
    from: u32,
    state: &[u8],
    contexts: &BTreeMap<u64, Vec<u8>>,
) -> Result<Migrated, String> {
    if from == setup.description.state_version {
        return Ok(Migrated {
            state: state.to_vec(),
            contexts: contexts.clone(),
        });
    }
    let convert = |what: &str, bytes: &[u8]| {
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        setup
            .component
            .migrate(from, bytes)
            .map_err(|failure| format!("it fails at `migrate` of {what}: {failure}"))?
            .map_err(|refusal| format!("it cannot take over {what}: {refusal}"))
    };
    let state = convert("the state", state)?;
    let contexts = contexts
        .iter()
        .map(|(id, context)| Ok((*id, convert("a job's context", context)?)))
        .collect::<Result<_, String>>()?;
    Ok(Migrated { state, contexts })
}

impl Engine {
    /// A version has been looked at and could run. The swap happens when the adapter is between two events.
    pub(super) fn on_prepared(
        &mut self,
        adapter: &str,
        prepared: Result<Box<AdapterSetup>, String>,
        reply: mpsc::Sender<Reply>,
    ) {
        let refuse =
            |code, message: String| Release::Reply(reply.clone(), Reply::Error { code, message });
        let setup = match prepared {
            Ok(setup) => *setup,
            Err(why) => return self.commit(Vec::new(), vec![refuse(ErrorCode::Refused, why)]),
        };
        let denials = setup.grants.denials(&setup.requirements);
        let Some(state) = self.adapters.get_mut(adapter) else {
            let why = format!("adapter `{adapter}` does not run");
            return self.commit(Vec::new(), vec![refuse(ErrorCode::Unavailable, why)]);
        };
        let refusal = if state.setup.component.digest() == setup.component.digest() {
            Some("this version runs already".to_owned())
        } else if state.swap.is_some() {
            Some("another version is being taken in right now; ask again".to_owned())
        } else if !denials.is_empty() {
            let lines: Vec<String> = denials.iter().map(ToString::to_string).collect();
            Some(format!(
                "version {} asks for more than adapters.{adapter}.grants allow, so version {} goes on: {}",
                setup.description.version,
                state.setup.description.version,
                lines.join("; ")
            ))
        } else {
            None
        };
        if let Some(why) = refusal {
            return self.commit(Vec::new(), vec![refuse(ErrorCode::Refused, why)]);
        }
        state.swap = Some(Swap {
            setup,
            reply,
            under_way: false,
        });
    }

    /// Begins the swaps whose adapters are between two events.
    pub(super) fn start_swaps(&mut self) {
        let ready: Vec<String> = self
            .adapters
            .iter()
            .filter(|(_, a)| a.is_between_events() && a.swap.as_ref().is_some_and(|s| !s.under_way))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            let contexts = self.contexts_of(&name);
            let Some(state) = self.adapters.get_mut(&name) else {
                continue;
            };
            let Some(swap) = state.swap.as_mut() else {
                continue;
            };
            swap.under_way = true;
            let from = state.setup.description.state_version;
            let (setup, before) = (swap.setup.clone(), state.state());
            let (seam, tell) = (self.platform.seam, self.tell.clone());
            tokio::spawn(async move {
                let made = seam
                    .run(move || migrate(&setup, from, &before, &contexts))
                    .await;
                let _ = tell.send(Done::Migrated(name, made.map(Box::new)));
            });
        }
    }

    /// Contexts of an adapter's jobs that may still be reported to it.
    pub(super) fn contexts_of(&self, adapter: &str) -> BTreeMap<u64, Vec<u8>> {
        self.jobs
            .values()
            .filter(|job| job.owner == adapter && !job.plan.context.is_empty())
            .map(|job| (job.id, job.plan.context.clone()))
            .collect()
    }

    pub(super) fn on_migrated(&mut self, adapter: &str, made: Result<Box<Migrated>, String>) {
        let contexts = self.contexts_of(adapter);
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        let Some(Swap { setup, reply, .. }) = state.swap.take() else {
            return;
        };
        let made = match made {
            Ok(made) => *made,
            Err(why) => {
                let message = format!(
                    "version {} is not taken, and version {} goes on: {why}",
                    setup.description.version, state.setup.description.version
                );
                let error = Reply::Error {
                    code: ErrorCode::Refused,
                    message,
                };
                return self.commit(Vec::new(), vec![Release::Reply(reply, error)]);
            }
        };
        let left = std::mem::replace(&mut state.setup, setup);
        let kept = KeptRow {
            state_version: left.description.state_version,
            state: state.state().to_vec(),
            contexts,
        };
        state.versions = Versions {
            previous: Some(self_or_factory(&state.versions, left.component.digest())),
            previous_version: left.description.version.clone(),
            installed: Some(state.setup.component.digest().to_owned()),
            strikes: Some(0),
            ..std::mem::take(&mut state.versions)
        };
        state.proven = 0;
        state.restore_state(made.state.clone());
        tracing::info!(
            adapter,
            from = left.description.version,
            to = state.setup.description.version,
            "another version of the adapter runs; it is on probation"
        );
        let was = left.description.version.clone();
        state.former = Some(Former {
            setup: left,
            kept: kept.clone(),
        });
        let mut changes = vec![
            Change::Put(Key::State(adapter.to_owned()), made.state),
            Change::Put(Key::Kept(adapter.to_owned()), json(&kept)),
        ];
        self.put_contexts(made.contexts, &mut changes);
        changes.extend(self.adapter_row(adapter));
        let started = Event::Started(StartReason::Upgraded(was));
        self.queue_first(adapter, Queued::new(started, Origin::Start));
        self.serve_again();
        self.commit(changes, vec![Release::Reply(reply, Reply::Done)]);
    }

    pub(super) fn put_contexts(
        &mut self,
        contexts: BTreeMap<u64, Vec<u8>>,
        changes: &mut Vec<Change>,
    ) {
        for (id, context) in contexts {
            if let Some(job) = self.jobs.get_mut(&id)
                && job.plan.context != context
            {
                job.plan.context = context;
                changes.push(Change::Put(Key::Job(id), json(job)));
            }
        }
    }

    /// Brings the former version back, with what it had. False: there is none.
    pub(super) fn return_to_former(&mut self, adapter: &str, why: &str) -> bool {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return false;
        };
        let Some(Former { setup, kept }) = state.former.take() else {
            return false;
        };
        let left = std::mem::replace(&mut state.setup, setup);
        let installed = state.versions.previous.take().filter(|d| !d.is_empty());
        state.versions.installed = installed;
        state.versions.strikes = None;
        let digest = left.component.digest().to_owned();
        state.versions.rejected.retain(|known| *known != digest);
        state.versions.rejected.push(digest);
        if state.versions.rejected.len() > MAX_REJECTED {
            state.versions.rejected.remove(0);
        }
        state.restore_state(kept.state.clone());
        let text = format!(
            "adapter `{adapter}`: version {} was left for {}: {why}",
            left.description.version, state.setup.description.version
        );
        let mut changes = vec![
            Change::Put(Key::State(adapter.to_owned()), kept.state),
            Change::Delete(Key::Kept(adapter.to_owned())),
        ];
        self.put_contexts(kept.contexts, &mut changes);
        changes.extend(self.adapter_row(adapter));
        let releases = self.alert("adapter-rolled-back", text, &mut changes);
        let started = Event::Started(StartReason::RolledBack(left.description.version));
        self.queue_first(adapter, Queued::new(started, Origin::Start));
        self.serve_again();
        self.commit(changes, releases.into_iter().collect());
        true
    }

    /// A call of a version on probation failed for the second time on one event. The former version is asked whether it does better.
    /// True: it is asked, and the event waits.
    pub(super) fn ask_former(&mut self, adapter: &str, queued: Queued, error: &str) -> bool {
        let view = Arc::new(self.view(adapter, queued.is_command()));
        let job = self.job_of(adapter, &queued).map(|job| job.id);
        let Some(state) = self.adapters.get_mut(adapter) else {
            return false;
        };
        let (Some(former), Some(_)) = (&state.former, state.versions.strikes) else {
            return false;
        };
        let (component, before) = (former.setup.component.clone(), former.kept.state.clone());
        let mut event = queued.event().clone();
        if let (Event::Job(report), Some(id)) = (&mut event, job)
            && let Some(context) = former.kept.contexts.get(&id)
        {
            report.context.clone_from(context);
        }
        state.judged = Some((queued, error.to_owned()));
        let (seam, tell, name) = (self.platform.seam, self.tell.clone(), adapter.to_owned());
        tokio::spawn(async move {
            let outcome = seam
                .run(move || component.handle(&view, &before, &event))
                .await;
            let outcome: Result<(), Failure> = outcome.map(|_| ());
            let _ = tell.send(Done::Compared(name, outcome.map_err(|e| e.to_string())));
        });
        true
    }

    /// What the former version made of the event.
    pub(super) fn on_compared(&mut self, adapter: &str, former: Result<(), String>) {
        let judged = self.adapters.get_mut(adapter).and_then(|a| a.judged.take());
        let Some((queued, error)) = judged else {
            return;
        };
        match former {
            Ok(()) => {
                let why = format!(
                    "it fails at a {} and the former version does not: {error}",
                    queued.event().kind()
                );
                let again = queued.afresh();
                if self.return_to_former(adapter, &why) {
                    // Behind the event that tells it that it is back. How the other one was started is nothing to it.
                    if !again.is_start() {
                        self.queue_second(adapter, again);
                    }
                } else {
                    self.queue_first(adapter, again);
                }
            }
            Err(_) => {
                tracing::warn!(
                    adapter,
                    "the former version fails at this event too: the event is to blame"
                );
                self.set_aside(adapter, queued, error);
            }
        }
    }

    /// Counts a failing call on probation; true when there were enough strikes.
    pub(super) fn strike(&mut self, adapter: &str) -> bool {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return false;
        };
        state.proven = 0;
        match &mut state.versions.strikes {
            Some(strikes) => {
                *strikes += 1;
                *strikes >= STRIKES
            }
            None => false,
        }
    }

    /// A step went well.
    pub(super) fn proves_itself(&mut self, adapter: &str, changes: &mut Vec<Change>) {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        if state.versions.strikes.is_none() {
            return;
        }
        state.proven += 1;
        if state.proven >= PROBATION {
            state.versions.strikes = None;
            state.former = None;
            tracing::info!(
                adapter,
                version = state.setup.description.version,
                "the adapter's new version has proved itself"
            );
            changes.push(Change::Delete(Key::Kept(adapter.to_owned())));
            changes.extend(self.adapter_row(adapter));
        }
    }
}

/// What the former version is called in the row: nothing for the configured one.
fn self_or_factory(versions: &Versions, digest: &str) -> String {
    if versions.factory == digest {
        String::new()
    } else {
        digest.to_owned()
    }
}

/// A version that can be returned to, with what it had.
#[derive(Debug)]
pub(super) struct Former {
    pub(super) setup: AdapterSetup,
    pub(super) kept: KeptRow,
}

/// What a start found: which version of an adapter runs, and what it may return to.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) setup: AdapterSetup,
    pub(super) versions: Versions,
    pub(super) former: Option<Former>,
    /// State and contexts in the form of this version, when they had another.
    pub(super) migrated: Option<Migrated>,
    /// What has to be kept of the version that ran before.
    pub(super) kept: Option<KeptRow>,
}

impl Migrated {
    pub(super) fn into_parts(self) -> (Vec<u8>, BTreeMap<u64, Vec<u8>>) {
        (self.state, self.contexts)
    }
}

/// Chooses the version of an adapter that runs from now on. `Err`: none can, and why; what is stored stays as it is. Blocks.
pub(super) fn choose(
    factory: &AdapterSetup,
    row: Option<&AdapterRow>,
    state: &[u8],
    contexts: &BTreeMap<u64, Vec<u8>>,
    kept: Option<KeptRow>,
    prepare: &dyn Fn(&str) -> Result<AdapterSetup, String>,
) -> Result<Chosen, String> {
    let mut versions = row.map(|row| row.versions.clone()).unwrap_or_default();
    let configured = factory.component.digest().to_owned();
    if versions.factory != configured {
        if !versions.factory.is_empty() && versions.installed.is_some() {
            tracing::info!(
                adapter = factory.name,
                "the configured component is another one than before; it takes the place of what was installed"
            );
        }
        versions = Versions {
            factory: configured,
            rejected: versions.rejected,
            ..Versions::default()
        };
    }
    let load = |digest: &str| {
        let setup = prepare(digest)?;
        let denials = setup.grants.denials(&setup.requirements);
        match denials.first() {
            None => Ok(setup),
            Some(denial) => Err(denial.to_string()),
        }
    };
    let mut setup = factory.clone();
    if let Some(digest) = versions.installed.clone() {
        match load(&digest) {
            Ok(installed) => setup = installed,
            Err(why) => {
                tracing::error!(
                    adapter = factory.name,
                    why,
                    "the installed version cannot run; the configured one does"
                );
                versions = Versions {
                    factory: versions.factory,
                    rejected: versions.rejected,
                    ..Versions::default()
                };
            }
        }
    }
    let former = match (&versions.previous, &kept) {
        (Some(digest), Some(kept)) if versions.strikes.is_some() => {
            let former = if digest.is_empty() {
                Ok(factory.clone())
            } else {
                load(digest)
            };
            former.ok().map(|setup| Former {
                setup,
                kept: kept.clone(),
            })
        }
        _ => None,
    };
    let now = setup.description.state_version;
    let before = row.map_or(now, |row| row.state_version);
    let (mut migrated, mut keeps) = (None, None);
    if before != now {
        migrated = Some(match kept {
            // An older one finds its own.
            Some(kept) if before > now && kept.state_version == now => Migrated {
                state: kept.state,
                contexts: kept.contexts,
            },
            _ => {
                let made = match migrate(&setup, before, state, contexts) {
                    Ok(made) => made,
                    // The configured one knows less than what ran until now: that goes on.
                    Err(why) => {
                        let ran = row.and_then(|row| row.versions.installed.clone());
                        let ran = ran.filter(|d| versions.installed.as_ref() != Some(d));
                        let fits = |s: &AdapterSetup| s.description.state_version == before;
                        let Some((digest, ran)) = ran
                            .and_then(|d| load(&d).ok().map(|s| (d, s)))
                            .filter(|(_, s)| fits(s))
                        else {
                            return Err(why);
                        };
                        tracing::warn!(
                            adapter = factory.name,
                            why,
                            "the configured component cannot take over what is stored; the installed one goes on"
                        );
                        versions.installed = Some(digest);
                        return Ok(Chosen {
                            setup: ran,
                            versions,
                            former: None,
                            migrated: None,
                            kept: None,
                        });
                    }
                };
                keeps = Some(KeptRow {
                    state_version: before,
                    state: state.to_vec(),
                    contexts: contexts.clone(),
                });
                made
            }
        });
    }
    Ok(Chosen {
        setup,
        versions,
        former,
        migrated,
        kept: keeps,
    })
}

impl Engine {
    /// Tells the links what the adapters want of them now.
    fn serve_again(&mut self) {
        let mut setup = (*self.setup).clone();
        for adapter in &mut setup.adapters {
            if let Some(state) = self.adapters.get(&adapter.name) {
                *adapter = state.setup.clone();
            }
        }
        self.setup = Arc::new(setup);
        self.tell_links_what_is_wanted();
    }
}
