//! Who may send now: at most four requests at a time, in order, and nobody beside the one that replaces a secret he needs.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Requests at a time. Files are not counted: they may stall for long, and a new token must not wait for them.
const PARALLEL: usize = 4;

/// Requests that wait.
const WAITING: usize = 256;

/// The secrets a request has to do with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Those it sends.
    pub(super) reads: BTreeSet<String>,
    /// Those it captures.
    pub(super) writes: BTreeSet<String>,
    /// It counts as one of the requests at a time.
    pub(super) counted: bool,
}

impl Needs {
    fn meet(&self, others: &BTreeSet<String>) -> bool {
        !self.reads.is_disjoint(others) || !self.writes.is_disjoint(others)
    }
}

/// The line of a link.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    running: usize,
    waiting: VecDeque<Waiting>,
    /// Secrets that are being replaced, by the pass that does.
    held: Vec<(u64, BTreeSet<String>)>,
    passes: u64,
}

#[derive(Debug)]
struct Waiting {
    needs: Needs,
    wake: oneshot::Sender<Pass>,
}

/// The right to send, until it is dropped; and with it the secrets that are replaced.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    number: u64,
    counted: bool,
}

impl Gate {
    /// Takes a place in the line. `None` when the line is too long.
    pub(super) fn enter(self: &Arc<Self>, needs: Needs) -> Option<oneshot::Receiver<Pass>> {
        let (wake, pass) = oneshot::channel();
        {
            let mut line = self.line();
            if line.waiting.len() >= WAITING {
                return None;
            }
            line.waiting.push_back(Waiting { needs, wake });
        }
        self.admit();
        Some(pass)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(self: &Arc<Self>) {
        // Passes that nobody took give their place back when they are dropped, so not before the line is free.
        let refused = self.line().admit(self);
        drop(refused);
    }
}

impl Line {
    fn admit(&mut self, gate: &Arc<Gate>) -> Vec<Pass> {
        let mut refused = Vec::new();
        // What is held, and what somebody earlier in the line waits to hold.
        let mut taken: BTreeSet<String> = self
            .held
            .iter()
            .flat_map(|(_, names)| names.iter().cloned())
            .collect();
        let mut full = false;
        for waiting in mem::take(&mut self.waiting) {
            let needs = &waiting.needs;
            full |= needs.counted && self.running == PARALLEL;
            if needs.meet(&taken) || (needs.counted && full) {
                taken.extend(needs.writes.iter().cloned());
                self.waiting.push_back(waiting);
                continue;
            }
            taken.extend(needs.writes.iter().cloned());
            self.passes += 1;
            self.running += usize::from(needs.counted);
            if !needs.writes.is_empty() {
                self.held.push((self.passes, needs.writes.clone()));
            }
            let pass = Pass {
                gate: Arc::clone(gate),
                number: self.passes,
                counted: needs.counted,
            };
            if let Err(pass) = waiting.wake.send(pass) {
                refused.push(pass);
            }
        }
        refused
    }
}

impl Pass {
    /// The request is over; its secrets stay held.
    pub(super) fn end_request(&mut self) {
        if mem::take(&mut self.counted) {
            self.gate.line().running -= 1;
            self.gate.admit();
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        {
            let mut line = self.gate.line();
            line.running -= usize::from(self.counted);
            line.held.retain(|(number, _)| *number != self.number);
        }
        self.gate.admit();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn needs(reads: &[&str], writes: &[&str]) -> Needs {
        Needs {
            reads: reads.iter().map(ToString::to_string).collect(),
            writes: writes.iter().map(ToString::to_string).collect(),
            counted: true,
        }
    }

    fn enter(gate: &Arc<Gate>, needs: Needs) -> oneshot::Receiver<Pass> {
        gate.enter(needs).unwrap()
    }

    #[test]
    fn four_run_and_the_fifth_is_the_next() {
        let gate = Arc::new(Gate::default());
        let mut first: Vec<Pass> = (0..4)
            .map(|_| enter(&gate, needs(&[], &[])).try_recv().unwrap())
            .collect();
        let mut fifth = enter(&gate, needs(&[], &[]));
        let mut sixth = enter(&gate, needs(&[], &[]));
        assert!(fifth.try_recv().is_err());
        let mut file = enter(
            &gate,
            Needs {
                counted: false,
                ..Needs::default()
            },
        );
        assert!(file.try_recv().is_ok(), "a file is not counted");
        first.pop();
        let fifth = fifth.try_recv().unwrap();
        assert!(sixth.try_recv().is_err());
        drop(fifth);
        assert!(sixth.try_recv().is_ok());
    }

    #[test]
    fn who_replaces_a_secret_is_alone_with_it_until_the_pass_is_dropped() {
        let gate = Arc::new(Gate::default());
        let mut refresh = enter(&gate, needs(&["r"], &["a", "r"])).try_recv().unwrap();
        let mut user = enter(&gate, needs(&["a"], &[]));
        let mut second = enter(&gate, needs(&["r"], &["a", "r"]));
        let mut other = enter(&gate, needs(&["b"], &[]));
        assert!(other.try_recv().is_ok(), "others go on");
        refresh.end_request();
        assert!(user.try_recv().is_err() && second.try_recv().is_err());
        drop(refresh);
        assert!(user.try_recv().is_ok());
        let second = second.try_recv().unwrap();
        let mut late = enter(&gate, needs(&["a"], &[]));
        assert!(late.try_recv().is_err());
        drop(second);
        assert!(late.try_recv().is_ok());
    }

    #[test]
    fn a_refresh_that_waits_is_not_overtaken_by_users_of_its_secrets() {
        let gate = Arc::new(Gate::default());
        let running: Vec<Pass> = (0..4)
            .map(|_| enter(&gate, needs(&["a"], &[])).try_recv().unwrap())
            .collect();
        let mut refresh = enter(&gate, needs(&["r"], &["a"]));
        let mut file = enter(
            &gate,
            Needs {
                counted: false,
                ..needs(&["a"], &[])
            },
        );
        assert!(refresh.try_recv().is_err() && file.try_recv().is_err());
        drop(running);
        let refresh = refresh.try_recv().unwrap();
        assert!(file.try_recv().is_err());
        drop(refresh);
        assert!(file.try_recv().is_ok());
    }

    #[test]
    fn who_went_away_holds_nothing_up() {
        let gate = Arc::new(Gate::default());
        let refresh = enter(&gate, needs(&[], &["a"])).try_recv().unwrap();
        drop(enter(&gate, needs(&[], &["a"])));
        let mut last = enter(&gate, needs(&["a"], &[]));
        drop(refresh);
        assert!(last.try_recv().is_ok());
        assert_eq!(gate.line().running, 0);
    }

    #[test]
    fn the_line_has_an_end() {
        let gate = Arc::new(Gate::default());
        let _held = enter(&gate, needs(&[], &["a"])).try_recv().unwrap();
        let line: Vec<_> = (0..WAITING)
            .map(|_| enter(&gate, needs(&["a"], &[])))
            .collect();
        assert!(gate.enter(needs(&[], &[])).is_none());
        drop(line);
    }
}
