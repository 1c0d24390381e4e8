//! `ota/upgrade`: answered with 1 or 3 alone, or with 2 once the package is here and good, and then, mostly after a reboot, with
//! one of 4, 5 and 6.

use otahost_adapter::effects::start_job;
use otahost_adapter::{ArtifactSource, Effect, Install, JobReport, Level, Target, Verdict, View};
use serde::Serialize;

use crate::command::{self, Command, Correlation};
use crate::config::Config;
use crate::memory::{State, Told, Versions};
use crate::outcome::{self, FORBIDDEN, NOT_PREPARED, PREPARED, SUCCEEDED, Upgrade};
use crate::{target, wire};

/// `data` of a result.
#[derive(Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    final_version: Option<&'a str>,
    status: u8,
}

/// Why a command is refused.
struct Refusal {
    status: u8,
    /// A parameter that is wrong, for the platform.
    fault: Option<&'static str>,
    /// A sentence for the log; holds no address.
    why: String,
    /// What runs, where the target is known.
    version: Option<String>,
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
                    "ota/upgrade is refused with status {}: {}",
                    refusal.status, refusal.why
                ),
            );
            let told = Told::Done(refusal.status);
            state.commands.put(to.id, told, config.remember);
            let versions = Versions {
                id: to.id,
                before: refusal.version,
                ..Versions::default()
            };
            vec![result(
                to,
                refusal.status,
                &versions,
                refusal.fault,
                config,
                view,
            )]
        }
    }
}

fn accept(command: &Command, config: &Config, view: &dyn View) -> Result<Effect, Refusal> {
    let to = &command.known_by;
    let refuse =
        |status, fault: Option<&'static str>, why: &str, target: Option<&Target>| Refusal {
            status,
            fault,
            why: fault.unwrap_or(why).into(),
            version: target::version(target.and_then(|t| t.version.as_deref())),
        };
    if to.source.is_none() {
        let fault = "data.source is missing or is no text of 1 to 96 bytes";
        return Err(refuse(FORBIDDEN, Some(fault), "", None));
    }
    let targets = view.targets();
    let Some(target) = target::of_upgrade(to, &targets, config) else {
        let why = "no target granted to this adapter has this source and sub_device_uid";
        return Err(refuse(FORBIDDEN, None, why, None));
    };
    let package = command::package(&command.data)
        .map_err(|fault| refuse(NOT_PREPARED, Some(fault.text()), "", Some(target)))?;
    // No version is named: whatever the signed package says it is, or any that runs afterwards.
    let install = Install::new(&target.id, "", ArtifactSource::Url(package.url));
    let plan = start_job(&command::key(to))
        .context(to)
        .install(install.md5(&package.md5));
    match view.check_job(&plan) {
        // Deferred is accepted: the job waits for its window, and nothing is said until the package is here.
        Verdict::Allow | Verdict::Defer(_) => Ok(plan.start()),
        Verdict::Busy(_) => Err(refuse(
            FORBIDDEN,
            None,
            "another update holds the target",
            Some(target),
        )),
        Verdict::Refuse(reason) => Err(refuse(FORBIDDEN, None, &reason.to_string(), Some(target))),
    }
}

/// A command that was seen before: what was said to it is said again, and nothing is done.
pub fn again(
    state: &State,
    told: Told,
    to: &Correlation,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let say = |status, versions: &Versions| result(to, status, versions, None, config, view);
    let remembered = || state.versions_of(to.id);
    match told {
        Told::Accepted | Told::Pushed => Vec::new(),
        Told::Prepared => {
            let report = view.job(&command::key(to));
            vec![say(
                PREPARED,
                &report.map_or_else(remembered, |r| versions(to, &r)),
            )]
        }
        Told::Done(status) if status >= SUCCEEDED => {
            let versions = remembered();
            vec![say(PREPARED, &versions), say(status, &versions)]
        }
        Told::Done(status) => vec![say(status, &remembered())],
    }
}

/// A report of the job of an `ota/upgrade`.
pub fn on_report(
    state: &mut State,
    report: &JobReport,
    to: &Correlation,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let told = state.commands.told(to.id).unwrap_or(Told::Accepted);
    if told.is_done() {
        return Vec::new();
    }
    let prepared = told == Told::Prepared;
    let reason = outcome::reason(report, report.installs.first());
    let mut versions = versions(to, report);
    let say = |status, versions: &Versions| result(to, status, versions, None, config, view);
    let mut effects = Vec::new();
    let (status, told) = match outcome::upgrade(report.phase, reason, prepared) {
        Upgrade::Nothing => return Vec::new(),
        Upgrade::Prepared if prepared => return Vec::new(),
        Upgrade::Prepared => (PREPARED, Told::Prepared),
        Upgrade::Alone(status) => (status, Told::Done(status)),
        Upgrade::Last(status) => {
            if !prepared {
                effects.push(say(PREPARED, &versions));
            }
            // From the system that runs now, not from what was to be installed.
            let id = report.installs.first().map(|install| &install.target);
            let targets = view.targets();
            let target = targets.iter().find(|target| Some(&target.id) == id);
            versions.last = target::version(target.and_then(|t| t.version.as_deref()));
            (status, Told::Done(status))
        }
    };
    effects.push(say(status, &versions));
    state.commands.put(to.id, told, config.remember);
    if told.is_done() {
        if let Some(reason) = reason {
            view.log(
                Level::Info,
                &format!("ota/upgrade ends with status {status}: {reason}"),
            );
        }
        state.remember(versions);
    }
    effects
}

/// What a report says of versions before anything is replaced.
fn versions(to: &Correlation, report: &JobReport) -> Versions {
    let install = report.installs.first();
    Versions {
        id: to.id,
        before: target::version(install.and_then(|i| i.old_version.as_deref())),
        target: target::version(install.map(|i| i.new_version.as_str())),
        last: None,
    }
}

fn result(
    to: &Correlation,
    status: u8,
    versions: &Versions,
    fault: Option<&str>,
    config: &Config,
    view: &dyn View,
) -> Effect {
    let last = status >= SUCCEEDED;
    let data = Data {
        source: to.source.as_deref(),
        version: versions.before.as_deref().filter(|_| !last),
        target_version: versions.target.as_deref(),
        final_version: versions.last.as_deref().filter(|_| last),
        status,
    };
    wire::result(to, &data, fault, config, view)
}
