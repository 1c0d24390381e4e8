//! `ota/emu_upgrade`: answered once, when the package is handed to the EMU or when that has failed. What becomes of it there is for
//! `ota/emu_upgrade_result` to tell, so it is remembered how the last update of each EMU ended.

use otahost_adapter::effects::start_job;
use otahost_adapter::{ArtifactSource, Effect, Install, JobReport, Level, Phase, Verdict, View};
use serde::Serialize;
use serde_json::Value;

use crate::command::{self, Command, Correlation, PackageFault};
use crate::config::Config;
use crate::memory::{Ended, State, Told};
use crate::outcome::{self, DIGEST_WRONG, DOWNLOAD_FAILED, PUSH_FAILED, PUSHED};
use crate::target::Emu;
use crate::wire;

/// What is wrong with a `sub_device_id` that names none.
pub const NO_SUB_DEVICE: &str = "sub_device_id is missing or is no whole number";
/// What is wrong with one that nobody has.
pub const UNKNOWN_EMU: &str = "sub_device_id is that of no EMU known here";

/// `data` of a result.
#[derive(Serialize)]
struct Data {
    device_id: Value,
    download_status: u8,
}

/// Why a command is refused.
struct Refusal {
    status: u8,
    /// A parameter that is wrong, for the platform.
    fault: Option<&'static str>,
    /// A sentence for the log; holds no address.
    why: String,
}

/// A command that was not seen before: the job, or the refusal.
pub fn on_command(
    state: &mut State,
    command: &Command,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let to = &command.known_by;
    match accept(command, config, view) {
        Ok(effect) => {
            state.commands.put(to.id, Told::Accepted, config.remember);
            vec![effect]
        }
        Err(refusal) => {
            view.log(
                Level::Warn,
                &format!(
                    "ota/emu_upgrade is refused with download_status {}: {}",
                    refusal.status, refusal.why
                ),
            );
            let told = Told::Done(refusal.status);
            state.commands.put(to.id, told, config.remember);
            vec![result(to, refusal.status, refusal.fault, config, view)]
        }
    }
}

fn accept(command: &Command, config: &Config, view: &dyn View) -> Result<Effect, Refusal> {
    let to = &command.known_by;
    let wrong = |status, fault: &'static str| Refusal {
        status,
        fault: Some(fault),
        why: fault.into(),
    };
    let device_id = to.emu().ok_or_else(|| wrong(PUSH_FAILED, NO_SUB_DEVICE))?;
    let targets = view.targets();
    let emu =
        Emu::find(device_id, &targets, config).ok_or_else(|| wrong(PUSH_FAILED, UNKNOWN_EMU))?;
    let package = command::package(&command.data).map_err(|fault| {
        let status = match fault {
            PackageFault::Url => DOWNLOAD_FAILED,
            PackageFault::Md5 => DIGEST_WRONG,
        };
        wrong(status, fault.text())
    })?;
    // No version is named: whatever the signed package says it is, or any that runs afterwards.
    let install = Install::new(&emu.target.id, "", ArtifactSource::Url(package.url));
    let plan = start_job(&command::key(to))
        .context(to)
        .install(install.md5(&package.md5));
    match view.check_job(&plan) {
        Verdict::Allow | Verdict::Defer(_) => Ok(plan.start()),
        Verdict::Busy(_) => Err(Refusal {
            status: PUSH_FAILED,
            fault: None,
            why: "another update holds the EMU".into(),
        }),
        Verdict::Refuse(reason) => Err(Refusal {
            status: outcome::emu_failure(Some(&reason)),
            fault: None,
            why: reason.to_string(),
        }),
    }
}

/// A command that was seen before: what was said to it is said again, and nothing is done.
pub fn again(told: Told, to: &Correlation, config: &Config, view: &dyn View) -> Vec<Effect> {
    match told {
        Told::Accepted | Told::Prepared => Vec::new(),
        Told::Pushed => vec![result(to, PUSHED, None, config, view)],
        Told::Done(status) => vec![result(to, status, None, config, view)],
    }
}

/// A report of the job of an `ota/emu_upgrade`.
pub fn on_report(
    state: &mut State,
    report: &JobReport,
    to: &Correlation,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let told = state.commands.told(to.id).unwrap_or(Told::Accepted);
    let ended = report.phase.is_final();
    let (now, effects) = match told {
        Told::Done(_) => return Vec::new(),
        // It was said; what is left is to know that the job is over.
        Told::Pushed if ended => (Told::Done(PUSHED), Vec::new()),
        Told::Pushed => return Vec::new(),
        Told::Accepted | Told::Prepared => {
            let reason = outcome::reason(report, report.installs.first());
            let Some(status) = outcome::download_status(report.phase, reason) else {
                return Vec::new();
            };
            if let Some(reason) = reason.filter(|_| status != PUSHED) {
                view.log(
                    Level::Info,
                    &format!("ota/emu_upgrade ends with download_status {status}: {reason}"),
                );
            }
            let now = if ended {
                Told::Done(status)
            } else {
                Told::Pushed
            };
            (now, vec![result(to, status, None, config, view)])
        }
    };
    state.commands.put(to.id, now, config.remember);
    effects
}

/// Remembers how the update of an EMU ended, whoever asked for it.
pub fn remember(state: &mut State, report: &JobReport, config: &Config, view: &dyn View) {
    // What was never begun changed nothing.
    if !report.phase.is_final() || report.phase == Phase::Rejected {
        return;
    }
    let pushed = !report.foreign
        && command::id_of(&report.key)
            .is_some_and(|id| state.commands.told(id) == Some(Told::Pushed));
    let targets = view.targets();
    for install in &report.installs {
        let Some(emu) = targets
            .iter()
            .find(|target| target.id == install.target)
            .and_then(|target| Emu::of(target, config))
        else {
            continue;
        };
        // Where several targets are updated by one job each has its own end.
        let phase = match report.phase {
            Phase::Partial => install.phase,
            phase => phase,
        };
        let ended = if phase == Phase::Succeeded {
            Ended::Well
        } else {
            let reason = outcome::reason(report, Some(install));
            let percent = outcome::transferred_percent(reason, install.percent, pushed);
            Ended::Badly {
                percent,
                transferred: percent == 100,
            }
        };
        state.emu_ended(emu.device_id, ended, || {
            Emu::all(&targets, config)
                .map(|emu| emu.device_id)
                .collect()
        });
    }
}

fn result(
    to: &Correlation,
    download_status: u8,
    fault: Option<&str>,
    config: &Config,
    view: &dyn View,
) -> Effect {
    let data = Data {
        device_id: device_id(to),
        download_status,
    };
    wire::result(to, &data, fault, config, view)
}

/// `device_id` of a result: the number that was asked for, or what stood in its place.
pub fn device_id(to: &Correlation) -> Value {
    match to.emu() {
        Some(id) => id.into(),
        None => to.sub_device_id.clone().unwrap_or(Value::Null),
    }
}
