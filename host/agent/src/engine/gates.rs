//! Gates and deadlines: policy and readiness are asked outside the engine's own task, judged by `otahost_core::policy`; every phase has
//! a time it may take.

use std::collections::BTreeSet;
use std::time::Duration;

use otahost_core::job::{self, GateAt, OPERATOR};
use otahost_core::model::{Phase, Reason};
use otahost_core::policy::{self, Facts, Gate};
use otahost_journal::{Change, Key, json};
use tokio::time::Instant;

use super::{Done, Engine};

/// What a phase has cost is kept with another commit after so long, and in one of its own after so much longer: a job that only waits on a
/// device that is switched off again and again must run out of time too.
const SPENT_ALONG: Duration = Duration::from_secs(600);
const SPENT_ALONE: Duration = Duration::from_secs(3_600);

impl Engine {
    /// When what running phases have cost is worth a commit.
    pub(super) fn next_spending(&self) -> Option<Instant> {
        let active = |id: &u64| self.jobs.get(id).is_some_and(|job| !job.phase.is_final());
        self.phase_since
            .iter()
            .filter(|(id, _)| active(id))
            .filter_map(|(_, since)| since.checked_add(SPENT_ALONE))
            .min()
    }

    /// Keeps what phases have cost that are worth a commit by now.
    pub(super) fn keep_spending(&mut self, now: Instant) {
        if self.next_spending().is_some_and(|due| due <= now) {
            let changes = self.spending(&Default::default());
            self.commit_time(changes, Vec::new());
        }
    }

    /// The rows of jobs whose phases have cost something since that was last kept, but for those in `written`.
    pub(super) fn spending(&mut self, written: &BTreeSet<Key>) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, since) in &mut self.phase_since {
            let Some(job) = self.jobs.get_mut(id).filter(|job| !job.phase.is_final()) else {
                continue;
            };
            if since.elapsed() < SPENT_ALONG || written.contains(&Key::Job(*id)) {
                continue;
            }
            let spent = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            job.spent = job.spent.saturating_add(spent);
            *since = Instant::now();
            changes.push(Change::Put(Key::Job(*id), json(job)));
        }
        changes
    }

    /// Asks lock files and readiness of all targets of a job, and what policy says of them.
    pub(super) fn check_gate(&self, id: u64, at: GateAt) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let operator = job.owner == OPERATOR;
        let installs = job.plan.installs.clone();
        let questions: Vec<_> = installs
            .into_iter()
            .map(|install| {
                let setup = self.target_setup(&install.target).cloned();
                let (memory, old) = self
                    .targets
                    .get(&install.target)
                    .map(|t| (t.memory.clone(), t.version.clone()))
                    .unwrap_or_default();
                (install, setup, memory, old)
            })
            .collect();
        let (now, clock) = (self.now(), self.platform.outside.clock());
        let (outside, seam, tell) = (
            self.platform.outside.clone(),
            self.platform.seam,
            self.tell.clone(),
        );
        tokio::spawn(async move {
            let gate = seam
                .run(move || {
                    // The strictest of the targets decides: nothing is activated before everything may be.
                    let mut gate = Gate::Go;
                    for (install, setup, memory, old) in questions {
                        let Some(setup) = setup else {
                            let text =
                                format!("target `{}` is not configured any more", install.target);
                            return Gate::Refuse(Reason::new("unknown-target", "admit", text));
                        };
                        let ready = if at == GateAt::Begin {
                            Ok(())
                        } else {
                            outside.ready(&install.target)
                        };
                        let facts = Facts {
                            now,
                            clock,
                            operator,
                            locked: outside.locked(&install.target),
                            ready,
                        };
                        let judged = match at {
                            GateAt::Begin => policy::judge_begin(
                                &setup.policy,
                                &facts,
                                old.as_deref(),
                                &install.version,
                            ),
                            GateAt::Install | GateAt::Activation => {
                                policy::judge_activation(&setup.policy, &facts, &memory)
                            }
                        };
                        match judged {
                            Gate::Go => {}
                            Gate::Refuse(_) => return judged,
                            Gate::Wait { .. } => gate = judged,
                        }
                    }
                    gate
                })
                .await;
            let _ = tell.send(Done::Job(id, job::Input::Gate(gate)));
        });
    }

    /// What stands against an image once its bytes are known: it was rolled back before, or it is older than policy allows.
    pub(super) fn image_fault(
        &self,
        id: u64,
        sha256: &str,
        version: Option<&str>,
    ) -> Option<Reason> {
        let job = self.jobs.get(&id)?;
        let install = job.plan.installs.get(job.current)?;
        let state = self.targets.get(&install.target)?;
        if let Some(reason) =
            state
                .memory
                .known_bad(Some(sha256), &install.artifact.digests, job.commanded)
        {
            return Some(reason).filter(|_| job.owner != OPERATOR);
        }
        let policy = &self.target_setup(&install.target)?.policy;
        let version = version.unwrap_or(&install.version);
        policy.downgrade_reason(
            job.owner == OPERATOR,
            "verify",
            state.version.as_deref(),
            version,
        )
    }

    /// Milliseconds a job may be in its phase.
    fn budget(&self, job: &job::Job) -> u64 {
        let d = &self.setup.deadlines;
        let confirm = || {
            let within = self
                .target_setup(job.current_target())
                .map_or(Duration::ZERO, |t| t.confirm_within);
            // The examination says `Expired` by itself; this is for when nobody can examine.
            d.activate.saturating_add(within).saturating_add(within)
        };
        let budget = match job.phase {
            Phase::Queued | Phase::Waiting => d.waiting,
            Phase::Downloading | Phase::Verifying => d.download,
            Phase::Prepared | Phase::Delivered => d.prepared,
            Phase::Installing => d.install,
            Phase::Delivering => d.deliver,
            Phase::Activating => d.activate,
            _ => confirm(),
        };
        u64::try_from(budget.as_millis()).unwrap_or(u64::MAX)
    }

    /// When a job is given up in its phase.
    pub(super) fn deadline(&self, job: &job::Job) -> Option<Instant> {
        let since = self
            .phase_since
            .get(&job.id)
            .filter(|_| !job.phase.is_final())?;
        let left = self.budget(job).saturating_sub(job.spent);
        since.checked_add(Duration::from_millis(left))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let asked = self.asked.values().map(|asked| asked.until);
        self.jobs
            .values()
            .filter_map(|job| self.deadline(job))
            .chain(asked)
            .min()
    }

    pub(super) fn fire_deadlines(&mut self, now: Instant) {
        let due: Vec<u64> = self
            .jobs
            .values()
            .filter(|job| self.deadline(job).is_some_and(|at| at <= now))
            .map(|job| job.id)
            .collect();
        for id in due {
            self.on_job(id, job::Input::Deadline);
        }
        let unanswered: Vec<u64> = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.until <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in unanswered {
            self.attempt_unanswered(id);
        }
    }
}
