//! `ota/emu_version` and `ota/emu_upgrade_result`: what is known of the EMUs now. Pure questions: they are answered afresh each time,
//! also when one comes twice.

use std::collections::{BTreeMap, BTreeSet};

use otahost_adapter::{Effect, Level, Phase, Target, View};
use serde::Serialize;
use serde_json::Value;

use crate::command::{self, Command};
use crate::config::{Config, SuccessForm};
use crate::emu::{NO_SUB_DEVICE, UNKNOWN_EMU, device_id};
use crate::memory::{Ended, State};
use crate::target::Emu;
use crate::{outcome, wire};

/// The most bytes of a list of EMUs; the rest of a payload's 256 KiB is for the envelope.
const LIST_MAX: usize = 256 * 1024 - 4 * 1024;
/// The most bytes of an entry without its serial number, whose bytes may each need an escape.
const ENTRY_MAX: usize = 192;
/// `status` of an EMU that is away.
const OFFLINE: u8 = 2;

/// The vendor's `EMUVersion`. What is not known is null, and an unknown serial number empty, as in the vendor's sample.
#[derive(Serialize)]
struct EmuVersion<'a> {
    device_id: Value,
    status: u8,
    emu_upgrade_success: Option<u16>,
    emu_upgrade_device: Option<i64>,
    emu_upgrade_status: Option<u8>,
    emu_upgrade_content: Option<u8>,
    emu_product_sn: &'a str,
}

/// The same without what may be missing.
#[derive(Serialize)]
struct Brief {
    device_id: i64,
    status: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    emu_upgrade_status: Option<u8>,
}

/// How the update of an EMU stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Update {
    /// Under way: `emu_upgrade_status`, and percent where it is known.
    Running(u8, Option<u8>),
    /// The last one is over.
    Over(Ended),
}

/// The jobs that work on targets now.
struct Active {
    /// By target: the phase, and the key where the job is this adapter's.
    jobs: BTreeMap<String, (Phase, Option<String>)>,
    /// The commands that were told to be pushed.
    pushed: BTreeSet<u64>,
}

impl Active {
    fn of(state: &State, view: &dyn View) -> Self {
        let mut jobs = BTreeMap::new();
        for job in view.active_jobs() {
            let key = (!job.foreign).then_some(job.key);
            for target in job.targets {
                jobs.insert(target, (job.phase, key.clone()));
            }
        }
        Active {
            jobs,
            pushed: state.commands.pushed(),
        }
    }

    /// How the update of this EMU stands; none where there never was one.
    fn update(&self, emu: &Emu<'_>, state: &State, view: &dyn View) -> Option<Update> {
        let Some((phase, key)) = self.jobs.get(&emu.target.id) else {
            return state.emus.get(&emu.device_id).copied().map(Update::Over);
        };
        let pushed = key
            .as_ref()
            .and_then(|key| command::id_of(key))
            .is_some_and(|id| self.pushed.contains(&id));
        let status = outcome::upgrade_status(*phase, pushed);
        let percent = match status {
            1 | 2 => Some(0),
            // Only here is there a percentage worth the question: the host answers it with a whole report.
            3 => key
                .as_ref()
                .and_then(|key| view.job(key))
                .and_then(|report| Some(report.install(&emu.target.id)?.percent.min(100))),
            _ => Some(100),
        };
        Some(Update::Running(status, percent))
    }
}

impl Update {
    fn status(self) -> u8 {
        match self {
            Update::Running(status, _) => status,
            Update::Over(_) => 5,
        }
    }

    fn content(self) -> Option<u8> {
        match self {
            Update::Running(_, percent) => percent,
            Update::Over(Ended::Well) => Some(100),
            Update::Over(Ended::Badly { percent, .. }) => Some(percent),
        }
    }

    /// `emu_upgrade_success`. As a flag it has no value for what is not over.
    fn success(self, emu: &Emu<'_>, form: SuccessForm) -> Option<u16> {
        const TRANSFERRED: u16 = 1;
        const ALL: u16 = 1 << 8;
        const NOT_FINISHED: u16 = 1 << 9;
        match (form, self) {
            (SuccessForm::Flag, Update::Running(..)) => None,
            (SuccessForm::Flag, Update::Over(ended)) => Some(u16::from(ended == Ended::Well)),
            (SuccessForm::Bitmask, Update::Running(status, _)) => {
                Some(NOT_FINISHED | if status >= 4 { TRANSFERRED } else { 0 })
            }
            (SuccessForm::Bitmask, Update::Over(Ended::Well)) => {
                Some(TRANSFERRED | emu.bit() | ALL)
            }
            (SuccessForm::Bitmask, Update::Over(Ended::Badly { transferred, .. })) => {
                Some(u16::from(transferred))
            }
        }
    }
}

impl<'a> EmuVersion<'a> {
    fn known(emu: &Emu<'a>, update: Option<Update>, config: &Config) -> Self {
        EmuVersion {
            device_id: emu.device_id.into(),
            status: emu.status(config),
            emu_upgrade_success: update.and_then(|u| u.success(emu, config.emu_upgrade_success)),
            emu_upgrade_device: Some(emu.upgrade_device),
            emu_upgrade_status: update.map(Update::status),
            emu_upgrade_content: update.and_then(Update::content),
            emu_product_sn: emu.product_sn(config),
        }
    }

    /// Of an EMU that is away, or that there is none of.
    fn away(device_id: Value) -> Self {
        EmuVersion {
            device_id,
            status: OFFLINE,
            emu_upgrade_success: None,
            emu_upgrade_device: None,
            emu_upgrade_status: None,
            emu_upgrade_content: None,
            emu_product_sn: "",
        }
    }
}

/// Answers `ota/emu_version`: every EMU, one entry each.
pub fn versions(state: &State, command: &Command, config: &Config, view: &dyn View) -> Vec<Effect> {
    let targets = view.targets();
    let active = Active::of(state, view);
    let all: Vec<_> = Emu::all(&targets, config)
        .map(|emu| {
            let update = active.update(&emu, state, view);
            match update {
                // One that is being updated may well be away for a moment.
                Some(Update::Over(_)) | None if emu.status(config) == OFFLINE => {
                    EmuVersion::away(emu.device_id.into())
                }
                update => EmuVersion::known(&emu, update, config),
            }
        })
        .collect();
    // Written twice only where a look at the longest it could be does not settle it.
    let longest: usize = all
        .iter()
        .map(|e| ENTRY_MAX + 2 * e.emu_product_sn.len())
        .sum();
    if longest > LIST_MAX && size(&all) > LIST_MAX {
        let list = brief(&targets, &active, state, config, view);
        return vec![wire::result(&command.known_by, &list, None, config, view)];
    }
    vec![wire::result(&command.known_by, &all, None, config, view)]
}

/// The list for more EMUs than a message can hold with all that is known of them: as many as it can, with less of each.
fn brief(
    targets: &[Target],
    active: &Active,
    state: &State,
    config: &Config,
    view: &dyn View,
) -> Vec<Brief> {
    let mut list: Vec<_> = Emu::all(targets, config)
        .map(|emu| Brief {
            device_id: emu.device_id,
            status: emu.status(config),
            emu_upgrade_status: active.update(&emu, state, view).map(Update::status),
        })
        .collect();
    let all = list.len();
    let mut bytes = 2;
    let fits = list.iter().take_while(|entry| {
        bytes += size(entry) + 1;
        bytes <= LIST_MAX
    });
    let told = fits.count();
    list.truncate(told);
    view.log(
        Level::Warn,
        &format!(
            "the list of {all} EMUs is larger than a message: {told} are told, without what the protocol lets one leave out"
        ),
    );
    list
}

/// Answers `ota/emu_upgrade_result`: one EMU, also how its last update ended.
pub fn result(state: &State, command: &Command, config: &Config, view: &dyn View) -> Vec<Effect> {
    let to = &command.known_by;
    let targets = view.targets();
    let emu = to.emu().and_then(|id| Emu::find(id, &targets, config));
    let (data, fault) = match emu {
        Some(emu) => {
            let update = Active::of(state, view).update(&emu, state, view);
            (EmuVersion::known(&emu, update, config), None)
        }
        None => {
            let fault = to.emu().map_or(NO_SUB_DEVICE, |_| UNKNOWN_EMU);
            (EmuVersion::away(device_id(to)), Some(fault))
        }
    };
    vec![wire::result(to, &data, fault, config, view)]
}

/// Bytes of its JSON.
fn size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value)
        .expect("numbers and texts have a JSON form")
        .len()
}
