//! Another version of an adapter, taken between two events of a running agent, and left again when it does not behave.
//!
//! The new version gets a *copy* of the state and of the jobs' contexts, made by its own `migrate`. State, contexts and the fact that
//! it runs now are one commit, and what the former version had is kept beside it: so a power cut finds the old version or the new
//! one, whole, and the way back is a commit too. Messages wait meanwhile where they are: at the broker, in the inbox, in the queue.
//!
//! On probation a step that fails is a strike, unless the former version fails on the same event with what it had: then the input is
//! to blame. Two strikes bring the former version back, with its state, and it gets the event that was failed on.

use std::sync::Arc;

use otahost_core::model::{Event, StartReason};
use otahost_journal::{Change, Key, json};
use otahost_sandbox::Failure;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::migration::{Contexts, Migrated, in_layout, lost, migrate};
use super::replays::{Bounds, Which, run_again};
use super::rows::KeptRow;
use super::standing::Standing;
use super::steps::{AdapterState, Queued};
use super::{Done, Engine, Release};
use crate::api::{AdapterOrigin, ErrorCode, ReplayReport, Reply, TakenView};
use crate::platform::AdapterSetup;

/// Strikes that bring the former version back.
pub(super) const STRIKES: u32 = 2;
/// Steps in a row without a strike that end a probation.
pub(super) const PROBATION: u32 = 100;
/// Most bytes of the report on a trial that are kept.
const MAX_TRIAL: usize = 16 * 1024;
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
    /// Who had the component installed that runs in its place.
    pub by: AdapterOrigin,
    /// The same of the one that ran before.
    pub previous_by: AdapterOrigin,
    /// Strikes so far, on probation; none when it is over.
    pub strikes: Option<u32>,
    /// Versions that were left.
    pub rejected: Vec<String>,
}

impl Versions {
    /// Who had the component installed that runs; none for the configured one.
    pub(super) fn origin(&self) -> Option<AdapterOrigin> {
        self.installed.is_some().then(|| self.by.clone())
    }

    /// After the return to the version before. What is rejected is not taken again by itself.
    pub(super) fn returned(mut self, rejects: Option<String>) -> Versions {
        self.installed = self.previous.take().filter(|digest| !digest.is_empty());
        self.by = std::mem::take(&mut self.previous_by);
        self.strikes = None;
        if let Some(digest) = rejects {
            self.rejected.retain(|known| *known != digest);
            self.rejected.push(digest);
        }
        if self.rejected.len() > MAX_REJECTED {
            self.rejected.remove(0);
        }
        self
    }
}

/// Who wants another version to run, and is told how it went.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) origin: AdapterOrigin,
    pub(super) reply: mpsc::Sender<Reply>,
}

/// A swap that waits for its adapter to be between two events, or is under way.
#[derive(Debug)]
pub(super) struct Swap {
    setup: AdapterSetup,
    client: Client,
    /// What it made of the record of the version that runs, once it was tried. Until then that one goes on.
    trial: Option<ReplayReport>,
    /// Its copy is being made.
    under_way: bool,
}

impl AdapterState {
    /// Its next event waits until another version has taken over.
    pub(super) fn is_held(&self) -> bool {
        self.swap.as_ref().is_some_and(|swap| swap.trial.is_some())
    }

    /// What is so as long as no other version is taken.
    fn goes_on(&self) -> String {
        match self.runs() {
            Some(setup) => format!("version {} goes on", setup.description.version),
            None => "the adapter stays set aside".into(),
        }
    }
}

impl Engine {
    /// A version has been looked at and could run. The swap happens when the adapter is between two events.
    pub(super) fn on_prepared(
        &mut self,
        adapter: &str,
        prepared: Result<Box<AdapterSetup>, String>,
        client: Client,
    ) {
        let Client { origin, reply } = &client;
        let refuse =
            |code, message: String| Release::Reply(reply.clone(), Reply::Error { code, message });
        let setup = match prepared {
            Ok(setup) => *setup,
            Err(why) => return self.commit(Vec::new(), vec![refuse(ErrorCode::Refused, why)]),
        };
        let denials = setup.grants.denials(&setup.requirements);
        let clash = self.clash_of(&setup);
        let Some(state) = self.adapters.get_mut(adapter) else {
            let why = format!("adapter `{adapter}` does not run");
            return self.commit(Vec::new(), vec![refuse(ErrorCode::Unavailable, why)]);
        };
        let digest = setup.component.digest();
        let by_itself = matches!(origin, AdapterOrigin::Repository(_));
        let refused = |why: String| Some((ErrorCode::Refused, why));
        let refusal = if state
            .runs()
            .is_some_and(|runs| runs.component.digest() == digest)
        {
            refused("this version runs already".to_owned())
        } else if state.swap.is_some() {
            let why = "another version is being taken in right now; ask again";
            Some((ErrorCode::Busy, why.to_owned()))
        } else if by_itself && state.versions.rejected.iter().any(|left| left == digest) {
            refused(
                "this version was left before; only the operator can have it run again".to_owned(),
            )
        } else if !denials.is_empty() && *origin != AdapterOrigin::Operator {
            let waits = Reply::Waiting {
                version: setup.description.version.clone(),
                digest: digest.to_owned(),
                missing: denials.iter().map(ToString::to_string).collect(),
            };
            return self.commit(Vec::new(), vec![Release::Reply(reply.clone(), waits)]);
        } else if !denials.is_empty() {
            let lines: Vec<String> = denials.iter().map(ToString::to_string).collect();
            refused(format!(
                "version {} asks for more than adapters.{adapter}.grants allow, so {}: {}",
                setup.description.version,
                state.goes_on(),
                lines.join("; ")
            ))
        } else {
            clash.and_then(|why| {
                refused(format!(
                    "version {} is not taken, and {}: {why}",
                    setup.description.version,
                    state.goes_on()
                ))
            })
        };
        if let Some((code, why)) = refusal {
            return self.commit(Vec::new(), vec![refuse(code, why)]);
        }
        state.swap = Some(Swap {
            setup,
            client,
            trial: None,
            under_way: false,
        });
        self.try_out(adapter);
    }

    /// What there is of an adapter for a version that is to take over: the layout, the state, and the jobs' contexts.
    fn for_swap(&self, adapter: &str) -> Option<(AdapterSetup, u32, Arc<Vec<u8>>, Contexts)> {
        let state = self.adapters.get(adapter)?;
        let setup = state.swap.as_ref()?.setup.clone();
        // Where nothing is stored it is as the new version would have it.
        let from = state.layout().unwrap_or(setup.description.state_version);
        Some((setup, from, state.state(), self.contexts_of(adapter, from)))
    }

    /// Has the new version show on copies what it would do, beside the one that runs and goes on meanwhile: whether it can take over, and
    /// what it makes of the steps on record.
    fn try_out(&mut self, adapter: &str) {
        let Some((setup, from, before, contexts)) = self.for_swap(adapter) else {
            return;
        };
        let Some(ring) = self.adapters.get(adapter).map(|a| a.trace.ring.clone()) else {
            return;
        };
        let (seam, tell, name) = (self.platform.seam, self.tell.clone(), adapter.to_owned());
        tokio::spawn(async move {
            let trial = move || {
                migrate(&setup, from, &before, &contexts)?;
                run_again(&setup, &ring, &Which::All, Bounds::TRIAL).map(Box::new)
            };
            let _ = tell.send(Done::Tried(name, seam.run(trial).await));
        });
    }

    /// The new version has shown what it would do.
    pub(super) fn on_tried(&mut self, adapter: &str, tried: Result<Box<ReplayReport>, String>) {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        match (tried, state.swap.as_mut()) {
            (Ok(report), Some(swap)) => swap.trial = Some(*report),
            (Err(why), Some(_)) => self.not_taken(adapter, &why),
            (_, None) => {}
        }
    }

    /// Another version is given up before it ran.
    fn not_taken(&mut self, adapter: &str, why: &str) {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        let Some(Swap { setup, client, .. }) = state.swap.take() else {
            return;
        };
        let error = Reply::Error {
            code: ErrorCode::Refused,
            message: format!(
                "version {} is not taken, and {}: {why}",
                setup.description.version,
                state.goes_on()
            ),
        };
        self.commit(Vec::new(), vec![Release::Reply(client.reply, error)]);
    }

    /// Begins the swaps whose adapters are between two events.
    pub(super) fn start_swaps(&mut self) {
        let ready: Vec<String> = self
            .adapters
            .iter()
            .filter(|(_, a)| a.is_between_events() && a.is_held())
            .filter(|(_, a)| a.swap.as_ref().is_some_and(|s| !s.under_way))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            let Some((setup, from, before, contexts)) = self.for_swap(&name) else {
                continue;
            };
            if let Some(swap) = self.adapters.get_mut(&name).and_then(|a| a.swap.as_mut()) {
                swap.under_way = true;
            }
            let (seam, tell) = (self.platform.seam, self.tell.clone());
            tokio::spawn(async move {
                let made = seam
                    .run(move || migrate(&setup, from, &before, &contexts))
                    .await;
                let _ = tell.send(Done::Migrated(name, made.map(Box::new)));
            });
        }
    }

    pub(super) fn on_migrated(&mut self, adapter: &str, made: Result<Box<Migrated>, String>) {
        let layout = self.adapters.get(adapter).and_then(AdapterState::layout);
        let contexts = layout.map(|layout| in_layout(&self.contexts_of(adapter, layout), layout));
        let withheld = self.withheld(adapter);
        let again = self.reason_again(adapter);
        let made = match made {
            Ok(made) => *made,
            Err(why) => return self.not_taken(adapter, &why),
        };
        // Another adapter may have got a new version meanwhile.
        let swap = self.adapters.get(adapter).and_then(|a| a.swap.as_ref());
        if let Some(why) = swap.and_then(|swap| self.clash_of(&swap.setup)) {
            return self.not_taken(adapter, &why);
        }
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        let Some(Swap {
            setup,
            client,
            trial,
            ..
        }) = state.swap.take()
        else {
            return;
        };
        let Client { origin, reply } = client;
        let trial = trial.unwrap_or_default();
        let short = trial.in_short(MAX_TRIAL);
        let now = setup.description.clone();
        let digest = setup.component.digest().to_owned();
        let kept = layout.map(|state_version| KeptRow {
            state_version,
            state: state.state().to_vec(),
            contexts: contexts.unwrap_or_default(),
            trial: Some(short.clone()),
        });
        let left = std::mem::replace(&mut state.standing, Standing::Runs(Box::new(setup)));
        let mut versions = std::mem::take(&mut state.versions);
        if origin == AdapterOrigin::DropIn {
            // The configured component is another one from now on.
            state.configured = Some(digest.clone());
        }
        versions.factory = state.configured.clone().unwrap_or(versions.factory);
        // One that was left runs again by somebody's word only.
        versions.rejected.retain(|left| *left != digest);
        versions.previous_by = std::mem::replace(&mut versions.by, origin);
        versions.installed = Some(digest.clone());
        let mut changes = vec![Change::Put(
            Key::State(adapter.to_owned()),
            made.state.clone(),
        )];
        let heals = matches!(left, Standing::SetAside(_));
        let before = match &left {
            Standing::Runs(left) => Some(left.description.version.clone()),
            Standing::SetAside(_) => None,
        };
        let reason = match left {
            Standing::Runs(left) => {
                let was = left.description.version.clone();
                tracing::info!(
                    adapter,
                    from = was,
                    to = now.version,
                    same = trial.same,
                    differing = trial.differing,
                    not_compared = trial.failed + trial.not_run,
                    "another version of the adapter runs; it is on probation, and this is what it made of the steps on record"
                );
                versions.previous = Some(self_or_factory(&versions, left.component.digest()));
                versions.previous_version.clone_from(&was);
                versions.strikes = Some(0);
                let kept = kept.unwrap_or_default();
                changes.push(Change::Put(Key::Kept(adapter.to_owned()), json(&kept)));
                state.former = Some(Former { setup: *left, kept });
                StartReason::Upgraded(was)
            }
            Standing::SetAside(aside) => {
                tracing::info!(
                    adapter,
                    version = now.version,
                    "the adapter was set aside, and runs now"
                );
                // There is nothing that it could return to.
                versions.previous = None;
                versions.strikes = None;
                // A release that the firmware brings back finds its own.
                if let Some(kept) = kept.filter(|kept| kept.state_version != now.state_version) {
                    changes.push(Change::Put(Key::Kept(adapter.to_owned()), json(&kept)));
                }
                match aside.row {
                    Some(row) if row.digest != digest => StartReason::Upgraded(row.version),
                    _ => again,
                }
            }
        };
        state.versions = versions;
        state.fault = None;
        state.trial = Some(short);
        state.proven = 0;
        state.restore_state(made.state);
        self.queue_start(adapter, reason);
        self.put_contexts(made.contexts, now.state_version, &mut changes);
        changes.extend(self.adapter_row(adapter));
        changes.extend(self.watch_anew());
        self.tell_links_what_is_wanted();
        let taken = Reply::Taken(Box::new(TakenView {
            adapter: adapter.to_owned(),
            version: now.version,
            digest: trial.digest.clone(),
            before,
            trial,
        }));
        self.commit(changes, vec![Release::Reply(reply, taken)]);
        if heals {
            self.catch_up(adapter);
        }
        // What the version before could not read.
        for id in withheld {
            self.tell_job_to(id, adapter);
        }
    }

    /// Brings the former version back, with what it had. False: there is none.
    pub(super) fn return_to_former(&mut self, adapter: &str, why: &str) -> bool {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return false;
        };
        let (Some(left), Some(Former { setup, kept })) =
            (state.runs().cloned(), state.former.take())
        else {
            return false;
        };
        let text = format!(
            "adapter `{adapter}`: version {} was left for {}: {why}",
            left.description.version, setup.description.version
        );
        let layout = setup.description.state_version;
        state.standing = Standing::Runs(Box::new(setup));
        let digest = left.component.digest().to_owned();
        state.versions = std::mem::take(&mut state.versions).returned(Some(digest));
        state.restore_state(kept.state.clone());
        let mut changes = vec![
            Change::Put(Key::State(adapter.to_owned()), kept.state),
            Change::Delete(Key::Kept(adapter.to_owned())),
        ];
        let contexts = self.contexts_of(adapter, left.description.state_version);
        self.put_contexts(lost(kept.contexts, &contexts, layout), layout, &mut changes);
        self.queue_start(adapter, StartReason::RolledBack(left.description.version));
        changes.extend(self.adapter_row(adapter));
        let releases = self.alert("adapter-rolled-back", text, &mut changes);
        self.tell_links_what_is_wanted();
        let withheld = self.withheld(adapter).len();
        if withheld > 0 {
            tracing::warn!(
                adapter,
                jobs = withheld,
                "jobs that the version left behind has begun are reported when a version runs that reads its contexts"
            );
        }
        self.commit(changes, releases.into_iter().collect());
        true
    }

    /// A call of a version on probation failed for the second time on one event. The former version is asked whether it does better.
    /// True: it is asked, and the event waits.
    pub(super) fn ask_former(&mut self, adapter: &str, queued: Queued, error: &str) -> bool {
        let view = Arc::new(self.view(adapter, queued.is_command()));
        let job = self.job_of(adapter, &queued);
        let job = job.map(|job| (job.id, job.plan.context.is_empty(), job.context_version));
        let Some(state) = self.adapters.get_mut(adapter) else {
            return false;
        };
        let (Some(former), Some(_)) = (&state.former, state.versions.strikes) else {
            return false;
        };
        let (component, before) = (former.setup.component.clone(), former.kept.state.clone());
        let layout = former.setup.description.state_version;
        let mut event = queued.event().clone();
        let mut readable = true;
        if let (Event::Job(report), Some((id, is_empty, wrote))) = (&mut event, job) {
            match former.kept.contexts.get(&id) {
                Some(context) if wrote != Some(layout) => report.context.clone_from(context),
                _ => readable = is_empty || wrote.is_none_or(|wrote| wrote == layout),
            }
        }
        state.judged = Some((queued, error.to_owned()));
        let (seam, tell, name) = (self.platform.seam, self.tell.clone(), adapter.to_owned());
        if !readable {
            // A report that only the new version could read, and it cannot.
            let _ = tell.send(Done::Compared(name, Ok(())));
            return true;
        }
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
                let unjust = if queued.is_fresh() { 1 } else { 2 };
                if let Some(state) = self.adapters.get_mut(adapter)
                    && let Some(strikes) = &mut state.versions.strikes
                {
                    *strikes = strikes.saturating_sub(unjust);
                }
                self.keep_strikes(adapter);
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

    /// Makes the strikes of a version on probation durable.
    pub(super) fn keep_strikes(&mut self, adapter: &str) {
        let on_probation = |state: &AdapterState| state.versions.strikes.is_some();
        if self.adapters.get(adapter).is_some_and(on_probation) {
            let row = self.adapter_row(adapter);
            self.commit(row.into_iter().collect(), Vec::new());
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
                version = state.runs().map(|setup| setup.description.version.as_str()),
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
