//! One recorded step, put together again.

use std::fmt;

use otahost_core::bytes_as_base64;
use otahost_core::model::{Effect, Event, Instant};
use otahost_core::view::View;
use serde::{Deserialize, Serialize};

use super::part::{Digest, json};
use crate::failure::Failure;
use crate::guest::LogLine;
use crate::sandbox::Handled;
use crate::text::plain;

/// Longest sentence kept.
const MAX_SENTENCE: usize = 1024;
/// Longest line of a brief.
const MAX_LINE: usize = 400;

/// All that a step depended on, and what came of it. As JSON it is also what `adapter replay` reads from a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its number in the adapter's trace: higher is later. Numbers are left out.
    pub n: u64,
    /// Identity of the component that ran: `"sha256:<hex>"`.
    pub component: String,
    /// The layout of its states and job contexts.
    pub state_version: u32,
    /// What the adapter was told.
    pub event: Event,
    /// Its state before.
    #[serde(with = "bytes_as_base64")]
    pub state: Vec<u8>,
    /// What it could see: the time, the seed, the configuration, targets and jobs.
    pub view: View,
    /// What came of it.
    pub outcome: Outcome,
    /// The fuel it used.
    pub fuel: u64,
    /// What it logged.
    pub log: Vec<LogLine>,
    /// Why the host discarded the step, where it did: an effect that was not declared, an outbox that was full.
    pub discarded: Option<String>,
}

/// What came of a step, as the adapter gave it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A state and effects. Either may be known by its digest only, when it was too large to keep.
    Step {
        /// SHA-256 of the state after, `"sha256:<hex>"`.
        state_digest: String,
        /// The state after.
        #[serde(with = "optional_base64")]
        state: Option<Vec<u8>>,
        /// SHA-256 of the effects as JSON, `"sha256:<hex>"`.
        effects_digest: String,
        /// The effects in order.
        effects: Option<Vec<Effect>>,
    },
    /// The adapter refused the event, with this sentence.
    Refused(String),
    /// The step failed.
    Failed {
        /// The kind in one word, see [`FailureKind::word`](crate::FailureKind::word).
        kind: String,
        /// What happened, in words.
        text: String,
    },
}

impl Outcome {
    /// The outcome of a call, as a record keeps it.
    pub(crate) fn of(outcome: &Result<Handled, Failure>) -> Outcome {
        match outcome {
            Ok(handled) => match &handled.result {
                Ok(step) => Outcome::Step {
                    state_digest: Digest::of(&step.state).to_string(),
                    state: Some(step.state.clone()),
                    effects_digest: Digest::of(&json(&step.effects)).to_string(),
                    effects: Some(step.effects.clone()),
                },
                Err(refusal) => Outcome::Refused(sentence(refusal)),
            },
            Err(failure) => Outcome::Failed {
                kind: failure.kind.word().into(),
                text: sentence(&failure.to_string()),
            },
        }
    }
}

pub(super) fn sentence(text: &str) -> String {
    plain(text, MAX_SENTENCE)
}

/// One step in a few lines, for whoever reads along: `adapter logs`. It shows kinds, names and sizes, and no payload and no address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    /// Its number in the adapter's trace.
    pub n: u64,
    /// The wall clock then.
    pub now: Instant,
    /// Milliseconds since boot.
    pub uptime: u64,
    /// Identity of the component that ran.
    pub component: String,
    /// The event in words.
    pub event: String,
    /// `step`, `refused`, or the kind of the failure.
    pub outcome: String,
    /// The refusal or the failure, in words.
    pub reason: Option<String>,
    /// The effects in words, one each; `None` when they were too large to keep.
    pub effects: Option<Vec<String>>,
    /// True when the state after is not the one before.
    pub state_changed: bool,
    /// The fuel it used.
    pub fuel: u64,
    /// What it logged.
    pub log: Vec<LogLine>,
    /// Why the host discarded the step, where it did.
    pub discarded: Option<String>,
    /// True when all it takes to run it again was kept.
    pub replayable: bool,
}

impl fmt::Display for Brief {
    /// One line for the step, and one for each effect and line of log, indented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "step {} at {}: {} -> {}",
            self.n, self.now, self.event, self.outcome
        )?;
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        if self.state_changed {
            f.write_str(", new state")?;
        }
        if !self.replayable {
            f.write_str(", too large to be replayed")?;
        }
        if let Some(why) = &self.discarded {
            write!(f, "\n  discarded: {why}")?;
        }
        match &self.effects {
            Some(effects) => effects
                .iter()
                .try_for_each(|effect| write!(f, "\n  {effect}"))?,
            None => f.write_str("\n  effects too large to be kept")?,
        }
        self.log
            .iter()
            .try_for_each(|line| write!(f, "\n  log {:?}: {}", line.level, line.text))
    }
}

/// An event in a few words: its kind, names and sizes, and no payload and no address.
pub fn event_in_words(event: &Event) -> String {
    let words = match event {
        Event::Started(reason) => format!("started {reason:?}"),
        Event::Link(state) => format!(
            "link {} {}",
            state.link,
            if state.up { "up" } else { "down" }
        ),
        Event::Message(m) => format!(
            "message on {} {} ({} bytes)",
            m.link,
            m.topic,
            m.payload.len()
        ),
        Event::Request(r) => format!(
            "request {} {} on {} ({} bytes)",
            r.method,
            r.path,
            r.link,
            r.body.len()
        ),
        Event::Response(o) => format!("response to {}", o.tag),
        Event::Listing(o) => format!("listing for {}", o.tag),
        Event::Attempt(a) => format!(
            "failed attempt {} of job {}: status {}",
            a.attempt, a.job, a.status
        ),
        Event::Job(j) => format!("job {} {}", j.key, j.phase),
        Event::Target(id) => format!("target {id}"),
        Event::Timer(name) => format!("timer {name}"),
        Event::Extension(e) => format!("extension {}", e.name),
    };
    plain(&words, MAX_LINE)
}

/// An effect in words.
pub(crate) fn effect_in_words(effect: &Effect) -> String {
    let subject = crate::replay::subject(effect);
    let more = match effect {
        Effect::Publish(p) => format!(
            " ({} bytes, QoS {}{})",
            p.payload.len(),
            p.qos,
            if p.retain { ", retained" } else { "" }
        ),
        Effect::Respond(r) => format!(
            ": status {} ({} bytes)",
            r.response.status,
            r.response.body.len()
        ),
        Effect::StartJob(plan) => {
            let targets: Vec<_> = plan
                .installs
                .iter()
                .take(5)
                .map(|i| format!("{} {}", i.target, i.version))
                .collect();
            format!(": {}", targets.join(", "))
        }
        Effect::SetTimer(t) => format!(" after {} ms", t.after),
        Effect::Alert(a) => format!(" {:?}", a.level),
        _ => String::new(),
    };
    plain(&format!("{} {subject}{more}", effect.kind()), MAX_LINE)
}

mod optional_base64 {
    use otahost_core::bytes_as_base64;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Bytes(#[serde(with = "bytes_as_base64")] Vec<u8>);

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Bytes>::deserialize(from)?.map(|bytes| bytes.0))
    }
}
