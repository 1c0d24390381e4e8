//! State and contexts from the layout of one version of an adapter to that of another.
//!
//! A job's context is tagged with the state version of the release that wrote it. A release that is returned to cannot read what a
//! newer one wrote on probation, and without the platform's ids in it nobody could be told how the job ended. So the reports of such a
//! job wait: the last one stays owed, in the job's row, until a release that reads it runs, or the platform asks for the same again.

use std::collections::BTreeMap;

use otahost_core::job::Job;
use otahost_journal::{Change, Key, json};
use otahost_sandbox::Failure;

use super::Engine;
use super::steps::Queued;
use crate::platform::AdapterSetup;

/// A job's context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    /// State version of the release that wrote it.
    pub(super) layout: u32,
    pub(super) bytes: Vec<u8>,
}

/// Contexts by the number of their job.
pub(super) type Contexts = BTreeMap<u64, Context>;

/// What is stored of an adapter, in the layout of another version.
#[derive(Debug)]
pub(super) struct Migrated {
    pub(super) state: Vec<u8>,
    /// Those that had another layout, by the number of their job.
    pub(super) contexts: BTreeMap<u64, Vec<u8>>,
}

/// Makes a copy in the layout of this version. `from` is the layout of the state. Blocks.
pub(super) fn migrate(
    setup: &AdapterSetup,
    from: u32,
    state: &[u8],
    contexts: &Contexts,
) -> Result<Migrated, String> {
    let to = setup.description.state_version;
    let made = |what: &str, answer: Result<Result<Vec<u8>, String>, Failure>| {
        answer
            .map_err(|failure| format!("it fails at `migrate` of {what}: {failure}"))?
            .map_err(|refusal| format!("it cannot take over {what}: {refusal}"))
    };
    let state = if from == to || state.is_empty() {
        state.to_vec()
    } else {
        made("the state", setup.component.migrate(from, state))?
    };
    let mut converted = BTreeMap::new();
    for (id, context) in contexts.iter().filter(|(_, c)| c.layout != to) {
        let answer = setup
            .component
            .migrate_context(context.layout, &context.bytes);
        match made("a job's context", answer) {
            Ok(bytes) => {
                converted.insert(*id, bytes);
            }
            // The version before could not read it either.
            Err(_) if context.layout != from => {}
            Err(why) => return Err(why),
        }
    }
    Ok(Migrated {
        state,
        contexts: converted,
    })
}

impl Engine {
    /// The layout that the version of an adapter that runs reads and writes; none while none runs.
    pub(super) fn layout_of(&self, adapter: &str) -> Option<u32> {
        let setup = self.adapters.get(adapter)?.runs()?;
        Some(setup.description.state_version)
    }

    /// Contexts of an adapter's jobs that may still be reported to it. `layout` is that of its state: contexts of an agent that did not
    /// tag them have it too.
    pub(super) fn contexts_of(&self, adapter: &str, layout: u32) -> Contexts {
        self.jobs
            .values()
            .filter(|job| job.owner == adapter)
            .filter_map(|job| Some((job.id, context(job, layout)?)))
            .collect()
    }

    /// Gives jobs contexts of this layout.
    pub(super) fn put_contexts(
        &mut self,
        contexts: BTreeMap<u64, Vec<u8>>,
        layout: u32,
        changes: &mut Vec<Change>,
    ) {
        for (id, context) in contexts {
            if let Some(job) = self.jobs.get_mut(&id)
                && (job.plan.context != context || job.context_version != Some(layout))
            {
                job.plan.context = context;
                job.context_version = Some(layout);
                changes.push(Change::Put(Key::Job(id), json(job)));
            }
        }
    }

    /// The reports of this job to its owner wait for a version that can read its context.
    pub(super) fn is_withheld(&self, job: &Job) -> bool {
        let reads = self.layout_of(&job.owner);
        !job.plan.context.is_empty()
            && matches!((job.context_version, reads), (Some(wrote), Some(reads)) if wrote != reads)
    }

    /// The jobs of an adapter whose reports wait for another version of it.
    pub(super) fn withheld(&self, adapter: &str) -> Vec<u64> {
        let mine = self.jobs.values().filter(|job| job.owner == adapter);
        mine.filter(|job| self.is_withheld(job))
            .map(|job| job.id)
            .collect()
    }

    /// An event that waits is a report which the version that runs now cannot read.
    pub(super) fn is_unreadable(&self, adapter: &str, queued: &Queued) -> bool {
        let job = self.job_of(adapter, queued);
        job.is_some_and(|job| self.is_withheld(job))
    }
}

/// A job's context, if it has one. `layout` is that of one that was not tagged.
pub(super) fn context(job: &Job, layout: u32) -> Option<Context> {
    let bytes = job.plan.context.clone();
    let layout = job.context_version.unwrap_or(layout);
    (!bytes.is_empty()).then_some(Context { layout, bytes })
}

/// The bytes of those in this layout.
pub(super) fn in_layout(contexts: &Contexts, layout: u32) -> BTreeMap<u64, Vec<u8>> {
    let fitting = contexts.iter().filter(|(_, c)| c.layout == layout);
    fitting.map(|(id, c)| (*id, c.bytes.clone())).collect()
}

/// Of what a version had, that which is in another layout now, and which it needs back. What is still in its own may be newer.
pub(super) fn lost(
    kept: BTreeMap<u64, Vec<u8>>,
    now: &Contexts,
    layout: u32,
) -> BTreeMap<u64, Vec<u8>> {
    let mut kept = kept;
    kept.retain(|id, _| now.get(id).is_some_and(|context| context.layout != layout));
    kept
}
