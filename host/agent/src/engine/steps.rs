//! Steps: one event at a time for each adapter, in a fresh instance, committed whole or not at all.

use std::collections::VecDeque;
use std::sync::Arc;

use otahost_core::admit;
use otahost_core::grants::Grants;
use otahost_core::job::{self, Job};
use otahost_core::model::{Effect, Event, Instant, Level, Persistence, Reason, StartReason, Step};
use otahost_journal::{Change, Key, json};
use otahost_sandbox::{Failure, Handled, Recording, StepRecord};

use super::calls::Asked;
use super::inbox::Inbox;
use super::links::sha256_hex;
use super::rows::{DeadRow, OutboxRow};
use super::standing::Standing;
use super::swap::{Former, Swap, Versions};
use super::timers::MAX_TIMERS;
use super::trace::Trace;
use super::{Done, Engine, Release};
use crate::api::ReplayReport;

/// Most dead letters of one adapter; the oldest go first.
const MAX_DEAD: usize = 100;
/// Most bytes of them.
const MAX_DEAD_BYTES: usize = 1024 * 1024;
/// Most bytes of the record that is kept with one of them.
const MAX_DEAD_RECORD: usize = 64 * 1024;
/// Most publications of one adapter that wait for their broker.
const MAX_OUTBOX: usize = 1_000;
/// Most bytes of them.
const MAX_OUTBOX_BYTES: usize = 4 * 1024 * 1024;

/// Where an event came from, and so what consuming it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Only memory: it comes again by itself when it is lost.
    Memory,
    /// An MQTT message that the broker still holds.
    Broker { link: String, number: u64 },
    /// A row of the inbox, with its size and the time it came.
    Inbox { n: u64, bytes: usize, at: Instant },
    /// A one-shot timer.
    Timer(String),
    /// The final report of a job.
    FinalReport(u64),
    /// The start of the adapter.
    Start,
    /// The answer to a request or listing, by its number.
    Call(u64),
    /// A request that came in, by the id the adapter knows.
    Request(String),
}

/// An event that waits for its adapter.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub(super) event: Event,
    pub(super) origin: Origin,
    /// When it was queued for the first time.
    pub(super) came: tokio::time::Instant,
    failed_before: bool,
    /// It is the answer to something that a command has led to.
    pub(super) commanded: bool,
    /// Keys of the active jobs that the step's view shows.
    active: Vec<String>,
    /// The number of the last step that it was handled in.
    recorded: Option<u64>,
}

impl Queued {
    /// A person or platform asked just now; otherwise the adapter comes to it by itself.
    pub(super) fn is_command(&self) -> bool {
        self.commanded || matches!(self.event, Event::Message(_) | Event::Request(_))
    }

    /// It tells the adapter that it starts.
    pub(super) fn is_start(&self) -> bool {
        self.origin == Origin::Start
    }

    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Nobody had failed at it before.
    pub(super) fn is_fresh(&self) -> bool {
        !self.failed_before
    }

    /// The same, as if nobody had failed at it.
    pub(super) fn afresh(mut self) -> Self {
        self.failed_before = false;
        self
    }

    pub(super) fn new(event: Event, origin: Origin) -> Self {
        Queued {
            event,
            origin,
            came: tokio::time::Instant::now(),
            failed_before: false,
            commanded: false,
            active: Vec::new(),
            recorded: None,
        }
    }
}

/// What the engine knows of an adapter.
#[derive(Debug)]
pub(super) struct AdapterState {
    pub(super) standing: Standing,
    /// Its configuration as JSON.
    pub(super) config: String,
    /// What the operator allows it.
    pub(super) grants: Grants,
    /// Digest of the configured component, if that can be loaded.
    pub(super) configured: Option<String>,
    /// Why what should run does not, where something else runs in its place.
    pub(super) fault: Option<String>,
    /// Why it starts, as long as no step has taken that.
    pub(super) owed: Option<StartReason>,
    state: Arc<Vec<u8>>,
    pub(super) queue: VecDeque<Queued>,
    pub(super) running: Option<Queued>,
    /// When the running step began, or the last one.
    pub(super) began: tokio::time::Instant,
    pub(super) inbox: Inbox,
    /// Messages that found no room while it was set aside.
    pub(super) dropped: u64,
    next_dead: u64,
    /// The rows of the dead letters that are kept.
    dead: VecDeque<(u64, Vec<u8>)>,
    /// What it did.
    pub(super) trace: Trace,
    /// What the version that was taken last made of the record of the one before.
    pub(super) trial: Option<ReplayReport>,
    /// Another version that waits to take over.
    pub(super) swap: Option<Swap>,
    /// The version before, while this one is on probation.
    pub(super) former: Option<Former>,
    pub(super) versions: Versions,
    /// The event, and the fault, that the former version is being asked about.
    pub(super) judged: Option<(Queued, String)>,
    /// Steps in a row without a strike.
    pub(super) proven: u32,
    pub(super) steps: u64,
    pub(super) failures: u64,
    pub(super) last_failure: Option<String>,
}

impl AdapterState {
    pub(super) fn new(standing: Standing, config: String, grants: Grants) -> Self {
        AdapterState {
            standing,
            config,
            grants,
            configured: None,
            fault: None,
            owed: None,
            state: Arc::new(Vec::new()),
            queue: VecDeque::new(),
            running: None,
            began: tokio::time::Instant::now(),
            inbox: Inbox::default(),
            dropped: 0,
            next_dead: 0,
            dead: VecDeque::new(),
            trace: Trace::new(),
            trial: None,
            swap: None,
            former: None,
            versions: Versions::default(),
            judged: None,
            proven: 0,
            steps: 0,
            failures: 0,
            last_failure: None,
        }
    }

    /// It runs, no event is handled and none waits.
    pub(super) fn is_idle(&self) -> bool {
        self.runs().is_some()
            && self.is_between_events()
            && self.queue.is_empty()
            && !self.is_held()
    }

    /// No event is being handled.
    pub(super) fn is_between_events(&self) -> bool {
        self.running.is_none() && self.judged.is_none()
    }

    /// The state as of the last step.
    pub(super) fn state(&self) -> Arc<Vec<u8>> {
        self.state.clone()
    }

    pub(super) fn restore_state(&mut self, state: Vec<u8>) {
        self.state = Arc::new(state);
    }

    /// Takes the event that has waited longest.
    pub(super) fn take_first(&mut self) -> Option<Queued> {
        self.queue.pop_front()
    }

    /// Forgets the starts that it was not told of yet.
    pub(super) fn forget_starts(&mut self) {
        self.queue.retain(|queued| !queued.is_start());
    }

    pub(super) fn restore_dead(&mut self, n: u64, row: Vec<u8>) {
        self.next_dead = n + 1;
        self.dead.push_back((n, row));
    }

    /// The dead letters as they are in the journal, oldest first.
    pub(super) fn dead_rows(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.dead.iter().map(|(n, row)| (*n, row.as_slice()))
    }

    /// Events that wait, wherever they are kept.
    pub(super) fn events(&self) -> usize {
        self.queue.len()
    }

    /// Events that were set aside and are still kept.
    pub(super) fn dead_letters(&self) -> u64 {
        self.dead.len() as u64
    }
}

fn is_small(record: &StepRecord) -> bool {
    json(record).len() <= MAX_DEAD_RECORD
}

impl Engine {
    /// Puts an event at the end of an adapter's queue. Newer reports of a job take the place of older ones, and a periodic timer waits once.
    pub(super) fn queue(&mut self, adapter: &str, queued: Queued) {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        if !state.keeps(&queued) {
            return;
        }
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

    /// Puts an event before all that wait.
    pub(super) fn queue_first(&mut self, adapter: &str, queued: Queued) {
        if let Some(state) = self.adapters.get_mut(adapter) {
            state.queue.push_front(queued);
        }
    }

    /// Puts an event behind the first that waits.
    pub(super) fn queue_second(&mut self, adapter: &str, queued: Queued) {
        if let Some(state) = self.adapters.get_mut(adapter) {
            let at = state.queue.len().min(1);
            state.queue.insert(at, queued);
        }
    }

    /// Takes the event of a timer out of an adapter's queue; true when there was one.
    pub(super) fn forget_timer_event(&mut self, adapter: &str, name: &str) -> bool {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return false;
        };
        let before = state.queue.len();
        state
            .queue
            .retain(|queued| !matches!(&queued.event, Event::Timer(timer) if timer == name));
        state.queue.len() < before
    }

    pub(super) fn start_steps(&mut self) {
        let ready: Vec<String> = self
            .adapters
            .iter()
            .filter(|(_, state)| {
                let may = state.is_between_events() && !state.is_held();
                may && state.runs().is_some() && !state.queue.is_empty()
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            let Some(mut queued) = self.next_event(&name) else {
                continue;
            };
            self.freshen(&name, &mut queued);
            let view = Arc::new(self.view(&name, queued.is_command()));
            let active = view
                .jobs
                .iter()
                .filter(|job| !job.foreign && !job.phase.is_final());
            queued.active = active.map(|job| job.key.clone()).collect();
            let Some(state) = self.adapters.get_mut(&name) else {
                continue;
            };
            let Some(setup) = state.runs() else {
                continue;
            };
            let (component, layout) = (setup.component.clone(), setup.description.state_version);
            let recorder = state.trace.recorder.clone();
            let event = queued.event.clone();
            state.running = Some(queued);
            state.began = tokio::time::Instant::now();
            let before = state.state.clone();
            let (seam, tell) = (self.platform.seam, self.tell.clone());
            tokio::spawn(async move {
                let step = move || {
                    let outcome = component.handle(&view, &before, &event);
                    let recording =
                        recorder.record(&component, layout, &view, &before, &event, &outcome);
                    // The engine may be gone: then nobody waits for this.
                    let _ = tell.send(Done::Stepped(name, Box::new((outcome, recording))));
                };
                // Told from where it ran: the engine need not wait until this task is woken too.
                seam.run(step).await;
            });
        }
    }

    /// A report waits with the context it had; a swap may have given the job another form of it since.
    fn freshen(&self, adapter: &str, queued: &mut Queued) {
        let job = self.job_of(adapter, queued);
        if let (Event::Job(report), Some(job)) = (&mut queued.event, job) {
            report.context.clone_from(&job.plan.context);
        }
    }

    /// The job of this adapter's own that an event reports on.
    pub(super) fn job_of(&self, adapter: &str, queued: &Queued) -> Option<&Job> {
        match (&queued.event, &queued.origin) {
            (Event::Job(report), _) if report.foreign => None,
            // Another job may have its key by now.
            (Event::Job(_), Origin::FinalReport(id)) => self.jobs.get(id),
            (Event::Job(report), _) => self
                .jobs
                .values()
                .find(|j| j.owner == adapter && j.plan.key == report.key && !j.phase.is_final()),
            _ => None,
        }
    }

    pub(super) fn on_stepped(
        &mut self,
        adapter: &str,
        outcome: Result<Handled, Failure>,
        recording: Recording,
    ) {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        let Some(mut queued) = state.running.take() else {
            return;
        };
        state.steps += 1;
        let ran = outcome.is_ok();
        let requirements = state.requirements();
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
                        .map_err(|e| (e.to_string(), true))
                        .and_then(|()| {
                            // For want of room no version is to blame.
                            self.outbox_takes(adapter, &step.effects)
                                .and_then(|()| {
                                    self.calls_take(adapter, &queued.origin, &step.effects)
                                })
                                .map_err(|e| (e, false))
                        })
                        .map(|()| Some(step)),
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
                Err((failure.to_string(), true))
            }
        };
        let recording = match &checked {
            // It went well, and the host would not have it.
            Err((why, _)) if ran => recording.discarded(why),
            _ => recording,
        };
        if let Some(state) = self.adapters.get_mut(adapter) {
            queued.recorded = Some(state.trace.keep(recording));
        }
        // An adapter that neither answers nor asks somebody else first leaves the failed attempt to the host.
        let asks = matches!(&checked, Ok(Some(step)) if step.effects.iter().any(|e| matches!(e, Effect::Fetch(_))));
        let attempt = match &queued.event {
            Event::Attempt(attempt) if !asks => Some(attempt.job.clone()),
            _ => None,
        };
        match checked {
            Ok(step) => {
                if let Some(state) = self.adapters.get_mut(adapter) {
                    state.last_failure = None;
                }
                self.commit_step(adapter, &queued, step);
            }
            Err((error, its_fault)) => self.step_failed(adapter, queued, error, its_fault),
        }
        if let Some(id) = attempt.and_then(|key| self.find_job(adapter, &key)) {
            self.attempt_unanswered(id);
        }
    }

    /// Whether what an adapter wants to publish finds room beside what still waits for a broker that is away.
    fn outbox_takes(&self, adapter: &str, effects: &[Effect]) -> Result<(), String> {
        let publications = effects.iter().filter_map(|effect| match effect {
            Effect::Publish(publication) => Some(publication.payload.len()),
            _ => None,
        });
        let (count, bytes) =
            publications.fold((0, 0), |(count, bytes), len| (count + 1, bytes + len));
        if count == 0 {
            return Ok(());
        }
        let held = self.links.values().map(|link| link.outbox.held_by(adapter));
        let (held, held_bytes) = held.fold((0, 0), |(c, b), (count, bytes)| (c + count, b + bytes));
        if held + count > MAX_OUTBOX || held_bytes + bytes > MAX_OUTBOX_BYTES {
            return Err(format!(
                "the outbox is full: {held} publications of {held_bytes} bytes wait for their broker"
            ));
        }
        Ok(())
    }

    /// Nothing of the step happened. Once more in a fresh instance, then the event is set aside.
    fn step_failed(&mut self, adapter: &str, mut queued: Queued, error: String, its_fault: bool) {
        let strikes_out = its_fault && self.strike(adapter);
        if its_fault && !strikes_out {
            // It counts over a restart too. The last strike is kept with what comes of it.
            self.keep_strikes(adapter);
        }
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        state.failures += 1;
        state.last_failure = Some(error.clone());
        if !queued.failed_before && !strikes_out {
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
        if strikes_out && self.ask_former(adapter, queued.clone(), &error) {
            return;
        }
        self.set_aside(adapter, queued, error);
    }

    /// Nobody can handle this event: it is kept as a dead letter, and consumed.
    pub(super) fn set_aside(&mut self, adapter: &str, queued: Queued, error: String) {
        let at = self.now();
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
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
            record: queued
                .recorded
                .and_then(|n| state.trace.record(n))
                .filter(is_small)
                .map(Box::new),
        };
        let value = json(&row);
        state.dead.push_back((n, value.clone()));
        let key = |n| Key::Dead {
            adapter: adapter.to_owned(),
            n,
        };
        let mut changes = vec![Change::Put(key(n), value)];
        // The newest always stays.
        while state.dead.len() > 1
            && (state.dead.len() > MAX_DEAD
                || state.dead.iter().map(|(_, row)| row.len()).sum::<usize>() > MAX_DEAD_BYTES)
            && let Some((oldest, _)) = state.dead.pop_front()
        {
            changes.push(Change::Delete(key(oldest)));
        }
        let mut releases = self.consume(adapter, &queued.origin, &mut changes);
        if let Origin::Request(id) = &queued.origin {
            self.request_failed(id, &mut releases);
        }
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
            Origin::Inbox { n, bytes, .. } => {
                if let Some(state) = self.adapters.get_mut(adapter) {
                    state.left_inbox(*bytes);
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
            Origin::Call(seq) => {
                self.call_done(*seq, changes);
                Vec::new()
            }
            Origin::Request(_) => Vec::new(),
            Origin::Start => {
                if let Some(state) = self.adapters.get_mut(adapter) {
                    state.owed = None;
                }
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
        if let (None, Origin::Request(id)) = (&step, &queued.origin) {
            self.request_failed(id, &mut releases);
        }
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
                self.admit_effect(adapter, queued, effect, &mut changes, &mut releases);
            }
        }
        self.proves_itself(adapter, &mut changes);
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
        cause: &Queued,
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
            Effect::StartJob(plan) => {
                let known = cause.active.contains(&plan.key);
                self.start_job(adapter, plan, known, cause.is_command(), changes, releases);
            }
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
                let reason = Reason::new("cancelled", "install", "cancelled by the platform");
                self.job_effect(adapter, &key, job::Input::Cancel(reason), changes, releases)
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
            Effect::Alert(alert) => {
                releases.extend(self.raise(adapter, alert, changes));
            }
            Effect::RetryAttempt(retry) => self.on_retry(adapter, retry),
            Effect::ConfirmJob(key) => {
                self.job_effect(adapter, &key, job::Input::ConfirmGiven, changes, releases)
            }
            Effect::Respond(answer) => self.admit_response(adapter, answer, releases),
            Effect::Fetch(fetch) => self.admit_call(
                adapter,
                Asked::Fetch(Box::new(fetch)),
                cause.is_command(),
                changes,
                releases,
            ),
            Effect::ListDirectory(listing) => self.admit_call(
                adapter,
                Asked::List(listing),
                cause.is_command(),
                changes,
                releases,
            ),
            // `admit::declared` has refused the step that holds one.
            Effect::Extension(_) => {}
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
