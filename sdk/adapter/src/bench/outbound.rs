//! The bench for adapters that send HTTP requests and have files fetched: answers that come back, and pickers for what goes out.

use serde::Serialize;

use super::Bench;
use crate::{
    Adapter, Effect, Event, FailedAttempt, Fetch, FetchOutcome, FetchResult, HttpResponse, Retry,
};

impl<A: Adapter> Bench<A> {
    /// Lets the request of this tag end.
    ///
    /// # Errors
    /// As [`Bench::send`].
    pub fn outcome(&mut self, tag: &str, outcome: FetchResult) -> Result<Vec<Effect>, String> {
        self.send(Event::Response(FetchOutcome {
            tag: tag.into(),
            outcome,
        }))
    }

    /// Lets the request of this tag be answered with this value as JSON.
    ///
    /// # Errors
    /// As [`Bench::send`].
    pub fn answered(
        &mut self,
        tag: &str,
        status: u16,
        body: &impl Serialize,
    ) -> Result<Vec<Effect>, String> {
        let answer = HttpResponse::with_json(status, body);
        self.outcome(tag, FetchResult::Answered(answer))
    }

    /// Lets the request of this tag end without an answer, for this reason.
    ///
    /// # Errors
    /// As [`Bench::send`].
    pub fn unanswered(&mut self, tag: &str, why: &str) -> Result<Vec<Effect>, String> {
        self.outcome(tag, FetchResult::Failed(why.into()))
    }

    /// Lets an attempt to fetch a file for the first install of this job fail with this answer; status 0 for none at all.
    ///
    /// # Errors
    /// As [`Bench::send`].
    pub fn attempt_failed(
        &mut self,
        job: &str,
        attempt: u32,
        status: u16,
        body: impl Into<Vec<u8>>,
        reason: &str,
    ) -> Result<Vec<Effect>, String> {
        self.send(Event::Attempt(FailedAttempt {
            job: job.into(),
            install: 0,
            attempt,
            status,
            headers: Vec::new(),
            body: body.into(),
            reason: reason.into(),
        }))
    }
}

/// The HTTP requests among these effects, in order.
pub fn fetched(effects: &[Effect]) -> Vec<&Fetch> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::Fetch(f) = e {
                Some(f)
            } else {
                None
            }
        })
        .collect()
}

/// The answers to failed attempts among these effects, in order.
pub fn retries(effects: &[Effect]) -> Vec<&Retry> {
    effects
        .iter()
        .filter_map(|e| {
            if let Effect::RetryAttempt(r) = e {
                Some(r)
            } else {
                None
            }
        })
        .collect()
}
