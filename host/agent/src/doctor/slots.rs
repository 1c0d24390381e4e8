//! Slots and what is staged, against what the journal says of them.

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use otahost_core::job::Job;
use otahost_core::model::Phase;
use otahost_disk::{Disk, Open, Place, RealDisk};
use otahost_flash::{BootState, Flasher, SlotState, Staged};
use otahost_transfer::{Checkpoint, HEADER_LEN};

use super::{Contents, Report, State};
use crate::assemble;
use crate::config::{Config, FlasherConfig};

/// Bytes read at once.
const BLOCK: usize = 1 << 20;

/// Every target. What an agent at work is writing is not what it will be, so staged bytes are looked at only without one.
pub(super) fn look(
    report: &mut Report,
    config: &Config,
    contents: Option<&Contents>,
    at_work: bool,
) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::operator_only());
    for (id, target) in &config.targets {
        let job = contents.and_then(|contents| active(contents, id));
        let (slots, boot) = match &target.flasher {
            FlasherConfig::Slots { slots, boot } => (slots, boot),
            FlasherConfig::Archive { directory, .. } | FlasherConfig::Command { directory, .. } => {
                self::directory(report, &disk, id, &Place::operator(directory));
                continue;
            }
        };
        let state = match assemble::selector(disk.clone(), boot).and_then(|s| s.read()) {
            Ok(state) => state,
            Err(error) => {
                let advice = "mend the boot selector: without it nothing can be installed, confirmed or rolled back";
                report.advise("slots", id, State::Broken, error.to_string(), advice);
                continue;
            }
        };
        selector(report, id, &state, contents.is_some(), job);
        if at_work {
            continue;
        }
        // What waits to be activated is the whole of what was downloaded, and another matter.
        let waiting = job.and_then(|job| waits(job, id));
        if let Some(waiting) = waiting {
            match assemble::flasher(disk.clone(), target) {
                Ok(flasher) => staged(report, id, flasher.as_ref(), waiting),
                Err(error) => report.add("staged", id, State::Broken, error.to_string()),
            }
        } else if let Some(checkpoint) = contents.and_then(|c| c.partials.get(id)) {
            let idle = Place::operator(&slots[state.booted.other().index()]);
            partial(report, &disk, id, &idle, checkpoint);
        }
    }
}

fn directory(report: &mut Report, disk: &Arc<dyn Disk>, id: &str, place: &Place) {
    match disk.list(place) {
        Ok(_) => report.add("staged", id, State::Whole, "its directory can be read"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let found = "its directory is made with the first update";
            report.add("staged", id, State::Note, found);
        }
        Err(error) => {
            let advice = "the agent needs a directory there that it may read and write";
            report.advise("staged", id, State::Broken, error.to_string(), advice);
        }
    }
}

fn active<'a>(contents: &'a Contents, target: &str) -> Option<&'a Job> {
    contents
        .jobs
        .iter()
        .find(|job| !job.phase.is_final() && job.targets().any(|t| t == target))
}

fn selector(report: &mut Report, id: &str, state: &BootState, known: bool, job: Option<&Job>) {
    let words = format!(
        "slot {} runs; a is {}, b is {}; {} is next",
        state.booted, state.slots.a, state.slots.b, state.primary
    );
    let behind = state.of(state.primary.other());
    let nothing_boots = !state.of(state.primary).is_bootable() && behind != SlotState::Good;
    let past_return = job.is_some_and(|job| job.phase.is_past_return());
    let (found, advice) = match state.of(state.booted) {
        _ if nothing_boots => (
            State::Broken,
            "no slot boots after the next restart: do not switch the device off before the slot that runs is marked good",
        ),
        SlotState::Trial { .. } if past_return || !known => (
            State::Note,
            "a version is being proved: the agent confirms it, or brings the old one back",
        ),
        SlotState::Trial { .. } => (
            State::Broken,
            "a version runs on trial and no job speaks of it: the agent judges it by its version and its probe when it starts",
        ),
        SlotState::Bad => (
            State::Broken,
            "the slot that runs is marked bad: somebody else has changed the boot selector",
        ),
        SlotState::Good => (State::Whole, ""),
    };
    report.advise("slots", id, found, words, advice);
}

/// Whether the bytes that a transfer would go on from are the ones it left.
fn partial(
    report: &mut Report,
    disk: &Arc<dyn Disk>,
    id: &str,
    place: &Place,
    checkpoint: &Checkpoint,
) {
    let Some(last) = checkpoint.marks.last() else {
        return;
    };
    match first_bad(disk, place, checkpoint) {
        Ok(None) => {
            let found = format!("{} bytes of a download are there and whole", last.at);
            report.add("staged", id, State::Whole, found);
        }
        Ok(Some(good)) => {
            let found = format!(
                "of {} bytes of a download only the first {good} are whole",
                last.at
            );
            let advice =
                "nothing: the download goes on there. When it comes again, look at the medium";
            report.advise("staged", id, State::Broken, found, advice);
        }
        Err(error) => report.add("staged", id, State::Broken, error.to_string()),
    }
}

/// Up to where the content is what the marks say, when that is not all of it.
fn first_bad(
    disk: &Arc<dyn Disk>,
    place: &Place,
    checkpoint: &Checkpoint,
) -> io::Result<Option<u64>> {
    let file = disk.open(place, Open::Read)?;
    let start = if checkpoint.header.is_empty() {
        0
    } else {
        HEADER_LEN as u64
    };
    let mut context = Context::new(&SHA256);
    let mut block = vec![0; BLOCK];
    let (mut at, mut good) = (start, start);
    for mark in &checkpoint.marks {
        while at < mark.at {
            let length = (mark.at - at).min(BLOCK as u64) as usize;
            let part = &mut block[..length];
            match file.read_exact_at(part, at - start) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some(good)),
                read => read?,
            }
            context.update(part);
            at += length as u64;
        }
        let sum = context.clone().finish();
        let hex: String = sum.as_ref()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if !hex.eq_ignore_ascii_case(&mark.sha256) {
            return Ok(Some(good));
        }
        good = mark.at;
    }
    Ok(None)
}

/// What of a job waits in this target's staging area to be activated.
fn waits<'a>(job: &'a Job, id: &str) -> Option<&'a otahost_core::job::Staged> {
    let waits = matches!(
        job.phase,
        Phase::Prepared | Phase::Waiting | Phase::Installing | Phase::Activating
    );
    let mut installs = job.plan.installs.iter().zip(&job.installs);
    let (_, state) = installs.find(|(asked, _)| waits && asked.target == id)?;
    state.staged.as_ref()
}

/// Whether what waits to be activated is what was verified.
fn staged(
    report: &mut Report,
    id: &str,
    flasher: &dyn Flasher,
    waiting: &otahost_core::job::Staged,
) {
    let staged = Staged {
        place: waiting.place.clone(),
        len: waiting.len,
        sha256: waiting.sha256.clone(),
    };
    match flasher.verify(&staged) {
        Ok(()) => {
            let found = format!(
                "{} bytes wait in slot {} and are whole",
                staged.len, staged.place
            );
            report.add("staged", id, State::Whole, found);
        }
        Err(error) => {
            let advice = "the agent reads it back too, and the job fails: have the update asked for again, and look at the medium";
            report.advise("staged", id, State::Broken, error.to_string(), advice);
        }
    }
}
