//! What the kit says of itself when the centre asks: `getDeviceInfo` and `healthCheck`.
//!
//! A version counts when it is confirmed. While an update runs, and in particular while a new version is on trial after its reboot, the
//! one before is said.

use otahost_adapter::{Effect, Health, InboundRequest, JobSummary, Phase, Target, View};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::{Config, KitId};
use crate::state::{Context, Last, Outcome, State};
use crate::update::refuse_caller;
use crate::wire;

/// Said for a version that nobody knows.
pub const UNKNOWN: &str = "unknown";

/// The target that is updated, where it is granted.
pub fn target(config: &Config, view: &dyn View) -> Option<Target> {
    view.targets().into_iter().find(|t| t.id == config.target)
}

/// The job that works on the target, whoever asked for it.
pub fn job_at_work(config: &Config, view: &dyn View) -> Option<JobSummary> {
    view.active_jobs()
        .into_iter()
        .find(|job| job.targets.contains(&config.target))
}

/// `getDeviceInfo`.
pub fn info(state: &State, request: &InboundRequest, config: &Config, view: &dyn View) -> Effect {
    if let Err(effect) = check(request, config, view) {
        return *effect;
    }
    let mut data: Map<String, Value> = config.device_info.clone();
    data.insert("kitId".into(), config.kit_id.as_str().into());
    data.insert("version".into(), version(state, config, view).into());
    wire::accept(&request.id, &data, &config.messages.device_info, view.now())
}

/// The `data` of `healthCheck`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    kit_id: &'a str,
    version: String,
    health: &'static str,
    updating: bool,
    phase: Option<&'static str>,
    last_update: Option<LastUpdate<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastUpdate<'a> {
    outcome: Outcome,
    old_version: &'a str,
    new_version: &'a str,
    requested_by: &'static str,
    reason: Option<&'a str>,
    timestamp: u64,
}

impl<'a> LastUpdate<'a> {
    fn of(last: &'a Last) -> Self {
        LastUpdate {
            outcome: last.outcome,
            old_version: last.versions.old.as_deref().unwrap_or(UNKNOWN),
            new_version: &last.versions.new,
            requested_by: if last.foreign { "local" } else { "centre" },
            reason: last.reason.as_deref(),
            timestamp: last.at,
        }
    }
}

/// `healthCheck`: 200 also when the device is unwell, because the question was answered.
pub fn health(state: &State, request: &InboundRequest, config: &Config, view: &dyn View) -> Effect {
    if let Err(effect) = check(request, config, view) {
        return *effect;
    }
    let job = job_at_work(config, view);
    let report = Report {
        kit_id: &config.kit_id,
        version: version(state, config, view),
        health: word(target(config, view).map_or(Health::Unknown, |t| t.health)),
        updating: job.is_some(),
        phase: job.map(|job| job.phase.word()),
        last_update: state.last.as_ref().map(LastUpdate::of),
    };
    wire::accept(&request.id, &report, &config.messages.health, view.now())
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Unknown => UNKNOWN,
        Health::Healthy => "healthy",
        Health::Unwell => "unwell",
        Health::Offline => "offline",
    }
}

fn check(request: &InboundRequest, config: &Config, view: &dyn View) -> Result<(), Box<Effect>> {
    let required = config.info_kit_id == KitId::Required;
    wire::check_any(&request.body, &request.query, &config.kit_id, required)
        .map_err(|refusal| Box::new(refuse_caller(request, refusal, config, view)))
}

/// The version that was confirmed last.
fn version(state: &State, config: &Config, view: &dyn View) -> String {
    let target = target(config, view);
    let running = target.as_ref().and_then(|t| t.version.clone());
    let confirmed = match job_at_work(config, view) {
        Some(job) => before(&job, state, config, view).or(match job.phase {
            // The new version may run already, and what was before it is not known.
            Phase::Activating | Phase::Confirming => None,
            _ => running,
        }),
        None => match &state.last {
            // Neither version ran well, and the new one was never confirmed: it counts only once the device is well with it.
            Some(last)
                if matches!(last.outcome, Outcome::RolledBack | Outcome::RollbackFailed)
                    && running.as_deref() == Some(last.versions.new.as_str())
                    && target.is_some_and(|t| t.health != Health::Healthy) =>
            {
                last.versions.old.clone()
            }
            _ => running,
        },
    };
    confirmed.unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The version before the job that works on the target.
fn before(job: &JobSummary, state: &State, config: &Config, view: &dyn View) -> Option<String> {
    if job.foreign {
        let foreign = state.foreign.as_ref().filter(|f| f.key == job.key)?;
        return foreign.old.clone();
    }
    let report = view.job(&job.key)?;
    if let Some(old) = report
        .install(&config.target)
        .and_then(|i| i.old_version.clone())
    {
        return Some(old);
    }
    let context: Context = report.context_json().ok()?;
    Some(context.answer.old_version)
}
