//! What the operator allows on a target, and when: the reasons for which an update that is right still has to wait, or is refused.
//!
//! Trust says whose images may run; policy says when they may, and which of them have used up their chances. An adapter asks for
//! updates because its platform says so, and no platform knows that a call is in progress or that this image was rolled back last
//! night. Everything here is a function of its arguments, so the verdict an adapter gets in advance is the one the job gets.

pub mod authority;
pub mod memory;
pub mod versions;
pub mod windows;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::model::{ClockQuality, Instant, Millis, Reason, Verdict};
use memory::TargetMemory;
use windows::{Opening, Window};

/// Activations of a target in a day when the operator says nothing.
pub const DEFAULT_ACTIVATIONS_PER_DAY: u32 = 4;

/// When to look again at what can end at any moment: a lock file, a target that is not ready, a clock that is not set.
pub const ASK_SOON: Millis = 10_000;
/// When to look again at the latest at what ends at a known time: the clock may jump.
pub const ASK_LATEST: Millis = 15 * 60_000;

/// What happens to a request that comes outside the maintenance windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outside {
    /// It waits for the next window.
    #[default]
    Defer,
    /// It is refused.
    Refuse,
}

/// Whether a version may be replaced by an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Downgrade {
    /// It may.
    #[default]
    Allow,
    /// It may not. Versions whose order is unknown (see [`versions::compare`]) are no downgrade.
    Refuse,
}

/// What the operator allows on one target. The lock files and the readiness check are looked at by the caller and come as [`Facts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Policy {
    /// Maintenance windows; none means any time.
    pub windows: Vec<Window>,
    /// What happens to requests outside them.
    pub outside: Outside,
    /// Whether older versions may be installed.
    pub downgrade: Downgrade,
    /// Most activations in 24 hours; taken as 1 to [`memory::MAX_ACTIVATIONS`].
    pub max_activations_per_day: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            windows: Vec::new(),
            outside: Outside::default(),
            downgrade: Downgrade::default(),
            max_activations_per_day: DEFAULT_ACTIVATIONS_PER_DAY,
        }
    }
}

/// How things stand at the moment of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// The wall clock.
    pub now: Instant,
    /// How far it can be trusted.
    pub clock: ClockQuality,
    /// The job is the operator's own: a person at the device decides about times and versions.
    pub operator: bool,
    /// What locks the target (a lock file's name), if anything does.
    pub locked: Option<String>,
    /// Whether the target is ready, or why not. Only [`judge_activation`] looks at it.
    pub ready: Result<(), String>,
}

/// Whether a job may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Go,
    /// Not now.
    Wait {
        /// Why.
        reason: Reason,
        /// When it may, as far as anybody can tell.
        until: Option<Instant>,
        /// Ask again after this long at the latest; at least a second, at most [`ASK_LATEST`].
        ask_again: Millis,
    },
    /// Never.
    Refuse(Reason),
}

impl Gate {
    /// The same as the contract says it. A wait without a known end becomes one until it is asked for again.
    pub fn verdict(self, now: Instant) -> Verdict {
        match self {
            Gate::Go => Verdict::Allow,
            Gate::Wait {
                until, ask_again, ..
            } => Verdict::Defer(until.unwrap_or(now.saturating_add(ask_again))),
            Gate::Refuse(reason) => Verdict::Refuse(reason),
        }
    }

    fn wait_until(reason: Reason, until: Instant, now: Instant) -> Self {
        Gate::Wait {
            reason,
            until: Some(until),
            ask_again: until.saturating_sub(now).clamp(1_000, ASK_LATEST),
        }
    }

    fn wait(reason: Reason) -> Self {
        Gate::Wait {
            reason,
            until: None,
            ask_again: ASK_SOON,
        }
    }
}

/// Whether a job may begin: before its first byte is fetched. What can only be refused is refused before anything is waited for.
///
/// Readiness does not count yet: a device in use may well download.
pub fn judge_begin(
    policy: &Policy,
    facts: &Facts,
    old_version: Option<&str>,
    new_version: &str,
) -> Gate {
    if let Some(reason) = policy.downgrade_reason(facts.operator, "admit", old_version, new_version)
    {
        return Gate::Refuse(reason);
    }
    match policy.window_gate(facts, "admit") {
        Gate::Wait {
            reason,
            until: Some(_),
            ..
        } if policy.outside == Outside::Refuse => Gate::Refuse(reason),
        Gate::Go => lock_gate(facts, "admit"),
        stop => stop,
    }
}

/// Whether a verified image may be installed, and then whether it may be activated: ask before each. Never refuses: the request was
/// accepted and the image is here, so what stands against it now is waited for, within the deadline of the phase.
pub fn judge_activation(policy: &Policy, facts: &Facts, memory: &TargetMemory) -> Gate {
    let most = policy.max_activations_per_day;
    if let Some(until) = memory.activations_exhausted(most, facts.now) {
        let text = format!(
            "the target was activated {most} times within a day, and its policy allows no more"
        );
        let reason = Reason::new("too-many-activations", "activate", text);
        return Gate::wait_until(reason, until, facts.now);
    }
    match policy.window_gate(facts, "activate") {
        Gate::Go => {}
        stop => return stop,
    }
    match lock_gate(facts, "activate") {
        Gate::Go => {}
        stop => return stop,
    }
    match &facts.ready {
        Ok(()) => Gate::Go,
        Err(why) => Gate::wait(Reason::new(
            "not-ready",
            "activate",
            format!("the target is not ready: {why}"),
        )),
    }
}

impl Policy {
    /// Why this version may not replace that one. Also to be asked with the version a signed image names in its header, which may
    /// be another than the one the platform announced.
    pub fn downgrade_reason(
        &self,
        operator: bool,
        stage: &str,
        old_version: Option<&str>,
        new_version: &str,
    ) -> Option<Reason> {
        if operator || self.downgrade == Downgrade::Allow {
            return None;
        }
        let old = old_version?;
        (versions::compare(new_version, old) == Some(Ordering::Less)).then(|| {
            let text = format!(
                "version {new_version} is older than {old}, and the target's policy allows no downgrade"
            );
            Reason::new("downgrade", stage, text)
        })
    }

    /// `Go` or `Wait`; a wait with a known end is one for the next window.
    fn window_gate(&self, facts: &Facts, stage: &str) -> Gate {
        if facts.operator || self.windows.is_empty() {
            return Gate::Go;
        }
        if facts.clock != ClockQuality::Synced {
            return Gate::wait(Reason::new(
                "policy",
                stage,
                "there are maintenance windows, and the clock is not set yet",
            ));
        }
        match windows::opening(&self.windows, facts.now) {
            Some(Opening::Closed { opens }) => {
                let windows: Vec<_> = self.windows.iter().map(ToString::to_string).collect();
                let text = format!(
                    "it is outside the maintenance windows ({} UTC)",
                    windows.join("; ")
                );
                Gate::wait_until(Reason::new("policy", stage, text), opens, facts.now)
            }
            Some(Opening::Open { .. }) | None => Gate::Go,
        }
    }
}

fn lock_gate(facts: &Facts, stage: &str) -> Gate {
    match &facts.locked {
        None => Gate::Go,
        Some(lock) => Gate::wait(Reason::new(
            "policy",
            stage,
            format!("updates are locked by {lock}"),
        )),
    }
}

#[cfg(test)]
#[path = "policy/tests.rs"]
mod tests;
