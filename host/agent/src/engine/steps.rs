//! Steps: one event at a time for each adapter, in a fresh instance, committed whole or not at all.

use std::collections::VecDeque;
use std::sync::Arc;

use otahost_core::admit::{self, Judge, JudgedTarget};
use otahost_core::job::{self, Applied, Job};
use otahost_core::model::{
    Effect, Event, Health, JobPlan, JobReport, Level, Persistence, Reason, Step, Target, Verdict,
};
use otahost_core::view::View;
use otahost_journal::{Change, Key, json};
use otahost_sandbox::{Failure, Handled};

use super::links::sha256_hex;
use super::rows::{DeadRow, InboxRow, OutboxRow};
use super::timers::MAX_TIMERS;
use super::{Done, Engine, Release};
use crate::platform::AdapterSetup;

/// Most messages in one adapter's inbox.
const MAX_INBOX: usize = 1_000;
/// Most bytes in one adapter's inbox.
const MAX_INBOX_BYTES: usize = 1024 * 1024;
/// Most dead letters of one adapter; the oldest go first.
const MAX_DEAD: u64 = 100;
/// Ended jobs that are remembered.
const MAX_ENDED_JOBS: usize = 50;

/// Where an event came from, and so what consuming it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Only memory: it comes again by itself when it is lost.
    Memory,
    /// An MQTT message that the broker still holds.
    Broker { link: String, number: u64 },
    /// A row of the inbox.
    Inbox(u64),
    /// A one-shot timer.
    Timer(String),
    /// The final report of a job.
    FinalReport(u64),
    /// The start of the adapter.
    Start,
}

/// An event that waits for its adapter.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    event: Event,
    origin: Origin,
    failed_before: bool,
}

impl Queued {
    pub(super) fn new(event: Event, origin: Origin) -> Self {
        Queued {
            event,
            origin,
            failed_before: false,
        }
    }
}

/// What the engine knows of an adapter.
#[derive(Debug)]
pub(super) struct AdapterState {
    pub(super) setup: AdapterSetup,
    state: Arc<Vec<u8>>,
    queue: VecDeque<Queued>,
    running: Option<Queued>,
    next_inbox: u64,
    inbox: usize,
    inbox_bytes: usize,
    next_dead: u64,
    pub(super) steps: u64,
    pub(super) failures: u64,
    pub(super) last_failure: Option<String>,
}

impl AdapterState {
    pub(super) fn new(setup: AdapterSetup) -> Self {
        AdapterState {
            setup,
            state: Arc::new(Vec::new()),
            queue: VecDeque::new(),
            running: None,
            next_inbox: 0,
            inbox: 0,
            inbox_bytes: 0,
            next_dead: 0,
            steps: 0,
            failures: 0,
            last_failure: None,
        }
    }

    /// Nothing runs and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && self.queue.is_empty()
    }

    pub(super) fn restore_state(&mut self, state: Vec<u8>) {
        self.state = Arc::new(state);
    }

    pub(super) fn restore_inbox(&mut self, n: u64, row: InboxRow) {
        self.next_inbox = n + 1;
        self.inbox += 1;
        self.inbox_bytes += size(&row);
        self.queue
            .push_back(Queued::new(row.event, Origin::Inbox(n)));
    }

    pub(super) fn restore_dead(&mut self, n: u64) {
        self.next_dead = n + 1;
    }

    /// Events that were set aside and are still kept.
    pub(super) fn dead_letters(&self) -> u64 {
        self.next_dead.min(MAX_DEAD)
    }
}

fn size(row: &InboxRow) -> usize {
    match &row.event {
        Event::Message(message) => message.payload.len() + message.topic.len(),
        _ => 0,
    }
}

impl Engine {
    /// Puts an event at the end of an adapter's queue. Newer reports of a job take the place of older ones, and a periodic timer waits once.
    pub(super) fn queue(&mut self, adapter: &str, queued: Queued) {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        let same = |waiting: &Queued| match (&waiting.event, &queued.event) {
            (Event::Job(old), Event::Job(new)) => {
                old.key == new.key && old.foreign == new.foreign && !old.phase.is_final()
            }
            (Event::Timer(old), Event::Timer(new)) => {
                old == new && waiting.origin == Origin::Memory
            }
            (Event::Target(old), Event::Target(new)) => old == new,
            _ => false,
        };
        match state.queue.iter_mut().find(|waiting| same(waiting)) {
            Some(waiting) => *waiting = queued,
            None => state.queue.push_back(queued),
        }
    }

    /// A place in the inbox for a message; `None` when it is full.
    pub(super) fn take_into_inbox(&mut self, adapter: &str, row: &InboxRow) -> Option<u64> {
        let state = self.adapters.get_mut(adapter)?;
        let bytes = size(row);
        if state.inbox >= MAX_INBOX || state.inbox_bytes + bytes > MAX_INBOX_BYTES {
            tracing::error!(adapter, "the inbox is full; a message is dropped");
            return None;
        }
        state.inbox += 1;
        state.inbox_bytes += bytes;
        let n = state.next_inbox;
        state.next_inbox += 1;
        Some(n)
    }

    pub(super) fn start_steps(&mut self) {
        let ready: Vec<String> = self
            .adapters
            .iter()
            .filter(|(_, state)| state.running.is_none() && !state.queue.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            let view = Arc::new(self.view(&name));
            let Some(state) = self.adapters.get_mut(&name) else {
                continue;
            };
            let Some(queued) = state.queue.pop_front() else {
                continue;
            };
            let event = queued.event.clone();
            state.running = Some(queued);
            let (component, before) = (state.setup.component.clone(), state.state.clone());
            let (seam, tell) = (self.platform.seam, self.tell.clone());
            tokio::spawn(async move {
                let outcome = seam
                    .run(move || component.handle(&view, &before, &event))
                    .await;
                let _ = tell.send(Done::Stepped(name, Box::new(outcome)));
            });
        }
    }

    pub(super) fn on_stepped(&mut self, adapter: &str, outcome: Result<Handled, Failure>) {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        let Some(queued) = state.running.take() else {
            return;
        };
        state.steps += 1;
        let requirements = &state.setup.requirements;
        let checked = match outcome {
            Ok(handled) => {
                log(
                    adapter,
                    handled
                        .log
                        .iter()
                        .map(|line| (line.level, line.text.as_str())),
                );
                match handled.result {
                    Err(refusal) => {
                        tracing::info!(
                            adapter,
                            event = queued.event.kind(),
                            refusal,
                            "the adapter refuses the event"
                        );
                        Ok(None)
                    }
                    Ok(step) => admit::declared(&step.effects, requirements)
                        .map(|()| Some(step))
                        .map_err(|e| e.to_string()),
                }
            }
            Err(failure) => {
                log(
                    adapter,
                    failure
                        .log
                        .iter()
                        .map(|line| (line.level, line.text.as_str())),
                );
                Err(failure.to_string())
            }
        };
        match checked {
            Ok(step) => {
                state.last_failure = None;
                self.commit_step(adapter, &queued, step);
            }
            Err(error) => self.step_failed(adapter, queued, error),
        }
    }

    /// Nothing of the step happened. Once more in a fresh instance, then the event is set aside.
    fn step_failed(&mut self, adapter: &str, mut queued: Queued, error: String) {
        let at = self.now();
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        state.failures += 1;
        state.last_failure = Some(error.clone());
        if !queued.failed_before {
            tracing::warn!(
                adapter,
                event = queued.event.kind(),
                error,
                "step failed; once more in a fresh instance"
            );
            queued.failed_before = true;
            state.queue.push_front(queued);
            return;
        }
        tracing::error!(
            adapter,
            event = queued.event.kind(),
            error,
            "step failed again; the event is set aside as a dead letter"
        );
        let n = state.next_dead;
        state.next_dead += 1;
        let row = DeadRow {
            at,
            event: queued.event.clone(),
            state: sha256_hex(&[&state.state]),
            error,
        };
        let mut changes = vec![Change::Put(
            Key::Dead {
                adapter: adapter.to_owned(),
                n,
            },
            json(&row),
        )];
        if let Some(oldest) = n.checked_sub(MAX_DEAD) {
            changes.push(Change::Delete(Key::Dead {
                adapter: adapter.to_owned(),
                n: oldest,
            }));
        }
        let releases = self.consume(adapter, &queued.origin, &mut changes);
        self.commit(changes, releases);
    }

    /// What consuming an event changes.
    fn consume(
        &mut self,
        adapter: &str,
        origin: &Origin,
        changes: &mut Vec<Change>,
    ) -> Vec<Release> {
        match origin {
            Origin::Memory => Vec::new(),
            Origin::Broker { link, number } => vec![Release::Settle {
                link: link.clone(),
                number: *number,
            }],
            Origin::Inbox(n) => {
                if let Some(state) = self.adapters.get_mut(adapter) {
                    state.inbox = state.inbox.saturating_sub(1);
                    if state.inbox == 0 {
                        state.inbox_bytes = 0;
                    }
                }
                changes.push(Change::Delete(Key::Inbox {
                    adapter: adapter.to_owned(),
                    n: *n,
                }));
                Vec::new()
            }
            Origin::Timer(name) => {
                if !self.timers.contains(adapter, name) {
                    changes.push(Change::Delete(Key::Timer {
                        adapter: adapter.to_owned(),
                        name: name.clone(),
                    }));
                }
                Vec::new()
            }
            Origin::FinalReport(id) => {
                if let Some(job) = self.jobs.get_mut(id) {
                    job.unreported.retain(|a| a != adapter);
                    changes.push(Change::Put(Key::Job(*id), json(job)));
                }
                self.forget_old_jobs(changes);
                Vec::new()
            }
            Origin::Start => {
                if let Some(change) = self.adapter_row(adapter) {
                    changes.push(change);
                }
                Vec::new()
            }
        }
    }

    fn commit_step(&mut self, adapter: &str, queued: &Queued, step: Option<Step>) {
        let mut changes = Vec::new();
        let settle = self.consume(adapter, &queued.origin, &mut changes);
        let mut releases = Vec::new();
        if let Some(step) = step {
            if let Some(state) = self.adapters.get_mut(adapter)
                && *state.state != step.state
            {
                changes.push(Change::Put(
                    Key::State(adapter.to_owned()),
                    step.state.clone(),
                ));
                state.state = Arc::new(step.state);
            }
            for effect in step.effects {
                self.admit_effect(adapter, effect, &mut changes, &mut releases);
            }
        }
        // Where nothing has to last, nothing is written; a redelivery of such a message would change nothing either.
        if let (Origin::Broker { link, number }, false) = (&queued.origin, changes.is_empty()) {
            changes.extend(self.remember(link, *number));
        }
        releases.extend(settle);
        self.commit(changes, releases);
    }

    fn admit_effect(
        &mut self,
        adapter: &str,
        effect: Effect,
        changes: &mut Vec<Change>,
        releases: &mut Vec<Release>,
    ) {
        match effect {
            Effect::Publish(publication) => {
                let id = self.next_publication;
                self.next_publication += 1;
                if publication.persistence == Persistence::Durable {
                    let row = OutboxRow {
                        adapter: adapter.to_owned(),
                        publication: publication.clone(),
                    };
                    changes.push(Change::Put(Key::Outbox { seq: id }, json(&row)));
                }
                releases.push(Release::Publish {
                    id,
                    adapter: adapter.to_owned(),
                    publication,
                });
            }
            Effect::StartJob(plan) => self.start_job(adapter, plan, changes, releases),
            Effect::ApplyJob(key) => {
                self.job_effect(adapter, &key, job::Input::Apply, changes, releases)
            }
            Effect::PauseJob(key) => {
                self.job_effect(adapter, &key, job::Input::Pause, changes, releases)
            }
            Effect::ResumeJob(key) => {
                self.job_effect(adapter, &key, job::Input::Resume, changes, releases)
            }
            Effect::CancelJob(key) => {
                self.job_effect(adapter, &key, job::Input::Cancel, changes, releases)
            }
            Effect::SetTimer(timer) => {
                if self.timers.count(adapter) >= MAX_TIMERS
                    && !self.timers.contains(adapter, &timer.name)
                {
                    tracing::warn!(
                        adapter,
                        timer = timer.name,
                        "more than {MAX_TIMERS} timers; this one is not set"
                    );
                    return;
                }
                changes.push(self.set_timer(adapter, &timer));
            }
            Effect::CancelTimer(name) => changes.extend(self.cancel_timer(adapter, &name)),
            Effect::Alert(alert) => match alert.level {
                Level::Error => {
                    tracing::error!(adapter, code = alert.code, "alert: {}", alert.text)
                }
                _ => tracing::warn!(adapter, code = alert.code, "alert: {}", alert.text),
            },
            // Nobody asked: no attempt event is open, and no target leaves its confirmation to the adapter.
            Effect::RetryAttempt(_) | Effect::ConfirmJob(_) => {
                tracing::debug!(
                    adapter,
                    effect = effect.kind(),
                    "nothing waits for this; ignored"
                );
            }
            // `admit::declared` has refused the step that holds one of these.
            Effect::Respond(_)
            | Effect::Fetch(_)
            | Effect::ListDirectory(_)
            | Effect::Extension(_) => {}
        }
    }

    /// The job with this key that an adapter can act on: the active one, else the newest.
    pub(super) fn find_job(&self, owner: &str, key: &str) -> Option<u64> {
        let mine = || {
            self.jobs
                .values()
                .rev()
                .filter(|job| job.owner == owner && job.plan.key == key)
        };
        mine()
            .find(|job| !job.phase.is_final())
            .or_else(|| mine().next())
            .map(|job| job.id)
    }

    fn start_job(
        &mut self,
        adapter: &str,
        plan: JobPlan,
        changes: &mut Vec<Change>,
        releases: &mut Vec<Release>,
    ) {
        let now = self.now();
        let verdict = self.judge(adapter).check(&plan);
        let mine = self
            .find_job(adapter, &plan.key)
            .filter(|id| self.jobs.get(id).is_some_and(|job| job.holds_key(now)));
        if let Some(id) = mine
            && let Some(job) = self.jobs.get_mut(&id)
        {
            job.plan.context = plan.context;
            changes.push(Change::Put(Key::Job(id), json(job)));
            if job.phase.is_final() {
                // Asked again for what is done: the same final report answers.
                job.unreported.push(adapter.to_owned());
                self.tell_job(id);
            }
            return;
        }
        match verdict {
            Verdict::Allow => {
                let id = self.admit_job(adapter, plan, changes);
                releases.push(Release::Act(id, job::Action::RetryIn(0)));
            }
            Verdict::Busy(holder) => {
                let text = format!("the target is being updated by job `{holder}`");
                self.reject_job(adapter, plan, Reason::new("busy", "admit", text), changes);
            }
            Verdict::Refuse(reason) => self.reject_job(adapter, plan, reason, changes),
            Verdict::Defer(_) => {
                self.reject_job(
                    adapter,
                    plan,
                    Reason::new("policy", "admit", "not allowed now"),
                    changes,
                );
            }
        }
    }

    fn reject_job(
        &mut self,
        owner: &str,
        plan: JobPlan,
        reason: Reason,
        changes: &mut Vec<Change>,
    ) {
        tracing::warn!(owner, key = plan.key, %reason, "job refused");
        let (id, now) = (self.next_job, self.now());
        self.next_job += 1;
        let mut job = Job::rejected(id, owner, plan, reason, now);
        job.unreported.push(owner.to_owned());
        changes.push(Change::Put(Key::Job(id), json(&job)));
        self.jobs.insert(id, job);
        self.tell_job(id);
    }

    /// Takes a job in, in phase `queued`.
    pub(super) fn admit_job(
        &mut self,
        owner: &str,
        plan: JobPlan,
        changes: &mut Vec<Change>,
    ) -> u64 {
        let (id, now) = (self.next_job, self.now());
        self.next_job += 1;
        let versions = plan
            .installs
            .iter()
            .map(|i| self.targets.get(&i.target).and_then(|t| t.version.clone()))
            .collect();
        tracing::info!(owner, id, key = plan.key, "job accepted");
        let job = Job::new(id, owner, plan, versions, now);
        changes.push(Change::Put(Key::Job(id), json(&job)));
        self.jobs.insert(id, job);
        self.tell_job(id);
        id
    }

    fn job_effect(
        &mut self,
        adapter: &str,
        key: &str,
        input: job::Input,
        changes: &mut Vec<Change>,
        releases: &mut Vec<Release>,
    ) {
        let Some(id) = self.find_job(adapter, key) else {
            tracing::info!(adapter, key, "there is no such job");
            return;
        };
        if self.move_job(id, input, changes, releases) == Applied::TooLate {
            let Some(job) = self.jobs.get(&id) else {
                return;
            };
            let mut report = job.report(false, 0);
            report.reason = Some(Reason::new(
                "too-late",
                "activate",
                "the new version is being switched to already",
            ));
            self.queue(adapter, Queued::new(Event::Job(report), Origin::Memory));
        }
    }

    /// Ended jobs beyond the limit go, the oldest first, once everybody knows how they ended.
    fn forget_old_jobs(&mut self, changes: &mut Vec<Change>) {
        let now = self.now();
        let old: Vec<u64> = self
            .jobs
            .values()
            .filter(|job| job.phase.is_final() && job.unreported.is_empty() && !job.holds_key(now))
            .map(|job| job.id)
            .collect();
        for id in old.iter().take(old.len().saturating_sub(MAX_ENDED_JOBS)) {
            self.jobs.remove(id);
            changes.push(Change::Delete(Key::Job(*id)));
        }
    }

    // ---- what an adapter sees ----

    /// What decides on plans of an adapter, or of the operator.
    pub(super) fn judge(&self, owner: &str) -> Judge {
        let now = self.now();
        let adapter = self.adapters.get(owner);
        let granted: Vec<&String> = match adapter {
            Some(state) => state.setup.grants.targets.iter().collect(),
            None => self.targets.keys().collect(),
        };
        let targets = granted
            .into_iter()
            .filter_map(|id| {
                let state = self.targets.get(id)?;
                let judged = JudgedTarget {
                    busy: self.holder(id, owner),
                    offline: state.health == Some(Health::Offline),
                };
                Some((id.clone(), judged))
            })
            .collect();
        let mine = || self.jobs.values().filter(|job| job.owner == owner);
        Judge {
            targets,
            downloads: adapter.map(|state| state.setup.grants.download.clone()),
            taken: mine()
                .filter(|job| job.holds_key(now))
                .map(|job| job.plan.key.clone())
                .collect(),
            active: mine().filter(|job| !job.phase.is_final()).count(),
            rate: self.rate,
            activation_ms: 0,
        }
    }

    /// Key of the active job on a target, as `owner` may know it.
    fn holder(&self, target: &str, owner: &str) -> Option<String> {
        let job = self
            .jobs
            .values()
            .find(|job| !job.phase.is_final() && job.targets().any(|t| t == target))?;
        Some(if job.owner == owner {
            job.plan.key.clone()
        } else {
            "-".to_owned()
        })
    }

    fn view(&self, adapter: &str) -> View {
        let state = self.adapters.get(adapter);
        let granted: &[String] = state.map_or(&[], |s| &s.setup.grants.targets);
        let targets = self
            .setup
            .targets
            .iter()
            .filter(|t| granted.contains(&t.id))
            .map(|t| {
                let known = self.targets.get(&t.id);
                Target {
                    id: t.id.clone(),
                    parent: t.parent.clone(),
                    version: known.and_then(|k| k.version.clone()),
                    health: known.and_then(|k| k.health).unwrap_or(Health::Unknown),
                    observed: known.and_then(|k| k.observed),
                    attributes: t.attributes.clone(),
                    busy: self.holder(&t.id, adapter),
                }
            })
            .collect();
        let jobs: Vec<JobReport> = self
            .jobs
            .values()
            .rev()
            .filter(|job| {
                job.owner == adapter
                    || (!job.phase.is_final()
                        && job.targets().any(|t| granted.iter().any(|g| g == t)))
            })
            .map(|job| job.report(job.owner != adapter, self.rate_of(job.id)))
            .collect();
        View {
            now: self.now(),
            clock: self.platform.outside.clock(),
            uptime: self.platform.outside.uptime(),
            boot_id: self.boot_id.clone(),
            seed: self.platform.outside.seed(),
            config: state.map(|s| s.setup.config.clone()).unwrap_or_default(),
            features: Vec::new(),
            targets,
            jobs,
            judge: self.judge(adapter),
        }
    }
}

fn log<'a>(adapter: &str, lines: impl Iterator<Item = (Level, &'a str)>) {
    for (level, text) in lines {
        match level {
            Level::Trace => tracing::trace!(adapter, "{text}"),
            Level::Debug => tracing::debug!(adapter, "{text}"),
            Level::Info => tracing::info!(adapter, "{text}"),
            Level::Warn => tracing::warn!(adapter, "{text}"),
            Level::Error => tracing::error!(adapter, "{text}"),
        }
    }
}
