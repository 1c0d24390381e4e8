//! What the work beside the engine wants a person to see: the last look at each repository, and the versions that wait.
//!
//! It belongs to the process and not to an engine: an engine that starts again does not forget it. Nothing of it is written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::{AdapterView, DropInView, RepositoryView, StatusView, WaitingView};

/// What is to be seen. Cloning is cheap and shares it.
#[derive(Debug, Clone, Default)]
pub struct Notices(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    repositories: BTreeMap<String, RepositoryView>,
    /// By adapter and source.
    waiting: BTreeMap<(String, String), WaitingView>,
    drop_ins: Vec<DropInView>,
    problem: Option<String>,
}

impl Notices {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A repository was looked at.
    pub fn looked(&self, view: RepositoryView) {
        self.seen().repositories.insert(view.name.clone(), view);
    }

    /// What of one source waits for an adapter, or that nothing does.
    pub fn waits(&self, adapter: &str, source: &str, waiting: Option<WaitingView>) {
        let key = (adapter.to_owned(), source.to_owned());
        match waiting {
            Some(waiting) => self.seen().waiting.insert(key, waiting),
            None => self.seen().waiting.remove(&key),
        };
    }

    /// What lies in the adapters directory and does not run.
    pub fn drop_ins(&self, found: Vec<DropInView>) {
        let mut seen = self.seen();
        for view in found.iter().filter(|view| !seen.drop_ins.contains(view)) {
            let DropInView {
                name, why, lines, ..
            } = view;
            tracing::warn!(
                "{} is not run as adapter {name}: {why}; what it needs in the configuration:\n{lines}",
                view.path
            );
        }
        seen.drop_ins = found;
    }

    /// What is wrong with what was changed on the device last, or that nothing is.
    pub fn problem(&self, problem: Option<String>) {
        self.seen().problem = problem;
    }

    /// The configuration was replaced: what was said of the repositories and versions before holds no more.
    pub fn start_again(&self) {
        let mut seen = self.seen();
        seen.repositories.clear();
        seen.waiting.clear();
    }

    /// Puts all of it into an answer of the engine's.
    pub fn add_to(&self, status: &mut StatusView) {
        {
            let seen = self.seen();
            status.repositories = seen.repositories.values().cloned().collect();
            status.drop_ins.clone_from(&seen.drop_ins);
            status.problem.clone_from(&seen.problem);
        }
        for adapter in &mut status.adapters {
            self.add_to_adapter(adapter);
        }
    }

    /// Puts what waits for one adapter into an answer about it.
    pub fn add_to_adapter(&self, adapter: &mut AdapterView) {
        let seen = self.seen();
        let mine = seen.waiting.iter().filter(|((of, _), waiting)| {
            // One that runs by now waits no more.
            *of == adapter.name && (waiting.digest.is_empty() || waiting.digest != adapter.digest)
        });
        adapter.waiting = mine.map(|(_, waiting)| waiting.clone()).collect();
    }
}
