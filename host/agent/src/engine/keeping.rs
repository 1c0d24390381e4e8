//! How the journal is taken up at the start, and what becomes of an agent that has none it can write to.
//!
//! Without a journal nothing new is begun: whatever were promised would be forgotten with the next cut. But a version on trial has to be
//! confirmed or rolled back, and a person at the device has to be told what is wrong. So the same engine runs in safe mode on a copy of
//! the journal in memory, or on an empty one, and looks again and again whether the real one can be used.

use std::sync::Arc;
use std::time::Duration;

use otahost_core::job::Action;
use otahost_disk::{Disk, Place};
use otahost_journal::{Change, Damage, Journal, JournalError, Key, Restored, json};

use super::rows::StartsRow;
use super::{Done, Engine, Exit};
use crate::api::{DamageView, JournalView, Request};

/// Wait before the journal is tried again; doubles.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// Longest such wait.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// How the journal is.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Nothing that is committed lasts: why, and what is needed.
    pub(super) missing: Option<String>,
    /// A damaged one was replaced, and is kept.
    damage: Option<Damage>,
    /// The row of a damage is there.
    was_damaged: bool,
}

/// A journal as it was found.
pub(super) struct Found {
    pub(super) journal: Journal,
    pub(super) rows: Vec<(Key, Vec<u8>)>,
    pub(super) keeping: Keeping,
}

/// Takes the journal up, or what can be had in its place. Blocks.
///
/// # Errors
/// None is known.
pub(super) fn take_up(
    disk: &Arc<dyn Disk>,
    place: &Place,
    boot_id: &str,
) -> Result<Found, JournalError> {
    match restore(disk, place, boot_id) {
        Ok(Restored { journal, rows }) => {
            let damage = Damage::of(&rows).filter(|damage| {
                let kept = place.parent().join(&damage.kept);
                // Once the operator has taken the file away it is no matter any more.
                !matches!(disk.kind(&kept), Ok(None))
            });
            let keeping = Keeping {
                missing: None,
                was_damaged: Damage::of(&rows).is_some(),
                damage,
            };
            Ok(Found {
                journal,
                rows,
                keeping,
            })
        }
        Err(error) => without(disk, place, &error),
    }
}

/// What can be had in place of a journal that cannot be used. Blocks.
///
/// # Errors
/// None is known.
pub(super) fn without(
    disk: &Arc<dyn Disk>,
    place: &Place,
    error: &JournalError,
) -> Result<Found, JournalError> {
    let free = disk.free_space(place).ok().flatten();
    let missing = format!("{error}; what it needs: {}", error.needs(free));
    let copied = Journal::copy_of(disk.as_ref(), place).and_then(|journal| {
        let rows = journal.load()?;
        Ok((journal, rows))
    });
    let (journal, rows) = match copied {
        Ok(copied) => copied,
        Err(_) => (Journal::in_memory(place)?, Vec::new()),
    };
    Ok(Found {
        journal,
        rows,
        keeping: Keeping {
            missing: Some(missing),
            ..Keeping::default()
        },
    })
}

fn restore(disk: &Arc<dyn Disk>, place: &Place, boot_id: &str) -> Result<Restored, JournalError> {
    let starts = Engine::starts_key();
    Journal::restore(disk, place, |rows| {
        let row = rows.iter().find(|(key, _)| *key == starts);
        row.and_then(|(key, value)| otahost_journal::from_json::<StartsRow>(key, value).ok())
            .is_some_and(|row| row.boot_id == boot_id)
    })
}

impl Engine {
    /// Says how the journal is, where somebody has to know; without one it is looked for from now on.
    pub(super) fn mind_the_journal(&mut self) {
        let mut changes = Vec::new();
        if let Some(missing) = self.keeping.missing.clone() {
            let text = format!(
                "nothing can be kept, so no adapter runs and nothing new is begun: {missing}"
            );
            let release = self.alert("journal-missing", text, &mut changes);
            self.commit(changes, release.into_iter().collect());
            self.look_for_journal();
            return;
        }
        match &mut self.keeping.damage {
            Some(damage) if !damage.alerted => {
                damage.alerted = true;
                changes.push(Change::Put(Damage::key(), json(damage)));
                let text = format!(
                    "the journal was damaged ({}): {} of its rows go on, the rest is forgotten, and with it jobs, messages or tokens; the \
                     file is kept as {} in the data directory",
                    damage.why, damage.rows, damage.kept
                );
                let release = self.alert("journal-damaged", text, &mut changes);
                self.commit(changes, release.into_iter().collect());
            }
            Some(_) => {}
            None if self.keeping.was_damaged => self.discard(Damage::key()),
            None => {}
        }
    }

    /// Tries to take the journal up until that works; then this engine ends, and the next one has it.
    fn look_for_journal(&self) {
        let (disk, place, seam) = (
            self.platform.disk.clone(),
            self.platform.journal.clone(),
            self.platform.seam,
        );
        let (boot_id, tell) = (self.boot_id.clone(), self.tell.clone());
        tokio::spawn(async move {
            let mut wait = AGAIN_FIRST;
            loop {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(AGAIN_MAX);
                let (disk, place, boot_id) = (disk.clone(), place.clone(), boot_id.clone());
                let found = seam
                    .run(move || restore(&disk, &place, &boot_id).is_ok())
                    .await;
                if found {
                    // Who is gone needs no journal.
                    let _ = tell.send(Done::JournalFound);
                }
                if found || tell.is_closed() {
                    return;
                }
            }
        });
    }

    pub(super) fn on_journal_found(&mut self) {
        self.exit = Some(Exit::Reload("the journal can be used again".into()));
    }

    /// Whether a request asks for something that has to be kept, and nothing can be.
    pub(super) fn cannot_keep(&self, request: &Request) -> Option<String> {
        let missing = self.keeping.missing.as_ref()?;
        match request {
            Request::Status | Request::Jobs { .. } | Request::Job { .. } => None,
            _ => Some(format!(
                "nothing can be kept, so nothing new is begun: {missing}"
            )),
        }
    }

    /// Whether this must not be done while nothing can be kept: only the way out of a trial does not depend on it. A reboot into a new
    /// version would be tried again and again, because nobody could count.
    pub(super) fn must_wait_for_journal(&self, id: u64, action: &Action) -> bool {
        let way_back = self.jobs.get(&id).is_some_and(|job| job.rolling_back);
        self.keeping.missing.is_some()
            && match action {
                Action::Examine
                | Action::ExamineLater
                | Action::Confirm
                | Action::Rearm
                | Action::RollBack
                | Action::RollBackIn(_)
                | Action::StopTransfer => false,
                Action::Reboot => !way_back,
                _ => true,
            }
    }

    pub(super) fn journal_view(&self) -> JournalView {
        JournalView {
            missing: self.keeping.missing.clone(),
            damaged: self.keeping.damage.as_ref().map(|damage| DamageView {
                why: damage.why.clone(),
                kept: damage.kept.clone(),
                rows: damage.rows as u64,
            }),
        }
    }
}
