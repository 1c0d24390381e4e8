//! Plans: what a `start-job` becomes, what decides on it, and what an adapter may see of targets and jobs.

use std::collections::{BTreeMap, BTreeSet};

use otahost_core::admit::Judge;
use otahost_core::job::{self, Applied, GateAt, Job};
use otahost_core::model::{Event, JobPlan, JobReport, Reason, Verdict};
use otahost_core::view::View;
use otahost_journal::{Change, Key, json};

use super::steps::{Origin, Queued};
use super::{Engine, Release};

/// Ended jobs that are remembered.
const MAX_ENDED_JOBS: usize = 50;

impl Engine {
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

    /// A plan of an adapter. `known` says that the view of its step showed an active job with this key: what has ended since then is
    /// answered with its end and not started again.
    pub(super) fn start_job(
        &mut self,
        adapter: &str,
        plan: JobPlan,
        known: bool,
        commanded: bool,
        changes: &mut Vec<Change>,
        releases: &mut Vec<Release>,
    ) {
        let now = self.now();
        let holds = |job: &Job| job.holds_key(now) || known;
        let layout = self.layout_of(adapter);
        let mine = self
            .find_job(adapter, &plan.key)
            .filter(|id| self.jobs.get(id).is_some_and(holds));
        if let Some(id) = mine
            && let Some(job) = self.jobs.get_mut(&id)
        {
            job.plan.context = plan.context;
            job.context_version = layout;
            let again = job.phase.is_final();
            if again && !job.unreported.iter().any(|name| name == adapter) {
                job.unreported.push(adapter.to_owned());
            }
            changes.push(Change::Put(Key::Job(id), json(job)));
            if again {
                // Asked again for what is done: the same final report answers.
                self.tell_job(id);
            }
            return;
        }
        match self.judge(adapter, commanded).check(&plan) {
            Verdict::Allow | Verdict::Defer(_) => {
                self.admit_job(adapter, plan, commanded, changes, releases)
            }
            Verdict::Busy(holder) => {
                let text = format!("the target is being updated by job `{holder}`");
                self.reject_job(adapter, plan, Reason::new("busy", "admit", text), changes);
            }
            Verdict::Refuse(reason) => self.reject_job(adapter, plan, reason, changes),
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
        job.context_version = self.layout_of(owner);
        job.unreported.push(owner.to_owned());
        changes.push(Change::Put(Key::Job(id), json(&job)));
        self.jobs.insert(id, job);
        self.tell_job(id);
    }

    /// Takes a job in, in phase `queued`. Jobs of lesser owners on its targets make way; the verdict has seen to it that they can.
    pub(super) fn admit_job(
        &mut self,
        owner: &str,
        plan: JobPlan,
        commanded: bool,
        changes: &mut Vec<Change>,
        releases: &mut Vec<Release>,
    ) {
        let in_the_way: Vec<u64> = self
            .jobs
            .values()
            .filter(|job| {
                !job.phase.is_final()
                    && job
                        .targets()
                        .any(|t| plan.installs.iter().any(|i| i.target == t))
            })
            .map(|job| job.id)
            .collect();
        for id in in_the_way {
            let text = format!("`{owner}` goes first on this target");
            self.move_job(
                id,
                job::Input::Cancel(Reason::new("authority", "admit", text)),
                changes,
                releases,
            );
        }
        let (id, now) = (self.next_job, self.now());
        self.next_job += 1;
        let version = |target: &str| self.targets.get(target).and_then(|t| t.version.clone());
        let versions = plan.installs.iter().map(|i| version(&i.target)).collect();
        let is_own = |target: &str| {
            self.setup
                .targets
                .iter()
                .any(|t| t.id == target && t.parent.is_none())
        };
        let own: Vec<bool> = plan.installs.iter().map(|i| is_own(&i.target)).collect();
        tracing::info!(owner, id, key = plan.key, "job accepted");
        let mut job = Job::new(id, owner, plan, versions, &own, now);
        job.commanded = commanded;
        job.context_version = self.layout_of(owner);
        changes.push(Change::Put(Key::Job(id), json(&job)));
        self.jobs.insert(id, job);
        self.phase_since.insert(id, tokio::time::Instant::now());
        self.tell_job(id);
        releases.push(Release::Act(id, job::Action::CheckGate(GateAt::Begin)));
    }

    pub(super) fn job_effect(
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
    pub(super) fn forget_old_jobs(&mut self, changes: &mut Vec<Change>) {
        let now = self.now();
        // Another's job is no reason to keep it for an adapter that may never run again.
        let told = |job: &Job| {
            let mut owed = job.unreported.iter();
            owed.all(|name| *name != job.owner && !self.runs(name))
        };
        let is_old = |job: &&Job| job.phase.is_final() && told(job) && !job.holds_key(now);
        let old: Vec<u64> = self
            .jobs
            .values()
            .filter(is_old)
            .map(|job| job.id)
            .collect();
        for id in old.iter().take(old.len().saturating_sub(MAX_ENDED_JOBS)) {
            self.jobs.remove(id);
            changes.push(Change::Delete(Key::Job(*id)));
        }
    }

    /// What decides on plans of an adapter, or of the operator.
    pub(super) fn judge(&self, owner: &str, commanded: bool) -> Judge {
        let now = self.now();
        let adapter = self.adapters.get(owner);
        let mine = || self.jobs.values().filter(|job| job.owner == owner);
        Judge {
            targets: self.picture(owner).judged,
            downloads: adapter.map(|state| state.grants.download.clone()),
            files: adapter.map_or_else(BTreeMap::new, |state| {
                let links = state.grants.links.iter();
                links
                    .filter(|(_, grant)| !grant.files.is_empty())
                    .map(|(name, grant)| (name.clone(), grant.files.clone()))
                    .collect()
            }),
            taken: mine()
                .filter(|job| job.holds_key(now))
                .map(|job| job.plan.key.clone())
                .collect(),
            active: mine().filter(|job| !job.phase.is_final()).count(),
            commanded,
            now,
            clock: self.platform.outside.clock(),
            rate: self.rate,
        }
    }

    /// What an adapter sees during one step.
    pub(super) fn view(&self, adapter: &str, commanded: bool) -> View {
        let state = self.adapters.get(adapter);
        let granted: BTreeSet<&str> = state
            .map(|s| s.grants.targets.iter().map(String::as_str).collect())
            .unwrap_or_default();
        let concerns = |job: &&Job| {
            job.owner == adapter
                || (!job.phase.is_final() && job.targets().any(|t| granted.contains(t)))
        };
        let jobs: Vec<JobReport> = self
            .jobs
            .values()
            .rev()
            .filter(concerns)
            .map(|job| {
                let mut report = job.report(job.owner != adapter, self.rate_of(job.id));
                if self.is_withheld(job) {
                    report.context.clear();
                }
                report
            })
            .collect();
        View {
            now: self.now(),
            clock: self.platform.outside.clock(),
            uptime: self.platform.outside.uptime(),
            boot_id: self.boot_id.clone(),
            seed: self.platform.outside.seed(),
            config: state.map(|s| s.config.clone()).unwrap_or_default(),
            features: Vec::new(),
            targets: self.picture(adapter).seen,
            jobs,
            judge: self.judge(adapter, commanded),
        }
    }
}
