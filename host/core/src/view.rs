//! What an adapter may know during one step, frozen before it runs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::admit::Judge;
use crate::model::{ClockQuality, Instant, JobPlan, JobReport, JobSummary, Target, Verdict};
use crate::shared;

/// Everything the `host` interface can answer during one step. Part of the record of a step, so that a replay sees the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Wall-clock time.
    pub now: Instant,
    /// How far it can be trusted.
    pub clock: ClockQuality,
    /// Milliseconds since boot.
    pub uptime: u64,
    /// Changes with every boot.
    pub boot_id: String,
    /// Seed of the step's random bytes.
    pub seed: [u8; 32],
    /// The adapter's configuration as JSON.
    pub config: String,
    /// Optional things this host can do.
    pub features: Vec<String>,
    /// The targets granted to this adapter. Shared with other steps as long as nothing of them changes: there may be a thousand.
    #[serde(with = "shared")]
    pub targets: Arc<Vec<Target>>,
    /// Newest reports of this adapter's jobs, and of foreign jobs on its targets.
    pub jobs: Vec<JobReport>,
    /// What decides on plans.
    pub judge: Judge,
}

impl View {
    /// The newest report of the job with this key.
    pub fn job(&self, key: &str) -> Option<&JobReport> {
        self.jobs.iter().find(|j| j.key == key && !j.foreign)
    }

    /// The jobs that have not ended.
    pub fn active_jobs(&self) -> Vec<JobSummary> {
        self.jobs
            .iter()
            .filter(|j| !j.phase.is_final())
            .map(|j| JobSummary {
                key: j.key.clone(),
                foreign: j.foreign,
                phase: j.phase,
                targets: j.installs.iter().map(|i| i.target.clone()).collect(),
            })
            .collect()
    }

    /// The verdict the commit will give.
    pub fn check_job(&self, plan: &JobPlan) -> Verdict {
        self.judge.check(plan)
    }

    /// Seconds an update of this size will take: what was observed, rounded up.
    pub fn estimate_seconds(&self, target: &str, bytes: u64) -> u64 {
        self.judge.estimate_seconds(target, bytes)
    }
}
