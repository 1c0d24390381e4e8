//! Taking a step to pieces, and putting it together again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use otahost_core::admit::{Judge, JudgedTarget};
use otahost_core::model::{Effect, Event, JobReport, Target};
use otahost_core::view::View;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::part::{Digest, Parts, Slot, json, put, put_digested, put_json, put_own};
use super::record::{Brief, Outcome, StepRecord, effect_in_words, event_in_words, sentence};
use crate::failure::Failure;
use crate::guest::LogLine;
use crate::sandbox::{Adapter, Handled};
use crate::text::plain;

/// Most bytes of log kept with a step.
const MAX_LOG: usize = 2 * 1024;
/// Most jobs that are recorded: of a device with more, what happened is kept and cannot be run again.
const MAX_JOBS: usize = 200;
/// Most targets, for the same reason.
const MAX_TARGETS: usize = 200;
/// The field of the view that is taken apart once more: what decides on plans changes in small places.
const JUDGE: &str = "judge";

/// A step as it is stored: what is small, and the digests of what is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stored {
    component: String,
    state_version: u32,
    /// In words, for a reader who has not the event.
    about: String,
    event: Slot,
    state: Slot,
    /// The fields of the view, whatever they are in this release.
    view: BTreeMap<String, Slot>,
    judge: BTreeMap<String, Slot>,
    outcome: StoredOutcome,
    fuel: u64,
    log: Slot,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    discarded: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StoredOutcome {
    Step {
        state: Slot,
        effects: Slot,
        effects_digest: Digest,
    },
    Refused(String),
    Failed {
        kind: String,
        text: String,
    },
}

/// A step, ready for a [`TraceRing`](super::TraceRing). Made where the step ran: it costs the serialising of all the adapter saw.
#[derive(Debug, Clone)]
pub struct Recording {
    stored: Stored,
    /// It as its row.
    pub(super) json: Vec<u8>,
    /// The parts it names.
    pub(super) uses: Vec<Digest>,
    /// In the order in which they are worth keeping.
    pub(super) parts: Parts,
}

/// Makes the recordings of one adapter. What its steps have in common, the targets and what the operator has set, is taken to pieces
/// once, not with each of them. Clones share that.
#[derive(Clone, Default)]
pub struct Recorder {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    targets: Option<Shared<Arc<Vec<Target>>>>,
    judged: Option<Shared<Arc<BTreeMap<String, JudgedTarget>>>>,
    config: Option<Shared<String>>,
    downloads: Option<Shared<Option<Vec<String>>>>,
    files: Option<Shared<BTreeMap<String, Vec<String>>>>,
    /// The state that was recorded last: that after a step is the one before the next.
    state: Option<(Digest, Arc<[u8]>)>,
}

/// A value, and its slot with the bytes for it.
struct Shared<T> {
    value: T,
    slot: Slot,
    parts: Parts,
}

/// The slot of a value that most steps have in common, made anew when it is not the `same` as the last. The value is held, so that no
/// other can have its address.
fn put_shared<T: Clone>(
    value: &T,
    known: &mut Option<Shared<T>>,
    parts: &mut Parts,
    same: impl FnOnce(&T, &T) -> bool,
    put: impl FnOnce(&T, &mut Parts) -> Slot,
) -> Slot {
    let shared = match known.take() {
        Some(shared) if same(&shared.value, value) => shared,
        _ => {
            let mut parts = Parts::new();
            Shared {
                value: value.clone(),
                slot: put(value, &mut parts),
                parts,
            }
        }
    };
    parts.extend(shared.parts.iter().cloned());
    let slot = shared.slot.clone();
    *known = Some(shared);
    slot
}

/// The slot of a state. It is always a part, because the next step begins with the same.
fn put_state(state: &[u8], known: &mut Known, parts: &mut Parts) -> Slot {
    let same = known.state.take().filter(|(_, bytes)| **bytes == *state);
    let (digest, bytes) = same.unwrap_or_else(|| (Digest::of(state), state.into()));
    known.state = Some((digest, bytes.clone()));
    put_digested(digest, bytes, parts)
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Records what [`Adapter::handle`] was given and what it gave. `state_version` is the one the adapter describes.
    pub fn record(
        &self,
        adapter: &Adapter,
        state_version: u32,
        view: &View,
        state: &[u8],
        event: &Event,
        outcome: &Result<Handled, Failure>,
    ) -> Recording {
        let mut parts = Parts::new();
        let stored_event = put(event, &mut parts);
        // Only what is kept for speed; a panic elsewhere has not harmed it.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stored_state = put_state(state, &mut known, &mut parts);
        let (view, judge) = put_view(view, &mut known, &mut parts);
        let (fuel, log) = match outcome {
            Ok(handled) => (handled.fuel, &handled.log),
            Err(failure) => (failure.fuel, &failure.log),
        };
        let outcome = match outcome {
            Ok(handled) => match &handled.result {
                Ok(step) => {
                    let (effects, effects_digest) = put_json(json(&step.effects), &mut parts);
                    StoredOutcome::Step {
                        effects_digest,
                        effects,
                        state: put_state(&step.state, &mut known, &mut parts),
                    }
                }
                Err(refusal) => StoredOutcome::Refused(sentence(refusal)),
            },
            Err(failure) => StoredOutcome::Failed {
                kind: failure.kind.word().into(),
                text: sentence(&failure.to_string()),
            },
        };
        drop(known);
        let stored = Stored {
            component: adapter.digest().into(),
            state_version,
            about: event_in_words(event),
            event: stored_event,
            state: stored_state,
            view,
            judge,
            outcome,
            fuel,
            log: put_own(&beginning(log), &mut parts),
            discarded: None,
        };
        Recording {
            json: stored.to_json(),
            uses: stored.parts(),
            stored,
            parts,
        }
    }
}

impl Recording {
    /// Notes why the host discarded the step.
    pub fn discarded(mut self, why: &str) -> Recording {
        self.stored.discarded = Some(sentence(why));
        self.json = self.stored.to_json();
        self
    }
}

fn beginning(log: &[LogLine]) -> Vec<LogLine> {
    let mut room = MAX_LOG;
    let mut kept = Vec::new();
    for line in log {
        let text = plain(&line.text, room);
        room -= text.len();
        kept.push(LogLine {
            level: line.level,
            text,
        });
        if room == 0 {
            break;
        }
    }
    kept
}

type Fields = BTreeMap<String, Slot>;

/// Each field is a part of its own: the time changes with every step, the targets hardly ever. A field that a later release adds does
/// not compile here until it is recorded too.
fn put_view(view: &View, known: &mut Known, parts: &mut Parts) -> (Fields, Fields) {
    let View {
        now,
        clock,
        uptime,
        boot_id,
        seed,
        config,
        features,
        targets,
        jobs,
        judge,
    } = view;
    let Judge {
        targets: judged,
        downloads,
        files,
        taken,
        active,
        commanded,
        now: judged_now,
        clock: judged_clock,
        rate,
    } = judge;
    let few = targets.len() <= MAX_TARGETS && judged.len() <= MAX_TARGETS;
    let mut fields = Fields::new();
    let mut field = |name: &str, slot: Slot| fields.insert(name.to_owned(), slot);
    field("now", Slot::Is((*now).into()));
    field("clock", put(clock, parts));
    field("uptime", Slot::Is((*uptime).into()));
    field("boot_id", put(boot_id, parts));
    field("seed", Slot::Is(seed.to_vec().into()));
    field(
        "config",
        put_shared(config, &mut known.config, parts, String::eq, put),
    );
    field("features", put(features, parts));
    field(
        "targets",
        match few {
            true => put_shared(targets, &mut known.targets, parts, Arc::ptr_eq, |t, p| {
                put(&**t, p)
            }),
            false => Slot::Gone,
        },
    );
    field("jobs", put_jobs(jobs, parts));
    let mut judge = Fields::new();
    let mut field = |name: &str, slot: Slot| judge.insert(name.to_owned(), slot);
    field(
        "targets",
        match few {
            true => put_shared(judged, &mut known.judged, parts, Arc::ptr_eq, |t, p| {
                put(&**t, p)
            }),
            false => Slot::Gone,
        },
    );
    let known_downloads = &mut known.downloads;
    field(
        "downloads",
        put_shared(downloads, known_downloads, parts, Option::eq, put),
    );
    field(
        "files",
        put_shared(files, &mut known.files, parts, BTreeMap::eq, put),
    );
    field("taken", put(taken, parts));
    field("active", Slot::Is((*active).into()));
    field("commanded", Slot::Is((*commanded).into()));
    field("now", Slot::Is((*judged_now).into()));
    field("clock", put(judged_clock, parts));
    field("rate", Slot::Is((*rate).into()));
    (fields, judge)
}

fn put_jobs(jobs: &[JobReport], parts: &mut Parts) -> Slot {
    match jobs.len() {
        0..=MAX_JOBS => put(jobs, parts),
        _ => Slot::Gone,
    }
}

/// Where the parts are.
pub(super) trait Store {
    fn part(&self, digest: Digest) -> Option<Arc<[u8]>>;
}

/// What is missing of a record.
pub(super) type Missing = Vec<String>;

impl Stored {
    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a stored step is plain data")
    }

    /// The digests of all parts.
    pub(super) fn parts(&self) -> Vec<Digest> {
        let mut slots = vec![&self.event, &self.state, &self.log];
        slots.extend(self.view.values());
        slots.extend(self.judge.values());
        if let StoredOutcome::Step { state, effects, .. } = &self.outcome {
            slots.extend([state, effects]);
        }
        let mut digests: Vec<Digest> = slots.into_iter().filter_map(Slot::part).collect();
        digests.sort();
        digests.dedup();
        digests
    }

    /// The record whole.
    pub(super) fn record(&self, n: u64, store: &impl Store) -> Result<StepRecord, Missing> {
        let mut missing = Missing::new();
        let event = get(&self.event, "the event", store, &mut missing);
        let state = bytes(&self.state, store).or_else(|| {
            missing.push("the state".into());
            None
        });
        let view = self.view(store, &mut missing);
        match (event, state, view) {
            (Some(event), Some(state), Some(view)) => Ok(StepRecord {
                n,
                component: self.component.clone(),
                state_version: self.state_version,
                event,
                state,
                view,
                outcome: self.outcome(store),
                fuel: self.fuel,
                log: self.log(store),
                discarded: self.discarded.clone(),
            }),
            _ => {
                missing.sort();
                missing.dedup();
                Err(missing)
            }
        }
    }

    fn view(&self, store: &impl Store, missing: &mut Missing) -> Option<View> {
        let before = missing.len();
        let mut whole = |fields: &Fields| -> Map<String, Value> {
            let field = |(name, slot): (&String, &Slot)| {
                let value = get(slot, &format!("the view's {name}"), store, missing)?;
                Some((name.clone(), value))
            };
            fields.iter().filter_map(field).collect()
        };
        let mut fields = whole(&self.view);
        fields.insert(JUDGE.into(), Value::Object(whole(&self.judge)));
        if missing.len() > before {
            return None;
        }
        let view = serde_json::from_value(Value::Object(fields));
        if view.is_err() {
            missing.push("a view this release can read".into());
        }
        view.ok()
    }

    fn outcome(&self, store: &impl Store) -> Outcome {
        match &self.outcome {
            StoredOutcome::Step {
                state,
                effects,
                effects_digest,
            } => Outcome::Step {
                state_digest: state.part().map(|d| d.to_string()).unwrap_or_default(),
                state: bytes(state, store),
                effects_digest: effects_digest.to_string(),
                effects: self.effects(effects, store),
            },
            StoredOutcome::Refused(why) => Outcome::Refused(why.clone()),
            StoredOutcome::Failed { kind, text } => Outcome::Failed {
                kind: kind.clone(),
                text: text.clone(),
            },
        }
    }

    fn effects(&self, slot: &Slot, store: &impl Store) -> Option<Vec<Effect>> {
        get(slot, "", store, &mut Missing::new())
    }

    fn log(&self, store: &impl Store) -> Vec<LogLine> {
        get(&self.log, "", store, &mut Missing::new()).unwrap_or_default()
    }

    /// The record in a few lines.
    pub(super) fn brief(&self, n: u64, store: &impl Store) -> Brief {
        let number = |name: &str| match self.view.get(name) {
            Some(Slot::Is(value)) => value.as_u64().unwrap_or_default(),
            _ => 0,
        };
        let (outcome, reason, effects, state_changed) = match &self.outcome {
            StoredOutcome::Step { state, effects, .. } => {
                let effects = self.effects(effects, store);
                let words = effects.map(|effects| effects.iter().map(effect_in_words).collect());
                ("step".to_owned(), None, words, *state != self.state)
            }
            StoredOutcome::Refused(why) => {
                ("refused".to_owned(), Some(why.clone()), Some(vec![]), false)
            }
            StoredOutcome::Failed { kind, text } => {
                (kind.clone(), Some(text.clone()), Some(vec![]), false)
            }
        };
        Brief {
            n,
            now: number("now"),
            uptime: number("uptime"),
            component: self.component.clone(),
            event: self.about.clone(),
            outcome,
            reason,
            effects,
            state_changed,
            fuel: self.fuel,
            log: self.log(store),
            discarded: self.discarded.clone(),
            replayable: self.record(n, store).is_ok(),
        }
    }
}

fn bytes(slot: &Slot, store: &impl Store) -> Option<Vec<u8>> {
    store.part(slot.part()?).map(|bytes| bytes.to_vec())
}

fn get<T: DeserializeOwned>(
    slot: &Slot,
    what: &str,
    store: &impl Store,
    missing: &mut Missing,
) -> Option<T> {
    let value = match slot {
        Slot::Is(value) => serde_json::from_value(value.clone()).ok(),
        Slot::Part(digest, _) => store
            .part(*digest)
            .and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        Slot::Gone => None,
    };
    if value.is_none() {
        missing.push(what.to_owned());
    }
    value
}
