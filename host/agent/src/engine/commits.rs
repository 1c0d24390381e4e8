//! The commit: changes go to the committer in order, releases come back in order.

use otahost_journal::{Change, JournalError, Key};

use otahost_links::LinkCommand;

use super::{Done, Engine, Exit, Release};

/// How long rows of no use may wait for a commit that is needed anyway.
const GARBAGE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// A commit that is under way, with what waits for it.
#[derive(Debug)]
pub(super) struct Pending {
    number: u64,
    durable: bool,
    releases: Vec<Release>,
}

impl Engine {
    /// Makes changes durable and then lets the releases go, after everything that was committed before. Without changes (and without
    /// garbage that is due) nothing is written, and the releases only keep their place.
    pub(super) fn commit(&mut self, changes: Vec<Change>, releases: Vec<Release>) {
        self.commit_with(changes, releases, true);
    }

    /// The same for changes that only say how much time has passed. It comes again and again while nothing happens, so it takes no
    /// recorded steps along: those would double what it costs.
    pub(super) fn commit_time(&mut self, changes: Vec<Change>, releases: Vec<Release>) {
        self.commit_with(changes, releases, false);
    }

    fn commit_with(&mut self, mut changes: Vec<Change>, releases: Vec<Release>, steps: bool) {
        let garbage_due = self
            .garbage_due
            .is_some_and(|due| due <= tokio::time::Instant::now());
        if !changes.is_empty() || garbage_due {
            // A row written in this very commit is newer than the garbage of its key.
            let written: std::collections::BTreeSet<Key> = changes
                .iter()
                .map(|change| match change {
                    Change::Put(key, _) | Change::Delete(key) => key.clone(),
                })
                .collect();
            let garbage = std::mem::take(&mut self.garbage);
            changes.extend(
                garbage
                    .into_iter()
                    .filter(|key| !written.contains(key))
                    .map(Change::Delete),
            );
            self.garbage_due = None;
            if !changes.is_empty() {
                changes.extend(self.spending(&written));
            }
            changes.extend(self.note_time());
            if steps && !changes.is_empty() {
                changes.extend(self.steps_along());
            }
        }
        let number = self.next_commit;
        self.next_commit += 1;
        let durable = changes.is_empty();
        let (early, releases) = self.split_early(releases);
        self.pending.push_back(Pending {
            number,
            durable,
            releases,
        });
        if durable {
            early.into_iter().for_each(|release| self.let_go(release));
            self.release();
            return;
        }
        let committed = self.committer.commit(changes);
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let result = committed.await;
            // The engine may be gone: then nobody waits for this.
            let _ = tell.send(Done::Committed(number, result));
        });
        early.into_iter().for_each(|release| self.let_go(release));
    }

    pub(super) fn on_committed(&mut self, number: u64, result: Result<(), JournalError>) {
        if let Err(error) = result {
            self.exit = Some(Exit::Reload(error.to_string()));
            return;
        }
        if let Some(pending) = self.pending.iter_mut().find(|p| p.number == number) {
            pending.durable = true;
        }
        self.release();
    }

    fn release(&mut self) {
        while self.pending.front().is_some_and(|p| p.durable)
            && let Some(pending) = self.pending.pop_front()
        {
            for release in pending.releases {
                self.let_go(release);
            }
        }
    }

    fn let_go(&mut self, release: Release) {
        match release {
            Release::Settle { link, number } => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.acks.settled(number);
                }
            }
            Release::Publish {
                id,
                adapter,
                publication,
            } => self.enqueue(id, &adapter, publication),
            Release::Alert(seq) => self.send_alert(seq),
            Release::Call(seq) => self.send_call(seq),
            Release::Kept { link, id } => {
                if let Some(link) = self.links.get(&link) {
                    link.send(LinkCommand::Kept(id));
                }
            }
            Release::Respond { link, id, response } => self.respond(&link, id, response),
            Release::Act(id, action) => self.act(id, action),
            Release::Watched(id) => self.tell_watchers(id),
            // A client that has gone needs no answer, and one that takes none must not hold the engine up.
            Release::Reply(to, reply) => drop(to.try_send(reply)),
        }
    }

    /// Marks a row as of no use. It is deleted with the next commit.
    pub(super) fn discard(&mut self, key: Key) {
        self.garbage.push(key);
        self.garbage_due
            .get_or_insert_with(|| tokio::time::Instant::now() + GARBAGE_WAIT);
    }
}
