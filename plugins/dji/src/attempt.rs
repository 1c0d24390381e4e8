//! A transfer that failed once: whether another attempt can help.
//!
//! The cloud's addresses are signed and die after hours. Then no attempt helps, and the sooner this job is told as failed the sooner
//! the cloud sends the next command, with a fresh address; what has arrived is kept and the next job goes on from there.

use otahost_adapter::{Effect, FailedAttempt, Retry, RetryDecision};

/// The answer to a failed attempt: gives up where the address is dead, and leaves everything else to the host's own rule, which
/// knows the network, the budgets and what the server said about when to come back.
pub fn on_attempt(failed: &FailedAttempt) -> Vec<Effect> {
    let why = match failed.status {
        403 => "the server refuses the address of the file (HTTP 403); it has probably expired",
        404 => "there is no file at its address (HTTP 404)",
        410 => "the file is gone from its address (HTTP 410)",
        _ => return Vec::new(),
    };
    let decision = RetryDecision::Stop(format!(
        "{why}; the next ota_create with a fresh address goes on from what is here"
    ));
    vec![Effect::RetryAttempt(Retry {
        job: failed.job.clone(),
        install: failed.install,
        decision,
    })]
}
