//! Failed transfer attempts: the adapter that asked for the job reads the vendor's error and says what to do, within the host's
//! budgets. Where it says nothing, the host goes on by its own rule.

use std::time::Duration;

use otahost_core::job;
use otahost_core::model::{Event, FailedAttempt, Field, Reason, Retry, RetryDecision};
use otahost_transfer::Failure;
use tokio::time::Instant;

use super::Engine;
use super::steps::{Origin, Queued};

/// How long the adapter's answer is waited for when the host's own rule would give up.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A failed attempt, as the transfer task tells it.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) reason: Reason,
    pub(super) is_final: bool,
    pub(super) clean_retry: bool,
    /// Status, headers and the beginning of the body.
    answer: (u16, Vec<Field>, Vec<u8>),
    /// The source is to blame, so another source may help.
    of_source: bool,
}

impl Attempt {
    /// One that no server answered.
    pub(super) fn local(reason: Reason, is_final: bool) -> Self {
        Attempt {
            reason,
            is_final,
            clean_retry: false,
            answer: (0, Vec::new(), Vec::new()),
            of_source: false,
        }
    }

    pub(super) fn new(failure: &Failure) -> Self {
        let answer = failure.answer().map_or_else(
            || (0, Vec::new(), Vec::new()),
            |(status, headers, body)| {
                let headers = headers.iter().map(|(name, value)| Field {
                    name: name.clone(),
                    value: value.clone(),
                });
                (status, headers.collect(), body.to_vec())
            },
        );
        Attempt {
            reason: failure.reason(),
            is_final: failure.is_final(),
            clean_retry: failure.wants_clean_retry(),
            answer,
            of_source: matches!(failure, Failure::Source(_) | Failure::TooShort { .. }),
        }
    }
}

/// An attempt that waits for its adapter's answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) until: Instant,
    pub(super) reason: Reason,
}

impl Engine {
    pub(super) fn on_attempt(&mut self, id: u64, attempt: Attempt) {
        self.stop_transfer(id);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let owner = job.owner.clone();
        if attempt.of_source && self.runs(&owner) {
            let (status, headers, body) = attempt.answer;
            let event = FailedAttempt {
                job: job.plan.key.clone(),
                install: u32::try_from(job.current).unwrap_or(u32::MAX),
                attempt: job.attempts + 1,
                status,
                headers,
                body,
                reason: attempt.reason.text.clone(),
            };
            self.queue(&owner, Queued::new(Event::Attempt(event), Origin::Memory));
            if attempt.is_final {
                self.asked.insert(
                    id,
                    Asked {
                        until: Instant::now() + ANSWER_WITHIN,
                        reason: attempt.reason,
                    },
                );
                return;
            }
        }
        let input = self.failed(
            id,
            attempt.reason,
            attempt.is_final,
            attempt.clean_retry,
            None,
        );
        self.on_job(id, input);
    }

    /// The adapter has not answered: the host's own rule holds.
    pub(super) fn attempt_unanswered(&mut self, id: u64) {
        if let Some(asked) = self.asked.remove(&id) {
            let input = self.failed(id, asked.reason, true, false, None);
            self.on_job(id, input);
        }
    }

    /// The adapter's answer to a failed attempt. Only the first counts, and only while the job waits for another attempt.
    pub(super) fn on_retry(&mut self, adapter: &str, retry: Retry) {
        let Some(id) = self.find_job(adapter, &retry.job) else {
            return;
        };
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if job.current != usize::try_from(retry.install).unwrap_or(usize::MAX) {
            return;
        }
        let asked = self.asked.remove(&id);
        if asked.is_none() && job.until.is_none() {
            tracing::debug!(
                adapter,
                "an answer to an attempt that nobody waits for; ignored"
            );
            return;
        }
        let reason = asked
            .as_ref()
            .map(|a| a.reason.clone())
            .or_else(|| job.reason.clone());
        let reason =
            reason.unwrap_or_else(|| Reason::new("source-lost", "download", "the attempt failed"));
        match retry.decision {
            RetryDecision::Stop(text) => {
                let input = self.failed(id, Reason { text, ..reason }, true, false, None);
                self.on_job(id, input);
            }
            RetryDecision::After(wait) => {
                let backoff = self.setup.transfer.backoff;
                let wait = wait.clamp(backoff.first.min(1_000), backoff.max);
                if asked.is_some() {
                    let input = self.failed(id, reason, false, false, Some(wait));
                    self.on_job(id, input);
                } else {
                    // The host's own wait runs already; the shorter one counts.
                    self.act(id, job::Action::RetryIn(wait));
                }
            }
            RetryDecision::WithSource(source) => {
                if let Some(fault) = self.judge(adapter, true).source_fault(&source) {
                    let input = self.failed(id, fault, true, false, None);
                    return self.on_job(id, input);
                }
                if asked.is_some() {
                    let input = self.failed(id, reason, false, false, Some(0));
                    self.on_job(id, input);
                }
                self.on_job(id, job::Input::Retry(Some(source)));
            }
        }
    }

    fn failed(
        &self,
        id: u64,
        reason: Reason,
        is_final: bool,
        clean_retry: bool,
        wait: Option<u64>,
    ) -> job::Input {
        let failed = self.jobs.get(&id).map_or(0, |job| job.attempts) + 1;
        let seed = self.platform.outside.seed();
        let random = seed
            .iter()
            .take(8)
            .fold(0, |number, byte| (number << 8) | u64::from(*byte));
        job::Input::AttemptFailed {
            reason,
            is_final,
            clean_retry,
            wait: wait.unwrap_or_else(|| self.setup.transfer.backoff.wait(failed, random)),
            budget: self.setup.transfer.attempts,
        }
    }
}
