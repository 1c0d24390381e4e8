//! What is known of targets, and the one picture of it that every step and every judge share.
//!
//! A gateway may have a thousand devices behind it, and each step sees them all. To copy what is known of each for every step would
//! cost more than the step; so it is copied when something of it has changed, and shared until then.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use otahost_core::admit::JudgedTarget;
use otahost_core::job::Job;
use otahost_core::model::{Health, Target};
use otahost_core::policy::authority;

use super::{Engine, TargetState};

/// What the engine knows of each target. Whoever could change something of it makes every picture out of date.
#[derive(Debug, Default)]
pub(super) struct Targets {
    states: BTreeMap<String, TargetState>,
    changes: u64,
    pictures: Mutex<BTreeMap<String, (AsOf, Picture)>>,
}

/// The targets as one owner of jobs may know them.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// For the view of a step.
    pub(super) seen: Arc<Vec<Target>>,
    /// For what decides on plans.
    pub(super) judged: Arc<BTreeMap<String, JudgedTarget>>,
}

/// What a picture depends on.
#[derive(Debug, PartialEq, Eq)]
struct AsOf {
    changes: u64,
    granted: Option<Vec<String>>,
    /// The active jobs, and whether each can still be cancelled.
    jobs: Vec<(u64, bool)>,
}

impl Deref for Targets {
    type Target = BTreeMap<String, TargetState>;

    fn deref(&self) -> &Self::Target {
        &self.states
    }
}

impl FromIterator<(String, TargetState)> for Targets {
    fn from_iter<I: IntoIterator<Item = (String, TargetState)>>(states: I) -> Self {
        Targets {
            states: states.into_iter().collect(),
            ..Targets::default()
        }
    }
}

impl Targets {
    /// The one way to change what is known of a target.
    pub(super) fn get_mut(&mut self, target: &str) -> Option<&mut TargetState> {
        self.changes += 1;
        self.states.get_mut(target)
    }
}

impl Engine {
    /// The targets as this adapter, or the operator, may know them now.
    pub(super) fn picture(&self, owner: &str) -> Picture {
        let granted = self.adapters.get(owner).map(|a| &a.grants.targets);
        let active = self.jobs.values().filter(|job| !job.phase.is_final());
        let as_of = AsOf {
            changes: self.targets.changes,
            granted: granted.cloned(),
            jobs: active.map(|j| (j.id, j.phase.is_past_return())).collect(),
        };
        let pictures = &self.targets.pictures;
        let mut pictures = pictures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, picture)) = pictures.get(owner)
            && *known == as_of
        {
            return picture.clone();
        }
        let picture = self.take_picture(owner, granted.map(Vec::as_slice));
        pictures.insert(owner.to_owned(), (as_of, picture.clone()));
        picture
    }

    fn take_picture(&self, owner: &str, granted: Option<&[String]>) -> Picture {
        let granted: Option<BTreeSet<&str>> =
            granted.map(|names| names.iter().map(String::as_str).collect());
        let holders = self.holders();
        let (mut seen, mut judged) = (Vec::new(), BTreeMap::new());
        for setup in &self.setup.targets {
            let id = setup.id.as_str();
            // The operator's are all.
            if granted.as_ref().is_some_and(|names| !names.contains(id)) {
                continue;
            }
            let Some(state) = self.targets.get(id) else {
                continue;
            };
            let holder = holders.get(id).copied();
            let busy = holder.map(|job| key_for(job, owner));
            if granted.is_some() {
                seen.push(Target {
                    id: setup.id.clone(),
                    parent: setup.parent.clone(),
                    version: state.version.clone(),
                    health: state.health.unwrap_or(Health::Unknown),
                    observed: state.observed,
                    attributes: setup.attributes.clone(),
                    busy: busy.clone(),
                });
            }
            let target = JudgedTarget {
                busy,
                preempts: holder.is_some_and(|job| {
                    !job.phase.is_past_return()
                        && authority::outranks(&setup.authority, owner, &job.owner)
                }),
                offline: state.health == Some(Health::Offline),
                version: state.version.clone(),
                policy: setup.policy.clone(),
                memory: state.memory.clone(),
            };
            judged.insert(setup.id.clone(), target);
        }
        Picture {
            seen: Arc::new(seen),
            judged: Arc::new(judged),
        }
    }

    /// The active job on each target that has one. Asked for all at once: there may be a thousand of both.
    fn holders(&self) -> BTreeMap<&str, &Job> {
        self.jobs
            .values()
            .rev()
            .filter(|job| !job.phase.is_final())
            .flat_map(|job| job.targets().map(move |target| (target, job)))
            .collect()
    }
}

/// The key of a job as `owner` may know it.
fn key_for(job: &Job, owner: &str) -> String {
    if job.owner == owner {
        job.plan.key.clone()
    } else {
        "-".to_owned()
    }
}
