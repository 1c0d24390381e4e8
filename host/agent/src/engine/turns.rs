//! Turns: only so many jobs fetch or hand over at once, the others wait in the order in which they came.
//!
//! A thousand devices behind one gateway may be told to update in the same second. What each of them takes while it is worked on (a
//! connection, buffers, a program that hands over) is taken for a few at a time. A job that waits for something else, a window, a
//! pause, its next attempt, gives its turn away.

use std::collections::{BTreeSet, VecDeque};

use otahost_core::job::{GateAt, Job};
use otahost_core::model::{Apply, Phase, Reason};

use super::Engine;

/// What a job does when it is its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Ask whether it may begin, and then transfer.
    Begin,
    /// Transfer.
    Transfer {
        /// From the first byte.
        afresh: bool,
    },
    /// Hand over.
    Deliver,
}

/// Whose turn it is, and who waits.
#[derive(Debug, Default)]
pub(super) struct Turns {
    holders: BTreeSet<u64>,
    queue: VecDeque<(u64, Turn)>,
}

impl Engine {
    /// Does it at once when it is the job's turn, otherwise when its turn comes.
    pub(super) fn take_turn(&mut self, id: u64, turn: Turn) {
        if self.turns.holders.contains(&id) {
            self.do_turn(id, turn);
            return;
        }
        match self.turns.queue.iter_mut().find(|(job, _)| *job == id) {
            // It keeps its place.
            Some((_, waiting)) => *waiting = turn,
            None => self.turns.queue.push_back((id, turn)),
        }
        self.next_turns();
    }

    /// Gives turns that nobody uses any more to those who wait.
    pub(super) fn next_turns(&mut self) {
        let jobs = &self.jobs;
        self.turns
            .holders
            .retain(|id| jobs.get(id).is_some_and(uses_turn));
        while self.turns.holders.len() < self.setup.transfer.parallel {
            let Some((id, turn)) = self.turns.queue.pop_front() else {
                break;
            };
            // What has changed since it began to wait has taken the turn from it, or given it another.
            if self.jobs.get(&id).is_some_and(|job| fits(job, turn)) {
                self.turns.holders.insert(id);
                self.do_turn(id, turn);
            }
        }
    }

    /// Why a job does not go on though nothing stands against it.
    pub(super) fn turn_reason(&self, job: &Job) -> Option<Reason> {
        let waits = self
            .turns
            .queue
            .iter()
            .any(|(id, turn)| *id == job.id && fits(job, *turn));
        waits.then(|| {
            let text = format!(
                "waits for its turn: {} others are worked on, and no more at once",
                self.turns.holders.len()
            );
            Reason::new("busy", "admit", text)
        })
    }

    fn do_turn(&mut self, id: u64, turn: Turn) {
        match turn {
            Turn::Begin => self.check_gate(id, GateAt::Begin),
            Turn::Transfer { afresh } => self.start_transfer(id, afresh),
            Turn::Deliver => self.deliver(id),
        }
    }
}

/// The job is where this turn takes it on.
fn fits(job: &Job, turn: Turn) -> bool {
    !job.paused
        && match turn {
            Turn::Begin => {
                job.phase == Phase::Queued
                    || (job.phase == Phase::Waiting
                        && job.gate.unwrap_or(GateAt::Begin) == GateAt::Begin)
            }
            Turn::Transfer { .. } => job.phase == Phase::Downloading && job.until.is_none(),
            Turn::Deliver => job.phase == Phase::Delivering,
        }
}

/// The job is worked on, and not waited for.
fn uses_turn(job: &Job) -> bool {
    !job.paused
        && match job.phase {
            Phase::Downloading => job.until.is_none(),
            Phase::Prepared => job.plan.apply == Apply::Immediately,
            Phase::Queued | Phase::Verifying | Phase::Installing | Phase::Delivering => true,
            _ => false,
        }
}
