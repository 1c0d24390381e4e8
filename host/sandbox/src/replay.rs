//! Runs recorded steps again: to see what a step did and why, to show that a component is the function it should be, and to try an
//! adapter's next version on what this device has really met.
//!
//! Each step begins with the state that was recorded, never with what the step before it gave now: one difference stays one difference.

mod differences;
mod shown;

use std::fmt;
use std::sync::Arc;

use otahost_core::model::Event;
use serde::{Deserialize, Serialize};

use self::differences::{compare_bytes, compare_effects};
use crate::failure::{Failure, FailureKind};
use crate::sandbox::Adapter;
use crate::trace::{Outcome, StepRecord, effect_in_words, event_in_words};

pub(crate) use differences::subject;

/// One step that was run again. `Display` gives lines to read; as JSON it is `adapter replay --json`.
///
/// No address is shown with its query, and no value whose name says that it is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The number of the step.
    pub n: u64,
    /// The event in words.
    pub event: String,
    /// Identity of the component that ran then.
    pub recorded_by: String,
    /// Identity of the component that ran now.
    pub run_by: String,
    /// The fuel used then.
    pub fuel_recorded: u64,
    /// The fuel used now; `None` when it did not run. Another component uses another amount; that is no difference.
    pub fuel_now: Option<u64>,
    /// What was found.
    pub finding: Finding,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// The same effects and the same state; or the same refusal, or the same failure.
    Same,
    /// Not the same.
    Differs {
        /// Each difference; at least one.
        differences: Vec<Difference>,
        /// What came of the step then, in words.
        recorded: Vec<String>,
        /// What came of it now, in words.
        now: Vec<String>,
    },
    /// It cannot be said; why.
    Failed(String),
}

/// One difference, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What differs: `outcome`, `state`, or an effect by its number and subject.
    pub what: String,
    /// The field within it, as a path: `payload.data.output.status`. Empty for the whole.
    pub field: String,
    /// What was recorded.
    pub recorded: String,
    /// What it is now.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        write!(f, ": {} -> {}", self.recorded, self.now)
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} ({}): ", self.n, self.event)?;
        match &self.finding {
            Finding::Same => f.write_str("the same"),
            Finding::Failed(why) => write!(f, "not replayed: {why}"),
            Finding::Differs { differences, .. } => {
                write!(f, "differs")?;
                differences
                    .iter()
                    .try_for_each(|difference| write!(f, "\n  {difference}"))
            }
        }
    }
}

/// Runs recorded steps on one component.
#[derive(Debug, Clone)]
pub struct Replayer {
    adapter: Adapter,
    state_version: u32,
}

/// Runs one recorded step on this component. For several there is [`Replayer`].
pub fn replay(adapter: &Adapter, record: &StepRecord) -> Replay {
    match Replayer::new(adapter) {
        Ok(replayer) => replayer.replay(record),
        Err(failure) => {
            let why = format!("the component does not describe itself: {failure}");
            report(adapter, record, None, Finding::Failed(why))
        }
    }
}

fn report(adapter: &Adapter, record: &StepRecord, fuel: Option<u64>, finding: Finding) -> Replay {
    Replay {
        n: record.n,
        event: event_in_words(&record.event),
        recorded_by: record.component.clone(),
        run_by: adapter.digest().into(),
        fuel_recorded: record.fuel,
        fuel_now: fuel,
        finding,
    }
}

impl Replayer {
    /// Asks the component for its state version.
    ///
    /// # Errors
    /// As [`Adapter::describe`].
    pub fn new(adapter: &Adapter) -> Result<Replayer, Failure> {
        Ok(Replayer {
            state_version: adapter.describe()?.state_version,
            adapter: adapter.clone(),
        })
    }

    /// Runs one recorded step. A record of another state version is migrated first, on a copy: the state before, the contexts of the
    /// adapter's jobs, and the recorded state after, which the new one is compared with.
    pub fn replay(&self, record: &StepRecord) -> Replay {
        let adapter = &self.adapter;
        let migrated;
        let input = if record.state_version == self.state_version {
            record
        } else {
            migrated = match self.migrate(record) {
                Ok(migrated) => migrated,
                Err(why) => return report(adapter, record, None, Finding::Failed(why)),
            };
            &migrated
        };
        let outcome = adapter.handle(&Arc::new(input.view.clone()), &input.state, &input.event);
        let fuel = match &outcome {
            Ok(handled) => handled.fuel,
            Err(failure) => failure.fuel,
        };
        let finding = match &outcome {
            Err(Failure {
                kind: kind @ (FailureKind::Timeout(_) | FailureKind::Engine(_)),
                ..
            }) => Finding::Failed(format!("this device failed, not the component: {kind}")),
            _ => compare(&input.outcome, &Outcome::of(&outcome)),
        };
        report(adapter, record, Some(fuel), finding)
    }

    /// The record with state and contexts of today's version.
    fn migrate(&self, record: &StepRecord) -> Result<StepRecord, String> {
        let from = record.state_version;
        let mut record = record.clone();
        // The very first step has no state, and so nothing to migrate.
        if !record.state.is_empty() {
            record.state = made(
                "the state before",
                from,
                self.adapter.migrate(from, &record.state),
            )?;
        }
        if let Outcome::Step {
            state: Some(state), ..
        } = &mut record.outcome
        {
            *state = made(
                "the state after",
                from,
                self.adapter.migrate(from, state.as_slice()),
            )?;
        }
        let in_event = match &mut record.event {
            Event::Job(report) => Some(report),
            _ => None,
        };
        let reports = record.view.jobs.iter_mut().chain(in_event);
        for report in reports.filter(|report| !report.foreign && !report.context.is_empty()) {
            let what = format!("the context of job {}", report.key);
            let context = self.adapter.migrate_context(from, &report.context);
            report.context = made(&what, from, context)?;
        }
        Ok(record)
    }
}

fn made(
    what: &str,
    from: u32,
    answer: Result<Result<Vec<u8>, String>, Failure>,
) -> Result<Vec<u8>, String> {
    let why = match answer {
        Ok(Ok(bytes)) => return Ok(bytes),
        Ok(Err(refusal)) => refusal,
        Err(failure) => failure.to_string(),
    };
    Err(format!(
        "{what} (state version {from}) cannot be migrated: {why}"
    ))
}

fn compare(recorded: &Outcome, now: &Outcome) -> Finding {
    if let Outcome::Failed { kind, text } = recorded
        && (kind == "timeout" || kind == "engine")
    {
        return Finding::Failed(format!(
            "when it was recorded the device failed, not the component: {text}"
        ));
    }
    let mut differences = Vec::new();
    let whole = |what: &str, field: &str, recorded: &str, now: &str| Difference {
        what: what.into(),
        field: field.into(),
        recorded: recorded.into(),
        now: now.into(),
    };
    match (recorded, now) {
        (
            Outcome::Step {
                state_digest: digest_then,
                state: state_then,
                effects_digest: effects_digest_then,
                effects: effects_then,
            },
            Outcome::Step {
                state_digest: digest_now,
                state: state_now,
                effects_digest,
                effects,
            },
        ) => {
            match (effects_then, effects) {
                (Some(then), Some(now)) => compare_effects(then, now, &mut differences),
                _ if effects_digest_then == effects_digest => {}
                _ => differences.push(whole("effects", "", effects_digest_then, effects_digest)),
            }
            match (state_then, state_now) {
                (Some(then), Some(now)) => compare_bytes("state", then, now, &mut differences),
                _ if digest_then == digest_now => {}
                _ => differences.push(whole("state", "", digest_then, digest_now)),
            }
        }
        (Outcome::Refused(then), Outcome::Refused(now)) if then == now => {}
        (Outcome::Refused(then), Outcome::Refused(now)) => {
            differences.push(whole("outcome", "refusal", then, now));
        }
        (
            Outcome::Failed {
                kind: kind_then,
                text: text_then,
            },
            Outcome::Failed { kind, text },
        ) => {
            if (kind_then, text_then) != (kind, text) {
                differences.push(whole("outcome", "failure", text_then, text));
            }
        }
        (then, now) => differences.push(whole("outcome", "", &in_short(then), &in_short(now))),
    }
    if differences.is_empty() {
        return Finding::Same;
    }
    Finding::Differs {
        differences,
        recorded: in_words(recorded),
        now: in_words(now),
    }
}

fn in_short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Step {
            effects: Some(effects),
            ..
        } => format!("a step with {} effects", effects.len()),
        Outcome::Step { .. } => "a step".into(),
        Outcome::Refused(why) => format!("refused ({why})"),
        Outcome::Failed { text, .. } => format!("failed ({text})"),
    }
}

fn in_words(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Step {
            effects: Some(effects),
            ..
        } => effects.iter().map(effect_in_words).collect(),
        other => vec![in_short(other)],
    }
}
