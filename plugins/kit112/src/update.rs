//! `updateDevice`: who asks, which file it will be, and the one answer.
//!
//! The answer has to name the new version, and the request does not: so the kit's folder is listed first, the caller waits, and both
//! the answer and the job come of what the folder holds. Every call is answered once: with the folder's content, or when its time is up.

use otahost_adapter::effects::{cancel_timer, list_directory, start_job, timer};
use otahost_adapter::{
    ArtifactSource, DirectoryEntry, Effect, InboundRequest, Install, JobPlan, JobSummary, Level,
    ListingOutcome, Reason, Target, Verdict, View,
};

use crate::choice::Release;
use crate::config::{Config, EstimatedTime, Repeated};
use crate::device;
use crate::state::{Answer, Context, Pending, State};
use crate::wire::{self, Refusal};

/// Fires when the folder was not listed in time.
pub const TIMER: &str = "listing";

/// The most calls that wait for one folder.
pub const WAITING_MAX: usize = 8;

/// So long before the host answers by itself, in milliseconds, the caller is answered: a 504 of the host has no envelope.
const MARGIN: u64 = 500;

/// What an update is refused with.
struct Refused {
    status: u16,
    message: String,
}

/// A call of `updateDevice`. Nothing of the state changes before it has passed every check that needs no folder.
pub fn on_request(
    state: &mut State,
    request: &InboundRequest,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    if let Err(refusal) = wire::check_body(&request.body, &config.kit_id) {
        return vec![refuse_caller(request, refusal, config, view)];
    }
    let Some(target) = device::target(config, view) else {
        view.log(
            Level::Error,
            &format!(
                "updateDevice is answered with 503: target {} is not among those granted",
                config.target
            ),
        );
        return vec![wire::refuse(
            &request.id,
            503,
            &config.messages.unavailable,
            view.now(),
        )];
    };
    if let Some(job) = device::job_at_work(config, view) {
        return vec![while_at_work(request, &job, config, view)];
    }
    let mut effects = Vec::new();
    if is_alive(state, view) {
        match wait_too(state, request, config, view) {
            Ok(timer) => return timer.into_iter().collect(),
            Err(Overdue) => effects.extend(on_timer(state, config, view)),
        }
    }
    effects.extend(list(state, request, &target, config, view));
    effects
}

/// Answers a call that names no kit, or another one.
pub fn refuse_caller(
    request: &InboundRequest,
    refusal: Refusal,
    config: &Config,
    view: &dyn View,
) -> Effect {
    let (status, message) = match refusal {
        Refusal::BadRequest(why) => {
            view.log(
                Level::Warn,
                &format!("a body on {} is answered with 400: {why}", request.path),
            );
            (400, &config.messages.bad_request)
        }
        Refusal::UnknownKit => {
            view.log(
                Level::Warn,
                &format!(
                    "a call of {} is answered with 404: it is meant for another kit",
                    request.path
                ),
            );
            (404, &config.messages.unknown_kit)
        }
    };
    wire::refuse(&request.id, status, message, view.now())
}

/// The answer while an update runs: 409, or by configuration the first answer again, where the update is the centre's own.
fn while_at_work(
    request: &InboundRequest,
    job: &JobSummary,
    config: &Config,
    view: &dyn View,
) -> Effect {
    if config.repeat == Repeated::Answer
        && !job.foreign
        && let Some(report) = view.job(&job.key)
        && let Ok(context) = report.context_json::<Context>()
    {
        return wire::accept(
            &request.id,
            &context.answer,
            &config.messages.started,
            context.timestamp,
        );
    }
    wire::refuse(&request.id, 409, &config.messages.busy, view.now())
}

/// True while calls of this boot wait for the folder.
fn is_alive(state: &State, view: &dyn View) -> bool {
    state
        .pending
        .as_ref()
        .is_some_and(|pending| pending.boot == view.boot_id())
}

/// Those who wait should have been answered already; their timer got lost.
struct Overdue;

/// A call while others wait for the folder: 409, or by configuration it waits with them.
fn wait_too(
    state: &mut State,
    request: &InboundRequest,
    config: &Config,
    view: &dyn View,
) -> Result<Vec<Effect>, Overdue> {
    let busy = || {
        vec![wire::refuse(
            &request.id,
            409,
            &config.messages.busy,
            view.now(),
        )]
    };
    let Some(pending) = &mut state.pending else {
        return Ok(busy());
    };
    if view.uptime() > pending.due.saturating_add(MARGIN) {
        return Err(Overdue);
    }
    if config.repeat == Repeated::Busy || pending.requests.len() >= WAITING_MAX {
        return Ok(busy());
    }
    pending.requests.push(request.id.clone());
    let due = view.uptime() + patience(request, config, view);
    if due >= pending.due {
        return Ok(Vec::new());
    }
    pending.due = due;
    Ok(vec![timer(TIMER, due - view.uptime())])
}

/// Milliseconds that a caller can be let wait: the budget, or what its own deadline leaves of it.
fn patience(request: &InboundRequest, config: &Config, view: &dyn View) -> u64 {
    let left = request
        .deadline
        .saturating_sub(view.now())
        .saturating_sub(MARGIN);
    (config.budget_seconds * 1_000).min(left).max(100)
}

fn list(
    state: &mut State,
    request: &InboundRequest,
    target: &Target,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    state.count += 1;
    let tag = format!("list/{}", state.count);
    let patience = patience(request, config, view);
    state.pending = Some(Pending {
        tag: tag.clone(),
        requests: vec![request.id.clone()],
        boot: view.boot_id(),
        due: view.uptime().saturating_add(patience),
    });
    view.log(
        Level::Info,
        &format!(
            "updateDevice for target {}, which runs {}: listing {} on link {}",
            target.id,
            target.version.as_deref().unwrap_or(device::UNKNOWN),
            config.directory,
            config.source
        ),
    );
    vec![
        timer(TIMER, patience),
        list_directory(&tag, &config.source, &config.directory),
    ]
}

/// The callers are gone: whoever waited did so in another process.
pub fn forget(state: &mut State) -> Vec<Effect> {
    match state.pending.take() {
        Some(_) => vec![cancel_timer(TIMER)],
        None => Vec::new(),
    }
}

/// The folder was not listed in time: those who wait are told so, and what comes later starts nothing that nobody was told of.
pub fn on_timer(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    let Some(pending) = state.pending.take() else {
        return Vec::new();
    };
    view.log(
        Level::Warn,
        &format!(
            "updateDevice is answered with 503: {} on link {} was not listed in time",
            config.directory, config.source
        ),
    );
    let mut effects = vec![cancel_timer(TIMER)];
    effects.extend(
        pending
            .requests
            .iter()
            .map(|id| wire::refuse(id, 503, &config.messages.unavailable, view.now())),
    );
    effects
}

/// What the folder holds, or why it cannot be said.
pub fn on_listing(
    state: &mut State,
    listing: &ListingOutcome,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    // An answer that comes too late is nobody's.
    let Some(pending) = state.pending.take_if(|p| p.tag == listing.tag) else {
        return Vec::new();
    };
    let mut effects = vec![cancel_timer(TIMER)];
    if pending.boot != view.boot_id() {
        return effects;
    }
    let outcome = match &listing.entries {
        Ok(entries) => decide(state, entries, config, view),
        Err(why) => Err(refused(
            503,
            &config.messages.unavailable,
            &format!(
                "{} on link {} cannot be listed: {why}",
                config.directory, config.source
            ),
            view,
        )),
    };
    match outcome {
        Ok((answer, plan)) => {
            state.count += 1;
            effects.extend(
                pending
                    .requests
                    .iter()
                    .map(|id| wire::accept(id, &answer, &config.messages.started, view.now())),
            );
            effects.push(plan.start());
        }
        Err(Refused { status, message }) => {
            effects.extend(
                pending
                    .requests
                    .iter()
                    .map(|id| wire::refuse(id, status, &message, view.now())),
            );
        }
    }
    effects
}

/// Logs why an update is refused.
fn refused(status: u16, message: &str, why: &str, view: &dyn View) -> Refused {
    let level = if status == 503 {
        Level::Warn
    } else {
        Level::Info
    };
    view.log(
        level,
        &format!("updateDevice is answered with {status}: {why}"),
    );
    Refused {
        status,
        message: message.to_owned(),
    }
}

/// The answer and the job that come of this folder.
fn decide(
    state: &State,
    entries: &[DirectoryEntry],
    config: &Config,
    view: &dyn View,
) -> Result<(Answer, JobPlan), Refused> {
    let messages = &config.messages;
    let unavailable = |why: &str| refused(503, &messages.unavailable, why, view);
    let target = device::target(config, view)
        .ok_or_else(|| unavailable("the target is not among those granted any more"))?;
    let chooser = config
        .files
        .chooser()
        .map_err(|faults| unavailable(&faults.join("; ")))?;
    let choice = chooser.choose(entries);
    if choice.skipped > 0 {
        view.log(
            Level::Warn,
            &format!(
                "{} has too many files: {} of them, those modified first, were not looked at",
                config.directory, choice.skipped
            ),
        );
    }
    let running = target.version.as_deref();
    if let Some(running) = running
        && !chooser.can_compare(running)
    {
        view.log(
            Level::Warn,
            "the version that runs does not match config.files; any release counts as newer",
        );
    }
    let release = choice
        .newest
        .filter(|release| chooser.is_newer(release, running))
        .ok_or_else(|| {
            refused(
                404,
                &messages.no_update,
                "the folder holds nothing newer than what runs",
                view,
            )
        })?;

    let plan = plan(&release, config);
    let seconds = match view.check_job(&plan) {
        Verdict::Allow => 0,
        // The job waits for its window; that is part of the time it takes.
        Verdict::Defer(until) => until.saturating_sub(view.now()).div_ceil(1_000),
        Verdict::Busy(_) => {
            return Err(refused(
                409,
                &messages.busy,
                "another update holds the target",
                view,
            ));
        }
        Verdict::Refuse(reason) => return Err(refusal(&reason, config, view)),
    };
    let size = release.size.unwrap_or(config.files.assumed_size);
    let seconds = seconds.saturating_add(view.estimate_seconds(&config.target, size));
    let answer = Answer {
        old_version: running.unwrap_or(device::UNKNOWN).to_owned(),
        new_version: release.version,
        estimated_time: match config.estimated_time {
            EstimatedTime::Duration => seconds,
            EstimatedTime::Instant => (view.now() / 1_000).saturating_add(seconds),
        },
    };
    view.log(
        Level::Info,
        &format!(
            "updateDevice: {} will be updated from {} to {} with {}",
            config.target, answer.old_version, answer.new_version, release.name
        ),
    );
    let context = Context {
        number: state.count + 1,
        answer: answer.clone(),
        timestamp: view.now(),
    };
    Ok((answer, plan.context(&context)))
}

/// The job of this release. Its key is the file's, so that the next call after a failure goes on from what is here.
fn plan(release: &Release, config: &Config) -> JobPlan {
    let source = ArtifactSource::on_link(&config.source, &config.path_of(&release.name));
    // Without a digest the host tells files apart by this and the size; the time keeps a file that was replaced from being
    // taken for the old one.
    let identity = match release.modified {
        Some(modified) => format!("{}@{modified}", release.name),
        None => release.name.clone(),
    };
    let mut install = Install::new(&config.target, &release.version, source).identity(&identity);
    if let Some(size) = release.size {
        install = install.size(size);
    }
    start_job(&format!("update/{}", release.name)).install(install)
}

/// How a refusal of the host is said. The reason's word goes to the centre, its sentence into the log: it may name what is inside
/// the device.
fn refusal(reason: &Reason, config: &Config, view: &dyn View) -> Refused {
    let (status, message) = match reason.code.as_str() {
        "busy" | "too-many-jobs" => (409, &config.messages.busy),
        // What the folder holds may not be installed here, now or later.
        "downgrade" | "known-bad" | "compatible" | "rollback-index" => {
            (404, &config.messages.no_update)
        }
        _ => (503, &config.messages.refused),
    };
    let code: String = reason
        .code
        .chars()
        .filter(|c| !c.is_control())
        .take(40)
        .collect();
    refused(
        status,
        &format!("{message} ({code})"),
        &reason.to_string(),
        view,
    )
}
